//! `delta`: makes the artifact that turns one image into another. Which blocks are alike is found by `delta_make`, the format is
//! that of `delta`; here are files, options and text.

use crate::failure::Failure;
use crate::output::{self, STANDARD};
use crate::progress::Shared;
use crate::write::{self, Kind, Options, PayloadFile, SizeBounds};
use crate::{Console, keys, sign, source, validate};
use artifact::text::printable;
use artifact::write::{ArtifactSpec, CHECKSUM_KEYS, MetaData, ROOTFS_IMAGE};
use artifact::{ArtifactError, Compression, CompressionLevel, Trust};
use delta::{Applier, Compression as Coding, Signed, Source};
use delta_make::{Image, Made};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The payload type that devices know deltas by.
pub(crate) const PAYLOAD_TYPE: &str = "rust-ota-delta";
/// What the file is called in the artifact. Devices do not care.
const FILE_NAME: &str = "rootfs.delta";

/// One of the two images, which may have come in an artifact.
struct Side {
    image: Image,
    /// Of the artifact it came in: what that says, and how large it is.
    artifact: Option<(ArtifactSpec, u64)>,
}

pub(crate) fn run(parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    let Some(mut options) = write::parse(Kind::Delta, parser)? else { return console.help("delta") };
    options.compression = options.compression.or_else(|| console.compression.take());
    let [old_path, new_path] = &options.files[..] else {
        return Err(Failure::usage("delta needs two images or artifacts: OLD NEW"));
    };
    let coding = match options.compression.as_deref() {
        None | Some("zstd" | "zstd_best") => Coding::Zstd,
        Some("xz" | "lzma") => Coding::Xz,
        Some(other) => {
            return Err(Failure::usage(format!(
                "a delta is compressed with zstd_best or lzma, not {other:?}"
            )));
        }
    };
    let target = write::target(&options);
    let inputs = [old_path, new_path].into_iter().chain(&options.scripts).chain(&options.key);
    write::refuse_output_over_input(&target, inputs)?;
    let signer = options.key.as_deref().map(keys::signer).transpose()?;
    if let Some(signer) = &signer {
        sign::warn_of_ed25519(signer.kind(), console);
    }
    let folder = options.temporary.as_deref();
    let old = open(old_path, folder, &target)?;
    let new = open(new_path, folder, &target)?;
    let mut spec = specification(&options, &new)?;

    let full = match &new.artifact {
        Some((_, bytes)) => (*bytes, "the artifact"),
        None => (compressed(&new.image)?, "zstd_fast"),
    };
    let mut groups = output::scratch(folder, &target)?;
    let steps = 1 + u64::from(!options.no_verify);
    let total = old.image.bytes().saturating_add(new.image.bytes().saturating_mul(steps));
    let progress = if options.no_progress { Shared::hidden() } else { Shared::new(total) };
    let jobs = jobs(options.jobs.as_deref())?;
    let making = delta_make::Options { compression: coding, jobs };
    let count = |bytes| progress.add(bytes);
    let made = delta_make::make(&old.image, &new.image, &making, &mut groups, &count)
        .map_err(|error| Failure::usage(format!("cannot make the delta: {error}")))?;
    let encoded = |error| Failure::usage(format!("cannot make the delta: {error}"));
    let head = made.head.encode().map_err(encoded)?;
    if !options.no_verify {
        verify(&old.image, &new.image, &head, &groups, &count)?;
    }
    drop(progress);

    let length = groups.seek(SeekFrom::End(0)).map_err(|error| Failure::io("measure the delta", error))?;
    let bytes = head.len() as u64 + length;
    let signed = Signed {
        source: made.head.source,
        target: made.head.target,
        memory_bytes: made.head.memory_bytes(),
        transfer_bytes: bytes,
        changed_bytes: made.changed_bytes,
    };
    complete(&mut spec, &signed);
    let report = Report { signed: &signed, made: &made, full, verified: !options.no_verify };
    let squashfs = is_compressed_squashfs(&new.image)?;
    let file = PayloadFile::behind(FILE_NAME, head, groups, bytes);
    let bounds = SizeBounds { most: options.most_bytes, warn: options.warn_bytes };
    let scratch = output::scratch(folder, &target)?;
    let hidden = crate::progress::Progress::hidden();
    write::put(&spec, &[file], signer.as_ref(), &hidden, scratch, &target, &bounds, console)?;

    if squashfs {
        console.warn(
            "the new image is a compressed squashfs, of which a small change alters nearly everything that follows it. How \
             small the delta of an uncompressed one is, is found out by making both images with `mksquashfs -noI -noD -noF \
             -noX` and this command again; the artifact of the full image is compressed all the same",
        );
    }
    if bytes > full.0 {
        console.warn("the delta is larger than the full image: nothing is gained by it");
    }
    let text = if options.json { report.json() } else { report.text() };
    match target.as_path() == Path::new(STANDARD) {
        // What the report is about is there.
        true => console.err.write_all(text.as_bytes()).map_err(|error| Failure::io("report", error)),
        false => console.print(&text),
    }
}

