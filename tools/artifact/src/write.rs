//! `write`: makes an artifact.

use crate::failure::Failure;
use crate::output::{self, Mode, Output, STANDARD};
use crate::progress::Progress;
use crate::{Console, args, keys, sign, source, tree};
use artifact::write::{self, ArtifactSpec, MetaData, PayloadSource, SoftwareName};
use artifact::write::{CHECKSUM_KEYS, DIRECTORY, ROOTFS_IMAGE, SINGLE_FILE};
use artifact::{ArtifactName, Compression, CompressionLevel, DeviceType, PayloadType, Signer, StateScript};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rootfs,
    Module,
    SingleFile,
    Directory,
    Script,
    Bootstrap,
    /// A command of its own, which has the options of the others.
    Delta,
}

impl Kind {
    /// What `write` writes.
    const ALL: [Kind; 6] =
        [Kind::Rootfs, Kind::Module, Kind::SingleFile, Kind::Directory, Kind::Script, Kind::Bootstrap];

    fn name(self) -> &'static str {
        match self {
            Kind::Rootfs => "rootfs-image",
            Kind::Module => "module-image",
            Kind::SingleFile => "single-file",
            Kind::Directory => "directory",
            Kind::Script => "script",
            Kind::Bootstrap => "bootstrap-artifact",
            Kind::Delta => "delta",
        }
    }

    /// Whether the payload goes to a directory on the device that has to be named.
    fn has_destination(self) -> bool {
        match self {
            Kind::SingleFile | Kind::Directory => true,
            Kind::Rootfs | Kind::Module | Kind::Script | Kind::Bootstrap | Kind::Delta => false,
        }
    }

    /// Whether files may be given without an option.
    fn takes_arguments(self) -> bool {
        match self {
            Kind::SingleFile | Kind::Directory | Kind::Script | Kind::Delta => true,
            Kind::Rootfs | Kind::Module | Kind::Bootstrap => false,
        }
    }
}

/// The options as they were given.
#[derive(Default)]
pub(crate) struct Options {
    artifact_name: Option<ArtifactName>,
    device_types: Vec<DeviceType>,
    output: Option<PathBuf>,
    pub(crate) compression: Option<String>,
    pub(crate) key: Option<PathBuf>,
    provides: BTreeMap<String, String>,
    depends: BTreeMap<String, String>,
    provides_group: Option<Option<String>>,
    depends_groups: Vec<String>,
    depends_names: Vec<String>,
    clears_provides: Vec<String>,
    reproducible: bool,
    pub(crate) no_progress: bool,
    pub(crate) temporary: Option<PathBuf>,
    pub(crate) most_bytes: Option<u64>,
    pub(crate) warn_bytes: Option<u64>,
    pub(crate) scripts: Vec<PathBuf>,
    software_filesystem: Option<String>,
    software_name: Option<String>,
    software_version: Option<String>,
    no_default_software_version: bool,
    no_default_clears_provides: bool,
    pub(crate) files: Vec<PathBuf>,
    payload_type: Option<PayloadType>,
    meta_data: Option<PathBuf>,
    no_checksum_provide: bool,
    legacy_checksum: bool,
    frames: bool,
    destination: Option<String>,
    owner: Option<(u32, u32)>,
    pub(crate) jobs: Option<String>,
    pub(crate) json: bool,
    pub(crate) no_verify: bool,
}

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let kind = match parser.next()? {
        Some(Long("help") | Short('h')) => return console.help("write"),
        Some(Value(word)) => {
            let kind = Kind::ALL.into_iter().find(|kind| word == kind.name());
            kind.ok_or_else(|| Failure::usage(format!("cannot write {word:?}; see write --help")))?
        }
        Some(other @ (Long(_) | Short(_))) => return Err(other.unexpected().into()),
        None => return Err(Failure::usage("write what? see write --help")),
    };
    match parse(kind, parser)? {
        Some(mut options) => {
            options.compression = options.compression.or_else(|| console.compression.take());
            write_artifact(kind, &options, console)
        }
        None => console.help_of(&["write", kind.name()]),
    }
}

