//! Whole artifacts: what is accepted, what is refused and why, and what each byte is good for.

use super::*;
use crate::compression::Encoder;
use crate::tar::TarWriter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

fn is_of_the_source(error: &ArtifactError) -> bool {
    matches!(error, ArtifactError::Source { .. })
}

/// The members of an artifact before they are put together, so that a test can change any of them.
struct Crafted {
    version: Vec<u8>,
    header: Vec<(String, Vec<u8>)>,
    data: Option<Vec<(String, Vec<u8>)>>,
    header_as: Compression,
    data_as: Compression,
    /// Changes the lines of the manifest, which are right before.
    manifest: fn(&mut Vec<String>),
    /// Changes the members of the outer archive, which are right before.
    outer: fn(&mut Vec<(String, Vec<u8>)>),
    signature: fn(&[u8]) -> Option<Vec<u8>>,
    behind: Vec<u8>,
}

const HEADER_INFO: &str = r#"{"payloads":[{"type":"mod"}],"artifact_provides":{"artifact_name":"rel-1"},"artifact_depends":{"device_type":["dev"]}}"#;
const TYPE_INFO: &str = r#"{"type":"mod","artifact_provides":{"rootfs-image.mod.version":"rel-1"}}"#;

fn member(name: &str, content: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), content.as_ref().to_vec())
}

fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    members.iter().for_each(|(name, content)| tar.append(name, content, 0o600, 0).unwrap());
    tar.finish().unwrap()
}

fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), CompressionLevel::default_of(compression)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Crafted {
    fn new() -> Crafted {
        Crafted {
            version: br#"{"format":"mender","version":3}"#.to_vec(),
            header: vec![
                member("header-info", HEADER_INFO),
                member("scripts/ArtifactInstall_Enter_00", "#!/bin/sh\n"),
                member("headers/0000/type-info", TYPE_INFO),
                member("headers/0000/meta-data", r#"{"a":[1,{"b":null}]}"#),
            ],
            data: Some(vec![member("one", "content of one"), member("two.gz", "")]),
            header_as: Compression::None,
            data_as: Compression::None,
            manifest: |_| {},
            outer: |_| {},
            signature: |_| None,
            behind: Vec::new(),
        }
    }

    /// `{"payloads":[{"type":null}]}` and what belongs to it.
    fn empty_payload() -> Crafted {
        let mut crafted = Crafted::new();
        crafted.set("header-info", HEADER_INFO.replace("\"mod\"", "null"));
        crafted.set("headers/0000/type-info", r#"{"type":null,"artifact_provides":{"a":"b"}}"#);
        crafted.header.retain(|(name, _)| name != "headers/0000/meta-data");
        crafted.data = Some(Vec::new());
        crafted
    }

    fn set(&mut self, name: &str, content: impl AsRef<[u8]>) {
        let member = self.header.iter_mut().find(|(have, _)| have == name).unwrap();
        member.1 = content.as_ref().to_vec();
    }

    fn build(&self) -> Vec<u8> {
        let header_name = format!("header.tar{}", self.header_as.suffix());
        let header = compress(self.header_as, &archive(&self.header));
        let line = |name: &str, bytes: &[u8]| format!("{}  {name}\n", Sha256::of(bytes));
        let mut lines: Vec<String> = self
            .data
            .iter()
            .flatten()
            .map(|(name, content)| line(&format!("data/0000/{name}"), content))
            .collect();
        lines.push(line(&header_name, &header));
        lines.push(line("version", &self.version));
        (self.manifest)(&mut lines);
        let manifest = lines.concat().into_bytes();
        let mut members = vec![("version".to_owned(), self.version.clone())];
        let signature = (self.signature)(&manifest);
        members.push(("manifest".to_owned(), manifest));
        members.extend(signature.map(|signature| ("manifest.sig".to_owned(), signature)));
        members.push((header_name, header));
        if let Some(data) = &self.data {
            let name = format!("data/0000.tar{}", self.data_as.suffix());
            members.push((name, compress(self.data_as, &archive(data))));
        }
        (self.outer)(&mut members);
        let mut bytes = archive(&members);
        bytes.extend_from_slice(&self.behind);
        bytes
    }
}

/// Everything of an artifact that can make a difference to a device.
#[derive(Debug, PartialEq)]
struct Seen {
    header: String,
    files: Vec<(String, Vec<u8>)>,
}

/// By place nothing may come out otherwise.
fn read(bytes: Vec<u8>, trust: &Trust, limits: &Limits) -> Result<Seen, ArtifactError> {
    let places = Box::new(InMemory::new(bytes.clone()));
    let by_place = open_at_places(places, trust, limits).and_then(seen);
    let streamed = read_from(Cursor::new(bytes), trust, limits);
    let shown = |seen: &Result<Seen, ArtifactError>| format!("{seen:?}");
    assert_eq!(shown(&by_place), shown(&streamed));
    streamed
}

/// From where on, and to where.
type Asked = (u64, Option<u64>);

/// Bytes from any place on, with a record of what was asked for.
struct InMemory {
    bytes: Arc<Vec<u8>>,
    can_jump: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl InMemory {
    fn new(bytes: Vec<u8>) -> InMemory {
        InMemory { bytes: Arc::new(bytes), can_jump: true, asked: Arc::default() }
    }
}

impl Places for InMemory {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        self.asked.lock().unwrap().push((offset, end));
        let length = self.bytes.len();
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(length);
        let (start, end) = (within(offset), end.map_or(length, within));
        Ok(Box::new(Cursor::new(self.bytes[start..end.max(start)].to_vec())))
    }

    fn can_jump(&self) -> bool {
        self.can_jump
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
}

/// The archive of one file, compressed so that decoding can begin again after every `every` bytes.
fn in_pieces(content: &[u8], compression: Compression, every: usize, flushed: bool) -> Vec<u8> {
    let data = archive(&[member("one", content)]);
    if !flushed {
        return data.chunks(every).flat_map(|piece| compress(compression, piece)).collect();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    for piece in data.chunks(every) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// An artifact whose data is stored as it is said.
fn with_data(content: &[u8], compression: Compression, stored: Vec<u8>) -> Vec<u8> {
    let mut crafted = Crafted::new();
    crafted.data = Some(vec![member("one", content)]);
    let mut bytes = crafted.build();
    let plain = archive(&[member("one", content)]);
    let at = bytes.windows(512).position(|block| block.starts_with(b"data/0000.tar\0")).unwrap();
    bytes.truncate(at);
    let mut tar = TarWriter::new(bytes);
    tar.append(&format!("data/0000.tar{}", compression.suffix()), &stored, 0o600, 0).unwrap();
    assert_eq!(plain.len() % 512, 0);
    tar.finish().unwrap()
}

/// Something that compresses, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    noise(length).iter().map(|byte| b'a' + byte % 16).collect()
}

fn opened(bytes: &[u8]) -> (Artifact, Arc<Mutex<Vec<Asked>>>) {
    let places = InMemory::new(bytes.to_vec());
    let asked = Arc::clone(&places.asked);
    (open_at_places(Box::new(places), &Trust::DangerUnsigned, &Limits::default()).unwrap(), asked)
}

/// All places of `bytes` where a later process can go on.
fn restart_points(bytes: &[u8], content: &[u8]) -> Vec<RestartPoint> {
    let (mut artifact, _) = opened(bytes);
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    let (mut read, mut points, mut buffer) = (0, Vec::<RestartPoint>::new(), [0; 10_007]);
    loop {
        let count = file.read(&mut buffer).unwrap();
        assert!(buffer[..count] == content[read..read + count]);
        read += count;
        if let Some(point) = file.restart_point(read as u64) {
            assert!(point.offset <= read as u64);
            if points.last() != Some(&point) {
                points.push(point);
            }
        }
        if count == 0 {
            return points;
        }
    }
}

/// Goes on with `bytes` at `point`. What was asked for behind the head.
fn go_on(bytes: &[u8], content: &[u8], point: &RestartPoint) -> (u64, Option<u64>) {
    let (mut artifact, asked) = opened(bytes);
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    let at = usize::try_from(point.offset()).unwrap();
    file.resume(point, &mut &content[..at]).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest == content[at..] && file.is_verified() && file.is_whole());
    assert!(artifact.payload.next_file().unwrap().is_none());
    let asked = asked.lock().unwrap();
    *asked.last().unwrap()
}

#[test]
fn a_later_process_goes_on_at_every_place_where_decoding_can_begin_again() {
    let content = text(1_500_000);
    for (compression, flushed, least) in [
        (Compression::None, false, 11),
        (Compression::Gzip, false, 4),
        (Compression::Gzip, true, 4),
        (Compression::Xz, false, 4),
        (Compression::Zstd, false, 4),
    ] {
        let stored = match compression {
            Compression::None => archive(&[member("one", &content)]),
            Compression::Gzip | Compression::Xz | Compression::Zstd => {
                in_pieces(&content, compression, 150_000, flushed)
            }
        };
        let at = with_data(&content, compression, stored.clone()).len() - stored.len();
        let bytes = with_data(&content, compression, stored);
        let points = restart_points(&bytes, &content);
        assert!(points.len() >= least, "{compression} {flushed}: {} places", points.len());
        for point in points {
            let json = serde_json::to_string(&point).unwrap();
            assert!(json.len() < 256, "{json}");
            let point: RestartPoint = serde_json::from_str(&json).unwrap();
            assert_eq!(point.inside, flushed);
            let (from, end) = go_on(&bytes, &content, &point);
            // The end of the archive is behind the stored data.
            let end_of_archive = 2048;
            assert!(
                from + end_of_archive > at as u64 + point.stored_offset() && end.is_none(),
                "{compression}"
            );
            assert!(point.stored_bytes() > point.stored_offset());
        }
    }
}

#[test]
fn a_payload_of_one_piece_has_no_place_to_go_on_at() {
    let content = text(1_500_000);
    for compression in [Compression::Xz, Compression::Zstd] {
        assert_eq!(restart_points(&of_one_file(&content, compression), &content), [], "{compression}");
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&archive(&[member("one", &content)])).unwrap();
    let bytes = with_data(&content, Compression::Gzip, encoder.finish().unwrap());
    assert_eq!(restart_points(&bytes, &content), []);
    // Our own writer leaves some.
    let bytes = of_one_file(&content, Compression::Gzip);
    let points = restart_points(&bytes, &content);
    assert_eq!(points.iter().map(RestartPoint::offset).collect::<Vec<_>>(), [(1 << 20) - 512]);
    go_on(&bytes, &content, &points[0]);
    // What costs nothing has none either.
    let mut artifact = open(
        Cursor::new(of_one_file(&content, Compression::None)),
        &Trust::DangerUnsigned,
        &Limits::default(),
    )
    .unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    file.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(file.restart_point(u64::MAX), None);
}

#[test]
fn what_does_not_fit_what_was_noted_is_read_from_its_beginning() {
    let content = text(1_500_000);
    let bytes = with_data(&content, Compression::Gzip, in_pieces(&content, Compression::Gzip, 150_000, true));
    let point = restart_points(&bytes, &content).pop().unwrap();
    let at = usize::try_from(point.offset()).unwrap();
    let mut other = content.clone();
    other[at / 2] ^= 1;
    let refused = |bytes: &[u8], point: &RestartPoint, prefix: &[u8]| {
        let (mut artifact, _) = opened(bytes);
        let mut file = artifact.payload.next_file().unwrap().unwrap();
        assert!(file.resume(point, &mut &*prefix).is_err());
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == content && file.is_verified());
    };
    refused(&bytes, &point, &other[..at]);
    refused(&bytes, &point, &content[..at - 1]);
    refused(&of_one_file(&content, Compression::Xz), &point, &content[..at]);
    refused(&of_one_file(&content, Compression::Gzip), &point, &content[..at]);
    for odd in [
        RestartPoint { sha256: "x".into(), ..point.clone() },
        RestartPoint { offset: u64::MAX, ..point.clone() },
        RestartPoint { stored: u64::MAX, ..point.clone() },
    ] {
        refused(&bytes, &odd, &content);
    }
    // What lies at the place can only be seen to be wrong there.
    let odd = RestartPoint { stored: point.stored - 1, ..point };
    let (mut artifact, _) = opened(&bytes);
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    file.resume(&odd, &mut &content[..at]).unwrap();
    assert!(file.read_to_end(&mut Vec::new()).is_err());
}

/// An artifact of one file with `content`.
fn of_one_file(content: &[u8], compression: Compression) -> Vec<u8> {
    let mut crafted = Crafted::new();
    crafted.data = Some(vec![member("one", content)]);
    crafted.data_as = compression;
    crafted.build()
}

/// Bytes in which nothing repeats soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn nothing_but_the_head_is_asked_for_before_the_payload_is_wanted() {
    let content = noise(300_000);
    for compression in Compression::ALL {
        let places = InMemory::new(of_one_file(&content, compression));
        let asked = Arc::clone(&places.asked);
        let mut artifact =
            open_at_places(Box::new(places), &Trust::DangerUnsigned, &Limits::default()).unwrap();
        let mut file = artifact.payload.next_file().unwrap().unwrap();
        assert_eq!((file.compression(), file.name(), file.size()), (compression, "one", 300_000));
        // A block of a decoder may need more than the head, and no thread takes any.
        let least: &[_] = &[(0, Some(HEAD_BYTES))];
        assert!(asked.lock().unwrap().starts_with(least));
        let needs_more = compression == Compression::Zstd;
        assert!(needs_more || *asked.lock().unwrap() == least, "{compression}: {asked:?}");
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == content && file.is_verified());
        let asked = asked.lock().unwrap().clone();
        assert!(asked.last().unwrap().1.is_none(), "{asked:?}");
        // Each piece begins where the one before ends.
        for (before, after) in asked.iter().zip(asked.iter().skip(1)) {
            assert_eq!(before.1, Some(after.0), "{asked:?}");
        }
    }
}