/// How many threads work.
fn jobs(option: Option<&str>) -> Result<usize, Failure> {
    let Some(text) = option else { return Ok(std::thread::available_parallelism().map_or(1, usize::from)) };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Failure::usage(format!("--jobs {text:?} is not a number above 0")))
}

/// Opens an image, or takes the one out of an artifact.
fn open(path: &Path, folder: Option<&Path>, target: &Path) -> Result<Side, Failure> {
    let file = source::open(path, folder)?;
    let reading = |error| Failure::io(format_args!("read {}", path.display()), error);
    if !is_artifact(&file).map_err(reading)? {
        return Ok(Side { image: Image::new(file).map_err(reading)?, artifact: None });
    }
    let bytes = file.metadata().map_err(reading)?.len();
    let mut artifact = validate::read(path, source::again(&file)?, &Trust::DangerUnsigned)?;
    let spec = ArtifactSpec::of(&artifact.header);
    let kind = spec.payload_type.as_ref().map_or("none", |kind| kind.as_str());
    if kind != ROOTFS_IMAGE {
        return Err(Failure::usage(format!(
            "{}: its payload is of type {}, and only {ROOTFS_IMAGE} has an image of a whole slot",
            path.display(),
            printable(kind)
        )));
    }
    let wrong = |error| Failure::artifact(path, error);
    let mut image = output::scratch(folder, target)?;
    let none = || Failure::usage(format!("{}: there is no image in it", path.display()));
    let mut content = artifact.payload.next_file().map_err(wrong)?.ok_or_else(none)?;
    // The end of the file is reached only with its checksum.
    io::copy(&mut content, &mut image).map_err(|error| {
        match error.get_ref().is_some_and(|inner| inner.is::<ArtifactError>()) {
            true => wrong(ArtifactError::from_io(error)),
            false => Failure::io("unpack the image", error),
        }
    })?;
    Ok(Side { image: Image::new(image).map_err(reading)?, artifact: Some((spec, bytes)) })
}

/// Whether a file begins as artifacts do: with an archive whose first member is called `version`.
fn is_artifact(file: &File) -> io::Result<bool> {
    let mut start = Vec::new();
    let mut from = file;
    from.seek(SeekFrom::Start(0))?;
    from.take(512).read_to_end(&mut start)?;
    from.seek(SeekFrom::Start(0))?;
    Ok(start.starts_with(b"version\0") && start.get(257..262) == Some(b"ustar"))
}

/// What the artifact says: as that of the new image where there is one, and what the options say.
fn specification(options: &Options, new: &Side) -> Result<ArtifactSpec, Failure> {
    let mut spec = match &new.artifact {
        None => write::specification(Kind::Delta, options)?,
        Some((spec, _)) => {
            let mut spec = spec.clone();
            write::change(&mut spec, options)?;
            spec
        }
    };
    spec.payload_type = PAYLOAD_TYPE.parse().ok();
    spec.checksum_provides = Vec::new();
    spec.frames = false;
    // A place in the file has to be a place in the artifact; the groups are compressed by themselves.
    spec.compression = CompressionLevel::default_of(Compression::None);
    Ok(spec)
}

/// Adds what is known only when the delta is there.
fn complete(spec: &mut ArtifactSpec, signed: &Signed) {
    let [checksum, legacy] = CHECKSUM_KEYS;
    spec.meta_data = MetaData::Json(signed.meta_data());
    spec.provides.remove(legacy);
    spec.provides.insert(checksum.to_owned(), signed.target.sha256.to_string());
    spec.depends_on_any.remove(checksum);
    spec.depends.insert(checksum.to_owned(), signed.source.sha256.to_string());
}