/// An option: what it is called, which kinds of artifacts have it, and what it does.
struct Definition {
    long: &'static str,
    short: Option<char>,
    is_of: fn(Kind) -> bool,
    take: fn(&mut Options, &mut lexopt::Parser) -> Result<(), Failure>,
}

impl Definition {
    fn is_meant_by(&self, arg: &lexopt::Arg<'_>, kind: Kind) -> bool {
        use lexopt::Arg::{Long, Short, Value};
        let named = match arg {
            Long(long) => *long == self.long,
            Short(short) => Some(*short) == self.short,
            Value(_) => false,
        };
        named && (self.is_of)(kind)
    }
}

/// Of all kinds.
const fn common(
    long: &'static str,
    short: Option<char>,
    take: fn(&mut Options, &mut lexopt::Parser) -> Result<(), Failure>,
) -> Definition {
    Definition { long, short, is_of: |_| true, take }
}

/// Of those that have a payload.
const fn with_payload(
    long: &'static str,
    short: Option<char>,
    take: fn(&mut Options, &mut lexopt::Parser) -> Result<(), Failure>,
) -> Definition {
    Definition { long, short, is_of: |kind| kind != Kind::Bootstrap, take }
}

/// Of deltas.
const fn only_of_delta(
    long: &'static str,
    short: Option<char>,
    take: fn(&mut Options, &mut lexopt::Parser) -> Result<(), Failure>,
) -> Definition {
    Definition { long, short, is_of: |kind| kind == Kind::Delta, take }
}

/// Of two options of the same name the first that the kind has is meant: `-d` is `--dest-dir` where there is one, as in
/// the generators of these payload types.
const OPTIONS: &[Definition] = &[
    common("artifact-name", Some('n'), |o, p| {
        args::once(&mut o.artifact_name, args::name(p)?, "--artifact-name")
    }),
    common("device-type", Some('t'), |o, p| put_in(&mut o.device_types, args::name(p)?)),
    common("compatible-types", Some('c'), |o, p| put_in(&mut o.device_types, args::name(p)?)),
    common("output-path", Some('o'), |o, p| args::once(&mut o.output, args::path(p)?, "--output-path")),
    common("compression", None, |o, p| args::once(&mut o.compression, args::text(p)?, "--compression")),
    common("tmp", None, |o, p| args::once(&mut o.temporary, args::path(p)?, "--tmp")),
    common("max-artifact-size", None, |o, p| {
        args::once(&mut o.most_bytes, args::size(p)?, "--max-artifact-size")
    }),
    common("warn-artifact-size", None, |o, p| {
        args::once(&mut o.warn_bytes, args::size(p)?, "--warn-artifact-size")
    }),
    common("key", Some('k'), |o, p| args::once(&mut o.key, args::path(p)?, "--key")),
    common("provides", Some('p'), |o, p| put_in(&mut o.provides, args::key_value(p)?)),
    Definition {
        long: "dest-dir",
        short: Some('d'),
        is_of: Kind::has_destination,
        take: |o, p| args::once(&mut o.destination, args::text(p)?, "--dest-dir"),
    },
    Definition {
        long: "owner",
        short: None,
        is_of: |kind| kind == Kind::Directory,
        take: |o, p| args::once(&mut o.owner, args::owner(p)?, "--owner"),
    },
    common("depends", Some('d'), |o, p| put_in(&mut o.depends, args::key_value(p)?)),
    common("provides-group", Some('g'), |o, p| {
        // Scripts hand over what may be empty; that is no group.
        let group = Some(args::text(p)?).filter(|group| !group.is_empty());
        args::once(&mut o.provides_group, group, "--provides-group")
    }),
    common("depends-groups", Some('G'), |o, p| put_in(&mut o.depends_groups, args::text(p)?)),
    common("artifact-name-depends", Some('N'), |o, p| put_in(&mut o.depends_names, args::text(p)?)),
    common("clears-provides", None, |o, p| put_in(&mut o.clears_provides, args::text(p)?)),
    common("reproducible", None, |o, _| set(&mut o.reproducible)),
    common("no-progress", None, |o, _| set(&mut o.no_progress)),
    common("version", Some('v'), |_, p| only_version_three(&args::text(p)?)),
    with_payload("script", Some('s'), |o, p| put_in(&mut o.scripts, args::path(p)?)),
    with_payload("software-filesystem", None, |o, p| last(&mut o.software_filesystem, args::text(p)?)),
    with_payload("software-name", None, |o, p| last(&mut o.software_name, args::text(p)?)),
    with_payload("software-version", None, |o, p| last(&mut o.software_version, args::text(p)?)),
    with_payload("no-default-software-version", None, |o, _| set(&mut o.no_default_software_version)),
    with_payload("no-default-clears-provides", None, |o, _| set(&mut o.no_default_clears_provides)),
    Definition {
        long: "file",
        short: Some('f'),
        is_of: |kind| !matches!(kind, Kind::Bootstrap | Kind::Delta),
        take: |o, p| put_in(&mut o.files, args::path(p)?),
    },
    only_of_delta("jobs", Some('j'), |o, p| args::once(&mut o.jobs, args::text(p)?, "--jobs")),
    only_of_delta("json", None, |o, _| set(&mut o.json)),
    only_of_delta("no-verify", None, |o, _| set(&mut o.no_verify)),
    Definition {
        long: "type",
        short: Some('T'),
        is_of: |kind| kind == Kind::Module,
        take: |o, p| args::once(&mut o.payload_type, args::name(p)?, "--type"),
    },
    Definition {
        long: "meta-data",
        short: Some('m'),
        is_of: |kind| kind == Kind::Module,
        take: |o, p| args::once(&mut o.meta_data, args::path(p)?, "--meta-data"),
    },
    Definition {
        long: "no-checksum-provide",
        short: None,
        is_of: |kind| kind == Kind::Rootfs,
        take: |o, _| set(&mut o.no_checksum_provide),
    },
    Definition {
        long: "legacy-rootfs-image-checksum",
        short: None,
        is_of: |kind| kind == Kind::Rootfs,
        take: |o, _| set(&mut o.legacy_checksum),
    },
    Definition {
        long: "frames",
        short: None,
        is_of: |kind| kind == Kind::Rootfs,
        take: |o, _| set(&mut o.frames),
    },
];

