//! Every kind of archive that is written here, as three others read it: the crate `tar`, GNU tar and bsdtar. They have to find
//! the same names, kinds, modes, owners, sizes, times, links and contents.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use client_core::artifact::tree::{MemberKind, MemberReader};
use sha2::{Digest, Sha256};

/// What is found of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    /// As `tar -tv` has it.
    kind: char,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    link: String,
    device: Option<(u32, u32)>,
    /// Of the content, in hexadecimal digits.
    digest: String,
}

/// Members by their names, without the `./` and the `/` of directories, about which the three have their own opinions.
type Found = BTreeMap<String, Facts>;

fn key(name: &str) -> String {
    let name = name.trim_end_matches('/');
    let name = name.strip_prefix("./").unwrap_or(name);
    if name == "/." { ".".to_owned() } else { name.to_owned() }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// By the crate.
fn by_crate(archive: &Path) -> Found {
    let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut found = Found::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
        let header = entry.header();
        let kinds = [
            (tar::EntryType::Regular, '-'),
            (tar::EntryType::Directory, 'd'),
            (tar::EntryType::Symlink, 'l'),
            (tar::EntryType::Link, 'h'),
            (tar::EntryType::Fifo, 'p'),
            (tar::EntryType::Char, 'c'),
        ];
        let kind = kinds.iter().find(|(kind, _)| *kind == header.entry_type()).map(|(_, letter)| *letter);
        let kind = kind.unwrap_or_else(|| panic!("{name}: {:?}", header.entry_type()));
        let is_device = kind == 'c';
        let device = || Some((header.device_major().unwrap()?, header.device_minor().unwrap()?));
        let facts = Facts {
            kind,
            mode: header.mode().unwrap(),
            uid: u32::try_from(header.uid().unwrap()).unwrap(),
            gid: u32::try_from(header.gid().unwrap()).unwrap(),
            size: content.len() as u64,
            mtime: i64::try_from(header.mtime().unwrap()).unwrap(),
            link: link.unwrap_or_default(),
            device: if is_device { device() } else { None },
            digest: if kind == '-' { digest(&content) } else { String::new() },
        };
        assert_eq!(header.size().unwrap(), facts.size, "{name}");
        assert_eq!(found.insert(key(&name), facts), None, "{name}");
    }
    found
}

