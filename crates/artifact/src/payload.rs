//! The payload files, streamed: each is listed in the signed manifest, comes once, and fails at its end when its
//! checksum is wrong.
//!
//! Bytes are handed out before their checksum can be known. Whoever writes them must not use what was written before
//! [`PayloadReader::next_file`] has returned `None`: only then has everything the manifest lists been seen, and
//! nothing else.

use crate::checked::Checked;
use crate::compression::{Compression, Start};
use crate::error::ArtifactError;
use crate::limits::{Limits, Reading};
use crate::manifest::{Manifest, check_file_name};
use crate::members;
use crate::places::{Member, Origin};
use crate::read::read_full;
use crate::read_ahead::Buffered;
use crate::restart::{self, DEFLATE_WINDOW, Passed, Place, RestartPoint};
use crate::sha256::Sha256;
use crate::tar::{Inside, TarReader};
use sha2::Digest;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read};

/// The data member: what a payload is read from.
pub(crate) struct Data {
    pub(crate) compression: Compression,
    /// Where in the artifact it begins.
    pub(crate) at: u64,
    /// Its length as it is stored.
    pub(crate) length: u64,
    /// Where it comes from, if that can be asked for any place of it.
    pub(crate) origin: Option<Origin>,
    /// Where decoding can begin again, if anybody wants to know.
    pub(crate) log: Option<restart::Places>,
}

/// Hands out the payload files one after the other.
pub struct PayloadReader {
    /// `None` when the artifact has no data member.
    tar: Option<TarReader<Buffered>>,
    data: Option<Data>,
    files: BTreeMap<String, Listed>,
    limits: Limits,
    current: Option<Current>,
    state: State,
    /// Who reads does not want the rest yet.
    looks: bool,
}

struct Listed {
    sha256: Sha256,
    seen: bool,
}

struct Current {
    name: String,
    size: u64,
    /// Where in the inner archive its bytes begin.
    starts_at: u64,
    checked: Checked,
    /// Every byte so far has passed the digest.
    whole: bool,
    verified: bool,
    /// Where a later process can go on with it.
    passed: Passed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

impl PayloadReader {
    pub(crate) fn new(
        tar: Option<TarReader<Buffered>>,
        data: Option<Data>,
        manifest: &Manifest,
        limits: &Limits,
    ) -> PayloadReader {
        let listed = |file: &crate::manifest::ManifestFile| {
            (file.name.clone(), Listed { sha256: file.sha256, seen: false })
        };
        PayloadReader {
            tar,
            data,
            files: manifest.files.iter().map(listed).collect(),
            limits: limits.clone(),
            current: None,
            state: State::Reading,
            looks: false,
        }
    }

    /// How many bytes of the artifact were transferred so far; `None` where reading it costs nothing.
    pub fn received_bytes(&self) -> Option<u64> {
        self.data.as_ref()?.origin.as_ref()?.received_bytes()
    }

    /// Length of the payload as it is stored in the artifact.
    pub fn stored_bytes(&self) -> Option<u64> {
        Some(self.data.as_ref()?.length)
    }