#[test]
fn whoever_jumps_gets_the_bytes_from_there_on_and_no_promise() {
    let content = noise(300_000);
    for offset in [0, 1, 4096, 299_999, 300_000_usize] {
        for after in [0, 100_000] {
            let places = InMemory::new(of_one_file(&content, Compression::None));
            let asked = Arc::clone(&places.asked);
            let mut artifact =
                open_at_places(Box::new(places), &Trust::DangerUnsigned, &Limits::default()).unwrap();
            let mut file = artifact.payload.next_file().unwrap().unwrap();
            file.read_exact(&mut vec![0; after]).unwrap();
            assert!(file.can_jump() && file.is_whole());
            file.jump_to(offset as u64).unwrap();
            assert!(!file.is_whole());
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read == content[offset..], "{offset}");
            // The archive around it has to end as it should all the same.
            assert!(artifact.payload.next_file().unwrap().is_none());
            if after == 0 {
                assert_eq!(asked.lock().unwrap().len(), 2, "the head and what was jumped to");
            }
        }
    }
}

#[test]
fn where_jumping_is_not_possible_it_is_refused_and_nothing_has_changed() {
    let content = noise(200_000);
    for (compression, can_jump) in [(Compression::None, false), (Compression::Gzip, true)] {
        let mut places = InMemory::new(of_one_file(&content, compression));
        places.can_jump = can_jump;
        let mut artifact =
            open_at_places(Box::new(places), &Trust::DangerUnsigned, &Limits::default()).unwrap();
        let mut file = artifact.payload.next_file().unwrap().unwrap();
        assert!(!file.can_jump() && file.jump_to(5000).is_err() && file.is_whole());
        assert_eq!(file.member().is_some(), can_jump);
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == content);
        assert!(file.jump_to(200_001).is_err());
    }
    let bytes = Cursor::new(of_one_file(&content, Compression::None));
    let mut artifact = open(bytes, &Trust::DangerUnsigned, &Limits::default()).unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    assert!(!file.can_jump() && file.member().is_none() && file.jump_to(1).is_err());
}

#[test]
fn the_stored_member_can_be_looked_at_before_the_file_is_read() {
    let content = noise(200_000);
    for compression in Compression::ALL {
        let places = InMemory::new(of_one_file(&content, compression));
        let mut artifact =
            open_at_places(Box::new(places), &Trust::DangerUnsigned, &Limits::default()).unwrap();
        let mut file = artifact.payload.next_file().unwrap().unwrap();
        let member = file.member().unwrap();
        let mut stored = vec![0; usize::try_from(member.len()).unwrap()];
        member.read_at(0, &mut stored).unwrap();
        assert!(stored == compress(compression, &archive(&[self::member("one", &content)])), "{compression}");
        let mut last = Vec::new();
        member.open_at(member.len() - 10, member.len()).unwrap().read_to_end(&mut last).unwrap();
        assert!(last == stored[stored.len() - 10..]);
        assert!(member.open_at(5, member.len() + 1).is_err() && member.open_at(5, 4).is_err());
        // The reader of the file finds its place again.
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == content && file.is_verified(), "{compression}");
    }
}

fn read_from(
    source: impl Read + Send + 'static,
    trust: &Trust,
    limits: &Limits,
) -> Result<Seen, ArtifactError> {
    seen(open(source, trust, limits)?)
}

fn seen(mut artifact: Artifact) -> Result<Seen, ArtifactError> {
    let mut header = artifact.header.clone();
    // How the data was packed is not signed, and changes nothing.
    header.data_compression = None;
    let mut files = Vec::new();
    while let Some(mut file) = artifact.payload.next_file()? {
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(ArtifactError::from_io)?;
        assert_eq!(content.len() as u64, file.size());
        assert!(file.is_verified() && file.running_sha256() == file.expected_sha256());
        files.push((file.name().to_owned(), content));
    }
    assert!(artifact.payload.next_file().unwrap().is_none());
    Ok(Seen { header: format!("{header:?}"), files })
}

fn read_unsigned(bytes: Vec<u8>) -> Result<Seen, ArtifactError> {
    read(bytes, &Trust::DangerUnsigned, &Limits::default())
}

fn accepts(what: &str, change: impl FnOnce(&mut Crafted)) -> Seen {
    let mut crafted = Crafted::new();
    change(&mut crafted);
    match read_unsigned(crafted.build()) {
        Ok(seen) => seen,
        Err(error) => panic!("{what}: refused: {error}"),
    }
}

fn refuses(what: &str, because: &str, change: impl FnOnce(&mut Crafted)) {
    let mut crafted = Crafted::new();
    change(&mut crafted);
    match read_unsigned(crafted.build()) {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => {
            assert!(error.to_string().contains(because), "{what}: {error}, not {because}");
            assert!(!is_of_the_source(&error), "{what}: {error}");
        }
    }
}