fn printed(command: &mut Command) -> String {
    let output = command.env("TZ", "UTC").env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// By GNU tar: `-rwsr-xr-x 0/0 5 2026-11-27 19:41:25 ./name -> target`.
fn by_gnu_tar(archive: &Path) -> Found {
    let mut found = Found::new();
    let list = ["--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf"];
    for line in printed(Command::new("tar").args(list).arg(archive)).lines() {
        let (mut rest, mut fields) = (line, Vec::new());
        for _ in 0..5 {
            let (field, behind) = rest.split_once(' ').unwrap();
            fields.push(field);
            rest = behind.trim_start();
        }
        let (name, link) =
            rest.split_once(" -> ").or_else(|| rest.split_once(" link to ")).unwrap_or((rest, ""));
        let (uid, gid) = fields[1].split_once('/').unwrap();
        let number = |text: &str| text.parse::<u32>().unwrap();
        let device = fields[2].split_once(',').map(|(major, minor)| (number(major), number(minor)));
        let facts = Facts {
            kind: fields[0].chars().next().unwrap(),
            mode: mode_of(&fields[0][1..]),
            uid: number(uid),
            gid: number(gid),
            size: if device.is_some() { 0 } else { fields[2].parse().unwrap() },
            mtime: seconds_of(fields[3], fields[4]),
            link: link.to_owned(),
            device,
            digest: String::new(),
        };
        assert_eq!(found.insert(key(name), facts), None, "{line}");
    }
    let content = "echo \"$(sha256sum | cut -c-64) $TAR_FILENAME\"";
    for line in printed(Command::new("tar").arg("-xf").arg(archive).arg("--to-command").arg(content)).lines()
    {
        let (digest, name) = line.split_once(' ').unwrap();
        found.get_mut(&key(name)).unwrap().digest = digest.to_owned();
    }
    found
}

/// `rwsr-xr-t` as bits.
fn mode_of(text: &str) -> u32 {
    let mut mode = 0;
    for (at, letter) in text.chars().enumerate() {
        let special = 0o4000 >> (at / 3);
        let bit = 0o400 >> at;
        mode |= match letter {
            'r' | 'w' | 'x' => bit,
            's' | 't' => bit | special,
            'S' | 'T' => special,
            '-' => 0,
            other => panic!("{other} in {text}"),
        };
    }
    mode
}

/// `2026-11-27` and `19:41:25` in seconds since 1970.
fn seconds_of(date: &str, time: &str) -> i64 {
    let numbers = |text: &str, between: char| -> Vec<i64> {
        text.split(between).map(|number| number.parse().unwrap()).collect()
    };
    let (date, time) = (numbers(date, '-'), numbers(time, ':'));
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let years: i64 = (1970..date[0]).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let february = if is_leap(date[0]) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = years + months.iter().take(usize::try_from(date[1] - 1).unwrap()).sum::<i64>() + date[2] - 1;
    ((days * 24 + time[0]) * 60 + time[1]) * 60 + time[2]
}

/// By bsdtar, which says it as `mtree` does: `./name type=file mode=644 ...`. A hard link is an empty file there.
fn by_bsdtar(bsdtar: &Path, archive: &Path) -> Found {
    let options = "--options=!all,type,mode,uid,gid,size,time,link,device,sha256";
    let mut command = Command::new(bsdtar);
    command.args(["-cf", "-", "--format=mtree", options]).arg(format!("@{}", archive.display()));
    let mut found = Found::new();
    for line in printed(&mut command).lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let name = words.next().unwrap().replace("\\040", " ");
        let words: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        let word = |name: &str| words.get(name).copied().unwrap_or_default();
        let number = |name: &str| word(name).parse::<u32>().unwrap();
        let facts = Facts {
            kind: match word("type") {
                "file" => '-',
                "dir" => 'd',
                "link" => 'l',
                "fifo" => 'p',
                "char" => 'c',
                other => panic!("{line}: {other}"),
            },
            mode: u32::from_str_radix(word("mode"), 8).unwrap(),
            uid: number("uid"),
            gid: number("gid"),
            size: word("size").parse().unwrap_or(0),
            mtime: word("time").split('.').next().unwrap().parse().unwrap(),
            link: word("link").to_owned(),
            device: words.get("device").map(|device| {
                let numbers: Vec<u32> = device.split(',').skip(1).map(|part| part.parse().unwrap()).collect();
                (numbers[0], numbers[1])
            }),
            digest: word("sha256digest").to_owned(),
        };
        assert_eq!(found.insert(key(&name), facts), None, "{line}");
    }
    found
}

struct Bench {
    folder: tempfile::TempDir,
    bsdtar: PathBuf,
}

