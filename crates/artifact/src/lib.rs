//! The artifact: the signed file that delivers an update. Reads, verifies and writes `.mender` files of version 3, and
//! holds the keys that sign them.
//!
//! It opens no files, asks no server, and does not decide whether an artifact fits a device: bytes come in through
//! [`Read`], and what they say comes out as values that need no second check.
//!
//! ```text
//!            ┌ thread ┐                                      verified before anything of it is parsed
//! source ─►  read ahead ─► outer tar ─► version, manifest, manifest.sig ─► header.tar* ─► Header
//!                             │
//!                             └───► data/0000.tar* ─► decompress, read ahead ─► inner tar ─► PayloadFile
//!                                                     └─────── thread ──────┘
//! ```
//!
//! A source that can be read by place ([`Places`]) is asked for its head alone, and for the rest when the payload is wanted.
//!
//! - [`open`] reads and verifies everything up to the payload; [`PayloadReader`] then streams the payload files and
//!   verifies each. [`open_at_places`] does the same with what can be read from any place on.
//! - [`write`](mod@write) makes artifacts, from [`PayloadSource`](write::PayloadSource)s of the caller.
//! - [`keys`] says whom to believe ([`Trust`]) and signs ([`Signer`]).
//! - [`frames`] is the table that lets a device fetch only some parts of an image.
//! - [`tree`] packs and unpacks trees of files, the content of one kind of payload.
//! - [`Limits`] bounds what an artifact may ask of its reader.
//! - [`text`] makes whatever an artifact says fit for a terminal.
//!
//! # An artifact, from writing to reading
//!
//! ```
//! use artifact::write::{self, ArtifactSpec, PayloadSource};
//! use artifact::{Limits, Sha256, Signer, Trust, VerifyKeys};
//! use std::io::{self, Cursor, Read};
//!
//! struct Motd;
//!
//! impl PayloadSource for Motd {
//!     fn name(&self) -> &str {
//!         "motd"
//!     }
//!     fn size(&self) -> u64 {
//!         6
//!     }
//!     fn open(&self) -> io::Result<Box<dyn Read + '_>> {
//!         Ok(Box::new(&b"hello\n"[..]))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pair = Signer::generate_ed25519(&[7; 32]); // Randomness of the system, outside of an example.
//! let signer = Signer::from_pem(pair.private.as_bytes())?;
//! let spec = ArtifactSpec::module_image("release-2".parse()?, vec!["board".parse()?], "motd".parse()?);
//! let mut bytes = Vec::new();
//! write::write(&spec, &[&Motd], Some(&signer), &mut Cursor::new(Vec::new()), &mut bytes)?;
//!
//! let mut keys = VerifyKeys::new();
//! keys.add_pem("the key of the factory", pair.public.as_bytes())?;
//! let mut artifact = artifact::open(Cursor::new(bytes), &Trust::Keys(keys), &Limits::default())?;
//! assert_eq!(artifact.header.artifact_name, "release-2");
//!
//! let mut file = artifact.payload.next_file()?.ok_or("no file")?;
//! assert_eq!((file.name(), file.expected_sha256()), ("motd", Sha256::of(b"hello\n")));
//! let mut content = String::new();
//! file.read_to_string(&mut content)?; // Fails at the end where the checksum is wrong.
//! assert_eq!(content, "hello\n");
//! assert!(artifact.payload.next_file()?.is_none()); // Only now everything has been seen and was right.
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

/// Errors are shown as they read, in tests too: what would be derived nobody reads on a device, where each has its place in the
/// program.
#[macro_export]
macro_rules! debug_as_displayed {
    ($error:ty) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}

mod checked;
mod compression;
mod error;
mod foreign;
pub mod frames;
mod header;
mod json;
pub mod keys;
mod limits;
mod manifest;
mod members;
mod names;
mod payload;
mod places;
mod read;
mod read_ahead;
mod restart;
mod sha256;
mod state_script;
mod tar;
pub mod text;
pub mod write;

pub use compression::{Compression, CompressionLevel};
pub use error::{ArtifactError, TarProblem};
pub use header::{Depends, Header, PayloadInfo};
pub use keys::{KeyError, KeyPairPem, SignatureStatus, Signer, Trust, VerifyKeys};
pub use limits::{Limits, Reading};
pub use manifest::{Manifest, ManifestFile};
pub use names::{ArtifactName, DeviceType, InvalidName, PayloadType};
pub use payload::{Look, PayloadFile, PayloadReader};
pub use places::{HEAD_BYTES, Member, Places, Supply};
pub use restart::RestartPoint;
pub use sha256::{Hex, NotSha256, Sha256};
pub use state_script::{
    ScriptAction, ScriptPoint, ScriptState, StateScript, is_root_script_name, is_script_name,
};
pub use tar::tree;

use compression::Start;
use members::{DATA, HEADER};
use payload::Data;
use places::Origin;
use read_ahead::Buffered;
use std::io::{self, BufRead, Cursor, Read};
use tar::{Entry, Inside, TarReader};

