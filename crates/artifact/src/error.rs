//! What can be wrong with an artifact. One enum for the whole reader: an artifact is refused for exactly one reason,
//! and the reason names the entry.

use crate::compression::Compression;
use crate::sha256::Sha256;
use crate::text::printable;
use std::fmt;
use std::io;

/// Why an artifact was refused, could not be read or could not be written.
///
/// Only [`ArtifactError::Source`] says nothing about the artifact: the bytes could not be read. All other variants
/// are verdicts on the bytes and stay the same however often they are read.
#[non_exhaustive]
#[allow(missing_docs)] // The fields are named for what they hold; each variant says when it is returned.
pub enum ArtifactError {
    /// Reading the source failed. The artifact may be good.
    Source { source: io::Error },
    /// Writing an artifact, or reading what goes into one, failed.
    Write { doing: String, source: io::Error },
    /// It is something else altogether.
    ForeignFormat { found: &'static str },
    /// The data ended in the middle of `entry`.
    Truncated { entry: String },
    /// A tar header or tar structure this reader does not accept.
    Tar { entry: String, problem: TarProblem },
    /// A length or a number is over its limit.
    TooLarge { entry: String, what: &'static str, limit: u64 },
    /// A member of an archive is not where the format has it, or not part of the format at all.
    UnexpectedMember { found: String, expected: &'static str },
    /// The archive ended before a required member.
    MissingMember { expected: &'static str },
    /// The artifact has `manifest-augment` or `header-augment`, which no client supports.
    Augmented,
    /// `version` is not a description of the format.
    NotAnArtifact { found: String },
    /// `version` names another version of the format.
    UnsupportedVersion { found: String },
    /// A line of the manifest is not `<64 hexadecimal digits>  <name>`.
    ManifestLine { line: usize, problem: &'static str },
    /// The manifest lists a name twice.
    ManifestDuplicate { entry: String },
    /// The manifest has no line for an entry that needs one.
    NotInManifest { entry: String },
    /// The manifest has a line for something that is not in the artifact.
    NotInArtifact { entry: String },
    /// An entry's SHA-256 is not the one of the manifest.
    ChecksumMismatch { entry: String, expected: Sha256, actual: Sha256 },
    /// The frame of the payload at this byte of it is not the one of the signed frame table.
    FrameMismatch { at: u64 },
    /// There is no verification key, and unsigned artifacts were not asked for.
    NoVerifyKeys,
    /// The artifact carries no signature, and one is required.
    Unsigned,
    /// `manifest.sig` is not Base64.
    SignatureEncoding,
    /// The signature verifies with none of the keys.
    SignatureMismatch { keys: Vec<String> },
    /// The compression is not known, or this program was built without it.
    CompressionNotSupported { entry: String, compression: Compression },
    /// The first bytes are not those of the compression the name promises.
    WrongMagic { entry: String, compression: Compression },
    /// The window or dictionary that the decoder would have to keep is larger than the limit.
    WindowTooLarge { entry: String, compression: Compression, need_bytes: u64, allowed_bytes: u64 },
    /// The decoder would need more memory than is free.
    NotEnoughMemory { entry: String, compression: Compression, need_bytes: u64, available_bytes: u64 },
    /// The decoder refused the data.
    Decompress { entry: String, compression: Compression, source: io::Error },
    /// There is something behind the compressed data that does not belong to it.
    TrailingGarbage { entry: String },
    /// A JSON document cannot be parsed, is nested too deeply or has a key twice.
    Json { entry: String, problem: String },
    /// A field of a JSON document is missing or has another type than the format says.
    Field { entry: String, field: &'static str, problem: String },
    /// A state script's name is not one of the format.
    ScriptName { name: String },
    /// A payload type is empty or more than one plain path component.
    PayloadType { found: String },
    /// The artifact has not exactly one payload.
    PayloadCount { found: usize },
    /// `type-info` names another payload type than `header-info`.
    PayloadTypeMismatch { header_info: String, type_info: String },
    /// `type-info` repeats a dependency of `header-info`.
    DuplicateDepends { key: String },
    /// A payload file's name is not one plain path component.
    PayloadName { name: String },
    /// An artifact without a payload carries something that only a payload has.
    EmptyPayloadWith { what: &'static str },
    /// The same member twice in one archive.
    DuplicateMember { entry: String },
    /// Something was asked of the reader after it had failed.
    AfterFailure,
    /// What was to be written cannot be expressed in the format.
    CannotWrite { problem: String },
}

/// What is wrong with a tar header. All of these are things that two readers could understand differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TarProblem {
    /// The header's checksum is wrong.
    Checksum,
    /// Neither POSIX ustar nor GNU.
    Magic,
    /// A header of the format of 1979, without a magic.
    V7,
    /// Not a regular file: a link, a directory, a device or a global header.
    Type(u8),
    /// A file with holes, in one of the forms that leave them out.
    Sparse,
    /// A number field does not hold a number.
    Number,
    /// The sizes in the PAX header and the tar header disagree.
    SizeDisagrees,
    /// Two extension headers of one kind for one member, or names from two kinds.
    TwoExtensions,
    /// An extension header with no member behind it.
    DanglingExtension,
    /// A PAX record is malformed.
    PaxRecord,
    /// A PAX record of a kind that changes what the member is.
    PaxKey,
    /// The name is empty, not UTF-8 or has bytes behind its end.
    Name,
    /// A regular file with a link name.
    LinkName,
    /// Non-zero bytes in a part of the header or its padding that has to be zero.
    Padding,
    /// One zero block that is not followed by another.
    LoneZeroBlock,
    /// Something other than zeros behind the end of the archive.
    AfterEnd,
    /// The index that `pixz` puts behind the end of the archive.
    PixzIndex,
    /// A link without a target, or something other than a file that has content.
    Member,
    /// More extended attributes than a file can have.
    Attributes,
}

impl ArtifactError {
    /// Gets back the error that travelled through [`std::io::Read`]; any other I/O error is one of the source.
    pub fn from_io(error: io::Error) -> ArtifactError {
        match error.downcast::<ArtifactError>() {
            Ok(ours) => ours,
            Err(source) => ArtifactError::Source { source },
        }
    }

    /// Wraps the error so that it can travel through [`std::io::Read`].
    pub(crate) fn into_io(self) -> io::Error {
        let kind = if let ArtifactError::Source { source } = &self {
            source.kind()
        } else if let ArtifactError::Truncated { .. } = &self {
            io::ErrorKind::UnexpectedEof
        } else {
            io::ErrorKind::InvalidData
        };
        io::Error::new(kind, self)
    }

    pub(crate) fn tar(entry: &str, problem: TarProblem) -> ArtifactError {
        ArtifactError::Tar { entry: entry.to_owned(), problem }
    }

    pub(crate) fn too_large(entry: &str, what: &'static str, limit: u64) -> ArtifactError {
        ArtifactError::TooLarge { entry: entry.to_owned(), what, limit }
    }
}

/// Parse results inside the module travel through `Read` too.
impl From<ArtifactError> for io::Error {
    fn from(error: ArtifactError) -> io::Error {
        error.into_io()
    }
}

impl std::error::Error for ArtifactError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let ArtifactError::Source { source }
        | ArtifactError::Write { source, .. }
        | ArtifactError::Decompress { source, .. } = self
        {
            Some(source)
        } else {
            None
        }
    }
}

crate::debug_as_displayed!(ArtifactError);

impl fmt::Display for ArtifactError {
    // A listing: one sentence a variant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactError::Source { source } => write!(f, "cannot read the artifact: {source}"),
            ArtifactError::Write { doing, source } => write!(f, "cannot {doing}: {source}"),
            ArtifactError::Truncated { entry } => write!(f, "{}: the data ends too early", Shown(entry)),
            ArtifactError::Tar { entry, problem } => write!(f, "{}: {problem}", Shown(entry)),
            ArtifactError::TooLarge { entry, what, limit } => {
                write!(f, "{}: {what} over the limit of {limit}", Shown(entry))
            }
            ArtifactError::UnexpectedMember { found, expected } => {
                write!(f, "unexpected member {} where {expected} should be", Shown(found))
            }
            ArtifactError::MissingMember { expected } => write!(f, "the archive ends before {expected}"),
            ArtifactError::Augmented => write!(f, "augmented artifacts are not supported"),
            ArtifactError::NotAnArtifact { found } => write!(f, "version: not an artifact: {}", Shown(found)),
            ArtifactError::UnsupportedVersion { found } => {
                write!(f, "version: artifact format {} is not supported, only 3 is", Shown(found))
            }
            ArtifactError::ManifestLine { line, problem } => write!(f, "manifest: line {line}: {problem}"),
            ArtifactError::ManifestDuplicate { entry } => {
                write!(f, "manifest: {} is listed twice", Shown(entry))
            }
            ArtifactError::NotInManifest { entry } => {
                write!(f, "{}: not listed in the manifest", Shown(entry))
            }
            ArtifactError::NotInArtifact { entry } => {
                write!(f, "{}: listed in the manifest and not in the artifact", Shown(entry))
            }
            ArtifactError::ChecksumMismatch { entry, expected, actual } => {
                write!(f, "{}: checksum mismatch: expected {expected}, got {actual}", Shown(entry))
            }
            ArtifactError::FrameMismatch { at } => {
                write!(f, "the frame at byte {at} of the payload is not the one that was signed")
            }
            ArtifactError::NoVerifyKeys => write!(
                f,
                "no key to verify artifacts with is configured: set ArtifactVerifyKey or ArtifactVerifyKeys, or \
                 accept unsigned artifacts with DangerAcceptUnsigned in RustOta"
            ),
            ArtifactError::Unsigned => write!(f, "expecting signed artifact, but no signature file found"),
            ArtifactError::SignatureEncoding => write!(f, "manifest.sig: not Base64"),
            ArtifactError::SignatureMismatch { keys } => {
                write!(f, "manifest.sig: wrong signature or wrong key; tried {}", keys.join(", "))
            }
            ArtifactError::CompressionNotSupported { entry, compression } => {
                write!(f, "{}: this program was built without {compression} support", Shown(entry))
            }
            ArtifactError::WrongMagic { entry, compression } => {
                write!(f, "{}: the content is not {compression} as the name says", Shown(entry))
            }
            ArtifactError::Decompress { entry, compression, source } => {
                write!(f, "{}: cannot decompress {compression}: {source}", Shown(entry))
            }
            ArtifactError::WindowTooLarge { entry, compression, need_bytes, allowed_bytes } => {
                let (what, remedy) = match compression {
                    Compression::Xz => {
                        ("dictionary", "compress it with a lower preset, or `--lzma2=dict=64MiB`")
                    }
                    Compression::Zstd => ("window", "compress it without `--long` and `--ultra`"),
                    Compression::None | Compression::Gzip => ("window", "use another compression"),
                };
                write!(
                    f,
                    "{}: {compression} needs a {what} of {}, and {} are allowed; {remedy}",
                    Shown(entry),
                    Bytes(*need_bytes),
                    Bytes(*allowed_bytes)
                )
            }
            ArtifactError::NotEnoughMemory { entry, compression, need_bytes, available_bytes } => write!(
                f,
                "{}: {compression} needs {} of memory to be decompressed, and {} are free; write the artifact with a \
                 smaller window, or with gzip",
                Shown(entry),
                Bytes(*need_bytes),
                Bytes(*available_bytes)
            ),
            ArtifactError::TrailingGarbage { entry } => {
                write!(f, "{}: data behind the end of the compressed stream", Shown(entry))
            }
            ArtifactError::Json { entry, problem } => write!(f, "{entry}: {problem}"),
            ArtifactError::Field { entry, field, problem } => write!(f, "{entry}: {field}: {problem}"),
            ArtifactError::ScriptName { name } => {
                write!(f, "{}: not the name of a state script", Shown(name))
            }
            ArtifactError::PayloadType { found } => {
                write!(f, "header-info: {} is not a payload type", Shown(found))
            }
            ArtifactError::PayloadCount { found } => {
                write!(f, "header-info: {found} payloads, only one is supported")
            }
            ArtifactError::PayloadTypeMismatch { header_info, type_info } => write!(
                f,
                "type-info: payload type {} does not match {} of header-info",
                Shown(type_info),
                Shown(header_info)
            ),
            ArtifactError::DuplicateDepends { key } => {
                write!(f, "type-info: artifact_depends repeats {} of header-info", Shown(key))
            }
            ArtifactError::PayloadName { name } => {
                write!(f, "{}: not a plain file name for a payload file", Shown(name))
            }
            ArtifactError::EmptyPayloadWith { what } => write!(f, "an empty payload cannot have {what}"),
            ArtifactError::ForeignFormat { found } => write!(f, "not a Mender artifact: it is {found}"),
            ArtifactError::DuplicateMember { entry } => write!(f, "{}: in the archive twice", Shown(entry)),
            ArtifactError::AfterFailure => write!(f, "the artifact was refused before"),
            ArtifactError::CannotWrite { problem } => write!(f, "cannot write the artifact: {problem}"),
        }
    }
}

impl fmt::Display for TarProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TarProblem::Checksum => write!(f, "wrong tar header checksum"),
            TarProblem::Magic => write!(f, "neither a ustar nor a GNU tar header"),
            TarProblem::V7 => {
                write!(f, "a tar header of the V7 format, which is not read; write it with `--format=ustar`")
            }
            TarProblem::Sparse => write!(
                f,
                "a sparse file in the archive, which is not read; write it without holes (bsdtar: `--no-read-sparse`, \
                 GNU tar: without `--sparse`)"
            ),
            TarProblem::Type(flag) => {
                write!(f, "tar member type '{}' is not a regular file", flag.escape_ascii())
            }
            TarProblem::Number => write!(f, "malformed number in the tar header"),
            TarProblem::SizeDisagrees => write!(f, "the sizes in the PAX and the tar header disagree"),
            TarProblem::TwoExtensions => write!(f, "two extension headers for one member"),
            TarProblem::DanglingExtension => write!(f, "an extension header with no member behind it"),
            TarProblem::PaxRecord => write!(f, "malformed PAX record"),
            TarProblem::PaxKey => write!(f, "PAX record of an unsupported kind"),
            TarProblem::Name => write!(f, "malformed member name"),
            TarProblem::LinkName => write!(f, "a regular file with a link name"),
            TarProblem::Padding => write!(f, "non-zero padding"),
            TarProblem::LoneZeroBlock => write!(f, "a lone zero block"),
            TarProblem::AfterEnd => write!(f, "data behind the end of the archive"),
            TarProblem::PixzIndex => write!(
                f,
                "behind the end of the archive is the index that pixz adds; compress it with `pixz -t`, which adds none"
            ),
            TarProblem::Member => write!(f, "a link without a target, or content where none belongs"),
            TarProblem::Attributes => write!(f, "too many extended attributes"),
        }
    }
}