impl Bench {
    /// `None` when a program is missing; the reason is printed.
    fn new() -> Option<Bench> {
        let bsdtar = interop::tool("bsdtar")?;
        interop::tool("tar")?;
        Some(Bench { folder: tempfile::tempdir().unwrap(), bsdtar })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the host tool writes, with everything in it plain.
    fn write(&self, line: &str) -> PathBuf {
        let artifact = self.at("out.mender");
        let place = |word: &str| if self.at(word).exists() { self.at(word) } else { PathBuf::from(word) };
        let mut words = vec![PathBuf::from("write")];
        words.extend(line.split(' ').map(place));
        words.extend(
            ["-n", "r", "-t", "board", "--compression", "none", "--no-progress", "-o"].map(PathBuf::from),
        );
        words.push(artifact.clone());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words = words.into_iter().map(PathBuf::into_os_string);
        assert!(rust_ota_artifact::run(words, &mut out, &mut err), "{}", String::from_utf8_lossy(&err));
        artifact
    }

    /// What all three find in an archive.
    #[track_caller]
    fn read(&self, archive: &Path) -> Found {
        let found = by_crate(archive);
        assert_eq!(by_gnu_tar(archive), found, "GNU tar");
        let mut without_links = found.clone();
        for facts in without_links.values_mut().filter(|facts| facts.kind == 'h') {
            facts.kind = '-';
            facts.link.clear();
        }
        assert_eq!(by_bsdtar(&self.bsdtar, archive), without_links, "bsdtar");
        found
    }

    /// A member of an archive as a file.
    fn take(&self, archive: &Path, member: &str) -> PathBuf {
        let mut command = Command::new("tar");
        command.arg("-xf").arg(archive).arg("-C").arg(self.folder.path()).arg(member);
        printed(&mut command);
        self.at(member)
    }
}

fn names(found: &Found) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

#[test]
fn an_artifact_and_the_archives_in_it_are_read_by_others_as_by_us() {
    let Some(bench) = Bench::new() else { return };
    fs::write(bench.at("app.conf"), "content\n").unwrap();
    fs::set_permissions(bench.at("app.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(bench.at("ArtifactInstall_Enter_01"), "#!/bin/sh\n").unwrap();
    let arguments = ["keygen", "-o"].map(PathBuf::from).into_iter().chain([bench.at("key")]);
    let arguments = arguments.map(PathBuf::into_os_string);
    assert!(rust_ota_artifact::run(arguments, &mut Vec::new(), &mut Vec::new()));
    let line = "single-file --dest-dir /etc/app -k key -s ArtifactInstall_Enter_01 app.conf";
    for line in [line.to_owned(), format!("{line} --reproducible")] {
        let artifact = bench.write(&line);
        let found = bench.read(&artifact);
        let members = ["data/0000.tar", "header.tar", "manifest", "manifest.sig", "version"];
        assert_eq!(names(&found), members);
        let version = fs::read(bench.take(&artifact, "version")).unwrap();
        assert_eq!(found["version"].digest, digest(&version));
        assert!(found.values().all(|facts| facts.kind == '-' && facts.uid == 0 && facts.gid == 0));

        let header = bench.read(&bench.take(&artifact, "header.tar"));
        let members = ["header-info", "headers/0000/type-info", "scripts/ArtifactInstall_Enter_01"];
        assert_eq!(names(&header), members);
        assert_eq!(header["scripts/ArtifactInstall_Enter_01"].digest, digest(b"#!/bin/sh\n"));

        let payload = bench.read(&bench.take(&artifact, "data/0000.tar"));
        assert_eq!(names(&payload), ["app.conf", "dest_dir", "filename", "permissions"]);
        assert_eq!(
            (payload["app.conf"].size, payload["app.conf"].digest.as_str()),
            (8, &*digest(b"content\n"))
        );
        assert_eq!(payload["permissions"].digest, digest(b"640\n"));
        let modified = fs::metadata(bench.at("app.conf")).unwrap().mtime();
        let is_reproducible = line.ends_with("--reproducible");
        assert_eq!(payload["app.conf"].mtime, if is_reproducible { 0 } else { modified });
        let mut all = found.values().chain(header.values()).chain(payload.values());
        assert!(!is_reproducible || all.all(|facts| facts.mtime == 0));
    }
}

#[test]
fn a_tree_is_read_by_others_as_by_a_device() {
    let Some(bench) = Bench::new() else { return };
    let tree = bench.at("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/file"), "x".repeat(5000)).unwrap();
    fs::write(tree.join("a"), "a").unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("with a blank"), "b".repeat(512)).unwrap();
    let (long_name, long_target) = (format!("{:0>150}", "long"), format!("{:0>150}", "x"));
    fs::write(tree.join(&long_name), "long").unwrap();
    fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
    symlink("deep/er/file", tree.join("link")).unwrap();
    symlink(&long_target, tree.join("long-link")).unwrap();
    printed(Command::new("mkfifo").arg(tree.join("pipe")));
    let has_device = {
        let mut command = Command::new("mknod");
        command.arg(tree.join("tty")).args(["c", "4", "64"]);
        command.output().unwrap().status.success()
    };
    for (name, mode) in [("a", 0o6755), ("deep", 0o1777), ("deep/er", 0o500), ("empty", 0)] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // Without a line end: the crate takes one in a value for the end of the record, GNU tar and we do not.
    let flags = rustix::fs::XattrFlags::empty();
    let has_attribute = rustix::fs::setxattr(tree.join("a"), "user.colour", b"red=\0", flags).is_ok();
    let artifact = bench.write("directory --dest-dir /opt --owner 3000000:7 tree");
    fs::set_permissions(tree.join("deep/er"), fs::Permissions::from_mode(0o700)).unwrap();
    let archive = bench.take(&bench.take(&artifact, "data/0000.tar"), "update.tar");
    let found = bench.read(&archive);

    // The reader of a device.
    let mut device = MemberReader::new(fs::File::open(&archive).unwrap());
    let mut ours = Found::new();
    while let Some(member) = device.next_member().unwrap() {
        let mut content = Vec::new();
        let (kind, link, numbers) = match member.kind {
            MemberKind::File(_) => {
                device.read_to_end(&mut content).unwrap();
                ('-', Vec::new(), None)
            }
            MemberKind::Directory => ('d', Vec::new(), None),
            MemberKind::Symlink(target) => ('l', target, None),
            MemberKind::HardLink(target) => ('h', target, None),
            MemberKind::Fifo => ('p', Vec::new(), None),
            MemberKind::CharacterDevice(major, minor) => ('c', Vec::new(), Some((major, minor))),
            MemberKind::BlockDevice(..) => panic!("there is none"),
        };
        let attributes = member.attributes;
        let facts = Facts {
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            size: content.len() as u64,
            mtime: attributes.mtime.0,
            link: String::from_utf8(link).unwrap(),
            device: numbers,
            digest: if kind == '-' { digest(&content) } else { String::new() },
        };
        ours.insert(key(&String::from_utf8(member.path).unwrap()), facts);
        let expected = vec![(b"user.colour".to_vec(), b"red=\0".to_vec())];
        assert!(attributes.xattrs.is_empty() || attributes.xattrs == expected);
    }
    assert_eq!(found, ours);

    // What there is.
    let all = [
        "empty",
        "link",
        "with a blank",
        "deep",
        "deep/er",
        "deep/er/file",
        "pipe",
        "long-link",
        ".",
        "a",
        "b",
    ];
    for name in all.into_iter().chain([long_name.as_str()]).chain(has_device.then_some("tty")) {
        assert!(found.contains_key(name), "{name}");
    }
    assert_eq!(found.len(), all.len() + 1 + usize::from(has_device));
    assert_eq!((found["a"].kind, found["a"].mode, found["a"].digest.as_str()), ('-', 0o6755, &*digest(b"a")));
    assert_eq!((found["b"].kind, key(&found["b"].link).as_str()), ('h', "a"));
    assert_eq!((found["deep"].mode, found["deep/er"].mode, found["empty"].mode), (0o1777, 0o500, 0));
    assert_eq!(found["long-link"].link, long_target);
    assert_eq!(found["deep/er/file"].size, 5000);
    assert!(found.values().all(|facts| (facts.uid, facts.gid) == (3_000_000, 7)));
    let mut tar = tar::Archive::new(fs::File::open(&archive).unwrap());
    let attributes = tar.entries().unwrap().filter_map(|entry| {
        let mut entry = entry.unwrap();
        let name = key(&String::from_utf8_lossy(&entry.path_bytes()));
        let extensions = entry.pax_extensions().unwrap()?.map(|extension| extension.unwrap());
        Some(
            extensions
                .map(|one| (name.clone(), one.key().unwrap().to_owned(), one.value_bytes().to_vec()))
                .collect::<Vec<_>>(),
        )
    });
    let attributes: Vec<_> = attributes.flatten().collect();
    let expected = ("a".to_owned(), "SCHILY.xattr.user.colour".to_owned(), b"red=\0".to_vec());
    assert_eq!(attributes, if has_attribute { vec![expected] } else { Vec::new() });
}
