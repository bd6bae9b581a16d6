//! The artifact: the signed file that is delivered.
//!
//! [`open`] reads and verifies everything up to the payload; [`PayloadReader`] streams the payload files and verifies
//! each. [`write`](mod@write) makes artifacts. All of it works on [`Read`] and [`std::io::Write`]: nothing here opens
//! a file, and nothing decides whether an artifact fits a device.
//!
//! ```text
//! source ─► outer tar ─► version, manifest, manifest.sig ─► signature ─► header ─► Header
//!                  └───► data/0000.tar* ─► [thread: decompress ─► ReadAhead] ─► inner tar ─► PayloadFile
//! ```

#![forbid(unsafe_code)]

mod checked;
mod compression;
mod error;
mod foreign;
mod header;
mod json;
pub mod keys;
mod limits;
mod manifest;
mod members;
mod names;
mod payload;
mod read_ahead;
mod sha256;
mod state_script;
mod tar;
pub mod text;
pub mod write;

pub use compression::{Compression, CompressionLevel};
pub use error::{ArtifactError, TarProblem};
pub use header::{Depends, Header, PayloadInfo};
pub use keys::{KeyError, KeyPairPem, SignatureStatus, Signer, Trust, VerifyKeys};
pub use limits::Limits;
pub use manifest::{Manifest, ManifestFile};
pub use names::{ArtifactName, DeviceType, InvalidName, PayloadType};
pub use payload::{PayloadFile, PayloadReader};
pub use read_ahead::ReadAhead;
pub use sha256::{Hex, NotSha256, Sha256};
pub use state_script::{ScriptAction, ScriptPoint, ScriptState, StateScript};
pub use tar::tree;

use members::{DATA, HEADER};
use std::io::{self, BufReader, Cursor, Read};
use tar::{Entry, TarReader};

/// An artifact whose header is verified and whose payload is still to be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Artifact {
    /// What the artifact says about itself.
    pub header: Header,
    /// The payload files.
    pub payload: PayloadReader,
}

/// Bytes asked of the source at once while it is read in this thread.
const SOURCE_BYTES: usize = 64 * 1024;
/// Bytes handed out at once when nothing has to be decompressed.
const BLOCK_BYTES: usize = 256 * 1024;

/// Reads an artifact up to its payload, and verifies what it has read.
///
/// Nothing is decompressed, and but for tar headers nothing is parsed, before it is known to be what was signed. With
/// [`Trust::DangerUnsigned`] the manifest is taken as it is, and all else has to agree with it.
///
/// The source is read in this thread up to the payload. A compressed payload is then read and decompressed by a thread
/// of its own, which ends with the payload, with an error, or when the [`Artifact`] is dropped and its read returns.
///
/// # Errors
/// [`ArtifactError::Source`] when the source could not be read; anything else is a verdict on the artifact.
pub fn open<R: Read + Send + 'static>(
    mut source: R,
    trust: &Trust,
    limits: &Limits,
) -> Result<Artifact, ArtifactError> {
    let mut start = Vec::new();
    source
        .by_ref()
        .take(foreign::LOOK_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(ArtifactError::from_io)?;
    let foreign = foreign::name(&start);
    let source = BufReader::with_capacity(SOURCE_BYTES, Cursor::new(start).chain(source));
    let mut tar = TarReader::new(source, "the artifact", limits);
    expect(&mut tar, members::VERSION).map_err(|error| match foreign {
        Some(found) => ArtifactError::ForeignFormat { found },
        None => error,
    })?;
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
    let inner = match data_compression {
        Some(compression) => Some(open_data(tar, compression, limits)?),
        None => None,
    };
    let payload = PayloadReader::new(inner, &manifest, limits);
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

/// The inner archive. Only decompression is worth a thread; otherwise one would only move bytes.
fn open_data<R: Read + Send + 'static>(
    tar: TarReader<BufReader<R>>,
    compression: Compression,
    limits: &Limits,
) -> Result<TarReader<Box<dyn io::BufRead + Send>>, ArtifactError> {
    let member = DataMember { tar };
    let buffered: Box<dyn io::BufRead + Send> = match compression {
        Compression::None => Box::new(BufReader::with_capacity(BLOCK_BYTES, member)),
        Compression::Gzip | Compression::Xz | Compression::Zstd => {
            let decoded = compression::decode(compression, DATA, member, limits)?;
            Box::new(ReadAhead::new(decoded).map_err(|source| ArtifactError::Source { source })?)
        }
    };
    Ok(TarReader::new(buffered, DATA, limits))
}

/// The data member as it is stored. It ends only when the artifact has properly ended behind it, so whoever has read
/// it to its end knows that nothing follows.
struct DataMember<R> {
    tar: TarReader<R>,
}

impl<R: Read> Read for DataMember<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.tar.read_data(buffer)? {
            0 => match self.tar.next_entry()? {
                None => Ok(0),
                Some(extra) => Err(unexpected(extra, "the end of the artifact").into_io()),
            },
            count => Ok(count),
        }
    }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests;