    /// The next payload file. What was left of the one before is read, and its checksum compared.
    ///
    /// `None` means that the artifact is complete and right: every file of the manifest was seen, and all archives
    /// have ended with nothing behind them. After an error there is nothing more to be had.
    pub fn next_file(&mut self) -> Result<Option<PayloadFile<'_>>, ArtifactError> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Failed => return Err(ArtifactError::AfterFailure),
        }
        match self.advance() {
            Ok(true) => Ok(Some(PayloadFile { reader: self })),
            Ok(false) => {
                self.state = State::Ended;
                Ok(None)
            }
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// Whether whoever handles the payload may use threads.
    pub fn reading(&self) -> Reading {
        self.limits.reading
    }

    /// Reads all files to the end without using them.
    pub fn drain(&mut self) -> Result<(), ArtifactError> {
        while self.next_file()?.is_some() {}
        Ok(())
    }

    fn advance(&mut self) -> Result<bool, ArtifactError> {
        loop {
            let count = self.fill()?.len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        self.current = None;
        let entry = match &mut self.tar {
            Some(tar) => tar.next_entry()?,
            None => None,
        };
        let Some(entry) = entry else {
            return match self.files.iter().find(|(_, listed)| !listed.seen) {
                Some((name, _)) => Err(ArtifactError::NotInArtifact { entry: members::of_file(name) }),
                None => Ok(false),
            };
        };
        check_file_name(&entry.name, &self.limits)?;
        let path = members::of_file(&entry.name);
        let listed = self
            .files
            .get_mut(&entry.name)
            .ok_or_else(|| ArtifactError::NotInManifest { entry: path.clone() })?;
        if std::mem::replace(&mut listed.seen, true) {
            return Err(ArtifactError::DuplicateMember { entry: path });
        }
        let checked = Checked::new(path, listed.sha256);
        let starts_at = self.tar.as_ref().map_or(0, TarReader::position);
        self.current = Some(Current {
            name: entry.name,
            size: entry.size,
            starts_at,
            checked,
            whole: true,
            verified: false,
            passed: Passed::default(),
        });
        Ok(true)
    }

    /// The next bytes of the current file; at its end the checksum is compared once.
    fn fill(&mut self) -> Result<&[u8], ArtifactError> {
        let (Some(tar), Some(current)) = (&mut self.tar, &mut self.current) else { return Ok(&[]) };
        if tar.remaining() == 0 && current.whole && !current.verified {
            current.checked.finish()?;
            current.verified = true;
        }
        if let Some(origin) = self.data.as_ref().and_then(|data| data.origin.as_ref()).filter(|_| !self.looks)
        {
            origin.decide();
        }
        tar.fill_data()
    }

    fn jump_to(&mut self, offset: u64) -> Result<(), ArtifactError> {
        let (Some(data), Some(current)) = (&self.data, &mut self.current) else {
            return Err(cannot("there is no file to jump in"));
        };
        let Some(origin) = data.origin.as_ref().filter(|origin| origin.can_jump()) else {
            return Err(cannot("the source gives its bytes in one order only"));
        };
        if data.compression != Compression::None {
            return Err(cannot("the payload is compressed"));
        }
        if offset > current.size {
            return Err(cannot("the file is shorter"));
        }
        let place = current.inside(offset);
        let at = place.starts_at + offset;
        let start = Start { decoded: at, stored: at, dictionary: None };
        self.tar = Some(crate::reopen_data(origin, data, &self.limits, &place, start)?);
        // What lies between was not seen.
        current.whole = false;
        Ok(())
    }

    fn resume(&mut self, point: &RestartPoint, prefix: &mut dyn Read) -> Result<(), ArtifactError> {
        let (Some(data), Some(current), Some(tar)) = (&self.data, &mut self.current, &self.tar) else {
            return Err(cannot("there is no file to go on with"));
        };
        let Some(origin) = data.origin.as_ref().filter(|origin| origin.can_jump()) else {
            return Err(cannot("the source gives its bytes in one order only"));
        };
        let stored_as_it_is = data.compression == Compression::None;
        let at = current.starts_at.saturating_add(point.offset);
        if !point.is_of(data.compression, data.length)
            || point.offset > current.size
            || tar.remaining() != current.size
            || stored_as_it_is && point.stored != at
        {
            return Err(cannot("the artifact is packed in another way now"));
        }
        let (hasher, last) = hashed(prefix, point.offset)?;
        if point.sha256() != Some(Sha256::from(<[u8; 32]>::from(hasher.clone().finalize()))) {
            return Err(cannot("what is there is not what was written"));
        }
        let dictionary = point.inside.then_some(last);
        let start = Start { decoded: at, stored: point.stored, dictionary };
        let place = current.inside(point.offset);
        self.tar = Some(crate::reopen_data(origin, data, &self.limits, &place, start)?);
        current.checked.go_on(hasher);
        Ok(())
    }

    fn member(&self) -> Option<Member> {
        let data = self.data.as_ref()?;
        let origin = data.origin.as_ref().filter(|origin| origin.can_jump())?;
        Some(Member::new(origin, data.at, data.length))
    }

    fn consume(&mut self, count: usize) {
        let (Some(tar), Some(current)) = (&mut self.tar, &mut self.current) else { return };
        let at = current.size.saturating_sub(tar.remaining());
        // What was filled is still there, so this neither reads nor fails.
        if let Ok(bytes) = tar.fill_data() {
            let bytes = bytes.get(..count).unwrap_or(bytes);
            match self.data.as_ref().filter(|data| data.log.is_some() && current.whole) {
                Some(data) => current.update_noting(at, bytes, data),
                None => current.checked.update(bytes),
            }
            let count = bytes.len();
            tar.consume_data(count);
        }
    }
}

impl Current {
    /// A place in the file.
    fn inside(&self, offset: u64) -> Inside {
        Inside { name: self.name.clone(), size: self.size, starts_at: self.starts_at, offset }
    }

    /// The bytes at `at` pass; at the places among them where decoding can begin again, their digest is noted.
    fn update_noting(&mut self, at: u64, bytes: &[u8], data: &Data) {
        let end = at + bytes.len() as u64;
        let (mut at, mut left) = (at, bytes);
        while let Some(place) = self.next_place(at, end, data) {
            let Some(offset) = place.decoded.checked_sub(self.starts_at).filter(|offset| *offset >= at)
            else {
                continue;
            };
            // Its dictionary would be that of the archive around the file.
            if place.inside && offset < DEFLATE_WINDOW as u64 {
                continue;
            }
            let (before, behind) = left.split_at(usize::try_from(offset - at).unwrap_or(0).min(left.len()));
            self.checked.update(before);
            (at, left) = (offset, behind);
            self.passed.push(RestartPoint {
                offset,
                stored: place.stored,
                of: data.length,
                kind: data.compression.suffix().to_owned(),
                inside: place.inside,
                sha256: self.checked.running().to_string(),
            });
        }
        self.checked.update(left);
    }

    /// The next place behind byte `at` of the file and up to `end`.
    fn next_place(&self, at: u64, end: u64, data: &Data) -> Option<Place> {
        let log = data.log.as_ref()?;
        if data.compression == Compression::None {
            let next = (at / log.spacing() + 1) * log.spacing();
            let decoded = self.starts_at + next;
            return (next <= end).then_some(Place { decoded, stored: decoded, inside: false });
        }
        log.next_within(self.starts_at + end)
    }
}

/// The digest of `length` bytes of `source`, and the last of them.
fn hashed(mut source: &mut dyn Read, length: u64) -> Result<(sha2::Sha256, Vec<u8>), ArtifactError> {
    let mut hasher = sha2::Sha256::new();
    let mut last = Vec::new();
    let mut buffer = vec![0; 4 * DEFLATE_WINDOW];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = read_full(&mut source, part)?;
        let part = part.get(..count).unwrap_or_default();
        if part.is_empty() {
            return Err(cannot("there is less than was written"));
        }
        hasher.update(part);
        last.extend_from_slice(part);
        last.drain(..last.len().saturating_sub(DEFLATE_WINDOW));
        left -= count as u64;
    }
    Ok((hasher, last))
}

fn cannot(why: &'static str) -> ArtifactError {
    ArtifactError::Source { source: io::Error::new(io::ErrorKind::Unsupported, why) }
}

impl fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadReader({} files)", self.files.len())
    }
}