fn put_in<T>(values: &mut impl Extend<T>, value: T) -> Result<(), Failure> {
    values.extend([value]);
    Ok(())
}

/// Of several the last one counts.
fn last<T>(slot: &mut Option<T>, value: T) -> Result<(), Failure> {
    *slot = Some(value);
    Ok(())
}

fn set(flag: &mut bool) -> Result<(), Failure> {
    *flag = true;
    Ok(())
}

fn only_version_three(version: &str) -> Result<(), Failure> {
    match version {
        "3" => Ok(()),
        _ => Err(Failure::usage(format!("cannot write version {version:?}, only 3"))),
    }
}

/// `None` when help was asked for.
pub(crate) fn parse(kind: Kind, mut parser: lexopt::Parser) -> Result<Option<Options>, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        if let Some(option) = OPTIONS.iter().find(|option| option.is_meant_by(&arg, kind)) {
            (option.take)(&mut options, &mut parser)?;
            continue;
        }
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Value(file) if kind.takes_arguments() => options.files.push(PathBuf::from(file)),
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Long(option) if option.starts_with("augment-") => {
                return Err(Failure::usage(format!("--{option}: no client installs augmented artifacts")));
            }
            Long("ssh-args") | Short('S') => return Err(no_snapshots()),
            Long(_) | Short(_) | Value(_) => return Err(arg.unexpected().into()),
        }
    }
    Ok(Some(options))
}

const DEFAULT_OUTPUT: &str = "artifact.mender";

/// Where the artifact goes.
pub(crate) fn target(options: &Options) -> PathBuf {
    options.output.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_OUTPUT))
}

fn write_artifact(kind: Kind, options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let spec = specification(kind, options)?;
    let target = &target(options);
    let signer = options.key.as_deref().map(keys::signer).transpose()?;
    if let Some(signer) = &signer {
        sign::warn_of_ed25519(signer.kind(), console);
    }
    let inputs = options.files.iter().chain(&options.scripts).chain(&options.key).chain(&options.meta_data);
    refuse_output_over_input(target, inputs)?;
    let files = payload(kind, options, target)?;
    if let (Kind::Rootfs, [image]) = (kind, &files[..]) {
        warn_of_compressed_image(image, console)?;
    }
    let total = files.iter().map(|file| file.size).sum();
    let progress = if options.no_progress { Progress::hidden() } else { Progress::new(total) };
    let bounds = SizeBounds { most: options.most_bytes, warn: options.warn_bytes };
    let scratch = output::scratch(options.temporary.as_deref(), target)?;
    put(&spec, &files, signer.as_ref(), &progress, scratch, target, &bounds, console)
}

