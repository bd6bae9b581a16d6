//! The host tool as scripts call it: the command lines that are written for `mender-artifact`, with the exit codes of
//! the real one where it knows the options; where results go; and changes to artifacts that are there.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use client_core::artifact::{self, Header, Limits, SignatureStatus, Trust, VerifyKeys};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A folder with inputs. Our tool runs in this process with paths made absolute.
struct Bench {
    folder: tempfile::TempDir,
}

/// The program itself, for what concerns its standard streams. Built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "rust-ota-artifact"]).current_dir(&root);
        assert!(build.status().unwrap().success());
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("debug/rust-ota-artifact")
    })
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let noise: Vec<u8> =
            (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(bench.at("rootfs.ext4"), noise).unwrap();
        fs::write(bench.at("payload"), "payload\n").unwrap();
        fs::write(bench.at("meta.json"), "{\"a\": 1}").unwrap();
        fs::create_dir(bench.at("scripts")).unwrap();
        for name in ["ArtifactInstall_Enter_00", "ArtifactCommit_Leave_10_check"] {
            fs::write(bench.at("scripts").join(name), "#!/bin/sh\n").unwrap();
        }
        fs::write(bench.at("ArtifactReboot_Enter_50"), "#!/bin/sh\n").unwrap();
        bench.run("keygen -o private.key").unwrap();
        fs::rename(bench.at("private.key.pub"), bench.at("public.key")).unwrap();
        bench.run("write rootfs-image -t dev -n r -f rootfs.ext4 -o plain.mender").unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Our tool with its exit code; what it printed is one text.
    fn exit(&self, line: &str) -> (i32, String) {
        let mut command = Command::new(program());
        let output = command.args(line.split_whitespace()).current_dir(self.folder.path()).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    }

    fn run(&self, line: &str) -> Result<String, String> {
        match self.exit(line) {
            (0, said) => Ok(said),
            (_, said) => Err(said),
        }
    }

    #[track_caller]
    fn shell(&self, script: &str) -> (i32, Vec<u8>) {
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.folder.path()).env("TOOL", program());
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        (output.status.code().unwrap(), output.stdout)
    }

    fn header(&self, name: &str) -> Header {
        let opened =
            artifact::open(File::open(self.at(name)).unwrap(), &Trust::DangerUnsigned, &Limits::default());
        let mut opened = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
        opened.payload.drain().unwrap();
        opened.header
    }
}

/// Whether Debian's release of the real tool, 3.9, knows the options of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    Debian,
    Later,
}

