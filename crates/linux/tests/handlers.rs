//! The built-in payload types on a real file system, beside the update modules of the same names where those are
//! installed.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::seams::{KeepsNothing, Quiet, with_registry};
use client_core::artifact::tree::{Attributes, Member, MemberKind, MemberWriter};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{self, Limits, Trust};
use client_core::install::PreferBuiltIn;
use client_core::install::{
    Arriving, Current, HandlerState, InstallError, PayloadHandler, RebootNeed, RecordedHandler,
};
use linux::clock::LinuxClock;
use linux::handlers::{ModuleSettings, UpdateModules};
use testkit::artifacts::{self, DEVICE_TYPE, MemoryFile, named};

/// Nothing legal here takes so long, not even on a machine with much else to do.
const PATIENT: Duration = Duration::from_secs(60);
/// Where the stock modules are installed.
const STOCK: &str = "usr/share/mender/modules/v3";

/// A device, and a folder `target` for what is installed on it.
struct Fixture {
    folder: tempfile::TempDir,
    payload_type: &'static str,
    timeout: Duration,
    prefer_built_in: PreferBuiltIn,
    /// What a record says of the handler, once a download began.
    recorded: RefCell<Option<RecordedHandler>>,
}

impl Fixture {
    fn new(payload_type: &'static str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        for name in ["target", "share/modules/v3"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Fixture {
            folder,
            payload_type,
            timeout: PATIENT,
            prefer_built_in: PreferBuiltIn::None,
            recorded: RefCell::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self, name: &str) -> String {
        self.path("target").join(name).to_str().unwrap().to_owned()
    }

    /// In a process of its own, as far as the handler can tell.
    fn with<T>(&self, work: impl FnOnce(&mut dyn PayloadHandler) -> T) -> T {
        let mut modules = UpdateModules::new(ModuleSettings {
            data_directory: self.path("share"),
            datastore: self.path("data"),
            timeout: self.timeout,
            prefer_built_in: self.prefer_built_in.clone(),
            clock: Arc::new(LinuxClock::new()),
        });
        let recorded = self.recorded.borrow().clone();
        with_registry(&mut modules, |registry| match recorded {
            Some(recorded) => work(&mut *registry.reopen(self.payload_type, &recorded).unwrap()),
            None => {
                let (recorded, mut handler) = registry.begin(self.payload_type).unwrap();
                self.recorded.replace(Some(recorded));
                work(&mut *handler)
            }
        })
    }

