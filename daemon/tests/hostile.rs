//! A corpus of bad artifacts against the real binary on a virtual device.
//!
//! Each is refused with exit code 1 and a reason that names what is wrong, and leaves everything that counts as it was:
//! the boot variables, the running slot, the files of the datastore. The artifacts are made by a tar writer of a few
//! lines that shares nothing with the client's, so that every field can be wrong. Memory is bounded by the virtual
//! device; see `common`.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;

use crate::common::{Ran, SLOT_BYTES, VirtualDevice, image};
use client_core::artifact::{Limits, Signer, write};
use sha2::{Digest, Sha256};

const VERSION: &str = r#"{"format":"mender","version":3}"#;
const HEADER_INFO: &str = r#"{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"bad"},"artifact_depends":{"device_type":["testbox"]}}"#;
const TYPE_INFO: &str = r#"{"type":"rootfs-image","artifact_provides":{"rootfs-image.version":"bad"}}"#;
const INSTALL_SCRIPT: &str = "scripts/ArtifactInstall_Enter_00";

/// One member of an archive, with all that can be wrong about it.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    kind: u8,
    link: &'static str,
    content: Vec<u8>,
    /// What the header says instead of the length of the content.
    stated_bytes: Option<u64>,
    /// Changes the finished header; the checksum is made right afterwards.
    header: fn(&mut [u8; 512]),
}