/// Command lines of documentation, build classes and scripts for `mender-artifact`, with the exit code there.
const LINES: &[(&str, i32, Release)] = &[
    // Writing.
    ("write rootfs-image -t dev -n r -f rootfs.ext4 -o out.mender", 0, Release::Debian),
    (
        "write rootfs-image --device-type dev --artifact-name r --file rootfs.ext4 --output-path out.mender",
        0,
        Release::Debian,
    ),
    ("write rootfs-image -c dev -n r -f rootfs.ext4 -o out.mender", 0, Release::Later),
    ("write rootfs-image -c dev -c dev2 -n r -f rootfs.ext4 -o out.mender -k private.key", 0, Release::Later),
    (
        "write rootfs-image --compatible-types dev --artifact-name r --file rootfs.ext4 -o out.mender",
        0,
        Release::Later,
    ),
    ("--compression lzma write rootfs-image -t dev -n r -f rootfs.ext4 -o out.mender", 0, Release::Debian),
    (
        "--compression none write rootfs-image -t dev -n r -f rootfs.ext4 -o out.mender --compression gzip",
        0,
        Release::Debian,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --compression zstd_fastest -o out.mender",
        0,
        Release::Later,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --compression zstd_fast -o out.mender",
        0,
        Release::Later,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --compression zstd_better -o out.mender",
        0,
        Release::Later,
    ),
    (
        "--compression zstd_best write rootfs-image -t dev -n r -f rootfs.ext4 -o out.mender",
        0,
        Release::Later,
    ),
    ("write rootfs-image -t dev -n r -f rootfs.ext4 --compression bzip2 -o out.mender", 1, Release::Debian),
    ("write rootfs-image -t dev -n r -f rootfs.ext4 -s scripts -o out.mender", 0, Release::Debian),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 -s scripts -s ArtifactReboot_Enter_50 -o out.mender",
        0,
        Release::Debian,
    ),
    ("write rootfs-image -t dev -n r -f rootfs.ext4 -v 3 -o out.mender", 0, Release::Debian),
    ("write rootfs-image -t dev -n r -f rootfs.ext4 --no-progress -o out.mender", 0, Release::Debian),
    ("write rootfs-image -t dev -n r -f rootfs.ext4 --tmp . -o out.mender", 0, Release::Later),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --max-artifact-size 1GB -o out.mender",
        0,
        Release::Later,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --max-artifact-size 1KB -o out.mender",
        1,
        Release::Later,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --warn-artifact-size 1.5KB -o out.mender",
        0,
        Release::Later,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --legacy-rootfs-image-checksum -o out.mender",
        0,
        Release::Debian,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --no-checksum-provide --no-default-software-version -o out.mender",
        0,
        Release::Debian,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 --software-filesystem fs --software-name sw --software-version 2 -o out.mender",
        0,
        Release::Debian,
    ),
    (
        "write rootfs-image -t dev -n r -f rootfs.ext4 -N old -g grp -G g1 -d a:b -p c:d --clears-provides x.* --no-default-clears-provides -o out.mender",
        0,
        Release::Debian,
    ),
    ("write module-image -t dev -n r -T script -f payload -o out.mender", 0, Release::Debian),
    ("write module-image -c dev -n r -T script -f payload -o out.mender", 0, Release::Later),
    (
        "write module-image -T my-mod --device-type dev -o out.mender -n r -f payload -m meta.json -s scripts",
        0,
        Release::Debian,
    ),
    (
        "write module-image -T my-mod -t dev -n r --software-version 3 --software-name app --software-filesystem data -o out.mender",
        0,
        Release::Debian,
    ),
    (
        "write bootstrap-artifact -t dev -n r -p a:b -d c:d --clears-provides e -o out.mender -k private.key",
        0,
        Release::Debian,
    ),
    ("write bootstrap-artifact -c dev -n r -o out.mender", 0, Release::Later),
    ("write rootfs-image -t dev -n r -f missing -o out.mender", 1, Release::Debian),
    ("write rootfs-image -t dev -f rootfs.ext4 -o out.mender", 1, Release::Debian),
    (
        "write module-image -t dev -n r -T script -f payload -o out.mender --no-such-option",
        1,
        Release::Debian,
    ),
    // Looking.
    ("read plain.mender", 0, Release::Debian),
    ("read signed.mender", 0, Release::Debian),
    ("read -k public.key signed.mender", 0, Release::Debian),
    ("read missing", 3, Release::Debian),
    ("read payload", 1, Release::Debian),
    ("validate plain.mender", 0, Release::Debian),
    ("validate -k public.key signed.mender", 0, Release::Debian),
    ("validate missing", 3, Release::Debian),
    ("validate payload", 4, Release::Debian),
    ("validate -k public.key plain.mender", 4, Release::Debian),
    ("validate signed.mender", 4, Release::Debian),
    ("validate cut.mender", 4, Release::Debian),
    (
        "dump --files dumped --scripts dumped --meta-data dumped --print-cmdline plain.mender",
        0,
        Release::Debian,
    ),
    ("dump --print0-cmdline plain.mender", 0, Release::Debian),
    // Signing and changing.
    ("sign -k private.key -o out.mender plain.mender", 0, Release::Debian),
    ("sign -k private.key signed.mender -o out.mender", 1, Release::Debian),
    ("sign --force -k private.key signed.mender -o out.mender", 0, Release::Debian),
    ("sign plain.mender", 1, Release::Debian),
    ("modify -n new copy.mender", 0, Release::Debian),
    ("modify --name new copy.mender", 0, Release::Debian),
    (
        "modify -N old -g grp -G g1 -d a:b -p c:d -m meta.json --clears-provides x copy.mender -k private.key",
        0,
        Release::Debian,
    ),
    ("modify --delete-clears-provides rootfs-image.* copy.mender", 0, Release::Debian),
    ("--compression none modify -n new copy.mender", 0, Release::Debian),
    ("modify -s scripts copy.mender", 0, Release::Later),
    ("modify missing", 1, Release::Debian),
    ("modify payload", 1, Release::Debian),
];

#[test]
fn command_lines_for_mender_artifact_end_in_the_same_way() {
    let Some(real) = interop::tool("mender-artifact") else { return };
    let bench = Bench::new();
    bench.run("sign -k private.key plain.mender -o signed.mender").unwrap();
    let bytes = fs::read(bench.at("plain.mender")).unwrap();
    fs::write(bench.at("cut.mender"), &bytes[..bytes.len() - 2000]).unwrap();
    for (line, expected, release) in LINES {
        let prepare = || {
            fs::copy(bench.at("plain.mender"), bench.at("copy.mender")).unwrap();
            let _ = fs::remove_file(bench.at("out.mender"));
            let _ = fs::remove_dir_all(bench.at("dumped"));
        };
        prepare();
        let (code, said) = bench.exit(line);
        assert_eq!(code, *expected, "{line}: {said}");
        for made in ["out.mender", "copy.mender"] {
            if *expected == 0 && line.contains(made) {
                bench.header(made);
                let key = if line.contains("-k private.key") { "-k public.key" } else { "" };
                bench.run(&format!("validate {key} {made}")).unwrap_or_else(|said| panic!("{line}: {said}"));
            }
        }
        assert_eq!(bench.at("out.mender").exists(), *expected == 0 && line.contains("out.mender"), "{line}");
        if *release == Release::Debian {
            prepare();
            let mut command = Command::new(&real);
            let status =
                command.args(line.split_whitespace()).current_dir(bench.folder.path()).output().unwrap();
            assert_eq!(status.status.code(), Some(*expected), "{line}: {status:?}");
        }
    }
}