#[test]
fn an_ordinary_artifact_is_read_as_it_was_made() {
    for header_as in Compression::ALL {
        for data_as in Compression::ALL {
            let seen = accepts("mixed compressions", |crafted| {
                (crafted.header_as, crafted.data_as) = (header_as, data_as);
            });
            assert_eq!(seen.files, [member("one", "content of one"), member("two.gz", "")]);
        }
    }
    let artifact = open(Cursor::new(Crafted::new().build()), &Trust::DangerUnsigned, &Limits::default());
    let header = artifact.unwrap().header;
    assert_eq!(header.artifact_name, "rel-1");
    assert_eq!(header.depends.device_type, ["dev"]);
    assert_eq!(header.scripts[0].name, "ArtifactInstall_Enter_00");
    let payload = header.payload.unwrap();
    assert_eq!(
        (payload.payload_type.as_str(), payload.meta_data.as_deref()),
        ("mod", Some(r#"{"a":[1,{"b":null}]}"#))
    );
    assert_eq!(header.provides.unwrap()["rootfs-image.mod.version"], "rel-1");
    assert_eq!(header.clears_provides, None);
    assert_eq!(header.signature, SignatureStatus::Unsigned);
}

#[test]
fn what_the_container_may_and_may_not_be() {
    accepts("trailing zeros", |c| c.behind = vec![0; 10 * 1024]);
    refuses("garbage behind the end", "behind the end", |c| c.behind = b"garbage".to_vec());
    refuses("garbage behind zeros", "behind the end", |c| c.behind = [vec![0; 5000], vec![1]].concat());
    refuses("an archive behind the archive", "behind the end", |c| c.behind = Crafted::new().build());
    refuses("an extra member", "unexpected member", |c| c.outer = |m| m.insert(2, member("extra", "")));
    refuses("an extra member at the end", "unexpected member", |c| c.outer = |m| m.push(member("extra", "")));
    refuses("data before the header", "unexpected member", |c| c.outer = |m| m.swap(2, 3));
    refuses("manifest before version", "unexpected member", |c| c.outer = |m| m.swap(0, 1));
    refuses("no version", "unexpected member", |c| c.outer = |m| drop(m.remove(0)));
    refuses("no manifest", "unexpected member", |c| c.outer = |m| drop(m.remove(1)));
    refuses("no header", "unexpected member", |c| c.outer = |m| drop(m.remove(2)));
    refuses("no data member", "ends before data/0000.tar", |c| c.outer = |m| drop(m.pop()));
    refuses("two data members", "unexpected member", |c| c.outer = |m| m.extend([m[3].clone()]));
    refuses("two headers", "unexpected member", |c| c.outer = |m| m.insert(2, m[2].clone()));
    refuses("a second payload", "unexpected member", |c| {
        c.outer = |m| m.push(("data/0001.tar".to_owned(), m[3].1.clone()));
    });
    refuses("data of another index", "unexpected member", |c| c.outer = |m| m[3].0 = "data/0001.tar".into());
    refuses("an unknown suffix", "unexpected member", |c| c.outer = |m| m[3].0 = "data/0000.tar.bz2".into());
    refuses("nothing", "ends before version", |c| c.outer = Vec::clear);
    refuses("manifest-augment", "augmented", |c| c.outer = |m| m.insert(2, member("manifest-augment", "")));
    refuses("header-augment", "augmented", |c| {
        c.outer = |m| m.insert(3, member("header-augment.tar.gz", ""));
    });
}

#[test]
fn the_suffix_decides_and_the_content_has_to_agree() {
    refuses("data named gz", "not gzip as the name says", |c| c.outer = |m| m[3].0.push_str(".gz"));
    refuses("data named xz", "not xz as the name says", |c| {
        c.data_as = Compression::Gzip;
        c.outer = |m| m[3].0 = "data/0000.tar.xz".into();
    });
    refuses("gzip data named plain", "data/0000.tar", |c| {
        c.data_as = Compression::Gzip;
        c.outer = |m| m[3].0 = "data/0000.tar".into();
    });
    refuses("gzip header named plain", "header.tar: not listed", |c| {
        c.header_as = Compression::Gzip;
        c.outer = |m| m[2].0 = "header.tar".into();
    });
    for data_as in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        refuses("garbage behind the compressed data", "data/0000.tar", |c| {
            c.data_as = data_as;
            c.outer = |m| m[3].1.extend_from_slice(b"garbage");
        });
    }
}

#[test]
fn the_manifest_lists_everything_and_nothing_else() {
    refuses("header not listed", "header.tar: not listed", |c| c.manifest = |l| drop(l.remove(2)));
    refuses("version not listed", "version: not listed", |c| c.manifest = |l| drop(l.remove(3)));
    refuses("a payload file not listed", "data/0000/two.gz: not listed", |c| {
        c.manifest = |l| drop(l.remove(1));
    });
    refuses("a file that is not there", "data/0000/three: listed", |c| {
        c.manifest = |l| l.push(l[0].replace("one", "three"));
    });
    refuses("something that is in no artifact", "extra: listed", |c| {
        c.manifest = |l| l.push(l[0].replace("data/0000/one", "extra"));
    });
    refuses("a name twice", "data/0000/one is listed twice", |c| c.manifest = |l| l.push(l[0].clone()));
    refuses("wrong checksum of a file", "data/0000/one: checksum mismatch", |c| {
        c.manifest = |l| l[0] = l[1].replace("two.gz", "one");
    });
    refuses("wrong checksum of an empty file", "two.gz: checksum mismatch", |c| {
        c.manifest = |l| l[1] = l[0].replace("one", "two.gz");
    });
    refuses("wrong checksum of the header", "header.tar: checksum mismatch", |c| {
        c.manifest = |l| l[2] = l[3].replace("version", "header.tar");
    });
    refuses("wrong checksum of version", "version: checksum mismatch", |c| {
        c.manifest = |l| l[3] = l[2].replace("header.tar", "version");
    });
    refuses("an empty manifest", "manifest: line 1", |c| c.manifest = Vec::clear);
}

#[test]
fn other_formats_and_versions_are_refused_by_name() {
    accepts("white space", |c| c.version = b" {\n\"format\": \"mender\", \"version\": 3 }\n".to_vec());
    refuses("version 4", "format 4 is not supported", |c| {
        c.version = br#"{"format":"mender","version":4}"#.to_vec();
    });
    refuses("version 2", "format 2 is not supported, only 3", |c| {
        c.version = br#"{"format":"mender","version":2}"#.to_vec();
    });
    refuses("another format", "not an artifact", |c| c.version = br#"{"format":"x","version":3}"#.to_vec());
    refuses("no format", "not an artifact", |c| c.version = br#"{"version":3}"#.to_vec());
}

#[test]
fn the_members_of_the_header_are_in_order_and_no_others() {
    refuses("a name with a slash behind it", "unexpected", |c| c.outer = |m| m[2].0 = "header.tar/".into());
    refuses("meta-data before type-info", "unexpected member headers/0000/meta-data", |c| {
        c.header.swap(2, 3)
    });
    refuses("a script behind type-info", "unexpected member scripts/", |c| c.header.swap(1, 2));
    refuses("header-info second", "where header-info should be", |c| c.header.swap(0, 1));
    refuses("no header-info", "where header-info should be", |c| drop(c.header.remove(0)));
    refuses("no type-info", "where headers/0000/type-info should be", |c| drop(c.header.remove(2)));
    refuses("nothing behind header-info", "ends before headers/0000/type-info", |c| c.header.truncate(1));
    refuses("an empty header", "ends before header-info", |c| c.header.clear());
    refuses("two type-infos", "where headers/0000/meta-data should be", |c| {
        c.header.insert(3, c.header[2].clone())
    });
    refuses("another index", "where headers/0000/type-info", |c| {
        c.header[2].0 = "headers/0001/type-info".into()
    });
    refuses("a second index", "the end of the header", |c| {
        c.header.push(member("headers/0001/type-info", TYPE_INFO))
    });
    refuses("files of format 2", "unexpected member", |c| {
        c.header.insert(2, member("headers/0000/files", "{}"))
    });
    refuses("a bad script name", "not the name of a state script", |c| c.header[1].0 = "scripts/foo".into());
    refuses("a script of the root file system", "not the name", |c| {
        c.header[1].0 = "scripts/Download_Enter_00".into();
    });
    refuses("traversal in a script name", "not the name of a state script", |c| {
        c.header[1].0 = "scripts/ArtifactInstall_Enter_01_x../../../../etc/cron.daily/exploit".into();
    });
    refuses("a script twice", "twice", |c| c.header.insert(2, c.header[1].clone()));
    let scripts = ["ArtifactReboot_Enter_00", "ArtifactCommit_Leave_01_x.sh", "ArtifactCommit_Leave_00"];
    let seen = accepts("scripts in any order", |c| {
        scripts.iter().for_each(|name| c.header.insert(1, member(&format!("scripts/{name}"), name)));
    });
    let at = |name: &str| seen.header.find(name).unwrap();
    assert!(at(scripts[2]) < at(scripts[1]) && at("ArtifactInstall_Enter_00") < at(scripts[0]));
}

#[test]
fn header_info_says_all_it_has_to() {
    let with = |what: &str, because: &str, from: &str, to: &str| {
        let text = HEADER_INFO.replace(from, to);
        assert_ne!(text, HEADER_INFO, "{what}");
        refuses(what, because, |c| c.set("header-info", &text));
    };
    with("two payloads", "2 payloads", r#"[{"type":"mod"}]"#, r#"[{"type":"mod"},{"type":"mod"}]"#);
    with("no payload", "0 payloads", r#"[{"type":"mod"}]"#, "[]");
    with("payloads missing", "payloads: missing", "payloads", "pailoads");
    with("payload null", "not a list of objects", r#"{"type":"mod"}"#, "null");
    with("no type", "payloads.type: missing", r#"{"type":"mod"}"#, "{}");
    with("empty type", "is not a payload type", r#""mod""#, r#""""#);
    with("number as type", "payloads.type: not a string", r#""mod""#, "1");
    with("traversal in the type", "is not a payload type", r#""mod""#, r#""../../bin/sh""#);
    with("a NUL in the type", "is not a payload type", r#""mod""#, r#""mod\u0000""#);
    with("empty device types", "device_type: missing or empty", r#"["dev"]"#, "[]");
    with("no device types", "device_type: missing or empty", "device_type", "device_tipe");
    with("device type not a list", "device_type: not a list", r#"["dev"]"#, r#""dev""#);
    with("no depends", "artifact_depends: missing", "artifact_depends", "x");
    with("no provides", "artifact_provides: missing", "artifact_provides", "x");
    with("no name", "artifact_name: missing", "artifact_name", "x");
    with("empty name", "artifact_name", r#""rel-1""#, r#""""#);
    with("long name", "artifact_name", r#""rel-1""#, &format!("\"{}\"", "n".repeat(257)));
    with("line feed in the name", "artifact_name", r#""rel-1""#, r#""rel\n1""#);
    with("a key twice", "twice", r#""payloads""#, r#""payloads":[],"payloads""#);
    with("a key twice in another case", "twice", r#""payloads""#, r#""Payloads":[],"payloads""#);
    with("not JSON", "header-info", "{\"payloads\"", "{payloads");
    refuses("a list", "not an object", |c| c.set("header-info", "[]"));
    refuses("empty", "header-info", |c| c.set("header-info", ""));

    let text = HEADER_INFO.replace("payloads", "PayLoads").replace("device_type", "DEVICE_TYPE");
    accepts("other letter case", |c| c.set("header-info", &text));
    let text = HEADER_INFO.replace(r#"{"payloads""#, r#"{"unknown":{"x":[]},"payloads""#);
    accepts("unknown keys", |c| c.set("header-info", &text));
    let text = HEADER_INFO
        .replace(r#""rel-1""#, r#""rel-1","artifact_group":"g""#)
        .replace(r#"["dev"]"#, r#"["a","b"],"artifact_name":["r"],"artifact_group":["h"]"#);
    let seen = accepts("groups and names", |c| c.set("header-info", &text));
    assert!(seen.header.contains(r#"artifact_group: Some("g")"#));
    assert!(
        seen.header
            .contains(r#"device_type: ["a", "b"], artifact_name: Some(["r"]), artifact_group: Some(["h"])"#)
    );
}

#[test]
fn type_info_agrees_with_header_info() {
    let with = |text: &str| text.to_owned();
    accepts("an empty type, as old tools write", |c| c.set("headers/0000/type-info", r#"{"type":""}"#));
    let bad = [
        ("another type", "does not match", with(r#"{"type":"other"}"#)),
        ("null type", "does not match", with(r#"{"type":null}"#)),
        ("no type", "type: missing", with("{}")),
        ("number as type", "type: not a string", with(r#"{"type":1}"#)),
        (
            "a list in provides",
            "artifact_provides",
            with(r#"{"type":"mod","artifact_provides":{"a":["b"]}}"#),
        ),
        ("provides a list", "artifact_provides", with(r#"{"type":"mod","artifact_provides":[]}"#)),
        ("a number in depends", "artifact_depends", with(r#"{"type":"mod","artifact_depends":{"a":1}}"#)),
        (
            "a number in a list",
            "artifact_depends",
            with(r#"{"type":"mod","artifact_depends":{"a":["b",1]}}"#),
        ),
        ("clears a string", "clears", with(r#"{"type":"mod","clears_artifact_provides":"a"}"#)),
        (
            "device_type again",
            "repeats device_type",
            with(r#"{"type":"mod","artifact_depends":{"device_type":"x"}}"#),
        ),
        ("a key twice", "twice", with(r#"{"type":"mod","TYPE":"mod"}"#)),
        ("a list", "not an object", with("[]")),
        ("too deep", "too deeply", format!(r#"{{"type":"mod","x":{}{}}}"#, "[".repeat(40), "]".repeat(40))),
    ];
    for (what, because, text) in bad {
        refuses(what, because, |c| c.set("headers/0000/type-info", &text));
    }
    let name = r#"{"type":"mod","artifact_depends":{"artifact_name":"x"}}"#;
    accepts("a name only here", |c| c.set("headers/0000/type-info", name));
    refuses("a name in both", "repeats artifact_name", |c| {
        c.set("header-info", HEADER_INFO.replace(r#"["dev"]"#, r#"["dev"],"artifact_name":["r"]"#));
        c.set("headers/0000/type-info", name);
    });
    let text =
        r#"{"type":"mod","artifact_depends":{"a":"b","c":["d","e"]},"clears_artifact_provides":["*suffix"]}"#;
    let seen = accepts("lists and patterns", |c| c.set("headers/0000/type-info", text));
    assert!(seen.header.contains(r#"type_info: {"a": ["b"], "c": ["d", "e"]}"#), "{}", seen.header);
    assert!(seen.header.contains(r#"provides: None, clears_provides: Some(["*suffix"])"#));
    let seen = accepts("empty differs from absent", |c| {
        c.set(
            "headers/0000/type-info",
            r#"{"type":"mod","artifact_provides":{},"clears_artifact_provides":[]}"#,
        );
    });
    assert!(seen.header.contains("provides: Some({}), clears_provides: Some([])"));
}

#[test]
fn meta_data_is_an_object_or_nothing() {
    accepts("empty", |c| c.set("headers/0000/meta-data", ""));
    accepts("absent", |c| drop(c.header.pop()));
    accepts("keys that differ in case", |c| c.set("headers/0000/meta-data", r#"{"a":1,"A":2}"#));
    for text in ["[]", "null", "1", "\"{}\"", " ", "{", "{}{}", r#"{"a":1,"a":2}"#, "\u{feff}{}"] {
        refuses(text, "meta-data", |c| c.set("headers/0000/meta-data", text));
    }
}

#[test]
fn payload_files_have_plain_names_and_come_once() {
    let name = |what: &str, because: &str, name: &'static str| {
        refuses(what, because, |c| c.data = Some(vec![member(name, "x")]));
    };
    name("traversal", "not a plain file name", "../one");
    name("a directory", "not a plain file name", "dir/one");
    name("absolute", "not a plain file name", "/one");
    name("dot dot", "not a plain file name", "..");
    name("a blank", "white space", "a b");
    name("a tabulator", "white space", "a\tb");
    for length in [90, 91, 100, 101, 120, 255] {
        accepts("a long name", |c| c.data = Some(vec![member(&"n".repeat(length), "x")]));
    }
    refuses("a longer name", "name bytes over the limit", |c| {
        c.data = Some(vec![member(&"n".repeat(256), "x")])
    });
    accepts("names other than ASCII", |c| c.data = Some(vec![member("größe+1~2.deb", "x")]));
    accepts("no files at all", |c| c.data = Some(Vec::new()));
    // The manifest is right here and the data is not.
    let data = |what: &str, because: &str, members: Vec<(String, Vec<u8>)>| {
        let mut crafted = Crafted::new();
        crafted.outer = |m| drop(m.pop());
        let mut outer = crafted.build();
        outer.truncate(outer.len() - 1024);
        outer.extend(archive(&[("data/0000.tar".to_owned(), archive(&members))]));
        let error = read_unsigned(outer).unwrap_err();
        assert!(error.to_string().contains(because), "{what}: {error}");
    };
    let (one, two) = (member("one", "content of one"), member("two.gz", ""));
    data("a duplicate", "in the archive twice", vec![one.clone(), two.clone(), one.clone()]);
    data("one too many", "data/0000/three: not listed", vec![one.clone(), two.clone(), member("three", "")]);
    data("traversal only in the archive", "not a plain file name", vec![member("../one", "content of one")]);
    data("one missing", "data/0000/two.gz: listed", vec![one.clone()]);
    data("one longer", "data/0000/one: checksum", vec![member("one", "content of one."), two]);
}

#[test]
fn an_empty_payload_has_nothing_a_payload_has() {
    let check = |change: fn(&mut Crafted)| {
        let mut crafted = Crafted::empty_payload();
        change(&mut crafted);
        read_unsigned(crafted.build()).map_err(|error| error.to_string())
    };
    for (what, change) in [
        ("as written by tools", (|_| {}) as fn(&mut Crafted)),
        ("without data member", |c| c.data = None),
        ("with an empty type in type-info", |c| c.set("headers/0000/type-info", r#"{"type":""}"#)),
        ("with empty meta-data", |c| c.header.push(member("headers/0000/meta-data", ""))),
    ] {
        let seen = check(change).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(seen.header.contains("payload: None") && seen.files.is_empty(), "{what}");
    }
    let refused = |change, because: &str| {
        let error = check(change).unwrap_err();
        assert!(error.contains(because), "{error}");
    };
    refused(|c| c.data = Some(vec![member("one", "")]), "cannot have files");
    refused(|c| c.header.push(member("headers/0000/meta-data", "{}")), "cannot have meta-data");
    refused(|c| c.set("headers/0000/type-info", r#"{"type":"mod"}"#), "does not match");
    refused(
        |c| {
            c.data = None;
            c.outer = |m| m.push(member("data/0000.tar", archive(&[member("x", "")])));
        },
        "not listed",
    );
}

fn ed25519() -> (Signer, VerifyKeys) {
    let pair = Signer::generate_ed25519(&[7; 32]);
    let mut keys = VerifyKeys::new();
    keys.add_pem("test key", pair.public.as_bytes()).unwrap();
    (Signer::from_pem(pair.private.as_bytes()).unwrap(), keys)
}

fn sign(manifest: &[u8]) -> Option<Vec<u8>> {
    Some(ed25519().0.sign_manifest(manifest).unwrap().into_bytes())
}

fn signed(signature: fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut crafted = Crafted::new();
    crafted.signature = signature;
    crafted.build()
}

/// Base64 on one line is what tools write; wrapped lines and a line feed at the end come from signing by hand.
fn wrap(base64: Vec<u8>) -> Vec<u8> {
    base64.chunks(64).flat_map(|line| [line, b"\r\n"].concat()).collect()
}

#[test]
fn only_a_key_that_is_trusted_makes_an_artifact_trusted() {
    let trust = Trust::Keys(ed25519().1);
    let check = |bytes: Vec<u8>, trust: &Trust| read(bytes, trust, &Limits::default());
    let seen = check(signed(sign), &trust).unwrap();
    assert!(seen.header.contains(r#"Verified { key: "test key" }"#));
    check(signed(|m| sign(m).map(wrap)), &trust).unwrap();

    let unsigned = check(signed(|_| None), &trust);
    assert!(matches!(unsigned, Err(ArtifactError::Unsigned)));
    let empty = check(signed(|_| Some(Vec::new())), &trust);
    assert!(matches!(empty, Err(ArtifactError::SignatureMismatch { .. })));
    let garbage = check(signed(|_| Some(b"garbage!".to_vec())), &trust);
    assert!(matches!(garbage, Err(ArtifactError::SignatureEncoding)));
    let other_text = check(signed(|_| sign(b"other")), &trust);
    assert!(matches!(other_text, Err(ArtifactError::SignatureMismatch { keys }) if keys == ["test key"]));

    let mut other = VerifyKeys::new();
    other.add_pem("other", Signer::generate_ed25519(&[8; 32]).public.as_bytes()).unwrap();
    let wrong_key = check(signed(sign), &Trust::Keys(other.clone()));
    assert!(matches!(wrong_key, Err(ArtifactError::SignatureMismatch { .. })));
    other.add_pem("right", Signer::generate_ed25519(&[7; 32]).public.as_bytes()).unwrap();
    other.add_pem("right again", Signer::generate_ed25519(&[7; 32]).public.as_bytes()).unwrap();
    assert_eq!(other.len(), 2, "a key counts once");
    let seen = check(signed(sign), &Trust::Keys(other)).unwrap();
    assert!(seen.header.contains(r#"key: "right" "#));

    for bytes in [signed(sign), signed(|_| None)] {
        let no_keys = check(bytes, &Trust::Keys(VerifyKeys::new()));
        let error = no_keys.unwrap_err();
        assert!(matches!(error, ArtifactError::NoVerifyKeys));
        assert!(
            error.to_string().contains("ArtifactVerifyKey")
                && error.to_string().contains("DangerAcceptUnsigned")
        );
    }
    for signature in [sign, |_: &[u8]| None, |_: &[u8]| Some(b"garbage!".to_vec())] {
        check(signed(signature), &Trust::DangerUnsigned).unwrap();
    }
}

#[test]
fn a_header_that_was_not_signed_is_never_decoded() {
    // The header would be refused as a bomb, had anyone looked; its checksum is looked at first.
    let error = {
        let mut crafted = Crafted::new();
        crafted.header_as = Compression::Gzip;
        crafted.outer = |m| m[2].1 = b"\x1f\x8bnot gzip at all".to_vec();
        read_unsigned(crafted.build()).unwrap_err()
    };
    assert!(matches!(error, ArtifactError::ChecksumMismatch { entry, .. } if entry == "header.tar.gz"));
    let error =
        read(signed(|_| None), &Trust::Keys(ed25519().1), &Limits { version_bytes: 31, ..Limits::default() });
    assert!(matches!(error, Err(ArtifactError::Unsigned)));
}

/// Signatures of all lengths and of nothing in particular.
#[test]
fn no_signature_of_a_wrong_length_verifies() {
    let trust = Trust::Keys(ed25519().1);
    let manifest = b"text";
    let right = STANDARD.decode(sign(manifest).unwrap()).unwrap();
    for length in (0..200).filter(|length| *length != 64) {
        let bytes: Vec<u8> = right.iter().copied().cycle().take(length).collect();
        let encoded = STANDARD.encode(bytes);
        let result = keys::check(&trust, manifest, Some(encoded.as_bytes()));
        assert!(matches!(result, Err(ArtifactError::SignatureMismatch { .. })), "{length}");
    }
}

#[test]
fn every_truncation_of_a_signed_artifact_is_refused() {
    let trust = Trust::Keys(ed25519().1);
    for compression in Compression::ALL {
        let mut crafted = Crafted::new();
        crafted.signature = sign;
        (crafted.header_as, crafted.data_as) = (compression, compression);
        let bytes = crafted.build();
        for length in 0..bytes.len() {
            let error = read(bytes[..length].to_vec(), &trust, &Limits::default());
            let error = error.expect_err("a truncated artifact");
            assert!(!is_of_the_source(&error), "{compression} cut to {length}: {error}");
        }
    }
}

/// The tar headers, and how the data is compressed, are not covered by the manifest. A changed byte there may be
/// accepted, but then the artifact has to mean exactly the same.
///
/// The bytes that can change at all are counted, so that a new one shows. In each tar header, of which there are five
/// outside and two inside, three bytes of the checksum field: a leading zero may be a blank, and each of NUL and blank
/// behind the digits may be the other. A changed byte elsewhere makes the checksum wrong.
///
/// A compressed data member has a checksum of its content, so the inner headers cannot change. But it may be spelt in
/// another way: gzip has a time, flags and a system in its header, and in a run of zeros any distance means the
/// same; zstd has flags. The header member cannot change, as it is signed the way it is stored.
#[test]
fn every_changed_byte_is_refused_or_makes_no_difference() {
    let trust = Trust::Keys(ed25519().1);
    for (compression, most) in
        [(Compression::None, 21), (Compression::Gzip, 31), (Compression::Xz, 15), (Compression::Zstd, 18)]
    {
        let mut crafted = Crafted::new();
        crafted.signature = sign;
        (crafted.header_as, crafted.data_as) = (compression, compression);
        let bytes = crafted.build();
        let expected = read(bytes.clone(), &trust, &Limits::default()).unwrap();
        let mut malleable = std::collections::BTreeSet::new();
        for at in 0..bytes.len() {
            for mask in [0x01, 0x10, 0x20, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= mask;
                match read(changed, &trust, &Limits::default()) {
                    Ok(seen) => {
                        assert_eq!(seen, expected, "{compression}: byte {at} changed with {mask:#x}");
                        malleable.insert(at);
                    }
                    Err(error) => assert!(!is_of_the_source(&error), "{compression}: byte {at}: {error}"),
                }
            }
        }
        assert!(malleable.len() <= most, "{compression}: {malleable:?}");
    }
}

/// One artifact at each limit and one past it.
#[test]
fn what_is_at_a_limit_is_read_and_what_is_past_it_refused() {
    let check = |what: &str, at: Limits, past: Limits, change: fn(&mut Crafted)| {
        let mut crafted = Crafted::new();
        change(&mut crafted);
        let bytes = crafted.build();
        read(bytes.clone(), &Trust::DangerUnsigned, &at).unwrap_or_else(|error| panic!("{what}: {error}"));
        match read(bytes, &Trust::DangerUnsigned, &past) {
            Err(ArtifactError::TooLarge { .. }) => {}
            Err(ArtifactError::Json { problem, .. }) if problem.contains("deeply") => {}
            other => panic!("{what}: {other:?}"),
        }
    };
    let limits = Limits::default;
    check(
        "version",
        Limits { version_bytes: 31, ..limits() },
        Limits { version_bytes: 30, ..limits() },
        |_| {},
    );
    let manifest = 4 * 66 + "data/0000/onedata/0000/two.gzheader.tarversion".len() + 4;
    let at = |manifest_bytes| Limits { manifest_bytes, ..limits() };
    check("manifest", at(manifest), at(manifest - 1), |_| {});
    let at = |signature_bytes| Limits { signature_bytes, ..limits() };
    check("manifest.sig", at(88), at(87), |c| c.signature = sign);
    let at = |manifest_lines| Limits { manifest_lines, ..limits() };
    check("manifest lines", at(4), at(3), |_| {});
    let at = |payload_files| Limits { payload_files, ..limits() };
    check("payload files", at(2), at(1), |_| {});
    let header = archive(&Crafted::new().header).len();
    let at = |header_bytes| Limits { header_bytes, ..limits() };
    check("header as stored", at(header), at(header - 1), |_| {});
    let at = |open: usize| Limits { header_open_bytes: open as u64, ..limits() };
    check("header when open", at(header), at(header - 1), |c| c.header_as = Compression::Gzip);
    let at = |script_bytes| Limits { script_bytes, ..limits() };
    check("one script", at(10), at(9), |_| {});
    let at = |scripts| Limits { scripts, ..limits() };
    check("scripts", at(1), at(0), |_| {});
    let at = |scripts_total_bytes| Limits { scripts_total_bytes, ..limits() };
    check("scripts together", at(10), at(9), |_| {});
    let at = |header_json_bytes| Limits { header_json_bytes, ..limits() };
    check("header-info", at(HEADER_INFO.len()), at(HEADER_INFO.len() - 1), |_| {});
    let at = |meta_data_bytes| Limits { meta_data_bytes, ..limits() };
    check("meta-data", at(20), at(19), |_| {});
    let at = |json_depth| Limits { json_depth, ..limits() };
    check("JSON depth", at(3), at(2), |_| {});
    let at = |name_bytes| Limits { name_bytes, ..limits() };
    check("names", at(32), at(31), |_| {});
    let at = |trailing_zero_bytes| Limits { trailing_zero_bytes, ..limits() };
    check("zeros behind the end", at(700), at(699), |c| c.behind = vec![0; 700]);
    let at = |pax_bytes| Limits { pax_bytes, ..limits() };
    check("PAX records", at(16), at(15), |c| c.data = Some(vec![member("größe", "")]));
}

#[test]
fn a_header_that_decompresses_without_end_is_refused_in_time() {
    refuses("a bomb in a script", "bytes over the limit of 1048576", |c| {
        c.header_as = Compression::Gzip;
        c.header[1].1 = vec![0; 20 << 20];
    });
    refuses("a bomb of members", "state scripts over the limit of 64", |c| {
        c.header_as = Compression::Zstd;
        let script = |n| member(&format!("scripts/ArtifactInstall_Enter_00_{n}"), "");
        c.header.splice(1..2, (0..65).map(script));
    });
    refuses("all scripts together", "bytes together over the limit", |c| {
        c.header_as = Compression::Zstd;
        let script = |n| member(&format!("scripts/ArtifactInstall_Enter_00_{n}"), vec![b'x'; 1 << 20]);
        c.header.splice(1..2, (0..9).map(script));
    });
}

#[test]
fn a_payload_file_can_be_left_unread_but_not_unchecked() {
    let wrong: fn(&mut Vec<String>) = |l| l[0] = l[1].replace("two.gz", "one");
    for compression in Compression::ALL {
        for read_bytes in [0, 1, 5, 14] {
            let mut crafted = Crafted::new();
            crafted.data_as = compression;
            let open_it = |crafted: &Crafted| {
                open(Cursor::new(crafted.build()), &Trust::DangerUnsigned, &Limits::default())
                    .unwrap()
                    .payload
            };
            let mut payload = open_it(&crafted);
            let mut file = payload.next_file().unwrap().unwrap();
            file.read_exact(&mut vec![0; read_bytes]).unwrap();
            assert_eq!(payload.next_file().unwrap().unwrap().name(), "two.gz");
            assert!(payload.next_file().unwrap().is_none());

            crafted.manifest = wrong;
            let mut payload = open_it(&crafted);
            let mut file = payload.next_file().unwrap().unwrap();
            file.read_exact(&mut vec![0; read_bytes]).unwrap();
            assert!(matches!(payload.next_file(), Err(ArtifactError::ChecksumMismatch { .. })));
            assert!(matches!(payload.next_file(), Err(ArtifactError::AfterFailure)));
        }
    }
}

#[test]
fn a_wrong_checksum_is_an_error_in_the_place_of_the_end() {
    let mut crafted = Crafted::new();
    crafted.manifest = |l| l[0] = l[1].replace("two.gz", "one");
    let mut artifact =
        open(Cursor::new(crafted.build()), &Trust::DangerUnsigned, &Limits::default()).unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    assert_eq!(file.fill_buf().unwrap(), b"content of one");
    file.consume(14);
    assert!(!file.is_verified());
    let error = ArtifactError::from_io(file.fill_buf().unwrap_err());
    assert!(matches!(error, ArtifactError::ChecksumMismatch { .. }), "{error}");
    let again = ArtifactError::from_io(file.read(&mut [0]).unwrap_err());
    assert!(matches!(again, ArtifactError::AfterFailure), "{again}");
}

/// A source that fails at one place, or hands out one byte at a time.
struct Source {
    bytes: Cursor<Vec<u8>>,
    fails_at: Option<u64>,
    step: usize,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.fails_at.map_or(u64::MAX, |at| at - self.bytes.position());
        if left == 0 {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        let most = self.step.min(usize::try_from(left).unwrap_or(usize::MAX)).min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

#[test]
fn an_error_of_the_source_is_one_wherever_it_happens() {
    for compression in Compression::ALL {
        let mut crafted = Crafted::new();
        (crafted.header_as, crafted.data_as) = (compression, compression);
        let bytes = crafted.build();
        for at in (0..bytes.len() as u64).step_by(61) {
            let source = Source { bytes: Cursor::new(bytes.clone()), fails_at: Some(at), step: usize::MAX };
            let result = open(source, &Trust::DangerUnsigned, &Limits::default())
                .and_then(|mut artifact| artifact.payload.drain());
            assert!(is_of_the_source(&result.unwrap_err()), "{compression} at {at}");
        }
    }
}

#[test]
fn the_size_of_the_pieces_a_source_delivers_makes_no_difference() {
    for compression in Compression::ALL {
        let mut crafted = Crafted::new();
        (crafted.header_as, crafted.data_as) = (compression, compression);
        let bytes = crafted.build();
        let whole = read(bytes.clone(), &Trust::DangerUnsigned, &Limits::default()).unwrap();
        assert!(!whole.files.is_empty());
        for step in [1, 3, 511, 513] {
            let source = Source { bytes: Cursor::new(bytes.clone()), fails_at: None, step };
            let seen = read_from(source, &Trust::DangerUnsigned, &Limits::default()).unwrap();
            assert_eq!(seen, whole, "{compression} by {step}");
        }
    }
}