/// Applies the delta as a device does, and compares.
fn verify(
    old: &Image,
    new: &Image,
    head: &[u8],
    groups: &File,
    progress: &dyn Fn(u64),
) -> Result<(), Failure> {
    let wrong = |error| Failure::usage(format!("the delta that was made cannot be applied: {error}"));
    let mut groups = groups;
    groups.seek(SeekFrom::Start(0)).map_err(|error| Failure::io("read the delta again", error))?;
    let mut input = BufReader::with_capacity(256 * 1024, head.chain(groups));
    let head = delta::Head::read(&mut input).map_err(wrong)?;
    let mut applier = Applier::new(head).map_err(wrong)?;
    let (mut at, mut expected) = (0, Vec::new());
    while let Some(applied) = applier.next(&mut input, &mut Old(old)).map_err(wrong)? {
        expected.resize(applied.bytes.len(), 0);
        new.read_at(at, &mut expected).map_err(|error| Failure::io("read the new image", error))?;
        if applied.bytes != expected {
            return Err(Failure::usage(format!(
                "the delta that was made is wrong at byte {at} of the new image"
            )));
        }
        at += applied.bytes.len() as u64;
        progress(applied.bytes.len() as u64);
    }
    match at == new.bytes() {
        true => Ok(()),
        false => Err(Failure::usage(format!("the delta that was made ends at byte {at} of the new image"))),
    }
}

/// What the meta-data of an artifact says about its delta.
pub(crate) fn describe(meta_data: &str) -> String {
    match Signed::parse(meta_data) {
        Err(error) => format!("    Delta: {error}\n"),
        Ok(Signed { source, target, memory_bytes, transfer_bytes, changed_bytes }) => format!(
            "    Delta:\n\tfrom an image of {} bytes, SHA-256 {}\n\tto an image of {} bytes, SHA-256 {}\n\
             \t{transfer_bytes} bytes to transfer, {memory_bytes} bytes of memory, {changed_bytes} bytes of the slot change\n",
            source.bytes, source.sha256, target.bytes, target.sha256,
        ),
    }
}

struct Old<'a>(&'a Image);

impl Source for Old<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
}

/// What the full image would cost, as `write --compression zstd_fast` compresses it.
fn compressed(image: &Image) -> Result<u64, Failure> {
    let level = write::compression("zstd_fast")?;
    level.measure(&mut image.reader()).map_err(|error| Failure::io("compress the new image", error))
}

/// Whether an image is a squashfs whose data is compressed.
fn is_compressed_squashfs(image: &Image) -> Result<bool, Failure> {
    const DATA_AS_IT_IS: u8 = 0x02;
    let mut start = [0; 96];
    image.read_padded(0, &mut start).map_err(|error| Failure::io("read the new image", error))?;
    Ok(start.starts_with(b"hsqs") && start[24] & DATA_AS_IT_IS == 0)
}

/// What is said at the end.
struct Report<'a> {
    signed: &'a Signed,
    made: &'a Made,
    /// Bytes of the full image, and as what.
    full: (u64, &'static str),
    verified: bool,
}

impl Report<'_> {
    fn json(&self) -> String {
        let Report { signed, made, full: (full_bytes, full_as), verified } = self;
        let files = made.files.map(|found| {
            json!({ "by_path": found.by_path, "by_masked_path": found.by_masked_path, "by_name": found.by_name,
                    "by_content": found.by_content })
        });
        let report = json!({ "delta": {
            "bytes": signed.transfer_bytes,
            "full_bytes": full_bytes,
            "full_as": full_as,
            "share": signed.transfer_bytes as f64 / (*full_bytes).max(1) as f64,
            "image_bytes": signed.target.bytes,
            "zero_bytes": made.zero_bytes,
            "copied_bytes": made.copied_bytes,
            "coded_bytes": made.coded_bytes,
            "changed_bytes": signed.changed_bytes,
            "memory_bytes": signed.memory_bytes,
            "groups": made.head.groups.len(),
            "files": files,
            "source_sha256": signed.source.sha256.to_string(),
            "target_sha256": signed.target.sha256.to_string(),
            "verified": verified,
        } });
        format!("{report}\n")
    }

    fn text(&self) -> String {
        let Report { signed, made, full: (full_bytes, full_as), verified } = self;
        let per_mille = u128::from(signed.transfer_bytes) * 1000 / u128::from((*full_bytes).max(1));
        let files = match made.files {
            None => "no ext file system on both sides: everything was found by content".to_owned(),
            Some(found) => format!(
                "{} by path, {} by path without numbers, {} by name, {} by content",
                found.by_path, found.by_masked_path, found.by_name, found.by_content
            ),
        };
        format!(
            "delta:   {} bytes, {}.{} % of the full image ({full_bytes} bytes, {full_as})\n\
             image:   {} bytes: {} zero, {} copied, {} coded\n\
             files:   {files}\n\
             device:  {} bytes of memory; {} bytes of the slot differ from the old image\n\
             checked: {}\n",
            signed.transfer_bytes,
            per_mille / 10,
            per_mille % 10,
            signed.target.bytes,
            made.zero_bytes,
            made.copied_bytes,
            made.coded_bytes,
            signed.memory_bytes,
            signed.changed_bytes,
            if *verified { "applied to the old image, and the same as the new one" } else { "not" },
        )
    }
}