/// A number of bytes, in MiB too where that says more.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 >> 20 {
            0 => write!(f, "{} bytes", self.0),
            mib if self.0.trailing_zeros() >= 20 => write!(f, "{mib} MiB"),
            _ => write!(f, "{} MiB", self.0.div_ceil(1 << 20)),
        }
    }
}

/// A name from an artifact, made safe for a log line, and not longer than 80 characters.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(80) {
            Some((end, _)) => write!(f, "{}...", printable(&self.0[..end])),
            None => f.write_str(&printable(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_source_and_a_verdict_stay_what_they_are_on_the_trip_through_io() {
        let source = ArtifactError::from_io(io::Error::from(io::ErrorKind::TimedOut));
        let trip = ArtifactError::from_io(source.into_io());
        assert!(
            matches!(&trip, ArtifactError::Source { source } if source.kind() == io::ErrorKind::TimedOut)
        );
        let verdict = ArtifactError::from_io(ArtifactError::Unsigned.into_io());
        assert!(matches!(verdict, ArtifactError::Unsigned));
    }

    #[test]
    fn hostile_names_cannot_forge_log_lines() {
        let error = ArtifactError::PayloadName { name: format!("a\n{}", "b".repeat(100)) };
        let shown = error.to_string();
        assert!(!shown.contains('\n') && shown.contains("a\\nb") && shown.contains("..."), "{shown}");
    }
}