/// The sizes above which an artifact is not written, and is warned of.
#[derive(Default)]
pub(crate) struct SizeBounds {
    pub(crate) most: Option<u64>,
    pub(crate) warn: Option<u64>,
}

/// Writes the artifact to where it goes.
#[allow(clippy::too_many_arguments)] // Each is one thing that an artifact is made of or goes to.
pub(crate) fn put(
    spec: &ArtifactSpec,
    files: &[PayloadFile],
    signer: Option<&Signer>,
    progress: &Progress,
    mut scratch: File,
    target: &Path,
    bounds: &SizeBounds,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let sources: Vec<WithProgress<'_>> = files.iter().map(|file| WithProgress { file, progress }).collect();
    let sources: Vec<&dyn PayloadSource> =
        sources.iter().map(|source| source as &dyn PayloadSource).collect();
    let mut output = Output::create(target, Mode::New(0o644))?;
    let mut bounded = Bounded { out: output.writer(console.out), written: 0, most: bounds.most };
    write::write(spec, &sources, signer, &mut scratch, &mut BufWriter::new(&mut bounded))
        .map_err(|error| Failure::artifact(target, error))?;
    let written = bounded.written;
    drop(bounded);
    output.commit(console.out)?;
    if let Some(warn) = bounds.warn.filter(|warn| written > *warn) {
        console.warn(&format!("{}: {written} bytes, more than {warn}", target.display()));
    }
    Ok(())
}

/// Fails where an artifact becomes larger than it may.
struct Bounded<'a> {
    out: Box<dyn Write + 'a>,
    written: u64,
    most: Option<u64>,
}

impl Write for Bounded<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Some(most) = self.most.filter(|most| self.written + data.len() as u64 > *most) {
            return Err(io::Error::other(format!(
                "the artifact is larger than --max-artifact-size, {most} bytes"
            )));
        }
        let count = self.out.write(data)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An artifact must not take the place of what it is made of.
pub(crate) fn refuse_output_over_input<'a>(
    target: &Path,
    inputs: impl Iterator<Item = &'a PathBuf>,
) -> Result<(), Failure> {
    let Ok(place) = fs::metadata(target) else { return Ok(()) };
    for input in inputs {
        let same =
            fs::metadata(input).is_ok_and(|meta| (meta.dev(), meta.ino()) == (place.dev(), place.ino()));
        if same && place.is_file() {
            return Err(Failure::usage(format!("{} is both the output and an input", input.display())));
        }
    }
    Ok(())
}

/// A device writes the image as it is.
fn warn_of_compressed_image(image: &PayloadFile, console: &mut Console<'_>) -> Result<(), Failure> {
    const KNOWN: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\x03\x04", "zip"),
        (b"\x89LZO\0", "lzop"),
    ];
    let mut start = Vec::new();
    let read = image.open().and_then(|image| image.take(8).read_to_end(&mut start));
    read.map_err(|error| Failure::io(format_args!("read {}", image.name), error))?;
    if let Some((_, program)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        console.warn(&format!(
            "{} is compressed with {program}: a device writes it to the slot as it is, and cannot boot from it; \
             decompress it first, the artifact is compressed by itself",
            image.name
        ));
    }
    Ok(())
}

fn no_snapshots() -> Failure {
    Failure::usage(
        "snapshots over ssh are not supported: take one with `ssh DEVICE mender-snapshot dump`, and name the file",
    )
}