    fn download(&self, files: &[(&str, &[u8])]) -> Result<(), InstallError> {
        let spec =
            ArtifactSpec::module_image(named("new"), vec![named(DEVICE_TYPE)], named(self.payload_type));
        let files: Vec<MemoryFile> = files
            .iter()
            .map(|(name, content)| MemoryFile { name: (*name).to_owned(), content: content.to_vec() })
            .collect();
        let bytes = artifacts::build(&spec, &files, None);
        let mut artifact =
            artifact::open(Cursor::new(bytes), &Trust::DangerUnsigned, &Limits::default()).unwrap();
        let current = Current { artifact_name: "old", artifact_group: None, device_type: DEVICE_TYPE };
        let (header, payload) = (&artifact.header, &mut artifact.payload);
        self.recorded.replace(None);
        self.with(|handler| {
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

    fn file(
        &self,
        dest_dir: &str,
        name: &str,
        permissions: Option<&str>,
        content: &str,
    ) -> Result<(), InstallError> {
        let (dest_dir, filename) = (format!("{dest_dir}\n"), format!("{name}\n"));
        let mut files = vec![
            ("dest_dir", dest_dir.as_bytes()),
            ("filename", filename.as_bytes()),
            (name, content.as_bytes()),
        ];
        files.extend(permissions.map(|permissions| ("permissions", permissions.as_bytes())));
        self.download(&files)
    }

    fn tree(&self, dest_dir: &str, archive: &[u8]) -> Result<(), InstallError> {
        self.download(&[("update.tar", archive), ("dest_dir", format!("{dest_dir}\n").as_bytes())])
    }

    fn install(&self) -> Result<(), InstallError> {
        self.with(|handler| handler.install())
    }

    fn roll_back(&self) {
        self.with(|handler| handler.roll_back()).unwrap();
        self.with(|handler| handler.roll_back()).unwrap();
        self.clean_up();
    }

    fn clean_up(&self) {
        self.with(|handler| handler.clean_up()).unwrap();
        self.with(|handler| handler.clean_up()).unwrap();
        assert!(!self.path("data/modules/v3/payloads/0000/tree").exists());
    }

    /// The same payload through the stock module; `None`, with the reason printed, where there is none.
    fn stock(&self, state: &str) -> Option<()> {
        // Unpacked by `cargo xtask test`, or installed.
        let unpacked = std::env::var_os("ROTA_PEERS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers"), PathBuf::from);
        let stock = Path::new(STOCK).join(self.payload_type);
        let unpacked = unpacked.join(&stock);
        let module = if unpacked.exists() { unpacked } else { Path::new("/").join(stock) };
        if !module.exists() {
            println!("not compared: {} is not installed", module.display());
            return None;
        }
        let tree = self.path("data/modules/v3/payloads/0000/tree");
        let status = Command::new(module).arg(state).arg(&tree).current_dir(&tree).status().unwrap();
        assert!(status.success(), "{state}");
        Some(())
    }

    /// Everything under `target` with all that stat and the extended attributes tell, but the time of the last change
    /// of the inode, which nobody can set, and the times of directories in which we work.
    fn listing(&self) -> Vec<String> {
        let format = "%P %y %m %U %G %n %s %l %i\\n";
        let script = "find . -printf \"$0\" | sort; find . ! -type d -printf '%P %T@\\n' | sort";
        let mut command = Command::new("sh");
        command.args(["-c", script, format]).current_dir(self.path("target"));
        [lines(command), xattrs(&self.path("target"))].concat()
    }

    /// The same without what two installations of one payload cannot share: numbers and times.
    fn comparable(&self) -> Vec<String> {
        let script =
            "find . -printf '%P %y %m %U %G %n %l\\n' | sort; find . -type f -exec sha256sum {} + | sort";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.path("target"));
        lines(command)
    }
}

fn lines(mut command: Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn fails(result: Result<(), InstallError>, words: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

fn run(program: &str, arguments: &[impl AsRef<OsStr>]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Lists the extended attributes of everything below the current directory.
const LIST_XATTRS: &str = "import os
for top, directories, files in os.walk('.'):
    for path in sorted(os.path.join(top, name) for name in directories + files):
        for name in os.listxattr(path, follow_symlinks=False):
            print(path, name, os.getxattr(path, name, follow_symlinks=False))
";

/// Says why not, where there is no tool for it.
fn set_xattr(path: &str) {
    let script = format!("import os; os.setxattr({path:?}, 'user.test', bytes([0, 10, 61, 255]))");
    let done = Command::new("python3").args(["-c", &script]).status();
    if !done.is_ok_and(|status| status.success()) {
        println!(
            "extended attributes are not tested here: python3 is missing, or the file system takes none"
        );
    }
}

fn xattrs(root: &Path) -> Vec<String> {
    let output = Command::new("python3").args(["-c", LIST_XATTRS]).current_dir(root).output();
    let text = output.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A file with an unusual owner, permissions, time, an attribute and a second name.
fn old_file(fixture: &Fixture, path: &str) {
    fs::write(path, "old").unwrap();
    set_xattr(path);
    if is_root() {
        std::os::unix::fs::chown(path, Some(1234), Some(5678)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o4751)).unwrap();
    run("touch", &["-d", "2001-02-03 04:05:06.789", path]);
    fs::hard_link(path, fixture.target("second-name")).unwrap();
}

#[test]
fn a_file_is_replaced_and_put_back_with_everything_it_had() {
    let fixture = Fixture::new("single-file");
    old_file(&fixture, &fixture.target("app"));
    let before = fixture.listing();
    fixture.file(&fixture.target(""), "app", Some("2755\n"), "new").unwrap();
    assert_eq!(fixture.listing(), before);
    fixture.install().unwrap();
    assert_eq!(fs::read(fixture.target("app")).unwrap(), b"new");
    assert_eq!(fs::metadata(fixture.target("app")).unwrap().mode() & 0o7777, 0o2755);
    assert_eq!(fs::read(fixture.target("second-name")).unwrap(), b"old");
    fixture.install().unwrap();
    fixture.roll_back();
    assert_eq!(fixture.listing(), before);
}

#[test]
fn a_committed_file_leaves_nothing_else_behind() {
    let fixture = Fixture::new("single-file");
    old_file(&fixture, &fixture.target("app"));
    fixture.file(&fixture.target(""), "app", Some("600"), "new").unwrap();
    fixture.install().unwrap();
    fixture.with(|handler| {
        assert_eq!(handler.needs_reboot().unwrap(), RebootNeed::None);
        assert!(handler.supports_rollback().unwrap());
        handler.commit().unwrap();
    });
    fixture.clean_up();
    let mut names: Vec<_> =
        fs::read_dir(fixture.path("target")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app", "second-name"]);
    assert_eq!(fs::metadata(fixture.target("second-name")).unwrap().nlink(), 1);
}

#[test]
fn a_symbolic_link_comes_back_as_the_link_it_was() {
    let fixture = Fixture::new("single-file");
    fs::write(fixture.target("elsewhere"), "old").unwrap();
    symlink("elsewhere", fixture.target("app")).unwrap();
    let before = fixture.listing();
    fixture.file(&fixture.target(""), "app", None, "new").unwrap();
    fixture.install().unwrap();
    assert!(fs::symlink_metadata(fixture.target("app")).unwrap().is_file());
    assert_eq!(fs::read(fixture.target("elsewhere")).unwrap(), b"old");
    fixture.roll_back();
    assert_eq!(fixture.listing(), before);
}

#[test]
fn what_was_not_there_is_gone_after_going_back_with_the_directories_made_for_it() {
    for payload_type in ["single-file", "directory"] {
        let fixture = Fixture::new(payload_type);
        let before = fixture.listing();
        let download = || match payload_type {
            "directory" => fixture.tree(&fixture.target("a/b/app"), &archive(&fixture)),
            _ => fixture.file(&fixture.target("a/b"), "app", None, "new"),
        };
        download().unwrap();
        fixture.install().unwrap();
        assert!(fixture.path("target/a/b/app").exists());
        assert_eq!(fs::metadata(fixture.path("target/a")).unwrap().mode() & 0o7777, 0o755);
        fixture.roll_back();
        assert_eq!(fixture.listing(), before);
        // But not what somebody else has put there meanwhile.
        download().unwrap();
        fixture.install().unwrap();
        fs::write(fixture.path("target/a/mine"), "").unwrap();
        fixture.roll_back();
        assert!(fixture.path("target/a/mine").exists() && !fixture.path("target/a/b").exists());
    }
}

/// A tree of everything tar carries, made by GNU tar. Devices only for root.
fn archive(fixture: &Fixture) -> Vec<u8> {
    let source = fixture.path("source");
    if !source.exists() {
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::write(source.join("deep/er/file"), "content").unwrap();
        fs::write(source.join(format!("{:0>200}", "long")), "a long name").unwrap();
        fs::write(source.join("empty"), "").unwrap();
        fs::hard_link(source.join("deep/er/file"), source.join("same")).unwrap();
        symlink("deep/er/file", source.join("link")).unwrap();
        symlink("/nowhere", source.join("dangling")).unwrap();
        run("mkfifo", &[source.join("pipe")]);
        set_xattr(source.join("deep").to_str().unwrap());
        set_xattr(source.join("same").to_str().unwrap());
        if is_root() {
            run(
                "mknod",
                &[source.to_str().unwrap().to_owned() + "/null", "c".into(), "1".into(), "3".into()],
            );
            std::os::unix::fs::chown(source.join("deep"), Some(1111), Some(2222)).unwrap();
            std::os::unix::fs::lchown(source.join("link"), Some(3333), Some(4444)).unwrap();
        }
        for (name, mode) in [("same", 0o6751), ("deep", 0o1777), ("deep/er", 0o500), ("empty", 0)] {
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        run("touch", &["-h", "-d", "1999-12-31 23:59:59", source.join("link").to_str().unwrap()]);
        run("touch", &["-d", "1969-12-31 00:00:00 UTC", source.join("deep/er").to_str().unwrap()]);
        run("touch", &["-d", "2020-02-02 02:02:02", source.to_str().unwrap()]);
    }
    let tar = fixture.path("update.tar");
    let (to, from) = (tar.to_str().unwrap(), source.to_str().unwrap());
    run("tar", &["--xattrs", "-cf", to, "-C", from, "."]);
    fs::read(tar).unwrap()
}

/// A tree as `find` and the extended attributes describe it.
fn describe(root: &Path) -> Vec<String> {
    let script = "find . -printf '%P %y %m %U %G %n %l\\n' | sort; find . -printf '%P %Ts\\n' | sort; \
                  find . -type f -exec sha256sum {} + | sort";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(root);
    [lines(command), xattrs(root)].concat()
}

#[test]
fn a_tree_has_everything_that_the_archive_carries_and_goes_back_exactly() {
    let fixture = Fixture::new("directory");
    fs::create_dir(fixture.target("app")).unwrap();
    old_file(&fixture, &fixture.target("app/file"));
    fs::set_permissions(fixture.target("app"), fs::Permissions::from_mode(0o2710)).unwrap();
    let before = fixture.listing();
    fixture.tree(&fixture.target("app"), &archive(&fixture)).unwrap();
    assert_eq!(fixture.listing(), before);
    fixture.install().unwrap();
    assert_eq!(describe(&fixture.path("target/app")), describe(&fixture.path("source")));
    fixture.install().unwrap();
    assert_eq!(describe(&fixture.path("target/app")), describe(&fixture.path("source")));
    fixture.roll_back();
    assert_eq!(fixture.listing(), before);

    fixture.tree(&fixture.target("app"), &archive(&fixture)).unwrap();
    fixture.install().unwrap();
    fixture.clean_up();
    assert_eq!(describe(&fixture.path("target/app")), describe(&fixture.path("source")));
    if !xattrs(&fixture.path("source")).is_empty() {
        assert_eq!(xattrs(&fixture.path("target/app")).len(), 3, "a directory and two names of one file");
    }
    let names = fs::read_dir(fixture.path("target")).unwrap().count();
    assert_eq!(names, 2, "{:?}", fixture.listing());
}

#[test]
fn a_link_to_a_directory_is_replaced_by_the_tree_and_comes_back() {
    let fixture = Fixture::new("directory");
    fs::create_dir(fixture.target("elsewhere")).unwrap();
    fs::write(fixture.target("elsewhere/file"), "old").unwrap();
    symlink("elsewhere", fixture.target("app")).unwrap();
    let before = fixture.listing();
    fixture.tree(&fixture.target("app"), &crafted(&[("new", MemberKind::File(3))])).unwrap();
    fixture.install().unwrap();
    assert!(fs::symlink_metadata(fixture.target("app")).unwrap().is_dir());
    assert_eq!(fs::read(fixture.target("app/new")).unwrap(), b"xxx");
    assert_eq!(fs::read(fixture.target("elsewhere/file")).unwrap(), b"old");
    fixture.roll_back();
    assert_eq!(fixture.listing(), before);
}

#[test]
fn every_format_of_tar_is_read() {
    for format in ["gnu", "ustar", "posix"] {
        let fixture = Fixture::new("directory");
        let source = fixture.path("source");
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/b/ö file with blanks"), "x").unwrap();
        symlink("b", source.join("a/link")).unwrap();
        let (tar, source) = (fixture.path("update.tar"), source);
        run(
            "tar",
            &[
                OsStr::new(&format!("--format={format}")),
                "-cf".as_ref(),
                tar.as_os_str(),
                "-C".as_ref(),
                source.as_os_str(),
                ".".as_ref(),
            ],
        );
        fixture.tree(&fixture.target("app"), &fs::read(&tar).unwrap()).unwrap();
        fixture.install().unwrap();
        assert_eq!(describe(&fixture.path("target/app")), describe(&source), "{format}");
    }
}

/// An archive of these members, without content.
fn crafted(members: &[(&str, MemberKind)]) -> Vec<u8> {
    let mut tar = MemberWriter::new(Vec::new());
    for (path, kind) in members {
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        tar.begin(&Member { path: (*path).into(), kind: kind.clone(), attributes }).unwrap();
        if let MemberKind::File(size) = kind {
            tar.write_all(&vec![b'x'; usize::try_from(*size).unwrap()]).unwrap();
        }
    }
    tar.finish().unwrap()
}

#[test]
fn an_archive_that_leads_out_of_the_tree_is_refused_before_anything_is_changed() {
    let fixture = Fixture::new("directory");
    let before = fixture.listing();
    let out = || MemberKind::Symlink(fixture.target("").into());
    for (members, words) in [
        (vec![("/etc/evil", MemberKind::File(1))], "is absolute"),
        (vec![("../evil", MemberKind::File(1))], "leads upwards"),
        (vec![("a", out()), ("a/evil", MemberKind::File(1))], "behind a symbolic link"),
        (vec![("a", out()), ("a/evil/", MemberKind::Directory)], "behind a symbolic link"),
        (vec![("a", MemberKind::HardLink(b"/etc/passwd".to_vec()))], "is absolute"),
        (vec![("a", MemberKind::HardLink(b"../../etc/passwd".to_vec()))], "leads upwards"),
        (vec![(".", out())], "the place of the tree itself"),
    ] {
        fails(fixture.tree(&fixture.target("app"), &crafted(&members)), words);
        fixture.clean_up();
        assert_eq!(fixture.listing(), before);
    }
    fails(fixture.tree(&fixture.target("app"), b"not an archive"), "update.tar");
    let mut cut = crafted(&[("a", MemberKind::File(9000))]);
    cut.truncate(5000);
    fails(fixture.tree(&fixture.target("app"), &cut), "update.tar");
}

#[test]
fn a_tree_that_cannot_be_made_leaves_the_old_one_alone() {
    let fixture = Fixture::new("directory");
    fs::create_dir(fixture.target("app")).unwrap();
    let before = fixture.listing();
    let twice = crafted(&[("a", MemberKind::File(1)), ("a", MemberKind::File(2))]);
    fixture.tree(&fixture.target("app"), &twice).unwrap();
    fails(fixture.install(), "cannot create");
    fixture.roll_back();
    assert_eq!(fixture.listing(), before);
}

#[test]
fn destinations_that_cannot_be_replaced_are_refused_before_anything_is_changed() {
    let trees = Fixture::new("directory");
    let archive = crafted(&[("a", MemberKind::File(1))]);
    fs::write(trees.target("file"), "").unwrap();
    symlink("nowhere", trees.target("dangling")).unwrap();
    let files = Fixture::new("single-file");
    fs::create_dir(files.target("directory")).unwrap();
    let data = trees.path("data").display().to_string();
    let (before_trees, before_files) = (trees.listing(), files.listing());
    for (dest_dir, words) in [
        ("", "one line of text"),
        ("relative", "not an absolute path"),
        ("/", "cannot be replaced"),
        ("//./", "cannot be replaced"),
        ("/opt/../etc", "without \"..\""),
        ("/proc", "is a mount point"),
        ("/proc/self/x", "cannot"),
        (data.as_str(), "keeps its data"),
        (&trees.target("file"), "is a file"),
        (&trees.target("file/below"), "is not a directory"),
        (&trees.target("dangling"), "leads to no directory"),
        ("/tmp\n/opt", "one line of text"),
    ] {
        match trees.tree(dest_dir, &archive).and_then(|()| trees.install()) {
            Ok(()) => panic!("{dest_dir}"),
            error => fails(error, words),
        }
        trees.roll_back();
    }
    assert_eq!(trees.listing(), before_trees);
    for (dest_dir, name, words) in [
        ("", "app", "one line of text"),
        ("relative", "app", "not an absolute path"),
        ("/opt/..", "app", "without \"..\""),
        (&files.target(""), "directory", "is a directory"),
    ] {
        fails(files.file(dest_dir, name, None, "new"), words);
    }
    let directory = format!("{}\n", files.target(""));
    let place = |filename: &'static str, permissions: &'static str| {
        files.download(&[
            ("dest_dir", directory.as_bytes()),
            ("filename", filename.as_bytes()),
            ("permissions", permissions.as_bytes()),
            ("app", b"new"),
        ])
    };
    for (filename, permissions, words) in [
        ("../app", "644", "plain name"),
        ("a/app", "644", "plain name"),
        ("..", "644", "plain name"),
        ("dest_dir", "644", "plain name"),
        ("other", "644", "no file \"other\""),
        ("app", "u+x", "octal digits"),
        ("app", "+644", "octal digits"),
        ("app", "10644", "octal digits"),
    ] {
        fails(place(filename, permissions), words);
    }
    fails(files.download(&[("filename", b"app"), ("app", b"new")]), "no file \"dest_dir\"");
    files.clean_up();
    assert_eq!(files.listing(), before_files);
}

#[test]
fn the_stock_module_makes_the_same_of_a_file() {
    let results = [false, true].map(|stock| {
        let fixture = Fixture::new("single-file");
        old_file(&fixture, &fixture.target("app"));
        fixture.file(&fixture.target(""), "app", Some("2755\n"), "new").unwrap();
        let done = if stock { fixture.stock("ArtifactInstall") } else { fixture.install().ok() };
        fixture.clean_up();
        done.map(|()| fixture.comparable())
    });
    if let [Some(ours), Some(theirs)] = results {
        assert_eq!(ours, theirs);
        println!("compared with the stock module");
    }
}

#[test]
fn the_stock_module_makes_the_same_of_a_tree() {
    let results = [false, true].map(|stock| {
        let fixture = Fixture::new("directory");
        fs::create_dir(fixture.target("app")).unwrap();
        fs::write(fixture.target("app/old"), "old").unwrap();
        fixture.tree(&fixture.target("app"), &archive(&fixture)).unwrap();
        let done = if stock { fixture.stock("ArtifactInstall") } else { fixture.install().ok() };
        fixture.clean_up();
        done.map(|()| fixture.comparable())
    });
    if let [Some(ours), Some(theirs)] = results {
        assert_eq!(ours, theirs);
        println!("compared with the stock module");
    }
}

#[test]
fn scripts_run_in_the_order_of_their_names_and_the_first_failure_ends_it() {
    let fixture = Fixture::new("script");
    let log = fixture.target("log");
    let line = |what: &str| format!("echo {what} $(pwd) >> {log}\n");
    let (first, second) = (format!("#!/bin/sh\n{}", line("first")), line("second"));
    let third = format!("{}exit 3\n", line("third"));
    fixture
        .download(&[
            ("20", second.as_bytes()),
            ("3", third.as_bytes()),
            ("10", first.as_bytes()),
            ("4", line("never").as_bytes()),
            (".hidden", line("hidden").as_bytes()),
        ])
        .unwrap();
    fails(fixture.install(), "script 3 ended with exit status: 3");
    let tree = fixture.path("data/modules/v3/payloads/0000/tree").display().to_string();
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("first {tree}\nsecond {tree}\nthird {tree}\n"));
    fixture.with(|handler| {
        assert_eq!(handler.needs_reboot().unwrap(), RebootNeed::None);
        assert!(!handler.supports_rollback().unwrap());
    });
    fixture.clean_up();
}

#[test]
fn what_an_older_version_began_is_ended_by_whoever_began_it() {
    let fixture = Fixture::new("single-file");
    let module = fixture.path("share/modules/v3/single-file");
    let text = format!("#!/bin/sh\necho $1 >> {}\n", fixture.target("calls"));
    let calls = || fs::read_to_string(fixture.target("calls")).unwrap_or_default();
    // Its records do not say who began, but the tree of the payload does.
    let check = |marked: bool| {
        fixture.file(&fixture.target(""), "app", None, "new").unwrap();
        fixture.install().unwrap();
        fixture.recorded.replace(Some(RecordedHandler::default()));
        if marked {
            fs::write(fixture.path("data/modules/v3/payloads/0000/tree/tmp/built-in"), "").unwrap();
        }
    };
    check(true);
    fs::write(&module, text).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o755)).unwrap();
    fixture.roll_back();
    assert!(calls().is_empty() && !fixture.path("target/app").exists());

    check(false);
    fixture.with(|handler| handler.roll_back()).unwrap();
    assert!(calls().ends_with("ArtifactInstall\nArtifactRollback\n"), "{}", calls());
    fs::remove_file(&module).unwrap();
    fails(fixture.with(|handler| handler.roll_back()), "an update module that is gone");
}

#[test]
fn scripts_that_take_too_long_together_are_ended() {
    let mut fixture = Fixture::new("script");
    fixture.timeout = Duration::from_millis(700);
    fixture.download(&[("1", b"exec sleep 1000\n")]).unwrap();
    fails(fixture.install(), "longer than");
}

#[test]
fn an_update_module_goes_before_the_built_in_handler_unless_the_configuration_says_otherwise() {
    let mut fixture = Fixture::new("single-file");
    let module = fixture.path("share/modules/v3/single-file");
    let text = format!("#!/bin/sh\necho $1 >> {}\n", fixture.target("calls"));
    fs::write(&module, text).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o755)).unwrap();
    let calls = || fs::read_to_string(fixture.target("calls")).unwrap_or_default();
    fixture.file(&fixture.target(""), "app", None, "new").unwrap();
    fixture.install().unwrap();
    assert!(calls().contains("ArtifactInstall") && !fixture.path("target/app").exists());

    // The module is gone, and whatever it did cannot be known.
    fs::rename(&module, fixture.path("aside")).unwrap();
    fails(fixture.with(|handler| handler.roll_back()), "an update module that is gone");

    // What was begun here is ended here, also where a module is installed meanwhile.
    fixture.clean_up();
    fixture.file(&fixture.target(""), "app", None, "new").unwrap();
    fixture.install().unwrap();
    fs::rename(fixture.path("aside"), &module).unwrap();
    let before = calls();
    fixture.with(|handler| handler.roll_back()).unwrap();
    assert!(calls() == before && !fixture.path("target/app").exists());
    fixture.with(|handler| handler.clean_up()).unwrap();

    fixture.prefer_built_in = PreferBuiltIn::These(vec!["single-file".to_owned()]);
    fixture.file(&fixture.target(""), "app", None, "new").unwrap();
    fixture.install().unwrap();
    assert!(fixture.path("target/app").exists());
}