#[test]
fn scripts_of_a_directory_and_the_last_compression_are_what_is_written() {
    let bench = Bench::new();
    bench.run("--compression none write module-image -c a -c b -T m -n r -s scripts --compression zstd_best -o out.mender").unwrap();
    let header = bench.header("out.mender");
    assert_eq!(header.scripts.len(), 2);
    assert_eq!(header.depends.device_type, ["a", "b"]);
    assert_eq!(header.data_compression, Some(artifact::Compression::Zstd));
    // Without a name the artifact is where it is with the real tool.
    bench.run("write module-image -t a -T m -n r -g").unwrap_err();
    bench.run("write module-image -t a -T m -n r").unwrap();
    assert_eq!(bench.header("artifact.mender").artifact_name, "r");
    for (line, words) in [
        ("write module-image -T m -n r -o no.mender --device-type=", "fits no device"),
        ("write module-image -t d -T m -n r -o no.mender --key-pkcs11 x", "only keys in files"),
        ("write module-image -t d -T m -n r -o no.mender --augment-type x", "augmented"),
        ("write rootfs-image -t d -n r -o no.mender -f ssh://user@device", "mender-snapshot"),
        ("write module-image -t d -T m -n r -o no.mender --max-artifact-size 5MiB", "not a size"),
        ("write module-image -t d -T m -n r -f payload -o payload", "both the output and an input"),
    ] {
        let said = bench.run(line).unwrap_err();
        assert!(said.contains(words), "{line}: {said}");
        assert!(!bench.at("no.mender").exists());
    }
    let said = bench
        .run("write rootfs-image -t d -n r -f rootfs.ext4 --warn-artifact-size 1KB -o out.mender")
        .unwrap();
    assert!(said.contains("warning") && said.contains("more than 1000"), "{said}");
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let bench = Bench::new();
    let help = bench.run("--help").unwrap();
    for kind in ["rootfs-image", "single-file", "directory", "script", "module-image", "bootstrap-artifact"] {
        assert!(help.contains(&format!("write {kind}")), "{kind}");
        let own = bench.run(&format!("write {kind} --help")).unwrap();
        assert!(own.starts_with(&format!("Usage: rust-ota-artifact write {kind}")), "{own}");
    }
    for command in
        ["read", "validate", "sign", "keygen", "dump", "modify", "cp", "cat", "install", "rm", "write"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let own = bench.run(&format!("{command} --help")).unwrap();
        assert!(own.contains(&format!("\n  rust-ota-artifact {command}")), "{own}");
    }
}

#[test]
fn outputs_are_followed_and_not_replaced() {
    let bench = Bench::new();
    let good = |path: &Path| {
        let opened = artifact::open(File::open(path).unwrap(), &Trust::DangerUnsigned, &Limits::default());
        opened.unwrap().payload.drain().unwrap();
    };
    let write = "write module-image -t d -T m -n r -f payload --reproducible";
    bench.run(&format!("{write} -o whole.mender")).unwrap();
    let whole = fs::read(bench.at("whole.mender")).unwrap();

    // The standard output under all its names, also behind something that is there already.
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let (code, out) = bench.shell(&format!("$TOOL {write} -o {name}"));
        assert!(code == 0 && out == whole, "{name}");
        let (code, _) =
            bench.shell(&format!("echo before > redirected; $TOOL {write} -o {name} >> redirected"));
        assert_eq!(code, 0, "{name}");
        assert!(fs::read(bench.at("redirected")).unwrap() == [b"before\n", &whole[..]].concat(), "{name}");
        let (code, out) = bench.shell(&format!(
            "$TOOL sign -k private.key -o {name} whole.mender | $TOOL validate -k public.key -"
        ));
        assert!(code == 0 && String::from_utf8_lossy(&out).contains("validated"), "{name}");
    }
    // Devices stay devices; a full one is an error.
    assert_eq!(bench.shell(&format!("$TOOL {write} -o /dev/null")).0, 0);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    for line in [
        format!("{write} -o /dev/full"),
        "sign -k private.key -o /dev/full whole.mender".to_owned(),
        "keygen -o /dev/full".to_owned(),
    ] {
        let (code, said) = bench.exit(&line);
        assert!(code == 1 && said.contains("No space left"), "{line}: {said}");
    }
    // Pipes.
    let (code, out) =
        bench.shell(&format!("mkfifo pipe; cat pipe & $TOOL {write} -o pipe; code=$?; wait; exit $code"));
    assert!(code == 0 && out == whole);
    assert!(fs::metadata(bench.at("pipe")).unwrap().file_type().is_fifo());
    // Links: to a file, through another link, and to a name that nothing has yet.
    symlink("latest", bench.at("second")).unwrap();
    symlink("target.mender", bench.at("latest")).unwrap();
    for name in ["latest", "second"] {
        let _ = fs::remove_file(bench.at("target.mender"));
        bench.run(&format!("{write} -o {name}")).unwrap();
        good(&bench.at("target.mender"));
        bench.run(&format!("sign -k private.key {name}")).unwrap();
        bench.run("validate -k public.key target.mender").unwrap();
        bench.run(&format!("modify -n again {name}")).unwrap();
        assert_eq!(bench.header("target.mender").artifact_name, "again");
        assert!(bench.at(name).symlink_metadata().unwrap().is_symlink());
    }
    symlink("circle", bench.at("circle")).unwrap();
    assert!(bench.run(&format!("{write} -o circle")).unwrap_err().contains("too many links"));
    assert!(bench.run(&format!("{write} -o scripts")).unwrap_err().contains("directory"));
}