fn member(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Member {
    Member {
        name: name.as_ref().to_vec(),
        kind: b'0',
        link: "",
        content: content.as_ref().to_vec(),
        stated_bytes: None,
        header: |_| {},
    }
}

/// A PAX header with these records, lengths included.
fn pax(records: &str) -> Member {
    Member { kind: b'x', ..member("PaxHeaders/x", records) }
}

impl Member {
    fn append_to(&self, archive: &mut Vec<u8>) {
        let mut header = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let bytes = self.stated_bytes.unwrap_or(self.content.len() as u64);
        put(0, &self.name);
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{bytes:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        put(156, &[self.kind]);
        put(157, self.link.as_bytes());
        put(257, b"ustar\x0000");
        (self.header)(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(&self.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    members.iter().for_each(|member| member.append_to(&mut bytes));
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An xz stream that asks for a dictionary of 4 GiB.
fn xz_with_huge_dictionary(bytes: &[u8]) -> Vec<u8> {
    let mut stream = xz(bytes);
    // Stream header of 12 bytes, block header of 12: size, flags, filter, size of properties, dictionary, padding.
    assert_eq!(stream[12..16], [2, 0, 0x21, 1], "the block header is another one");
    stream[16] = 40;
    let checksum = crc32fast::hash(&stream[12..20]);
    stream[20..24].copy_from_slice(&checksum.to_le_bytes());
    stream
}

/// A zstd frame that asks for a window of 2 GiB.
fn zstd_with_huge_window(bytes: &[u8]) -> Vec<u8> {
    let mut frame = zstd(bytes);
    assert_eq!(frame[4] & 0x20, 0, "a single segment has no window");
    frame[5] = 21 << 3;
    frame
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// What is done to the bytes of an archive before they become a member.
type Pack = fn(&[u8]) -> Vec<u8>;
/// What is done to the members of an archive.
type Change = Box<dyn Fn(&mut Vec<Member>)>;

/// The parts of a good artifact, to be made bad.
struct Crafted {
    version: Vec<u8>,
    header: Vec<Member>,
    data: Vec<Member>,
    /// Suffix of the name, and what is done to the archive.
    pack_header: (&'static str, Pack),
    pack_data: (&'static str, Pack),
    /// Changes the lines of the manifest, which are right before.
    manifest: fn(&mut Vec<String>),
    /// Changes the members of the outer archive, which are right before.
    outer: Change,
    behind: Vec<u8>,
}

impl Crafted {
    fn new() -> Crafted {
        Crafted {
            version: VERSION.into(),
            header: vec![member("header-info", HEADER_INFO), member("headers/0000/type-info", TYPE_INFO)],
            data: vec![member("rootfs.img", image(9, 256 * 1024))],
            pack_header: ("", plain),
            pack_data: ("", plain),
            manifest: |_| {},
            outer: Box::new(|_| {}),
            behind: Vec::new(),
        }
    }

    fn set(&mut self, name: &str, content: impl AsRef<[u8]>) {
        let found = self.header.iter_mut().find(|member| member.name == name.as_bytes());
        found.unwrap().content = content.as_ref().to_vec();
    }

    fn build(&self) -> Vec<u8> {
        let line = |name: &str, bytes: &[u8]| {
            let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digest}  {name}\n")
        };
        let header_name = format!("header.tar{}", self.pack_header.0);
        let header = (self.pack_header.1)(&archive(&self.header));
        let files = self.data.iter().filter(|member| member.kind == b'0');
        let mut lines: Vec<String> = files
            .map(|file| line(&format!("data/0000/{}", String::from_utf8_lossy(&file.name)), &file.content))
            .collect();
        lines.extend([line(&header_name, &header), line("version", &self.version)]);
        (self.manifest)(&mut lines);
        let mut members = vec![
            member("version", &self.version),
            member("manifest", lines.concat()),
            member(header_name, header),
            member(format!("data/0000.tar{}", self.pack_data.0), (self.pack_data.1)(&archive(&self.data))),
        ];
        (self.outer)(&mut members);
        let mut bytes = archive(&members);
        bytes.extend_from_slice(&self.behind);
        bytes
    }
}

/// A device that has seen nothing yet, and what must stay as it is.
struct Target {
    device: VirtualDevice,
    files: Vec<String>,
}

impl Target {
    /// Takes unsigned artifacts, so that what is behind the signature is reached.
    fn unsigned() -> Target {
        let target = Target::signed();
        target.device.accept_unsigned();
        target
    }

    fn signed() -> Target {
        let device = VirtualDevice::new();
        device.says("commit").says(2, &["No update in progress."]);
        let files = device.datastore();
        assert_eq!(files, ["device_type", "rust-ota-state", "rust-ota.lock"]);
        Target { device, files }
    }

    #[track_caller]
    fn refuses_bytes(&self, name: &str, words: &[&str], bytes: &[u8]) {
        let variables = self.device.boot_variables();
        let artifact = self.device.store(bytes);
        let ran = self.device.install(&artifact);
        fs::remove_file(artifact).unwrap();
        let failed = |what: &str| -> ! { panic!("{name}: {what}: {ran:#?}") };
        let reason = ran.stderr.lines().find_map(|line| line.strip_prefix("Could not fulfill request: "));
        let reason = reason.unwrap_or_else(|| failed("no reason is given"));
        if let Some(word) = words.iter().find(|word| !reason.contains(**word)) {
            failed(&format!("{word:?} is not in the reason"));
        }
        let Ran { code, stdout, .. } = &ran;
        if *code != 1 || !stdout.ends_with("Streaming failed.\nSystem not modified.\n") {
            failed("not refused as it should be");
        }
        if self.device.boot_variables() != variables {
            failed("the boot variables changed");
        }
        if self.device.datastore() != self.files {
            failed(&format!("the datastore changed: {:?}", self.device.datastore()));
        }
        if fs::read(self.device.slot(2)).unwrap() != image(2, SLOT_BYTES) {
            failed("the running slot changed");
        }
    }

    #[track_caller]
    fn refuses(&self, name: &str, words: &[&str], change: impl FnOnce(&mut Crafted)) {
        let mut crafted = Crafted::new();
        change(&mut crafted);
        self.refuses_bytes(name, words, &crafted.build());
    }

    /// After everything it was offered, the device still takes a good one.
    #[track_caller]
    fn still_installs(&self, bytes: &[u8]) {
        let ran = self.device.install(&self.device.store(bytes));
        assert_eq!(ran.code, 0, "{ran:#?}");
        assert_eq!(self.device.simulate_bootloader(), 3);
        self.device.says("commit").says(0, &["Committed."]);
        self.device.says("show-artifact").says(0, &["bad"]);
    }
}

fn signed(bytes: &[u8], signer: &Signer) -> Vec<u8> {
    let mut out = Vec::new();
    write::sign(bytes, signer, &Limits::default(), &mut out).unwrap();
    out
}

/// Name, offset of the header and offset behind the padding of every member.
fn members_of(bytes: &[u8]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while bytes[at] != 0 {
        let text = |from: usize, length: usize| {
            let field = bytes[at + from..at + from + length].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(field.to_vec()).unwrap()
        };
        let length = usize::from_str_radix(&text(124, 12), 8).unwrap();
        let end = at + 512 + length.next_multiple_of(512);
        found.push((text(0, 100), at, end));
        at = end;
    }
    found
}

#[test]
fn an_artifact_cut_off_anywhere_is_refused() {
    let target = Target::signed();
    let good = signed(&Crafted::new().build(), target.device.signer());
    target.refuses_bytes("nothing at all", &["ends too early"], &[]);
    for (name, start, end) in members_of(&good) {
        let section = |place: &str| format!("{place} {name}");
        target.refuses_bytes(&section("in the tar header of"), &["ends"], &good[..start + 100]);
        target.refuses_bytes(&section("before the content of"), &["ends"], &good[..start + 512]);
        target.refuses_bytes(&section("in the content of"), &["ends"], &good[..start + 513]);
        target.refuses_bytes(&section("in the padding of"), &["ends"], &good[..end - 1]);
        target.refuses_bytes(&section("behind"), &["ends"], &good[..end]);
    }
    target.refuses_bytes("in the end of the archive", &["ends"], &good[..good.len() - 1]);
    target.still_installs(&good);
}

#[test]
fn the_outer_archive_has_its_members_in_their_order_and_no_others() {
    let target = Target::unsigned();
    let names = ["version", "manifest", "header.tar", "data/0000.tar"];
    for (index, name) in names.iter().enumerate() {
        let check = |what: &str, words: &[&str], change: Change| {
            target.refuses(&format!("{name} {what}"), words, |c| c.outer = change);
        };
        check("missing", &[name], Box::new(move |m| drop(m.remove(index))));
        check("twice", &[name], Box::new(move |m| m.insert(index, m[index].clone())));
        check("renamed", &["unexpected member other"], Box::new(move |m| m[index].name = b"other".to_vec()));
        check("in a folder", &["unexpected member ./"], {
            let name = format!("./{name}");
            Box::new(move |m| m[index].name = name.clone().into_bytes())
        });
        if index > 0 {
            check("too early", &["unexpected member"], Box::new(move |m| m.swap(index - 1, index)));
        }
        for kind in *b"123456 7gKV" {
            let kind_name = format!("of the type {:?}", char::from(kind));
            check(&kind_name, &["is not a regular file"], Box::new(move |m| m[index].kind = kind));
        }
        check("with holes", &["a sparse file", "--sparse"], Box::new(move |m| m[index].kind = b'S'));
    }
    target.refuses("version oversized", &["version", "limit"], |c| c.version.resize(2000, b' '));
    target.refuses("manifest oversized", &["manifest", "limit"], |c| {
        c.outer = Box::new(|m| m[1].content.resize((1 << 20) + 1, b'a'));
    });
    target.refuses("header stated oversized", &["header.tar", "limit"], |c| {
        c.outer = Box::new(|m| m[2].stated_bytes = Some((8 << 20) + 1));
    });
    target.refuses("manifest stated as 8 GiB", &["manifest", "limit"], |c| {
        c.outer = Box::new(|m| m[1].stated_bytes = Some((8 << 30) - 1));
    });
    target.refuses("something behind the data", &["unexpected member extra"], |c| {
        c.outer = Box::new(|m| m.push(member("extra", "x")));
    });
    target.refuses("a second payload", &["unexpected member data/0001.tar"], |c| {
        c.outer = Box::new(|m| m.push(member("data/0001.tar", archive(&[]))));
    });
    target.refuses("garbage behind the archive", &["behind the end"], |c| c.behind = b"garbage".repeat(100));
    target.refuses("a second archive behind it", &["behind the end"], |c| c.behind = Crafted::new().build());
    target.refuses("zeros without end behind it", &["limit"], |c| c.behind = vec![0; 2 << 20]);
    target.refuses("an augmented manifest", &["augmented"], |c| {
        c.outer = Box::new(|m| m.insert(2, member("manifest-augment", "x")));
    });
    target.refuses("an augmented header", &["augmented"], |c| {
        c.outer = Box::new(|m| m.insert(3, member("header-augment.tar", archive(&[]))));
    });
    target.refuses("version 2", &["version: artifact format 2"], |c| {
        c.version = VERSION.replace('3', "2").into()
    });
    target.refuses("version 4", &["version: artifact format 4"], |c| {
        c.version = VERSION.replace('3', "4").into()
    });
    target.refuses("another format", &["not an artifact"], |c| {
        c.version = VERSION.replace("mender", "x").into()
    });
    target.refuses("a version that is not JSON", &["version"], |c| c.version = b"3".to_vec());
    target.refuses("a nested version", &["version"], |c| c.version = "[".repeat(1000).into());
    target.refuses_bytes("not a tar archive", &["it is no tar archive"], &image(1, 4096));
    target.refuses_bytes(
        "a compressed artifact",
        &["not a Mender artifact", "compressed with gzip"],
        &gzip(&Crafted::new().build()),
    );
    target.refuses_bytes("an artifact of zeros", &["ends before version"], &[0; 10_240]);
    target.still_installs(&Crafted::new().build());
}

#[test]
fn the_manifest_lists_everything_once_and_rightly() {
    let target = Target::unsigned();
    let check = |name: &str, words: &[&str], manifest: fn(&mut Vec<String>)| {
        target.refuses(name, words, |c| c.manifest = manifest);
    };
    check("no line for the payload", &["rootfs.img", "not listed"], |lines| drop(lines.remove(0)));
    check("no line for the header", &["header.tar", "not listed"], |lines| drop(lines.remove(1)));
    check("no line for the version", &["version", "not listed"], |lines| drop(lines.remove(2)));
    check("no line at all", &["manifest"], Vec::clear);
    check("a file that is not there", &["other", "not in the artifact"], |lines| {
        lines.push(lines[0].replace("rootfs.img", "other"));
    });
    check("a line twice", &["rootfs.img", "listed twice"], |lines| lines.push(lines[0].clone()));
    check("two checksums for one file", &["rootfs.img", "listed twice"], |lines| {
        lines.push(format!("{}  data/0000/rootfs.img\n", "0".repeat(64)));
    });
    for (index, name) in ["data/0000/rootfs.img", "header.tar", "version"].iter().enumerate() {
        target.refuses(&format!("wrong checksum of {name}"), &[name, "checksum mismatch"], |c| {
            c.manifest = [wrong::<0>, wrong::<1>, wrong::<2>][index];
        });
    }
    check("one space", &["manifest: line 1"], |lines| lines[0] = lines[0].replace("  ", " "));
    check("a binary mark", &["manifest: line 1"], |lines| lines[0] = lines[0].replace("  ", " *"));
    check("an empty line", &["manifest: line 1"], |lines| lines.insert(0, "\n".into()));
    check("a short checksum", &["manifest: line 1"], |lines| lines[0].replace_range(..1, ""));
    check("not hexadecimal", &["manifest: line 1"], |lines| lines[0].replace_range(..1, "g"));
    check("a way out of the folder", &["../rootfs.img", "not a plain file name"], |lines| {
        lines.push(lines[0].replace("rootfs.img", "../rootfs.img"));
    });
    check("an absolute name", &["manifest"], |lines| {
        lines.push(lines[0].replace("data/0000/rootfs.img", "/etc/passwd"));
    });
    check("more lines than there may be", &["manifest", "limit"], |lines| {
        lines.extend((0..10_000).map(|n| format!("{}  data/0000/{n}\n", "0".repeat(64))));
    });
}

/// Changes the checksum on line `N`. The field that takes it is for any change of the lines.
#[allow(clippy::ptr_arg)]
fn wrong<const N: usize>(lines: &mut Vec<String>) {
    let digit = if lines[N].starts_with('0') { "1" } else { "0" };
    lines[N].replace_range(..1, digit);
}

#[test]
fn only_the_right_signature_opens_an_artifact() {
    let target = Target::signed();
    let good = signed(&Crafted::new().build(), target.device.signer());
    let (_, start, end) = members_of(&good).into_iter().find(|(name, ..)| name == "manifest.sig").unwrap();
    let with_signature = |content: &[u8]| {
        let mut replacement = Vec::new();
        member("manifest.sig", content).append_to(&mut replacement);
        [&good[..start], &replacement, &good[end..]].concat()
    };
    let signature = String::from_utf8(good[start + 512..start + 512 + 88].to_vec()).unwrap();
    target.refuses_bytes("no signature", &["expecting signed artifact"], &Crafted::new().build());
    target.refuses_bytes("an empty signature", &["manifest.sig"], &with_signature(b""));
    target.refuses_bytes("garbage", &["manifest.sig", "Base64"], &with_signature(b"\x00\xff garbage"));
    target.refuses_bytes("zeros", &["manifest.sig", "wrong"], &with_signature(&[b'A'; 88]));
    target.refuses_bytes(
        "half of it",
        &["manifest.sig", "wrong"],
        &with_signature(&signature.as_bytes()[..44]),
    );
    target.refuses_bytes("it twice", &["manifest.sig"], &with_signature(signature.repeat(2).as_bytes()));
    target.refuses_bytes("oversized", &["manifest.sig", "limit"], &with_signature(&[b'A'; 16 * 1024 + 4]));
    let other = Signer::from_pem(Signer::generate_ed25519(&[1; 32]).private.as_bytes()).unwrap();
    target.refuses_bytes("another key", &["wrong key", "key.pub"], &signed(&Crafted::new().build(), &other));
    let ecdsa = Signer::from_pem(Signer::generate_ecdsa_p256().unwrap().private.as_bytes()).unwrap();
    target.refuses_bytes("a key of another kind", &["wrong key"], &signed(&Crafted::new().build(), &ecdsa));

    let mut another = Crafted::new();
    another.data[0].content = image(1, 4096);
    let another = signed(&another.build(), target.device.signer());
    let content = |bytes: &[u8], wanted: &str| {
        let (_, start, end) = members_of(bytes).into_iter().find(|(name, ..)| name == wanted).unwrap();
        bytes[start..end].to_vec()
    };
    // Every part of one good artifact in the place of that part of another.
    for (wanted, words) in [
        ("manifest", &["wrong signature"][..]),
        ("manifest.sig", &["wrong signature"]),
        ("data/0000.tar", &["rootfs.img", "checksum mismatch"]),
    ] {
        let parts = members_of(&good).into_iter().map(|(name, start, end)| {
            if name == wanted { content(&another, wanted) } else { good[start..end].to_vec() }
        });
        let mixed = [parts.collect::<Vec<_>>().concat(), vec![0; 1024]].concat();
        target.refuses_bytes(&format!("{wanted} of another artifact"), words, &mixed);
    }
    let mut forged = Crafted::new();
    forged.set("header-info", HEADER_INFO.replace("bad", "forged"));
    let forged = forged.build();
    let parts = members_of(&good).into_iter().map(|(name, start, end)| {
        if name == "header.tar" { content(&forged, "header.tar") } else { good[start..end].to_vec() }
    });
    let mixed = [parts.collect::<Vec<_>>().concat(), vec![0; 1024]].concat();
    target.refuses_bytes("header of another artifact", &["header.tar", "checksum mismatch"], &mixed);
    target.still_installs(&good);
}

#[test]
fn the_header_holds_what_the_format_has_and_nothing_else() {
    let target = Target::unsigned();
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let info = |from: &str, to: &str| {
        assert!(HEADER_INFO.contains(from));
        HEADER_INFO.replace(from, to)
    };
    for (index, name) in ["header-info", "type-info"].into_iter().enumerate() {
        let check = |what: &str, words: &[&str], change: &dyn Fn(&mut Vec<Member>)| {
            target.refuses(&format!("{name} {what}"), words, |c| change(&mut c.header));
        };
        check("missing", &[name], &|m| drop(m.remove(index)));
        check("twice", &[name], &|m| m.insert(index, m[index].clone()));
        check("renamed", &["unexpected member"], &|m| m[index].name = b"other".to_vec());
        check("oversized", &[name, "limit"], &|m| m[index].content.resize(300 * 1024, b' '));
        check("nested", &[name], &|m| m[index].content = nested(100_000).into());
        check("not JSON", &[name], &|m| m[index].content = b"{".to_vec());
        check("a list", &[name], &|m| m[index].content = b"[]".to_vec());
        check("empty", &[name], &|m| m[index].content.clear());
        check("not UTF-8", &[name], &|m| m[index].content = b"{\"\xff\":1}".to_vec());
        for kind in *b"123456" {
            let what = format!("of the type {:?}", char::from(kind));
            check(&what, &["is not a regular file"], &|m| m[index].kind = kind);
        }
    }
    target.refuses("type-info before header-info", &["unexpected member"], |c| c.header.swap(0, 1));
    for (name, from, to) in [
        ("a type that leaves the folder", "rootfs-image", "../../bin/sh"),
        ("an absolute type", "rootfs-image", "/bin/sh"),
        ("a type with a folder", "rootfs-image", "a/b"),
        ("the type .", "rootfs-image", "."),
        ("the type ..", "rootfs-image", ".."),
        ("an empty type", "rootfs-image", ""),
        ("a type with a NUL", "rootfs-image", "a\\u0000b"),
    ] {
        target.refuses(name, &["header-info", "payload type"], |c| {
            c.set("header-info", info(from, to));
            c.set("headers/0000/type-info", TYPE_INFO.replace("\"rootfs-image\"", &format!("\"{to}\"")));
        });
    }
    let two = r#"[{"type":"rootfs-image"},{"type":"rootfs-image"}]"#;
    target.refuses("two payloads", &["2 payloads"], |c| {
        c.set("header-info", info(r#"[{"type":"rootfs-image"}]"#, two));
    });
    target.refuses("no payloads", &["0 payloads"], |c| {
        c.set("header-info", info(r#"[{"type":"rootfs-image"}]"#, "[]"));
    });
    target.refuses("types that disagree", &["type-info", "does not match"], |c| {
        c.set("headers/0000/type-info", TYPE_INFO.replace("\"rootfs-image\"", "\"other\""));
    });
    target.refuses("no artifact name", &["header-info", "artifact_name"], |c| {
        c.set("header-info", info(r#""artifact_name":"bad""#, ""));
    });
    target.refuses("no device type", &["header-info", "device_type"], |c| {
        c.set("header-info", info(r#""device_type":["testbox"]"#, ""));
    });
    target.refuses("a key twice", &["header-info"], |c| {
        c.set(
            "header-info",
            info(r#""artifact_name":"bad""#, r#""artifact_name":"bad","artifact_name":"x""#),
        );
    });
    for name in ["a list", "nested"] {
        let content = if name == "nested" { nested(100_000) } else { "[]".into() };
        target.refuses(&format!("meta-data {name}"), &["meta-data"], |c| {
            c.header.push(member("headers/0000/meta-data", &content));
        });
    }
    target.refuses("meta-data oversized", &["meta-data", "limit"], |c| {
        c.header.push(member("headers/0000/meta-data", vec![b' '; (1 << 20) + 1]));
    });
    for name in [
        "scripts/../../../../tmp/x",
        "scripts/../ArtifactInstall_Enter_00",
        "scripts/ArtifactInstall_Enter_00/../../x",
        "scripts//ArtifactInstall_Enter_00",
        "scripts/",
        "scripts/..",
        "scripts/version",
        "scripts/Download_Enter_00",
        "scripts/ArtifactInstall_Enter_0",
        "scripts/ArtifactInstall_Enter_00_a b",
        "scripts/ArtifactInstall_Enter_00_a\nb",
    ] {
        target.refuses(name, &["not the name of a state script"], |c| c.header.insert(1, member(name, "x")));
    }
    target.refuses("an absolute script", &["unexpected member /scripts"], |c| {
        c.header.insert(1, member(format!("/{INSTALL_SCRIPT}"), "x"));
    });
    target.refuses("a script twice", &["in the archive twice"], |c| {
        (0..2).for_each(|_| c.header.insert(1, member(INSTALL_SCRIPT, "x")));
    });
    target.refuses("a script that is a link", &["is not a regular file"], |c| {
        c.header.insert(1, Member { kind: b'2', link: "/bin/sh", ..member(INSTALL_SCRIPT, "") });
    });
    target.refuses("a script with a link name", &["link name"], |c| {
        c.header.insert(1, Member { link: "/bin/sh", ..member(INSTALL_SCRIPT, "x") });
    });
    target.refuses("a script oversized", &[INSTALL_SCRIPT, "limit"], |c| {
        c.header.insert(1, member(INSTALL_SCRIPT, vec![b'#'; (1 << 20) + 1]));
    });
    target.refuses("too many scripts", &["limit"], |c| {
        c.header.splice(1..1, (0..65).map(|n| member(format!("{INSTALL_SCRIPT}_{n}"), "x")));
    });
    target.refuses("scripts too large together", &["limit"], |c| {
        c.pack_header = (".gz", gzip);
        c.header.splice(1..1, (0..12).map(|n| member(format!("{INSTALL_SCRIPT}_{n}"), vec![b'#'; 1 << 20])));
    });
}

#[test]
fn what_stands_behind_the_end_of_a_name_is_not_part_of_it() {
    let target = Target::unsigned();
    let mut crafted = Crafted::new();
    // node-tar keeps times in the end of the prefix.
    crafted.data[0].header = |header| {
        header[50] = b'x';
        header[476..499].copy_from_slice(b"15034502361 15034502361");
    };
    target.still_installs(&crafted.build());
}

#[test]
fn the_payload_is_one_plain_file() {
    let target = Target::unsigned();
    for name in ["../rootfs.img", "/etc/passwd", "a/b", "./rootfs.img", ".", "..", "a/../../b", "rootfs.img/"]
    {
        target.refuses(&format!("payload {name}"), &[name, "not a plain file name"], |c| {
            c.data[0].name = name.into()
        });
        // The manifest may be silent about it, too.
        target.refuses(&format!("unlisted payload {name}"), &[name, "not a plain file name"], |c| {
            c.data[0].name = name.into();
            c.manifest = |lines| drop(lines.remove(0));
        });
    }
    target.refuses("a payload without a name", &["name"], |c| c.data[0].name.clear());
    target.refuses("a payload whose name is not UTF-8", &["name"], |c| c.data[0].name = b"\xff".to_vec());
    for kind in *b"123456" {
        let name = format!("a payload of the type {:?}", char::from(kind));
        target.refuses(&name, &["is not a regular file"], |c| {
            c.data.insert(0, Member { kind, link: "/etc/passwd", ..member("rootfs.img", "") });
        });
    }
    target.refuses("a payload with a link name", &["link name"], |c| c.data[0].link = "/etc/passwd");
    target.refuses("a payload twice", &["rootfs.img"], |c| {
        c.data.push(c.data[0].clone());
        c.manifest = |lines| drop(lines.remove(0));
    });
    target.refuses("a payload that is not listed", &["other", "not listed"], |c| {
        c.data.insert(0, member("other", "x"));
        c.manifest = |lines| drop(lines.remove(0));
    });
    target.refuses("two payload files", &["exactly one file"], |c| c.data.push(member("other", "x")));
    target.refuses("no payload file", &["exactly one file"], |c| c.data.clear());
    target.refuses("an empty payload file", &["is empty"], |c| c.data[0].content.clear());
    target.refuses("a payload larger than it says", &["rootfs.img", "checksum mismatch"], |c| {
        c.data[0].stated_bytes = Some(512)
    });
    target.refuses("a payload smaller than it says", &["rootfs.img", "ends too early"], |c| {
        c.data[0].stated_bytes = Some(300 * 1024)
    });
    target.refuses("a payload of 8 GiB as it says", &["larger than slot B"], |c| {
        c.data[0].stated_bytes = Some((8 << 30) - 1);
    });
    target.refuses("a payload of 8 EiB as it says", &["number"], |c| {
        c.data[0].header = |header| {
            header[124..136].fill(0xFF);
            header[124..128].copy_from_slice(&[0x80, 0, 0, 0]);
        };
    });
    target.refuses("a negative payload", &["number"], |c| {
        c.data[0].header = |header| header[124..136].fill(0xFF);
    });
    target.refuses("a size that is not a number", &["number"], |c| {
        c.data[0].header = |header| header[124..136].copy_from_slice(b"9999999xyzw\0");
    });
    target.refuses("a tar header of another kind", &["neither a ustar nor a GNU"], |c| {
        c.data[0].header = |header| header[257..265].fill(b'x');
    });
}

#[test]
fn extension_headers_cannot_change_what_a_member_is() {
    let target = Target::unsigned();
    let check = |name: &str, words: &[&str], extension: Member| {
        target.refuses(&format!("{name}, outside"), words, |c| {
            let extension = extension.clone();
            c.outer = Box::new(move |m| m.insert(1, extension.clone()));
        });
        target.refuses(&format!("{name}, in the header"), words, |c| c.header.insert(0, extension.clone()));
        target.refuses(&format!("{name}, in the payload"), words, |c| c.data.insert(0, extension.clone()));
    };
    check("a larger size", &["size"], pax("15 size=999999\n"));
    check("a smaller size", &["size"], pax("10 size=1\n"));
    check("no size", &["size"], pax("10 size=0\n"));
    check("a negative size", &["PAX record"], pax("11 size=-1\n"));
    check("a size beyond all numbers", &["PAX record"], pax("30 size=99999999999999999999\n\n"));
    check("a size that is no number", &["PAX record"], pax("12 size=0x1\n"));
    check("a sparse file", &["a sparse file", "--no-read-sparse"], pax("22 GNU.sparse.major=1\n"));
    check("a link", &["PAX record"], pax("22 linkpath=/etc/init\n"));
    check("a record longer than the header", &["PAX record"], pax("99 path=x\n"));
    check("a record without a length", &["PAX record"], pax("path=x\n"));
    check("a record of no length", &["PAX record"], pax("0 path=x\n"));
    check("a record without an end", &["PAX record"], pax("10 path=xyz"));
    check("a record without a value", &["PAX record"], pax("7 path\n"));
    check("a way out of the folder", &["../../x"], pax("16 path=../../x\n"));
    check("an absolute path", &["/etc/passwd"], pax("20 path=/etc/passwd\n"));
    check("an oversized header", &["limit"], pax(&"a".repeat(20_000)));
    check("a header stated as 8 GiB", &["limit"], Member { stated_bytes: Some((8 << 30) - 1), ..pax("") });
    check("a global header", &["is not a regular file"], Member { kind: b'g', ..pax("10 size=1\n") });
    check(
        "a long link name",
        &["is not a regular file"],
        Member { kind: b'K', ..member("././@LongLink", "/etc/passwd\0") },
    );
    check("an endless long name", &["limit"], Member { kind: b'L', ..member("././@LongLink", [b'a'; 5000]) });
    target.refuses("two headers for one member", &["two extension headers"], |c| {
        (0..2).for_each(|_| c.data.insert(0, pax("19 path=rootfs.img\n")));
    });
    target.refuses("a header with nothing behind it", &["no member behind it"], |c| {
        c.data.push(pax("19 path=rootfs.img\n"));
    });
}

#[test]
fn bombs_do_not_go_off() {
    let target = Target::unsigned();
    let packings: [(&str, Pack); 3] = [(".gz", gzip), (".xz", xz), (".zst", zstd)];
    for packing in packings {
        let suffix = packing.0;
        let zeros = vec![0; 40 << 20];
        target.refuses(&format!("an image larger than the slot{suffix}"), &["larger than slot B"], |c| {
            c.pack_data = packing;
            c.data[0].content = zeros.clone();
        });
        target.refuses(&format!("header-info that is huge{suffix}"), &["header-info", "limit"], |c| {
            c.pack_header = packing;
            c.header[0].content = zeros.clone();
        });
        target.refuses(&format!("a script that is huge{suffix}"), &[INSTALL_SCRIPT, "limit"], |c| {
            c.pack_header = packing;
            c.header.insert(1, member(INSTALL_SCRIPT, &zeros));
        });
    }
    // The tar archive ends, what is packed does not.
    fn gzip_without_end(bytes: &[u8]) -> Vec<u8> {
        gzip(&[bytes, &vec![0; 40 << 20]].concat())
    }
    target.refuses("a header that goes on after its end", &["limit"], |c| {
        c.pack_header = (".gz", gzip_without_end);
    });
    target.refuses("a payload that goes on after its end", &["limit"], |c| {
        c.pack_data = (".gz", gzip_without_end)
    });
    target.refuses(
        "a dictionary of 4 GiB for the header",
        &["header.tar", "xz", "4096 MiB", "64 MiB are allowed"],
        |c| {
            c.pack_header = (".xz", xz_with_huge_dictionary);
        },
    );
    target.refuses("a dictionary of 4 GiB for the payload", &["xz", "4096 MiB"], |c| {
        c.pack_data = (".xz", xz_with_huge_dictionary);
    });
    target.refuses(
        "a window of 2 GiB for the header",
        &["header.tar", "2048 MiB", "32 MiB are allowed"],
        |c| {
            c.pack_header = (".zst", zstd_with_huge_window);
        },
    );
    target.refuses("a window of 2 GiB for the payload", &["zst", "2048 MiB"], |c| {
        c.pack_data = (".zst", zstd_with_huge_window);
    });
}

#[test]
fn what_is_packed_is_what_the_name_says_and_whole() {
    let target = Target::unsigned();
    fn garbage_behind(bytes: &[u8]) -> Vec<u8> {
        [gzip(bytes), b"garbage".to_vec()].concat()
    }
    fn cut(bytes: &[u8]) -> Vec<u8> {
        let packed = gzip(bytes);
        packed[..packed.len() - 4].to_vec()
    }
    fn wrong_checksum(bytes: &[u8]) -> Vec<u8> {
        let mut packed = gzip(bytes);
        let end = packed.len();
        packed[end - 8] ^= 1;
        packed
    }
    fn nothing(_: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    for (name, suffix, pack) in [
        ("plain as gzip", ".gz", plain as Pack),
        ("plain as xz", ".xz", plain),
        ("plain as zstd", ".zst", plain),
        ("xz as gzip", ".gz", xz),
        ("gzip as xz", ".xz", gzip),
        ("gzip as zstd", ".zst", gzip),
        ("garbage behind gzip", ".gz", garbage_behind),
        ("gzip cut off", ".gz", cut),
        ("gzip with a wrong checksum", ".gz", wrong_checksum),
        ("nothing as gzip", ".gz", nothing),
        ("nothing as xz", ".xz", nothing),
        ("nothing as zstd", ".zst", nothing),
    ] {
        target.refuses(&format!("header: {name}"), &["header.tar"], |c| c.pack_header = (suffix, pack));
        target.refuses(&format!("payload: {name}"), &["data/0000"], |c| c.pack_data = (suffix, pack));
    }
    target.refuses("gzip as plain", &["header.tar", "ends too early"], |c| c.pack_header = ("", gzip));
    target.refuses("an unknown suffix", &["unexpected member header.tar.bz2"], |c| {
        c.pack_header = (".bz2", plain)
    });
    for (suffix, pack) in [(".gz", gzip as Pack), (".xz", xz), (".zst", zstd)] {
        // And one that is right, within the same memory.
        let crafted = Crafted { pack_header: (suffix, pack), pack_data: (suffix, pack), ..Crafted::new() };
        Target::unsigned().still_installs(&crafted.build());
    }
}