/// The files of the payload, in the order in which the usual generators write them.
fn payload(kind: Kind, options: &Options, target: &Path) -> Result<Vec<PayloadFile>, Failure> {
    let reproducible = options.reproducible;
    let mtime_now = if reproducible { 0 } else { seconds(SystemTime::now()) };
    let only = |what: &str| match &options.files[..] {
        [file] => Ok(file.as_path()),
        _ => Err(Failure::usage(what)),
    };
    let line = |name: &str, text: &str| PayloadFile {
        name: name.to_owned(),
        size: text.len() as u64 + 1,
        mode: 0o644,
        mtime: mtime_now,
        content: Content::Memory(format!("{text}\n").into_bytes()),
    };
    match kind {
        Kind::Rootfs => {
            let image = only("write rootfs-image needs exactly one --file")?;
            if image.as_os_str().as_encoded_bytes().starts_with(b"ssh://") {
                return Err(no_snapshots());
            }
            if image != Path::new(STANDARD) {
                return Ok(vec![PayloadFile::examine(image, reproducible)?]);
            }
            let file = source::open(image, options.temporary.as_deref())?;
            let size = file.metadata().map_err(|error| Failure::io("measure the image", error))?.len();
            let name = "rootfs.image".to_owned();
            Ok(vec![PayloadFile { name, size, mode: 0o644, mtime: mtime_now, content: Content::Open(file) }])
        }
        Kind::SingleFile => {
            let path = only("write single-file needs exactly one file")?;
            let file = PayloadFile::examine(path, reproducible)?;
            if ["dest_dir", "filename", "permissions"].contains(&file.name.as_str()) {
                return Err(Failure::usage(format!("a file cannot be called {} in this payload", file.name)));
            }
            let destination = line("dest_dir", destination(options)?);
            // What is installed is part of the content: not even a reproducible artifact forgets it.
            let permissions = format!("{:o}", permissions(path)?);
            let (name, permissions) = (line("filename", &file.name), line("permissions", &permissions));
            Ok(vec![destination, name, permissions, file])
        }
        Kind::Directory => {
            let root = only("write directory needs exactly one directory")?;
            let destination = destination(options)?;
            if destination.split('/').all(|part| part.is_empty() || part == ".") {
                return Err(Failure::usage("a directory cannot take the place of \"/\""));
            }
            let scratch = output::scratch(options.temporary.as_deref(), target)?;
            let file = tree::pack(root, scratch, options.owner, reproducible)?;
            let size = file.metadata().map_err(|error| Failure::io("measure update.tar", error))?.len();
            let (name, content) = ("update.tar".to_owned(), Content::Open(file));
            let archive = PayloadFile { name, size, mode: 0o644, mtime: mtime_now, content };
            Ok(vec![archive, line("dest_dir", destination)])
        }
        Kind::Script if options.files.is_empty() => {
            Err(Failure::usage("write script needs at least one program"))
        }
        Kind::Script | Kind::Module | Kind::Bootstrap | Kind::Delta => {
            options.files.iter().map(|path| PayloadFile::examine(path, reproducible)).collect()
        }
    }
}

/// The directory on the device.
fn destination(options: &Options) -> Result<&str, Failure> {
    let path = options.destination.as_deref().ok_or_else(|| Failure::usage("write needs --dest-dir"))?;
    match path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains(['\n', '\0']) {
        true => Ok(path),
        false => Err(Failure::usage(format!("--dest-dir {path:?} is not an absolute path without \"..\""))),
    }
}

fn permissions(path: &Path) -> Result<u32, Failure> {
    let meta =
        fs::metadata(path).map_err(|error| Failure::io(format_args!("open {}", path.display()), error))?;
    Ok(meta.permissions().mode() & 0o7777)
}

/// What the options mean.
pub(crate) fn specification(kind: Kind, options: &Options) -> Result<ArtifactSpec, Failure> {
    let mut spec = bare_specification(kind, options)?;
    spec.artifact_group = options.provides_group.clone().flatten();
    spec.depends_names.clone_from(&options.depends_names);
    spec.depends_groups.clone_from(&options.depends_groups);
    spec.depends.clone_from(&options.depends);
    spec.provides.clone_from(&options.provides);
    spec.clears_provides = (!options.clears_provides.is_empty()).then(|| options.clears_provides.clone());
    if kind != Kind::Delta {
        let default = if options.frames { "zstd_better" } else { "gzip" };
        spec.compression = compression(options.compression.as_deref().unwrap_or(default))?;
        spec.frames = options.frames;
        if spec.frames && spec.compression.compression != Compression::Zstd {
            return Err(Failure::usage(
                "--frames is for zstd: leave --compression out, or choose one of zstd",
            ));
        }
    }
    spec.mtime = mtime(options);
    provide_software(&mut spec, options);
    if kind == Kind::Rootfs && !options.no_checksum_provide {
        let [today, legacy] = CHECKSUM_KEYS;
        let key = if options.legacy_checksum { legacy } else { today };
        spec.checksum_provides = vec![key.to_owned()];
    }
    if let Some(path) = &options.meta_data {
        spec.meta_data = meta_data(path)?;
    }
    spec.scripts = scripts(&options.scripts)?;
    Ok(spec)
}