#[test]
fn owner_mode_and_other_names_of_a_file_stay() {
    let bench = Bench::new();
    let artifact = bench.at("plain.mender");
    let is_root = fs::metadata(&artifact).unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&artifact, Some(1234), Some(2345)).unwrap();
    }
    let before = fs::metadata(&artifact).unwrap();
    for line in [
        "sign -k private.key plain.mender",
        "modify -n other plain.mender",
        "write module-image -t d -T m -n r -o plain.mender",
    ] {
        fs::set_permissions(&artifact, fs::Permissions::from_mode(0o640)).unwrap();
        bench.run(line).unwrap();
        let after = fs::metadata(&artifact).unwrap();
        assert_eq!(
            (after.uid(), after.gid(), after.mode() & 0o7777),
            (before.uid(), before.gid(), 0o640),
            "{line}"
        );
    }
    // A second name goes on being one.
    fs::hard_link(&artifact, bench.at("second.mender")).unwrap();
    bench.run("modify -n both plain.mender").unwrap();
    assert_eq!(bench.header("second.mender").artifact_name, "both");
    // A key that replaces another is for its owner only, whatever the other was.
    fs::set_permissions(bench.at("private.key"), fs::Permissions::from_mode(0o644)).unwrap();
    bench.run("keygen --force -o private.key").unwrap();
    assert_eq!(fs::metadata(bench.at("private.key")).unwrap().mode() & 0o777, 0o600);
    // Nothing temporary is left.
    let left: Vec<_> =
        fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn a_key_pair_goes_to_one_stream_when_the_output_is_one() {
    let bench = Bench::new();
    let (code, out) = bench.shell("$TOOL keygen -o -");
    let text = String::from_utf8(out).unwrap();
    assert!(code == 0 && text.starts_with("-----BEGIN EC PRIVATE KEY-----"), "{text}");
    assert!(text.contains("-----BEGIN PUBLIC KEY-----"), "{text}");
    assert!(!Path::new("/dev/stdout.pub").exists() && !bench.at("-.pub").exists());
}

#[test]
fn what_cannot_be_printed_fails() {
    let bench = Bench::new();
    for line in [
        "--help",
        "--version",
        "read plain.mender",
        "validate plain.mender",
        "dump --print-cmdline plain.mender",
        "modify --help",
    ] {
        assert_eq!(bench.shell(&format!("$TOOL {line} > /dev/full")).0, 1, "{line}");
    }
}

#[test]
fn the_standard_input_is_an_image_or_an_artifact() {
    let bench = Bench::new();
    let (code, _) = bench.shell("$TOOL write rootfs-image -t d -n r -f - -o out.mender < rootfs.ext4");
    assert_eq!(code, 0);
    let image = fs::read(bench.at("rootfs.ext4")).unwrap();
    let mut opened = artifact::open(
        File::open(bench.at("out.mender")).unwrap(),
        &Trust::DangerUnsigned,
        &Limits::default(),
    )
    .unwrap();
    let mut content = Vec::new();
    opened.payload.next_file().unwrap().unwrap().read_to_end(&mut content).unwrap();
    assert!(content == image);
    assert_eq!(bench.shell("cat plain.mender | $TOOL read -").0, 0);
    assert_eq!(bench.shell("cat plain.mender | $TOOL validate -").0, 0);
    assert_eq!(
        bench
            .shell("cat plain.mender | $TOOL sign -k private.key - | $TOOL validate -k public.key /dev/stdin")
            .0,
        0
    );
    assert_eq!(bench.shell("cat payload | $TOOL validate -").0, 4);
}