/// An artifact whose header is verified and whose payload is still to be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Artifact {
    /// What the artifact says about itself.
    pub header: Header,
    /// The payload files.
    pub payload: PayloadReader,
}

/// Reads an artifact up to its payload, and verifies what it has read.
///
/// Nothing is decompressed, and but for tar headers nothing is parsed, before it is known to be what was signed. With
/// [`Trust::DangerUnsigned`] the manifest is taken as it is, and all else has to agree with it.
///
/// The source is read ahead by a thread of its own, and a compressed payload is decompressed by another, so that the
/// slowest of source, decoder and disk sets the pace and not their sum. The threads end with the payload, with an
/// error, or when the [`Artifact`] is dropped and their read returns. With [`Reading::InTurn`] there are no threads.
///
/// # Errors
/// [`ArtifactError::Source`] when the source could not be read; anything else is a verdict on the artifact.
pub fn open<R: Read + Send + 'static>(
    source: R,
    trust: &Trust,
    limits: &Limits,
) -> Result<Artifact, ArtifactError> {
    let source =
        read_ahead::buffered(source, limits.reading).map_err(|source| ArtifactError::Source { source })?;
    open_from(source, None, trust, limits)
}

/// As [`open`], of an artifact that can be read from any place on: a first piece of 64 KiB holds what is verified here, and
/// nothing more is asked for before bytes of the payload are wanted. Then no thread has begun either.
///
/// # Errors
/// As [`open`].
pub fn open_at_places(
    places: Box<dyn Places>,
    trust: &Trust,
    limits: &Limits,
) -> Result<Artifact, ArtifactError> {
    let origin = Origin::new(places, limits.reading);
    open_from(Box::new(origin.reader_at(0)), Some(origin), trust, limits)
}

/// As [`open`], of what may be readable by place.
///
/// # Errors
/// As [`open`].
pub fn open_supply(supply: Supply, trust: &Trust, limits: &Limits) -> Result<Artifact, ArtifactError> {
    match supply {
        Supply::Stream(source) => open(source, trust, limits),
        Supply::Places(places) => open_at_places(places, trust, limits),
    }
}

fn open_from(
    mut source: Buffered,
    origin: Option<Origin>,
    trust: &Trust,
    limits: &Limits,
) -> Result<Artifact, ArtifactError> {
    let start = source.fill_buf().map_err(ArtifactError::from_io)?;
    let start = start.get(..foreign::LOOK_BYTES).unwrap_or(start).to_vec();
    let mut tar = TarReader::new(source, "the artifact", limits);
    expect(&mut tar, members::VERSION).map_err(|error| foreign::explain(error, &start))?;
    let version_bytes = tar.read_all("bytes", limits.version_bytes)?;
    expect(&mut tar, members::MANIFEST)?;
    let manifest_bytes = tar.read_all("bytes", limits.manifest_bytes)?;
    let (signature, header_entry) = read_signature(&mut tar, limits)?;

    // The signature first: nothing that follows looks at a byte which was not signed.
    let signature = keys::check(trust, &manifest_bytes, signature.as_deref())?;
    let manifest = Manifest::parse(&manifest_bytes, limits)?;

    checked::check(members::VERSION, manifest.version_sha256, &version_bytes)?;
    let format_version = header::parse_version(&version_bytes, limits)?;

    // The header is buffered, because decoding it while its checksum is unknown would give an attacker without any
    // key a decoder and a parser to play with.
    if header_entry.name != manifest.header_name() {
        return Err(ArtifactError::NotInManifest { entry: header_entry.name });
    }
    let header_bytes = tar.read_all("bytes", limits.header_bytes)?;
    checked::check(&header_entry.name, manifest.header_sha256, &header_bytes)?;
    let content = open_header(header_bytes, manifest.header_compression, limits)?;
    if content.payload.is_none() && !manifest.files.is_empty() {
        return Err(ArtifactError::EmptyPayloadWith { what: "files" });
    }

    let data_compression = match tar.next_entry()? {
        Some(entry) => Some(data_compression(entry)?),
        None if content.payload.is_none() => None,
        None => return Err(ArtifactError::MissingMember { expected: DATA }),
    };
    let data = data_compression.map(|compression| Data {
        compression,
        at: tar.position(),
        length: tar.remaining(),
        // What costs nothing needs no places to go on at.
        log: origin.as_ref().and_then(Origin::note_every).map(restart::Places::new),
        origin,
    });
    let inner = match &data {
        Some(data) => Some(open_data(tar, data, limits)?),
        None => None,
    };
    let payload = PayloadReader::new(inner, data, &manifest, limits);
    let header = Header {
        artifact_name: content.artifact_name,
        artifact_group: content.artifact_group,
        depends: content.depends,
        provides: content.provides,
        clears_provides: content.clears_provides,
        header_info: content.header_info,
        type_info: content.type_info,
        payload: content.payload,
        scripts: content.scripts,
        signature,
        manifest_sha256: Sha256::of(&manifest_bytes),
        manifest,
        data_compression,
        format_version,
    };
    Ok(Artifact { header, payload })
}

