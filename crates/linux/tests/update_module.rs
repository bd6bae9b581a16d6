//! Update modules as shell scripts, good ones and hostile ones, against the protocol.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::seams::{KeepsNothing, Quiet, with_registry};
use client_core::artifact::write::{ArtifactSpec, MetaData};
use client_core::artifact::{self, Compression, CompressionLevel, Limits, Trust};
use client_core::install::PreferBuiltIn;
use client_core::install::{Arriving, Current, HandlerState, InstallError, PayloadHandler, RebootNeed};
use linux::clock::LinuxClock;
use linux::handlers::{ModuleSettings, UpdateModules};
use testkit::artifacts::{self, DEVICE_TYPE, MemoryFile, named};

/// Nothing legal here takes so long, not even on a machine with much else to do.
const PATIENT: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    timeout: Duration,
}

impl Fixture {
    /// A device with one module, `mod`. `body` is its script: `$1` is the state, `$2` the tree, `$HERE` a folder that stays.
    fn new(body: &str) -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap(), timeout: PATIENT };
        let modules = fixture.path("share/modules/v3");
        let lines = format!("HERE='{}'\n{body}", fixture.folder.path().display());
        testkit::programs::place_script(&modules.join("mod"), &lines);
        fixture
    }

    fn impatient(body: &str) -> Fixture {
        Fixture { timeout: Duration::from_millis(700), ..Fixture::new(body) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tree(&self, name: &str) -> PathBuf {
        self.path("data/modules/v3/payloads/0000/tree").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn modules(&self) -> UpdateModules {
        UpdateModules::new(ModuleSettings {
            data_directory: self.path("share"),
            datastore: self.path("data"),
            timeout: self.timeout,
            prefer_built_in: PreferBuiltIn::None,
            clock: Arc::new(LinuxClock::new()),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut dyn PayloadHandler) -> T) -> T {
        with_registry(&mut self.modules(), |registry| work(&mut *registry.begin("mod").unwrap().1))
    }

    fn download_bytes(&self, bytes: Vec<u8>) -> Result<(), InstallError> {
        let opened = artifact::open(Cursor::new(bytes), &Trust::DangerUnsigned, &Limits::default());
        let mut artifact = opened.map_err(InstallError::Artifact)?;
        let current =
            Current { artifact_name: "old", artifact_group: Some("group"), device_type: DEVICE_TYPE };
        self.with(|handler| {
            let (header, payload) = (&artifact.header, &mut artifact.payload);
            handler.download(
                &mut Arriving {
                    header,
                    current,
                    payload,
                    state: &mut KeepsNothing,
                    earlier: HandlerState::default(),
                },
                &mut Quiet,
            )
        })
    }

    fn download(&self, files: &[(&str, Vec<u8>)]) -> Result<(), InstallError> {
        self.download_bytes(build(files))
    }
}

fn build(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut spec = ArtifactSpec::module_image(named("new"), vec![named(DEVICE_TYPE)], named("mod"));
    spec.meta_data = MetaData::Json(r#"{"b":1,"a":[2]}"#.to_owned());
    let files: Vec<MemoryFile> = files
        .iter()
        .map(|(name, content)| MemoryFile { name: (*name).to_owned(), content: content.clone() })
        .collect();
    artifacts::build(&spec, &files, None)
}

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13 ^ seed) as u8).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn fails(result: Result<(), InstallError>, words: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

/// The loop that the protocol describes, with everything it gets in `$HERE/got`.
const STREAMING: &str = r#"
case "$1" in
Download)
    mkdir "$HERE/got"
    while name=$(cat stream-next) && test -n "$name"; do
        echo "$name" >> "$HERE/names"
        cat "$name" > "$HERE/got/${name#streams/}"
    done ;;
esac"#;

#[test]
fn files_are_streamed_one_after_the_other_with_their_bytes() {
    let fixture = Fixture::new(STREAMING);
    let files = [
        ("one", bytes(1, 3_000_000)),
        ("empty", Vec::new()),
        ("two", bytes(2, 17)),
        ("three", bytes(3, 65_536)),
    ];
    fixture.download(&files).unwrap();
    assert_eq!(fixture.read("names"), "streams/one\nstreams/empty\nstreams/two\nstreams/three\n");
    for (name, content) in files {
        assert!(fs::read(fixture.path("got").join(name)).unwrap() == content, "{name}");
    }
    // Nothing of the streams is left for the later states.
    assert_eq!(names(&fixture.tree("files")), [""; 0]);
    assert!(!fixture.tree("stream-next").exists() && !fixture.tree("streams").exists());
}

#[test]
fn a_payload_without_files_is_streamed_as_an_end() {
    let fixture = Fixture::new(STREAMING);
    fixture.download(&[]).unwrap();
    assert_eq!((fixture.read("names"), names(&fixture.path("got")).len()), (String::new(), 0));
}

#[test]
fn sizes_are_told_to_modules_that_ask_for_them() {
    let fixture = Fixture::new(
        r#"
case "$1" in
ProvidePayloadFileSizes) echo Yes ;;
DownloadWithFileSizes)
    while line=$(cat stream-next) && test -n "$line"; do
        echo "$line" >> "$HERE/lines"
        cat "${line% *}" > /dev/null
    done ;;
*) touch "$HERE/called-$1" ;;
esac"#,
    );
    fixture.download(&[("one", bytes(1, 70_000)), ("empty", Vec::new())]).unwrap();
    assert_eq!(fixture.read("lines"), "streams/one 70000\nstreams/empty 0\n");
    assert!(!fixture.path("called-Download").exists());
}