/// One payload file, to be read to its end. Where the end would be reported, a wrong checksum is an error instead:
/// [`ArtifactError::ChecksumMismatch`] inside the [`io::Error`], see [`ArtifactError::from_io`].
///
/// [`BufRead`] gives the bytes without another copy.
pub struct PayloadFile<'a> {
    reader: &'a mut PayloadReader,
}

impl PayloadFile<'_> {
    /// The file's name: one plain path component.
    pub fn name(&self) -> &str {
        self.reader.current.as_ref().map_or("", |current| &current.name)
    }

    /// Its length in bytes, uncompressed; known before the first of them.
    pub fn size(&self) -> u64 {
        self.reader.current.as_ref().map_or(0, |current| current.size)
    }

    /// The digest the signed manifest has for it.
    pub fn expected_sha256(&self) -> Sha256 {
        self.reader.current.as_ref().map_or(Sha256::from([0; 32]), |current| current.checked.expected())
    }

    /// How the payload is compressed.
    pub fn compression(&self) -> Compression {
        self.reader.data.as_ref().map_or(Compression::None, |data| data.compression)
    }

    /// Reads the next bytes for somebody who may want to jump then: nothing is asked for ahead of them.
    pub fn look(&mut self) -> Look<'_> {
        Look { reader: self.reader }
    }

    /// Whether [`jump_to`](PayloadFile::jump_to) works: the source can be read from any place on, and the payload is stored
    /// as it is.
    pub fn can_jump(&self) -> bool {
        self.compression() == Compression::None && self.member().is_some()
    }

    /// Goes on at byte `offset` of the file, without a byte of what lies between. From then on this reader no longer vouches
    /// for the file's checksum ([`is_whole`](PayloadFile::is_whole)): whoever jumps needs a proof of its own.
    ///
    /// # Errors
    /// When that is not possible; the reader stays where it was.
    pub fn jump_to(&mut self, offset: u64) -> Result<(), ArtifactError> {
        self.reader.jump_to(offset)
    }

    /// Whether all bytes from the first on have passed the file's checksum, so that it is compared at the end.
    pub fn is_whole(&self) -> bool {
        self.reader.current.as_ref().is_some_and(|current| current.whole)
    }

    /// Length of the data member as it is stored.
    pub fn stored_bytes(&self) -> Option<u64> {
        self.reader.stored_bytes()
    }

    /// After how many bytes of the stored payload it is worth noting where a later process can go on; `None` where its bytes
    /// cost nothing, and no such places are known.
    pub fn note_every(&self) -> Option<u64> {
        Some(self.reader.data.as_ref()?.log.as_ref()?.every())
    }

    /// The latest place up to byte `at_most` of the file, all of which was read, where a later process can go on with the
    /// same artifact; `None` where there is none, or where the bytes cost nothing.
    pub fn restart_point(&self, at_most: u64) -> Option<RestartPoint> {
        self.reader.current.as_ref()?.passed.latest(at_most).cloned()
    }

    /// Goes on at `point` of a file of which nothing was read yet. `prefix` gives the bytes before it, which are compared with
    /// what was noted, and count for the file's checksum as if they had been read here.
    ///
    /// # Errors
    /// When that is not possible; the reader stays at the beginning. Nothing is asked of the source here: what follows may
    /// turn out not to fit, and fails then as any other bytes do.
    pub fn resume(&mut self, point: &RestartPoint, prefix: &mut dyn Read) -> Result<(), ArtifactError> {
        self.reader.resume(point, prefix)
    }

    /// The data member as it is stored, where it can be read from any place on.
    pub fn member(&self) -> Option<Member> {
        self.reader.member()
    }

    /// The digest of what was read so far.
    #[cfg(test)]
    pub(crate) fn running_sha256(&self) -> Sha256 {
        self.reader.current.as_ref().map_or(Sha256::from([0; 32]), |current| current.checked.running())
    }

    /// Whether the end was reached and the checksum was right.
    #[cfg(test)]
    pub(crate) fn is_verified(&self) -> bool {
        self.reader.current.as_ref().is_some_and(|current| current.verified)
    }
}

impl BufRead for PayloadFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.reader.state == State::Failed {
            return Err(ArtifactError::AfterFailure.into_io());
        }
        // Asked twice, because the borrow of the first answer would last through the error branch.
        if let Err(error) = self.reader.fill() {
            self.reader.state = State::Failed;
            return Err(error.into_io());
        }
        self.reader.fill().map_err(ArtifactError::into_io)
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

impl Read for PayloadFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The next bytes of a payload file, and no more than those: see [`PayloadFile::look`].
pub struct Look<'a> {
    reader: &'a mut PayloadReader,
}

impl Read for Look<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.looks = true;
        let read = PayloadFile { reader: self.reader }.read(buffer);
        self.reader.looks = false;
        read
    }
}

impl fmt::Debug for PayloadFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadFile({:?}, {} bytes)", self.name(), self.size())
    }
}