/// The next member, which has to be `name`.
fn expect<R: Read>(tar: &mut TarReader<R>, name: &'static str) -> Result<(), ArtifactError> {
    let entry = tar.next_entry()?.ok_or(ArtifactError::MissingMember { expected: name })?;
    match entry.name == name {
        true => Ok(()),
        false => Err(unexpected(entry, name)),
    }
}

/// `manifest.sig` if it is there, and the header's entry behind it.
fn read_signature<R: Read>(
    tar: &mut TarReader<R>,
    limits: &Limits,
) -> Result<(Option<Vec<u8>>, Entry), ArtifactError> {
    let missing = || ArtifactError::MissingMember { expected: HEADER };
    let mut entry = tar.next_entry()?.ok_or_else(missing)?;
    let mut signature = None;
    if entry.name == members::SIGNATURE {
        signature = Some(tar.read_all("bytes", limits.signature_bytes)?);
        entry = tar.next_entry()?.ok_or_else(missing)?;
    }
    match Compression::of_member(&entry.name, HEADER) {
        Some(_) => Ok((signature, entry)),
        None => Err(unexpected(entry, HEADER)),
    }
}

fn data_compression(entry: Entry) -> Result<Compression, ArtifactError> {
    match Compression::of_member(&entry.name, DATA) {
        Some(compression) => Ok(compression),
        None => Err(unexpected(entry, DATA)),
    }
}

/// Augmented artifacts are part of the format's description; that they are refused deserves its own words.
fn unexpected(entry: Entry, expected: &'static str) -> ArtifactError {
    match entry.name.as_str() {
        "manifest-augment" => ArtifactError::Augmented,
        name if name.starts_with("header-augment.tar") => ArtifactError::Augmented,
        _ => ArtifactError::UnexpectedMember { found: entry.name, expected },
    }
}

/// `bytes` are what the manifest says.
fn open_header(
    bytes: Vec<u8>,
    compression: Compression,
    limits: &Limits,
) -> Result<header::HeaderContent, ArtifactError> {
    let decoded = compression::decode(compression, HEADER, Cursor::new(bytes), limits)?;
    header::parse(Bounded { source: decoded, left: limits.header_open_bytes, limits }, limits)
}

/// Fails behind `left` bytes instead of ending there.
struct Bounded<'a, R> {
    source: R,
    left: u64,
    limits: &'a Limits,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            ArtifactError::too_large(HEADER, "decompressed bytes", self.limits.header_open_bytes).into_io()
        })?;
        Ok(count)
    }
}

/// The inner archive. Only decompression is worth another thread: what is stored as it is goes from the blocks of the
/// first one to whoever reads the payload without a copy.
fn open_data(
    tar: TarReader<Buffered>,
    data: &Data,
    limits: &Limits,
) -> Result<TarReader<Buffered>, ArtifactError> {
    let source = decoded(DataMember { tar }, data, limits, Start::default())?;
    Ok(TarReader::new(source, DATA, limits))
}

/// The inner archive from a place of one of its files on, which is that of `start`.
fn reopen_data(
    origin: &Origin,
    data: &Data,
    limits: &Limits,
    file: &Inside,
    start: Start,
) -> Result<TarReader<Buffered>, ArtifactError> {
    let at = start.stored;
    let name = format!("{DATA}{}", data.compression.suffix());
    let place = Inside { name, size: data.length, starts_at: data.at, offset: at };
    let source: Buffered = Box::new(origin.reader_at(data.at + at));
    let tar = TarReader::inside(source, "the artifact", limits, &place);
    let source = decoded(DataMember { tar }, data, limits, start)?;
    Ok(TarReader::inside(source, DATA, limits, file))
}

fn decoded(
    member: DataMember,
    data: &Data,
    limits: &Limits,
    start: Start,
) -> Result<Buffered, ArtifactError> {
    if data.compression == Compression::None {
        return Ok(Box::new(member));
    }
    let log = data.log.clone();
    let decoder = compression::decode_from(data.compression, DATA, member, limits, start, log)?;
    match &data.origin {
        Some(origin) => Ok(Box::new(origin.late(decoder))),
        None => {
            read_ahead::buffered(decoder, limits.reading).map_err(|source| ArtifactError::Source { source })
        }
    }
}

/// The data member as it is stored. It ends only when the artifact has properly ended behind it, so whoever has read
/// it to its end knows that nothing follows.
struct DataMember {
    tar: TarReader<Buffered>,
}

impl BufRead for DataMember {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.tar.remaining() == 0 {
            return match self.tar.next_entry()? {
                None => Ok(&[]),
                Some(extra) => Err(unexpected(extra, "the end of the artifact").into_io()),
            };
        }
        Ok(self.tar.fill_data()?)
    }

    fn consume(&mut self, count: usize) {
        self.tar.consume_data(count);
    }
}

impl Read for DataMember {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests;