#[test]
fn files_are_stored_for_modules_that_do_not_stream() {
    let fixture = Fixture::new("true");
    let one = bytes(1, 2_000_000);
    fixture.download(&[("one", one.clone()), ("empty", Vec::new())]).unwrap();
    assert!(fs::read(fixture.tree("files/one")).unwrap() == one);
    assert_eq!(fs::read(fixture.tree("files/empty")).unwrap(), b"");
    let mode = |name: &str| fs::metadata(fixture.tree(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("files/one"), mode("files"), mode(""), mode("header/type-info")),
        (0o600, 0o700, 0o700, 0o600)
    );
}

#[test]
fn the_module_is_called_with_two_arguments_in_its_tree_and_finds_what_it_is_told_there() {
    let fixture = Fixture::new(r#"echo "$# $1 $2 $(pwd) $HOME" >> "$HERE/calls""#);
    fixture.download(&[]).unwrap();
    fixture.with(|handler| handler.install()).unwrap();
    let tree = fixture.tree("");
    let tree = tree.display().to_string();
    let (tree, home) = (tree.trim_end_matches('/'), std::env::var("HOME").unwrap_or_default());
    let call = |state: &str| format!("2 {state} {tree} {tree} {home}");
    let expected = ["ProvidePayloadFileSizes", "Download", "ArtifactInstall"].map(call);
    assert_eq!(fixture.read("calls").lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_tree_says_what_the_artifact_and_the_device_are() {
    let fixture = Fixture::new("true");
    fixture.download(&[("f", b"x".to_vec())]).unwrap();
    let read = |name: &str| fs::read_to_string(fixture.tree(name)).unwrap();
    assert_eq!(read("version"), "3\n");
    assert_eq!(read("current_artifact_name"), "old\n");
    assert_eq!(read("current_artifact_group"), "group\n");
    assert_eq!(read("current_device_type"), format!("{DEVICE_TYPE}\n"));
    assert_eq!(read("header/artifact_name"), "new");
    assert_eq!(read("header/artifact_group"), "");
    assert_eq!(read("header/payload_type"), "mod");
    assert_eq!(read("header/meta-data"), r#"{"a":[2],"b":1}"#);
    assert!(read("header/header-info").contains(r#""artifact_name":"new""#));
    assert!(read("header/type-info").contains(r#""type":"mod""#));
    assert_eq!(
        names(&fixture.tree("")),
        [
            "current_artifact_group",
            "current_artifact_name",
            "current_device_type",
            "files",
            "header",
            "tmp",
            "version"
        ]
    );
}

#[test]
fn questions_take_their_words_and_no_others() {
    let asked = |script: &str| Fixture::new(script);
    let need = |script: &str| {
        let fixture = asked(script);
        fixture.download(&[]).unwrap();
        fixture.with(|handler| handler.needs_reboot())
    };
    let only = |answer: &str| format!(r#"test "$1" != NeedsArtifactReboot || {{ {answer}; }}"#);
    for (answer, expected) in [
        ("true", RebootNeed::None),
        ("echo No", RebootNeed::None),
        ("echo Yes", RebootNeed::Custom),
        ("printf Automatic", RebootNeed::Automatic),
    ] {
        assert_eq!(need(&only(answer)).unwrap(), expected, "{answer}");
    }
    for answer in [
        "echo yes",
        "echo ' Yes'",
        r"printf 'No\n\n'",
        r"printf 'Yes\nYes\n'",
        "printf '\\377'",
        "exit 1",
        "echo Yes; exit 3",
    ] {
        assert!(need(&only(answer)).is_err(), "{answer}");
    }
    let fixture = asked(r#"test "$1" != SupportsRollback || echo Yes"#);
    fixture.download(&[]).unwrap();
    assert!(fixture.with(|handler| handler.supports_rollback()).unwrap());
}

#[test]
fn a_module_never_sees_the_end_of_a_file_whose_checksum_is_wrong() {
    let fixture = Fixture::new(
        STREAMING.replace("echo \"$name\"", "trap 'touch $HERE/end' EXIT; echo \"$name\"").as_str(),
    );
    let content = bytes(1, 200_000);
    // Not compressed, so that the payload can be found and changed.
    let mut spec = ArtifactSpec::module_image(named("new"), vec![named(DEVICE_TYPE)], named("mod"));
    spec.compression = CompressionLevel::default_of(Compression::None);
    let file = MemoryFile { name: "one".into(), content: content.clone() };
    let mut artifact = artifacts::build(&spec, &[file], None);
    let at = artifact.windows(64).position(|window| window == &content[..64]).unwrap();
    artifact[at + 150_000] ^= 1;
    fails(fixture.download_bytes(artifact), "checksum");
    assert!(!fixture.path("end").exists(), "the module came to its own end");
    assert_eq!(fixture.read("names"), "streams/one\n");
}

#[test]
fn an_artifact_that_ends_wrongly_fails_before_the_module_is_told_of_the_end() {
    let fixture = Fixture::new(&STREAMING.replace("done ;;", "done; touch \"$HERE/all\" ;;"));
    let mut artifact = build(&[("one", bytes(1, 1000))]);
    artifact.extend_from_slice(b"garbage behind the end of the artifact");
    assert!(fixture.download_bytes(artifact).is_err());
    assert!(!fixture.path("all").exists());
}

#[test]
fn what_is_taken_in_part_is_not_taken() {
    // More than a FIFO holds, so that closing it early is noticed as such.
    let files = [("one", bytes(1, 3_000_000)), ("two", bytes(2, 300_000))];
    for (download, words) in [
        // The name only.
        ("cat stream-next", "did not finish"),
        ("name=$(cat stream-next); head -c 10 $name > /dev/null", "closed one before its end"),
        ("name=$(cat stream-next); cat $name > /dev/null", "did not finish"),
        // All files, and not the end of the names.
        ("cat $(cat stream-next) > /dev/null; cat $(cat stream-next) > /dev/null", "did not finish"),
        ("cat $(cat stream-next) > /dev/null; exit 7", "exit status: 7"),
    ] {
        let fixture = Fixture::new(&format!("test $1 != Download || {{ {download}; }}"));
        fails(fixture.download(&files), words);
    }
}

#[test]
fn hostile_downloads_end_in_their_time() {
    let files = [("one", bytes(1, 3_000_000))];
    for (download, words) in [
        ("sleep 1000", "longer than"),
        ("cat stream-next; sleep 1000", "longer than"),
        // Ignores the request to end, and has a child.
        ("trap '' TERM; exec 3< $(cat stream-next); sleep 1000 & sleep 1000", "longer than"),
        // Ends, and leaves a child with the FIFO open.
        ("name=$(cat stream-next); sleep 1000 < $name > /dev/null 2>&1 & exit 0", "did not finish"),
    ] {
        let fixture = Fixture::impatient(&format!("test $1 != Download || {{ {download}; }}"));
        let began = Instant::now();
        fails(fixture.download(&files), words);
        // The module's own time and that between the two signals: a bound on hanging, not on speed.
        assert!(began.elapsed() < PATIENT, "{download}");
    }
}

#[test]
fn hostile_calls_end_in_their_time_and_in_little_memory() {
    for (body, words) in [
        ("trap '' TERM; while :; do sleep 1000; done", "longer than"),
        ("yes", "longer than"),
        ("yes >&2", "longer than"),
        ("sleep 1000 & exit 1", "exit status: 1"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        let fixture = Fixture::impatient(&format!("test $1 != ArtifactInstall || {{ {body}; }}"));
        fixture.download(&[]).unwrap();
        fails(fixture.with(|handler| handler.install()), words);
    }
    for (answer, words) in [
        ("yes", "longer than"),
        ("head -c 100000000 /dev/zero", "more than one line"),
        ("head -c 2000 /dev/zero | tr '\\0' x", "more than one line"),
        ("sleep 1000 & echo Yes", "does not close its output"),
    ] {
        let script = format!("test $1 != SupportsRollback || {{ {answer}; }}");
        // What ends by itself may take its time on a machine that does much else.
        let ends = words == "more than one line";
        let fixture = if ends { Fixture::new(&script) } else { Fixture::impatient(&script) };
        fixture.download(&[]).unwrap();
        let error = fixture.with(|handler| handler.supports_rollback()).unwrap_err().to_string();
        assert!(error.contains(words), "{answer}: {error}");
    }
}

#[test]
fn the_tree_lives_until_cleanup_and_without_it_nothing_is_called() {
    let fixture = Fixture::new(
        r#"
echo "$1" >> "$HERE/calls"
case "$1" in
ArtifactInstall) echo note > tmp/note ;;
ArtifactRollback) cat tmp/note > "$HERE/noted" ;;
Cleanup) test ! -e "$HERE/broken" ;;
esac"#,
    );
    fixture.download(&[("one", b"x".to_vec())]).unwrap();
    fixture.with(|handler| handler.install()).unwrap();
    fixture.with(|handler| handler.roll_back()).unwrap();
    assert_eq!(fixture.read("noted"), "note\n");
    fs::write(fixture.path("broken"), "").unwrap();
    fails(fixture.with(|handler| handler.clean_up()), "exit status: 1");
    assert!(!fixture.tree("").exists(), "a failed clean-up leaves nothing behind either");
    fixture.with(|handler| handler.clean_up()).unwrap();
    fails(fixture.with(|handler| handler.commit()), "its file tree is gone");
    let called = "ProvidePayloadFileSizes\nDownload\nArtifactInstall\nArtifactRollback\nCleanup\n";
    assert_eq!(fixture.read("calls"), called);
}

#[test]
fn what_an_interrupted_download_left_is_cleaned_up_by_its_own_module() {
    let fixture = Fixture::new(r#"echo "$1 $(cat header/artifact_name)" >> "$HERE/calls""#);
    fixture.download(&[]).unwrap();
    fixture.download(&[]).unwrap();
    let called = "ProvidePayloadFileSizes new\nDownload new\n";
    assert_eq!(fixture.read("calls"), format!("{called}Cleanup new\n{called}"));
}

#[test]
fn links_in_an_old_tree_are_not_followed() {
    let fixture = Fixture::new("true");
    fs::create_dir(fixture.path("precious")).unwrap();
    fs::write(fixture.path("precious/file"), "x").unwrap();
    fs::create_dir_all(fixture.tree("")).unwrap();
    std::os::unix::fs::symlink(fixture.path("precious"), fixture.tree("tmp")).unwrap();
    fixture.download(&[]).unwrap();
    assert_eq!(fixture.read("precious/file"), "x");
}

#[test]
fn only_executables_are_modules() {
    let fixture = Fixture::new("true");
    let open = |name: &str| {
        with_registry(&mut fixture.modules(), |registry| {
            registry.begin(name).map(drop).map_err(|error| error.to_string())
        })
    };
    assert!(open("mod").is_ok());
    assert!(
        open("none")
            .unwrap_err()
            .contains("payload type \"none\" is not built in, and there is no update module")
    );
    fs::write(fixture.path("share/modules/v3/text"), "").unwrap();
    fs::create_dir(fixture.path("share/modules/v3/folder")).unwrap();
    assert!(open("text").unwrap_err().contains("chmod +x"));
    assert!(open("folder").unwrap_err().contains("no update module"));
}