#[test]
fn an_image_that_is_compressed_is_warned_of() {
    let bench = Bench::new();
    for program in ["gzip", "xz", "zstd"] {
        bench.shell(&format!("{program} -c rootfs.ext4 > image.compressed"));
        let said = bench.run("write rootfs-image -t d -n r -f image.compressed -o out.mender").unwrap();
        assert!(said.contains("warning") && said.contains(program), "{said}");
    }
    assert_eq!(bench.run("write rootfs-image -t d -n r -f rootfs.ext4 -o out.mender").unwrap(), "");
}

#[test]
fn a_tree_that_no_device_takes_is_not_written() {
    let bench = Bench::new();
    // Deep, so that the names alone are many.
    for at in 0..70 {
        let names = vec![format!("{at:0>100}"); 38];
        fs::create_dir_all(bench.at("tree").join(names.join("/"))).unwrap();
    }
    let said = bench.run("write directory -t d -n r -d /opt/x -o out.mender tree").unwrap_err();
    assert!(said.contains("a device would refuse it") && said.contains("4194304 bytes"), "{said}");
    assert!(!bench.at("out.mender").exists());
}

#[test]
fn nothing_in_an_artifact_acts_on_the_terminal_of_whoever_reads_it() {
    let bench = Bench::new();
    let esc = "\u{1b}[2J\u{9b}31m\u{202e}";
    fs::write(bench.at("meta.json"), format!("{{\"k\": \"v{esc}\"}}").replace('\u{1b}', "\\u001b")).unwrap();
    let mut command = Command::new(program());
    command.args([
        "write",
        "module-image",
        "-t",
        "dev\u{202e}",
        "-T",
        "m",
        "-n",
        "r\u{202e}x",
        "-m",
        "meta.json",
        "-f",
        "payload",
        "-o",
        "h.mender",
    ]);
    for (option, value) in [
        ("-p", format!("k{esc}:v{esc}")),
        ("-d", format!("k{esc}:v{esc}")),
        ("-g", esc.to_owned()),
        ("-G", esc.to_owned()),
        ("-N", esc.to_owned()),
        ("--clears-provides", format!("{esc}.*")),
    ] {
        command.arg(option).arg(value);
    }
    let output = command.current_dir(bench.folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["read h.mender", "dump --print-cmdline h.mender"] {
        let said = bench.run(line).unwrap();
        let acts = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!said.contains(acts), "{line}: {said:?}");
        assert!(said.contains("2J"), "{line}: {said}");
    }
    // The command makes the same artifact again.
    let again =
        "eval \"$TOOL $($TOOL dump --meta-data . --files files --print-cmdline h.mender) -o again.mender\"";
    assert_eq!(bench.shell(again).0, 0);
    let (before, after) = (bench.header("h.mender"), bench.header("again.mender"));
    assert_eq!(
        (before.provides, before.depends, before.artifact_group),
        (after.provides, after.depends, after.artifact_group)
    );
    // Errors neither.
    let mut bytes = fs::read(bench.at("h.mender")).unwrap();
    bytes[0] = 0x1b;
    fs::write(bench.at("broken\u{1b}[2J"), bytes).unwrap();
    let said = Command::new(program()).arg("validate").arg(bench.at("broken\u{1b}[2J")).output().unwrap();
    assert!(!said.stderr.contains(&0x1b), "{said:?}");
}

/// An image with a file system that the real `mender-artifact` would take, and artifacts around it.
fn with_file_system(bench: &Bench, kind: &str) -> bool {
    let (program, make) = match kind {
        "ext4" => (
            "debugfs",
            "rm -f fs.img; truncate -s 8M fs.img; mkfs.ext4 -q fs.img; \
            printf 'mkdir /etc\\nmkdir /etc/mender\\nmkdir /usr\\nwrite mender.conf /etc/mender/mender.conf\\n\
            sif /etc/mender/mender.conf mode 0100600\\nsif /etc/mender/mender.conf uid 12\\nsymlink /etc/link /etc/mender\\n' \
            | debugfs -w -f - fs.img >/dev/null 2>&1",
        ),
        _ => (
            "mcopy",
            "rm -f fs.img; truncate -s 8M fs.img; mkfs.vfat fs.img >/dev/null; \
            mmd -i fs.img ::/etc ::/etc/mender ::/usr; mcopy -i fs.img mender.conf ::/etc/mender/mender.conf",
        ),
    };
    if interop::tool(program).is_none() {
        return false;
    }
    fs::write(bench.at("mender.conf"), "{\"serverurl\": \"https://old\", \"Kept\": [1]}").unwrap();
    let script = format!(
        "export PATH=$PATH:/usr/sbin:/sbin; set -e; {make}; \
        $TOOL write rootfs-image -t d -n r -f fs.img -o fs.mender --legacy-rootfs-image-checksum -k private.key"
    );
    assert_eq!(bench.shell(&script).0, 0);
    true
}

