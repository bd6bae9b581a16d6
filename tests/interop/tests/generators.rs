//! `write single-file`, `directory` and `script` against the generators that come with the Mender client, which call
//! `mender-artifact`.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the package of the Mender client has its generators.
const GENERATORS: &str = "/usr/share/doc/mender-client/examples";

struct Bench {
    folder: tempfile::TempDir,
    tool: PathBuf,
}

impl Bench {
    /// `None` when a program is missing; the reason is printed.
    fn new() -> Option<Bench> {
        let tool = interop::tool("mender-artifact")?;
        let bench = Bench { folder: tempfile::tempdir().unwrap(), tool };
        fs::write(bench.at("app.conf"), "content").unwrap();
        fs::set_permissions(bench.at("app.conf"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::write(bench.at("10_one.sh"), "#!/bin/sh\n").unwrap();
        fs::write(bench.at("2"), "#!/bin/sh\nexit 1\n").unwrap();
        let tree = bench.at("tree");
        fs::create_dir_all(tree.join("b/deep")).unwrap();
        fs::write(tree.join("b/deep/file"), "x".repeat(5000)).unwrap();
        fs::write(tree.join("a"), "a").unwrap();
        fs::write(tree.join(format!("{:0>150}", "long")), "").unwrap();
        fs::hard_link(tree.join("a"), tree.join("c")).unwrap();
        symlink("b/deep/file", tree.join("link")).unwrap();
        symlink(format!("{:0>150}", "x"), tree.join("long-link")).unwrap();
        for (name, mode) in [("a", 0o6755), ("b", 0o1777), ("b/deep", 0o500)] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        Some(bench)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An artifact of the generator, or of `mender-artifact` where there is none.
    fn theirs(&self, payload_type: &str, options: &str) -> Option<PathBuf> {
        let mut command = match payload_type {
            "script" => {
                let mut command = Command::new(&self.tool);
                command.args(["write", "module-image", "-T", "script"]);
                command
            }
            _ => {
                let generator = Path::new(GENERATORS).join(format!("{payload_type}-artifact-gen"));
                if !generator.exists() {
                    println!("not compared: {} is not installed", generator.display());
                    return None;
                }
                let mut command = Command::new("bash");
                command.arg(generator);
                command
            }
        };
        run(command.current_dir(self.folder.path()).args(words(options)).args(["-o", "theirs.mender"]));
        Some(self.at("theirs.mender"))
    }

    fn ours(&self, payload_type: &str, options: &str) -> Result<PathBuf, String> {
        let here = |text: &str| match self.at(text).exists() {
            true => self.at(text).into_os_string(),
            false => OsString::from(text),
        };
        let ours = self.at("ours.mender");
        let mut arguments = vec![OsString::from("write"), OsString::from(payload_type)];
        arguments.extend(words(options).iter().map(|word| here(word)));
        arguments.extend(["-o".into(), ours.clone().into_os_string()]);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        match rust_ota_artifact::run(arguments, &mut out, &mut err) {
            true => Ok(ours),
            false => Err(String::from_utf8(err).unwrap()),
        }
    }

    /// Every member of the inner archives, as name and content.
    fn members(&self, artifact: &Path) -> Vec<(String, Vec<u8>)> {
        let mut members = Vec::new();
        for archive in ["header.tar.gz", "data/0000.tar.gz"] {
            let inner = self.at("inner.tar.gz");
            fs::write(&inner, run(Command::new("tar").arg("-xOf").arg(artifact).arg(archive))).unwrap();
            let names = run(Command::new("tar").arg("-tzf").arg(&inner));
            for name in String::from_utf8(names).unwrap().lines() {
                members.push((name.to_owned(), run(Command::new("tar").arg("-xzOf").arg(&inner).arg(name))));
            }
        }
        members
    }

    /// What GNU tar says about every member of `update.tar`, sorted, without the names of owners.
    fn tree(&self, archive: &[u8]) -> Vec<String> {
        let tar = self.at("update.tar");
        fs::write(&tar, archive).unwrap();
        let listing = run(Command::new("tar").args(["--numeric-owner", "--full-time", "-tvf"]).arg(&tar));
        let mut lines: Vec<String> = String::from_utf8(listing).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

#[test]
fn the_artifacts_are_those_of_the_generators() {
    let Some(bench) = Bench::new() else { return };
    for (payload_type, options) in [
        ("single-file", "-n rel-1 -t dev-a -d /etc/app app.conf"),
        (
            "single-file",
            "--artifact-name rel-2 -t dev-a -t dev-b --dest-dir /opt --software-name app \
             --software-version 7 --software-filesystem data app.conf",
        ),
        ("directory", "-n rel-1 -t dev-a -t dev-b -d /opt/app tree"),
        ("directory", "-n rel-1 -t dev-a --dest-dir /opt/app/ --software-name web tree"),
        ("script", "-n rel-1 -t dev-a -f 10_one.sh -f 2"),
    ] {
        let what = format!("{payload_type} {options}");
        let ours = bench.ours(payload_type, options).unwrap_or_else(|error| panic!("{what}: {error}"));
        run(Command::new(&bench.tool).arg("validate").arg(&ours));
        let read = String::from_utf8(run(Command::new(&bench.tool).arg("read").arg(&ours))).unwrap();
        assert!(read.contains(payload_type), "{what}: {read}");
        let Some(theirs) = bench.theirs(payload_type, options) else { continue };
        let (ours, theirs) = (bench.members(&ours), bench.members(&theirs));
        let names = |members: &[(String, Vec<u8>)]| -> Vec<String> {
            members.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&ours), names(&theirs), "{what}");
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            if name == "update.tar" {
                let (ours, theirs) = (bench.tree(ours), bench.tree(theirs));
                // Which of two names of one file comes first, and so is not the link, is up to the directory there.
                let plain = |lines: Vec<String>| -> Vec<String> {
                    let is_pair = |line: &String| line.ends_with(" ./a") || line.ends_with(" ./c");
                    let is_link = |line: &String| line.contains(" link to ./");
                    lines.into_iter().filter(|line| !is_pair(line) && !is_link(line)).collect()
                };
                let links =
                    |lines: &[String]| lines.iter().filter(|line| line.contains(" link to ./")).count();
                assert_eq!((links(&ours), links(&theirs)), (1, 1), "{what}");
                assert_eq!(plain(ours), plain(theirs), "{what}");
            } else {
                assert_eq!(ours, theirs, "{what}: {name}");
            }
        }
        println!("the same as the generator's: {what}");
    }
}

#[test]
fn the_same_tree_makes_the_same_bytes_whatever_its_times_and_owners() {
    let Some(bench) = Bench::new() else { return };
    let options = "-n rel-1 -t dev-a -d /opt/app --reproducible --owner 5:6 tree";
    let first = fs::read(bench.ours("directory", options).unwrap()).unwrap();
    run(Command::new("touch").arg("-h").arg(bench.at("tree/link")));
    run(Command::new("touch").arg(bench.at("tree/a")));
    assert!(fs::read(bench.ours("directory", options).unwrap()).unwrap() == first);
    let archive = bench.members(&bench.at("ours.mender")).into_iter().find(|(name, _)| name == "update.tar");
    let lines = bench.tree(&archive.unwrap().1);
    assert!(lines.iter().all(|line| line.contains(" 5/6 ") && line.contains("1970-01-01")), "{lines:#?}");
}

#[test]
fn what_no_device_would_install_is_not_written() {
    let Some(bench) = Bench::new() else { return };
    for (payload_type, options, words) in [
        ("single-file", "-n r -t d app.conf", "--dest-dir"),
        ("single-file", "-n r -t d -d etc app.conf", "absolute"),
        ("single-file", "-n r -t d -d /etc/../x app.conf", "absolute"),
        ("single-file", "-n r -t d -d /etc", "exactly one file"),
        ("single-file", "-n r -t d -d /etc tree", "not a regular file"),
        ("single-file", "-n r -t d -d /etc app.conf 2", "exactly one file"),
        ("directory", "-n r -t d -d / tree", "place of"),
        ("directory", "-n r -t d -d /opt app.conf", "not a directory"),
        ("directory", "-n r -t d -d /opt --owner root:root tree", "in numbers"),
        ("script", "-n r -t d", "at least one program"),
        ("script", "-n r -t d --dest-dir /opt 2", "dest-dir"),
    ] {
        let error = bench.ours(payload_type, options).unwrap_err();
        assert!(error.contains(words), "{payload_type} {options}: {error}");
    }
}