/// Changes what another artifact said to what the options say; what they do not name stays.
pub(crate) fn change(spec: &mut ArtifactSpec, options: &Options) -> Result<(), Failure> {
    if let Some(name) = &options.artifact_name {
        // The version that it provides is the name unless somebody gave another one.
        let before = std::mem::replace(&mut spec.artifact_name, name.clone());
        let versions = spec.provides.values_mut().filter(|version| **version == before.as_str());
        versions.for_each(|version| *version = name.to_string());
    }
    if !options.device_types.is_empty() {
        spec.device_types.clone_from(&options.device_types);
    }
    if let Some(group) = &options.provides_group {
        spec.artifact_group.clone_from(group);
    }
    if !options.depends_names.is_empty() {
        spec.depends_names.clone_from(&options.depends_names);
    }
    if !options.depends_groups.is_empty() {
        spec.depends_groups.clone_from(&options.depends_groups);
    }
    spec.depends.extend(options.depends.clone());
    spec.provides.extend(options.provides.clone());
    if !options.clears_provides.is_empty() {
        spec.clears_provides = Some(options.clears_provides.clone());
    }
    if let Some(version) = &options.software_version {
        let software = software(ROOTFS_IMAGE, options);
        spec.provides.remove(&software.key("version"));
        spec.provide_version(&software, version);
    }
    spec.scripts.extend(scripts(&options.scripts)?);
    spec.mtime = mtime(options);
    Ok(())
}

fn mtime(options: &Options) -> u64 {
    if options.reproducible { 0 } else { seconds(SystemTime::now()) }
}

/// The kind of artifact, its name, and the devices it is for.
fn bare_specification(kind: Kind, options: &Options) -> Result<ArtifactSpec, Failure> {
    let command = if kind == Kind::Delta { "delta" } else { "write" };
    let needs = |option: &str| Failure::usage(format!("{command} needs {option}"));
    let name = options.artifact_name.clone().ok_or_else(|| needs("--artifact-name"))?;
    if options.device_types.is_empty() {
        return Err(needs("--device-type"));
    }
    let types = options.device_types.clone();
    let payload_type = match kind {
        // Of a delta the payload type is changed in the end: everything else is that of the image.
        Kind::Rootfs | Kind::Delta => return Ok(ArtifactSpec::rootfs_image(name, types)),
        Kind::Bootstrap => return Ok(ArtifactSpec::bootstrap(name, types)),
        Kind::Module => options.payload_type.clone(),
        Kind::SingleFile => SINGLE_FILE.parse().ok(),
        Kind::Directory => DIRECTORY.parse().ok(),
        Kind::Script => "script".parse().ok(),
    };
    let payload_type = payload_type.ok_or_else(|| Failure::usage("write module-image needs --type"))?;
    Ok(ArtifactSpec::module_image(name, types, payload_type))
}

/// What the options call the software.
fn software(payload_type: &str, options: &Options) -> SoftwareName {
    let mut software = SoftwareName::of_payload_type(payload_type);
    if let Some(filesystem) = &options.software_filesystem {
        software.filesystem.clone_from(filesystem);
    }
    if options.software_name.is_some() {
        software.name.clone_from(&options.software_name);
    }
    software
}

/// What the payload is called in what the artifact provides and clears.
fn provide_software(spec: &mut ArtifactSpec, options: &Options) {
    let Some(payload_type) = &spec.payload_type else { return };
    let software = software(payload_type.as_str(), options);
    if !options.no_default_software_version {
        let name = spec.artifact_name.to_string();
        spec.provide_version(&software, options.software_version.as_deref().unwrap_or(&name));
        if !options.no_default_clears_provides {
            spec.clear_software(&software);
        }
    }
}