#[test]
fn files_in_the_root_file_system_of_an_artifact_are_read_and_changed() {
    for kind in ["ext4", "vfat"] {
        let bench = Bench::new();
        if !with_file_system(&bench, kind) {
            continue;
        }
        for image in ["fs.mender", "fs.img"] {
            let key = if image == "fs.mender" { "-k private.key" } else { "" };
            let cat = |path: &str| bench.run(&format!("cat {image}:{path}"));
            assert!(cat("/etc/mender/mender.conf").unwrap().contains("https://old"), "{kind}");
            assert!(cat("/etc/none").unwrap_err().contains("there is no file"), "{kind}");

            bench.run(&format!("cp {key} payload {image}:/etc/new")).unwrap();
            assert_eq!(cat("/etc/new").unwrap(), "payload\n", "{kind}");
            bench.run(&format!("cp {key} meta.json {image}:/etc/")).unwrap();
            assert_eq!(cat("/etc/meta.json").unwrap(), "{\"a\": 1}", "{kind}");
            let (code, _) = bench.shell(&format!("echo from stdin | $TOOL cp {key} - {image}:/etc/new"));
            assert_eq!((code, cat("/etc/new").unwrap().as_str()), (0, "from stdin\n"), "{kind}");
            bench.run(&format!("cp {image}:/etc/new out.txt")).unwrap();
            assert_eq!(fs::read_to_string(bench.at("out.txt")).unwrap(), "from stdin\n", "{kind}");

            bench.run(&format!("install {key} -m 0750 payload {image}:/usr/run")).unwrap();
            if kind == "ext4" {
                bench.run(&format!("cp {image}:/usr/run run")).unwrap();
                assert_eq!(fs::metadata(bench.at("run")).unwrap().mode() & 0o7777, 0o750);
                // What is there keeps what it has.
                bench.run(&format!("cp {key} payload {image}:/usr/run")).unwrap();
                bench.run(&format!("cp {image}:/usr/run run")).unwrap();
                assert_eq!(fs::metadata(bench.at("run")).unwrap().mode() & 0o7777, 0o750);
                assert!(cat("/etc/link").unwrap_err().contains("symbolic link"));
            }
            assert!(
                bench.run(&format!("install {key} payload {image}:/usr/run")).unwrap_err().contains("--mode")
            );
            bench.run(&format!("install {key} -d {image}:/usr/a/b/c")).unwrap();
            bench.run(&format!("cp {key} payload {image}:/usr/a/b/c/file")).unwrap();
            assert!(bench.run(&format!("rm {key} {image}:/usr/a")).is_err(), "{kind}");
            bench.run(&format!("rm {key} -r {image}:/usr/a")).unwrap();
            assert!(cat("/usr/a/b/c/file").is_err(), "{kind}");
            bench.run(&format!("rm {key} {image}:/usr/run")).unwrap();
            assert!(bench.run(&format!("rm {key} {image}:/usr/run")).unwrap_err().contains("there is no"));
            assert!(bench.run(&format!("cp {key} payload {image}:/none/x")).unwrap_err().contains("/none"));
            assert!(bench.run(&format!("cp {key} payload {image}:etc/x")).unwrap_err().contains("absolute"));
        }
        // The artifact is still one, signed, and provides the checksum of what is in it now.
        bench.run("validate -k public.key fs.mender").unwrap();
        let header = bench.header("fs.mender");
        assert_eq!(
            header.provides.unwrap()["rootfs_image_checksum"],
            header.manifest.files[0].sha256.to_string()
        );
        assert!(bench.run("cp payload fs.mender:/data/x").unwrap_err().contains("partition of its own"));
        // Without the key it is no longer signed, and that is said.
        let said = bench.run("rm fs.mender:/etc/new").unwrap();
        assert!(said.contains("not any more"), "{said}");
        assert_eq!(bench.header("fs.mender").signature, SignatureStatus::Unsigned);
    }
}

