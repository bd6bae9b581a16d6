//! `write`: makes an artifact.

use crate::failure::Failure;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::{Console, args, keys, sign};
use client_core::artifact::write::{self, ArtifactSpec, MetaData, PayloadSource, ROOTFS_IMAGE, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel, StateScript};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const HELP: &str = "\
Usage: rust-ota-artifact write KIND [OPTION]... -n NAME -t DEVICE-TYPE -o FILE

  KIND is rootfs-image, module-image or bootstrap-artifact; each has its own --help.
";

/// The options of all kinds.
const COMMON_HELP: &str = "
  -n, --artifact-name NAME           name of the artifact
  -t, --device-type TYPE             device type it fits; may be given several times (also --compatible-types)
  -o, --output-path FILE             where the artifact goes
  -c, --compression NAME             gzip (default), lzma, zstd, zstd_fastest_compression,
                                     zstd_better_compression, zstd_best_compression or none
  -k, --key KEY                      private key to sign with
  -p, --provides KEY:VALUE           what the device provides afterwards; several times
  -d, --depends KEY:VALUE            what the device has to provide; several times, the last of a KEY counts
  -g, --provides-group GROUP         group the artifact provides
  -G, --depends-groups GROUP         group it depends on; several times
  -N, --artifact-name-depends NAME   artifact it can be installed on top of; several times
  --clears-provides PATTERN          what the device no longer provides; several times
  --reproducible                     the same input makes the same bytes: all times are 0
  --no-progress                      show no progress
";

const PAYLOAD_HELP: &str = "  \
  -s, --script FILE                  state script; several times
  --software-filesystem NAME         first part of the software's name, rootfs-image by default
  --software-name NAME               second part of the software's name
  --software-version VERSION         its version, the name of the artifact by default
  --no-default-software-version      provide no software version, and clear nothing but what was asked for
  --no-default-clears-provides       clear nothing but what was asked for
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rootfs,
    Module,
    Bootstrap,
}

/// The options as they were given.
#[derive(Default)]
struct Options {
    artifact_name: Option<String>,
    device_types: Vec<String>,
    output: Option<PathBuf>,
    compression: Option<String>,
    key: Option<PathBuf>,
    provides: BTreeMap<String, String>,
    depends: BTreeMap<String, String>,
    provides_group: Option<String>,
    depends_groups: Vec<String>,
    depends_names: Vec<String>,
    clears_provides: Vec<String>,
    reproducible: bool,
    no_progress: bool,
    scripts: Vec<PathBuf>,
    software_filesystem: Option<String>,
    software_name: Option<String>,
    software_version: Option<String>,
    no_default_software_version: bool,
    no_default_clears_provides: bool,
    files: Vec<PathBuf>,
    payload_type: Option<String>,
    meta_data: Option<PathBuf>,
    no_checksum_provide: bool,
    legacy_checksum: bool,
}

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let kind = match parser.next()? {
        Some(Long("help") | Short('h')) => return console.print(&format!("{HELP}{COMMON_HELP}")),
        Some(Value(kind)) => match kind.to_str() {
            Some("rootfs-image") => Kind::Rootfs,
            Some("module-image") => Kind::Module,
            Some("bootstrap-artifact") => Kind::Bootstrap,
            _ => return Err(Failure::usage(format!("cannot write {kind:?}; see write --help"))),
        },
        Some(other @ (Long(_) | Short(_))) => return Err(other.unexpected().into()),
        None => return Err(Failure::usage("write what? see write --help")),
    };
    match parse(kind, parser)? {
        Some(options) => write_artifact(kind, &options, console),
        None => console.print(&help(kind)),
    }
}

fn help(kind: Kind) -> String {
    let (usage, own) = match kind {
        Kind::Rootfs => (
            "Usage: rust-ota-artifact write rootfs-image [OPTION]... -n NAME -t DEVICE-TYPE -f IMAGE -o FILE\n",
            "  -f, --file IMAGE                   image of the root file system\n  \
             --no-checksum-provide              do not provide the checksum of the image\n  \
             --legacy-rootfs-image-checksum     provide it as rootfs_image_checksum\n",
        ),
        Kind::Module => (
            "Usage: rust-ota-artifact write module-image [OPTION]... -T TYPE -n NAME -t DEVICE-TYPE -o FILE\n",
            "  -T, --type TYPE                    payload type: the name of the update module\n  \
             -f, --file FILE                    payload file; several times\n  \
             -m, --meta-data FILE               JSON object for the update module\n",
        ),
        Kind::Bootstrap => (
            "Usage: rust-ota-artifact write bootstrap-artifact [OPTION]... -n NAME -t DEVICE-TYPE -o FILE\n",
            "",
        ),
    };
    let payload = if kind == Kind::Bootstrap { "" } else { PAYLOAD_HELP };
    format!("{usage}{COMMON_HELP}{payload}{own}")
}