pub(crate) fn meta_data(path: &Path) -> Result<MetaData, Failure> {
    let json = fs::read_to_string(path);
    json.map(MetaData::Json).map_err(|error| Failure::io(format_args!("read {}", path.display()), error))
}

/// State scripts from files, and from directories of them in the order of their names.
pub(crate) fn scripts(paths: &[PathBuf]) -> Result<Vec<StateScript>, Failure> {
    let reading = |path: &Path| {
        let path = path.display().to_string();
        move |error| Failure::io(format_args!("read {path}"), error)
    };
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).map_err(reading(path))?;
        let found: Result<Vec<PathBuf>, io::Error> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut found = found.map_err(reading(path))?;
        found.sort();
        files.append(&mut found);
    }
    let script = |path: &PathBuf| -> Result<StateScript, Failure> {
        let content = fs::read(path).map_err(reading(path))?;
        Ok(StateScript { name: args::base_name(path)?, content })
    };
    files.iter().map(script).collect()
}

pub(crate) fn compression(name: &str) -> Result<CompressionLevel, Failure> {
    let zstd = |level| CompressionLevel { compression: Compression::Zstd, level };
    match name {
        "none" => Ok(CompressionLevel::default_of(Compression::None)),
        "gzip" => Ok(CompressionLevel::default_of(Compression::Gzip)),
        "lzma" | "xz" => Ok(CompressionLevel::default_of(Compression::Xz)),
        "zstd_fastest" => Ok(zstd(1)),
        "zstd" | "zstd_fast" => Ok(zstd(3)),
        "zstd_better" => Ok(zstd(9)),
        "zstd_best" => Ok(zstd(19)),
        other => Err(Failure::usage(format!(
            "no compression {other:?}; there are none, gzip, lzma, zstd_fastest, zstd_fast, zstd_better and zstd_best"
        ))),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A file of the payload.
pub(crate) struct PayloadFile {
    name: String,
    size: u64,
    mode: u32,
    mtime: u64,
    content: Content,
}

enum Content {
    Path(PathBuf),
    Memory(Vec<u8>),
    Open(File),
    /// Bytes in front of what is in a file.
    Behind(Vec<u8>, File),
}

impl PayloadFile {
    pub(crate) fn examine(path: &Path, reproducible: bool) -> Result<PayloadFile, Failure> {
        let looking = |error| Failure::io(format_args!("open {}", path.display()), error);
        let meta = fs::metadata(path).map_err(looking)?;
        if !meta.is_file() {
            return Err(Failure::usage(format!("{} is not a regular file", path.display())));
        }
        let mtime = meta.modified().map_or(0, seconds);
        Ok(PayloadFile {
            name: args::base_name(path)?,
            size: meta.len(),
            mode: if reproducible { 0o644 } else { meta.permissions().mode() & 0o777 },
            mtime: if reproducible { 0 } else { mtime },
            content: Content::Path(path.to_owned()),
        })
    }
}

impl PayloadFile {
    /// A file that was made here: `head`, then what `file` has, together `size` bytes.
    pub(crate) fn behind(name: &str, head: Vec<u8>, file: File, size: u64) -> PayloadFile {
        PayloadFile {
            name: name.to_owned(),
            size,
            mode: 0o644,
            mtime: 0,
            content: Content::Behind(head, file),
        }
    }

    /// From its start.
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match &self.content {
            Content::Path(path) => Box::new(File::open(path)?),
            Content::Memory(bytes) => Box::new(bytes.as_slice()),
            Content::Open(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                Box::new(file)
            }
            Content::Behind(head, file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                Box::new(head.chain(file))
            }
        })
    }
}

struct WithProgress<'a> {
    file: &'a PayloadFile,
    progress: &'a Progress,
}

impl PayloadSource for WithProgress<'_> {
    fn name(&self) -> &str {
        &self.file.name
    }

    fn size(&self) -> u64 {
        self.file.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.progress.count(self.file.open()?)))
    }

    fn mode(&self) -> u32 {
        self.file.mode
    }

    fn mtime(&self) -> u64 {
        self.file.mtime
    }
}