#[test]
fn the_configuration_in_the_root_file_system_is_changed() {
    for kind in ["ext4", "vfat"] {
        let bench = Bench::new();
        if !with_file_system(&bench, kind) {
            continue;
        }
        bench
            .run("modify -u https://new -t token -c payload -v public.key -n r-2 -k private.key fs.mender")
            .unwrap();
        let cat = |path: &str| bench.run(&format!("cat fs.mender:{path}")).unwrap();
        let document: serde_json::Value = serde_json::from_str(&cat("/etc/mender/mender.conf")).unwrap();
        assert_eq!(
            document,
            serde_json::json!({"ServerURL": "https://new", "TenantToken": "token", "Kept": [1]}),
            "{kind}"
        );
        assert_eq!(cat("/etc/mender/server.crt"), "payload\n");
        assert_eq!(cat("/etc/mender/artifact_info"), "artifact_name=r-2\n");
        assert_eq!(
            cat("/etc/mender/artifact-verify-key.pem"),
            fs::read_to_string(bench.at("public.key")).unwrap()
        );
        assert_eq!(bench.header("fs.mender").artifact_name, "r-2");
        let mut keys = VerifyKeys::new();
        keys.add_pem("key", &fs::read(bench.at("public.key")).unwrap()).unwrap();
        artifact::open(File::open(bench.at("fs.mender")).unwrap(), &Trust::Keys(keys), &Limits::default())
            .unwrap();
        if kind == "ext4" {
            bench.run("cp fs.mender:/etc/mender/mender.conf conf").unwrap();
            assert_eq!(fs::metadata(bench.at("conf")).unwrap().mode() & 0o7777, 0o600);
            let (_, checked) = bench.shell(
                "$TOOL dump --files . fs.mender; PATH=$PATH:/usr/sbin:/sbin e2fsck -fn fs.img; echo $?",
            );
            assert!(
                String::from_utf8_lossy(&checked).ends_with("\n0\n"),
                "{}",
                String::from_utf8_lossy(&checked)
            );
        }
    }
}

#[test]
fn what_an_artifact_says_is_changed_and_the_rest_stays() {
    let bench = Bench::new();
    bench.run("write module-image -t d -t e -T m -n r -f payload -f meta.json -m meta.json -s scripts -p a:1 -d b:2 -g grp -G g -N old --clears-provides x.* --clears-provides y.* -o m.mender").unwrap();
    let before = bench.header("m.mender");
    bench.run("modify -n new m.mender").unwrap();
    let after = bench.header("m.mender");
    assert_eq!(after.artifact_name, "new");
    assert_eq!(
        (&after.provides, &after.depends, &after.payload),
        (&before.provides, &before.depends, &before.payload)
    );
    assert_eq!(
        (&after.scripts, &after.clears_provides, &after.manifest.files),
        (&before.scripts, &before.clears_provides, &before.manifest.files)
    );
    fs::write(bench.at("other.json"), "{\"z\": [1]}").unwrap();
    bench.run("modify -p c:3 -d e:4 -g= -G g2 -N o2 -m other.json --clears-provides z --delete-clears-provides x.* -s ArtifactReboot_Enter_50 --compression zstd_best m.mender").unwrap();
    let after = bench.header("m.mender");
    assert_eq!(after.provides.unwrap().into_iter().collect::<Vec<_>>(), [("c".to_owned(), "3".to_owned())]);
    assert_eq!(after.depends.type_info.into_keys().collect::<Vec<_>>(), ["e"]);
    assert_eq!((after.artifact_group, after.depends.artifact_group.unwrap()), (None, vec!["g2".to_owned()]));
    assert_eq!(after.payload.unwrap().meta_data.unwrap(), "{\"z\":[1]}");
    assert!(after.clears_provides.unwrap().ends_with(&["z".to_owned()]));
    assert_eq!(after.scripts.len(), 3);
    assert_eq!(after.data_compression, Some(artifact::Compression::Zstd));
    assert!(bench.run("modify --delete-clears-provides none m.mender").unwrap_err().contains("not among"));
    assert!(bench.run("cat m.mender:/etc/x").unwrap_err().contains("no root file system"));
    // An artifact around something that is no file system keeps its image; its name is changed all the same.
    let said = bench.run("modify -n new plain.mender").unwrap();
    assert!(said.contains("stays as it is"), "{said}");
    assert_eq!(bench.header("plain.mender").artifact_name, "new");
    // A damaged artifact is not touched.
    let mut bytes = fs::read(bench.at("m.mender")).unwrap();
    let at = bytes.len() - 1500;
    bytes[at] ^= 1;
    File::create(bench.at("m.mender")).unwrap().write_all(&bytes).unwrap();
    bench.run("modify -n newer m.mender").unwrap_err();
    assert!(fs::read(bench.at("m.mender")).unwrap() == bytes);
}