/// `None` when help was asked for.
fn parse(kind: Kind, mut parser: lexopt::Parser) -> Result<Option<Options>, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let mut options = Options::default();
    let payload = kind != Kind::Bootstrap;
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("artifact-name") | Short('n') => {
                args::once(&mut options.artifact_name, args::text(p)?, "--artifact-name")?;
            }
            Long("device-type" | "compatible-types") | Short('t') => {
                options.device_types.push(args::text(p)?)
            }
            Long("output-path") | Short('o') => {
                args::once(&mut options.output, args::path(p)?, "--output-path")?;
            }
            Long("compression") | Short('c') => {
                args::once(&mut options.compression, args::text(p)?, "--compression")?;
            }
            Long("key") | Short('k') => args::once(&mut options.key, args::path(p)?, "--key")?,
            Long("provides") | Short('p') => options.provides.extend([args::key_value(p)?]),
            Long("depends") | Short('d') => options.depends.extend([args::key_value(p)?]),
            Long("provides-group") | Short('g') => {
                args::once(&mut options.provides_group, args::text(p)?, "--provides-group")?;
            }
            Long("depends-groups") | Short('G') => options.depends_groups.push(args::text(p)?),
            Long("artifact-name-depends") | Short('N') => options.depends_names.push(args::text(p)?),
            Long("clears-provides") => options.clears_provides.push(args::text(p)?),
            Long("reproducible") => options.reproducible = true,
            Long("no-progress") => options.no_progress = true,
            Long("version") | Short('v') => {
                let version = args::text(p)?;
                if version != "3" {
                    return Err(Failure::usage(format!("cannot write version {version:?}, only 3")));
                }
            }
            Long("script") | Short('s') if payload => options.scripts.push(args::path(p)?),
            Long("software-filesystem") if payload => options.software_filesystem = Some(args::text(p)?),
            Long("software-name") if payload => options.software_name = Some(args::text(p)?),
            Long("software-version") if payload => options.software_version = Some(args::text(p)?),
            Long("no-default-software-version") if payload => options.no_default_software_version = true,
            Long("no-default-clears-provides") if payload => options.no_default_clears_provides = true,
            Long("file") | Short('f') if payload => options.files.push(args::path(p)?),
            Long("type") | Short('T') if kind == Kind::Module => {
                args::once(&mut options.payload_type, args::text(p)?, "--type")?;
            }
            Long("meta-data") | Short('m') if kind == Kind::Module => {
                args::once(&mut options.meta_data, args::path(p)?, "--meta-data")?;
            }
            Long("no-checksum-provide") if kind == Kind::Rootfs => options.no_checksum_provide = true,
            Long("legacy-rootfs-image-checksum") if kind == Kind::Rootfs => options.legacy_checksum = true,
            Long(_) | Short(_) | Value(_) => return Err(arg.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn write_artifact(kind: Kind, options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let spec = specification(kind, options)?;
    let target = options.output.as_ref().ok_or_else(|| Failure::usage("write needs --output-path"))?;
    if kind == Kind::Rootfs && options.files.len() != 1 {
        return Err(Failure::usage("write rootfs-image needs exactly one --file"));
    }
    let signer = options.key.as_deref().map(keys::signer).transpose()?;
    if let Some(signer) = &signer {
        sign::warn_of_ed25519(signer.kind(), console);
    }
    let mut files = Vec::new();
    for path in &options.files {
        files.push(PayloadFile::examine(path, options.reproducible)?);
    }
    let total = files.iter().map(|file| file.size).sum();
    let progress = if options.no_progress { Progress::hidden() } else { Progress::new(total) };
    let sources: Vec<WithProgress<'_>> =
        files.iter().map(|file| WithProgress { file, progress: &progress }).collect();
    let sources: Vec<&dyn PayloadSource> =
        sources.iter().map(|source| source as &dyn PayloadSource).collect();

    let mut scratch = output::scratch_beside(target)?;
    let (output, file) = Output::create(target, 0o644)?;
    write::write(&spec, &sources, signer.as_ref(), &mut scratch, &mut BufWriter::new(&file))
        .map_err(|error| Failure::artifact(target, error))?;
    output.commit(file)
}

/// What the options mean.
fn specification(kind: Kind, options: &Options) -> Result<ArtifactSpec, Failure> {
    let name =
        options.artifact_name.as_deref().ok_or_else(|| Failure::usage("write needs --artifact-name"))?;
    if options.device_types.is_empty() {
        return Err(Failure::usage("write needs --device-type"));
    }
    let types = &options.device_types;
    let payload_type = match kind {
        Kind::Rootfs => Some(ROOTFS_IMAGE),
        Kind::Module => {
            let given = options.payload_type.as_deref();
            Some(given.ok_or_else(|| Failure::usage("write module-image needs --type"))?)
        }
        Kind::Bootstrap => None,
    };
    let mut spec = match kind {
        Kind::Rootfs => ArtifactSpec::rootfs_image(name, types),
        Kind::Module => ArtifactSpec::module_image(name, types, payload_type.unwrap_or_default()),
        Kind::Bootstrap => ArtifactSpec::bootstrap(name, types),
    };
    spec.artifact_group.clone_from(&options.provides_group);
    spec.depends_names.clone_from(&options.depends_names);
    spec.depends_groups.clone_from(&options.depends_groups);
    spec.depends.clone_from(&options.depends);
    spec.provides.clone_from(&options.provides);
    spec.clears_provides = (!options.clears_provides.is_empty()).then(|| options.clears_provides.clone());
    spec.compression = compression(options.compression.as_deref().unwrap_or("gzip"))?;
    spec.mtime = if options.reproducible { 0 } else { seconds(SystemTime::now()) };

    if let Some(payload_type) = payload_type {
        let mut software = SoftwareName::of_payload_type(payload_type);
        options.software_filesystem.iter().for_each(|name| software.filesystem.clone_from(name));
        if options.software_name.is_some() {
            software.name.clone_from(&options.software_name);
        }
        if !options.no_default_software_version {
            spec.provide_version(&software, options.software_version.as_deref().unwrap_or(name));
            if !options.no_default_clears_provides {
                spec.clear_software(&software);
            }
        }
    }
    if kind == Kind::Rootfs && !options.no_checksum_provide {
        let key = if options.legacy_checksum { "rootfs_image_checksum" } else { "rootfs-image.checksum" };
        spec.checksum_provides = Some(key.to_owned());
    }
    if let Some(path) = &options.meta_data {
        spec.meta_data = MetaData::Json(
            fs::read_to_string(path)
                .map_err(|error| Failure::io(format_args!("read {}", path.display()), error))?,
        );
    }
    for path in &options.scripts {
        let content =
            fs::read(path).map_err(|error| Failure::io(format_args!("read {}", path.display()), error))?;
        spec.scripts.push(StateScript { name: args::base_name(path)?, content });
    }
    Ok(spec)
}

fn compression(name: &str) -> Result<CompressionLevel, Failure> {
    let zstd = |level| CompressionLevel { compression: Compression::Zstd, level };
    match name {
        "none" => Ok(CompressionLevel::default_of(Compression::None)),
        "gzip" => Ok(CompressionLevel::default_of(Compression::Gzip)),
        "lzma" | "xz" => Ok(CompressionLevel::default_of(Compression::Xz)),
        "zstd" => Ok(zstd(3)),
        "zstd_fastest_compression" => Ok(zstd(1)),
        "zstd_better_compression" => Ok(zstd(9)),
        "zstd_best_compression" => Ok(zstd(19)),
        other => Err(Failure::usage(format!("no compression {other:?}; see write --help"))),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A payload file on disk.
struct PayloadFile {
    path: PathBuf,
    name: String,
    size: u64,
    mode: u32,
    mtime: u64,
}

impl PayloadFile {
    fn examine(path: &Path, reproducible: bool) -> Result<PayloadFile, Failure> {
        let looking = |error| Failure::io(format_args!("open {}", path.display()), error);
        let meta = fs::metadata(path).map_err(looking)?;
        if !meta.is_file() {
            return Err(Failure::usage(format!("{} is not a regular file", path.display())));
        }
        let mtime = meta.modified().map_or(0, seconds);
        Ok(PayloadFile {
            path: path.to_owned(),
            name: args::base_name(path)?,
            size: meta.len(),
            mode: if reproducible { 0o644 } else { meta.permissions().mode() & 0o777 },
            mtime: if reproducible { 0 } else { mtime },
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
        Ok(Box::new(self.progress.count(File::open(&self.file.path)?)))
    }

    fn mode(&self) -> u32 {
        self.file.mode
    }

    fn mtime(&self) -> u64 {
        self.file.mtime
    }
}