#[test]
fn what_does_not_fit_leaves_an_image_as_it_was() {
    for kind in ["ext4", "vfat"] {
        let bench = Bench::new();
        if !with_file_system(&bench, kind) {
            continue;
        }
        fs::write(bench.at("large"), vec![7; 20 << 20]).unwrap();
        // And a disk with four of these file systems.
        let mut disk = vec![0; 34 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let image = fs::read(bench.at("fs.img")).unwrap();
        for at in 0..4u8 {
            let (entry, start) = (446 + 16 * usize::from(at), (1 + 8 * usize::from(at)) << 20);
            disk[entry + 4] = 0x83;
            disk[entry + 8..entry + 12].copy_from_slice(&u32::try_from(start / 512).unwrap().to_le_bytes());
            disk[start..start + image.len()].copy_from_slice(&image);
        }
        fs::write(bench.at("disk.img"), disk).unwrap();
        for name in ["fs.img", "disk.img"] {
            let (before, listed) =
                (fs::read(bench.at(name)).unwrap(), fs::read_dir(bench.at("")).unwrap().count());
            for command in [
                format!("cp large {name}:/etc/mender/mender.conf"),
                format!("install -m 0755 large {name}:/usr/large"),
                format!("modify -c large {name}"),
            ] {
                let (code, said) = bench.exit(&command);
                assert_eq!(code, 1, "{kind}: {command}: {said}");
                assert!(fs::read(bench.at(name)).unwrap() == before, "{kind}: {command} changed the image");
            }
            assert_eq!(
                fs::read_dir(bench.at("")).unwrap().count(),
                listed,
                "{kind}: something was left behind"
            );
        }
    }
}

#[test]
fn disk_images_are_changed_in_the_partition_that_a_path_is_on() {
    let bench = Bench::new();
    if interop::tool("debugfs").is_none() || interop::tool("mcopy").is_none() {
        return;
    }
    const MIB: usize = 1 << 20;
    let mut table = vec![0; 512];
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    for at in 0..4 {
        let entry = 446 + 16 * at;
        table[entry + 4] = 0x83;
        let start = u32::try_from((1 + 4 * at) * MIB / 512).unwrap();
        table[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
    }
    fs::write(bench.at("disk.sdimg"), &table).unwrap();
    fs::write(bench.at("mender.conf"), "{\"ServerURL\": \"https://old\"}").unwrap();
    let script = "set -e; export PATH=$PATH:/usr/sbin:/sbin; truncate -s 17M disk.sdimg; cp disk.sdimg empty-b.sdimg
        truncate -s 4M boot ext; mkfs.vfat boot >/dev/null; mkfs.ext4 -q ext
        printf 'mkdir /etc\\nmkdir /etc/mender\\nwrite mender.conf /etc/mender/mender.conf\\n' | debugfs -w -f - ext >/dev/null 2>&1
        for disk in disk.sdimg empty-b.sdimg; do
            dd if=boot of=$disk bs=1M seek=1 conv=notrunc status=none
            dd if=ext of=$disk bs=1M seek=5 conv=notrunc status=none
            dd if=ext of=$disk bs=1M seek=13 conv=notrunc status=none
        done
        dd if=ext of=disk.sdimg bs=1M seek=9 conv=notrunc status=none";
    assert_eq!(bench.shell(script).0, 0);
    for disk in ["disk.sdimg", "empty-b.sdimg"] {
        bench.run(&format!("cp payload {disk}:/etc/new")).unwrap();
        bench.run(&format!("cp payload {disk}:/data/on-data")).unwrap();
        bench.run(&format!("cp payload {disk}:/uboot/on-boot")).unwrap();
        bench.run(&format!("modify -n r-7 -u https://new {disk}")).unwrap();
        for (path, content) in [
            ("/etc/new", "payload\n"),
            ("/data/on-data", "payload\n"),
            ("/boot/efi/on-boot", "payload\n"),
            ("/etc/mender/artifact_info", "artifact_name=r-7\n"),
        ] {
            assert_eq!(bench.run(&format!("cat {disk}:{path}")).unwrap(), content, "{disk}");
        }
        assert!(bench.run(&format!("modify -p a:b {disk}")).unwrap_err().contains("for artifacts"));
    }
    // Both slots have it, and both file systems are sound.
    let script = "export PATH=$PATH:/usr/sbin:/sbin; for at in 5 9 13; do
        dd if=disk.sdimg of=part bs=1M skip=$at count=4 status=none; e2fsck -fn part >/dev/null 2>&1 || exit 1
        debugfs -R 'cat /etc/mender/mender.conf' part 2>/dev/null | tr -d ' \\n'; debugfs -R 'cat /etc/new' part 2>/dev/null; done";
    let (code, out) = bench.shell(script);
    let changed = "{\"ServerURL\":\"https://new\"}payload\n";
    let untouched = "{\"ServerURL\":\"https://old\"}";
    assert_eq!((code, String::from_utf8(out).unwrap()), (0, format!("{changed}{changed}{untouched}")));
    // The slot that held nothing still holds nothing.
    let (_, out) = bench.shell("dd if=empty-b.sdimg bs=1M skip=9 count=4 status=none | tr -d '\\0' | wc -c");
    assert_eq!(String::from_utf8(out).unwrap().trim(), "0");
    // Fewer partitions are no disk of a device.
    table[446 + 16 * 3 + 4] = 0;
    fs::write(bench.at("three.sdimg"), &table).unwrap();
    assert!(bench.run("cat three.sdimg:/etc/x").unwrap_err().contains("3 partitions"));
}
