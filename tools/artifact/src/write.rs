//! `write`: makes an artifact.

use crate::failure::Failure;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::{Console, args, keys, sign, tree};
use client_core::artifact::write::{self, ArtifactSpec, MetaData, PayloadSource, ROOTFS_IMAGE, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel, StateScript};
use client_core::install::{DIRECTORY, SINGLE_FILE};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const HELP: &str = "\
Usage: rust-ota-artifact write KIND [OPTION]... -n NAME -t DEVICE-TYPE -o FILE

  KIND is rootfs-image, single-file, directory, script, module-image or bootstrap-artifact; each has its own --help.
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
    SingleFile,
    Directory,
    Script,
    Bootstrap,
}

impl Kind {
    /// Whether the payload goes to a directory on the device that has to be named.
    fn has_destination(self) -> bool {
        match self {
            Kind::SingleFile | Kind::Directory => true,
            Kind::Rootfs | Kind::Module | Kind::Script | Kind::Bootstrap => false,
        }
    }

    /// Whether files may be given without an option.
    fn takes_arguments(self) -> bool {
        match self {
            Kind::SingleFile | Kind::Directory | Kind::Script => true,
            Kind::Rootfs | Kind::Module | Kind::Bootstrap => false,
        }
    }
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
    destination: Option<String>,
    owner: Option<(u32, u32)>,
}

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let kind = match parser.next()? {
        Some(Long("help") | Short('h')) => return console.print(&format!("{HELP}{COMMON_HELP}")),
        Some(Value(kind)) => match kind.to_str() {
            Some("rootfs-image") => Kind::Rootfs,
            Some("module-image") => Kind::Module,
            Some("single-file") => Kind::SingleFile,
            Some("directory") => Kind::Directory,
            Some("script") => Kind::Script,
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
        Kind::SingleFile => (
            "Usage: rust-ota-artifact write single-file [OPTION]... --dest-dir DIR -n NAME -t DEVICE-TYPE -o FILE \
             SOURCE\n\n  \
             SOURCE is installed as DIR/SOURCE with the permissions it has.\n",
            "  -d, --dest-dir DIR                 where it goes on the device; not --depends, as elsewhere\n  \
             -f, --file SOURCE                  the same as SOURCE\n",
        ),
        Kind::Directory => (
            "Usage: rust-ota-artifact write directory [OPTION]... --dest-dir DIR -n NAME -t DEVICE-TYPE -o FILE \
             SOURCE\n\n  \
             What is in the directory SOURCE takes the place of everything in DIR, with owners by number,\n  \
             permissions, times, links and extended attributes.\n",
            "  -d, --dest-dir DIR                 where it goes on the device; not --depends, as elsewhere\n  \
             -f, --file SOURCE                  the same as SOURCE\n  \
             --owner UID:GID                    owner and group of everything, in numbers\n",
        ),
        Kind::Script => (
            "Usage: rust-ota-artifact write script [OPTION]... -n NAME -t DEVICE-TYPE -o FILE PROGRAM...\n\n  \
             Every PROGRAM is run once on the device, in the order of their names.\n",
            "  -f, --file PROGRAM                 the same as PROGRAM; several times\n",
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
            // As in the generators of these payload types.
            Long("dest-dir") | Short('d') if kind.has_destination() => {
                args::once(&mut options.destination, args::text(p)?, "--dest-dir")?;
            }
            Long("owner") if kind == Kind::Directory => {
                args::once(&mut options.owner, args::owner(p)?, "--owner")?;
            }
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
            Value(file) if kind.takes_arguments() => options.files.push(PathBuf::from(file)),
            Long(_) | Short(_) | Value(_) => return Err(arg.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn write_artifact(kind: Kind, options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let spec = specification(kind, options)?;
    let target = options.output.as_ref().ok_or_else(|| Failure::usage("write needs --output-path"))?;
    let signer = options.key.as_deref().map(keys::signer).transpose()?;
    if let Some(signer) = &signer {
        sign::warn_of_ed25519(signer.kind(), console);
    }
    let files = payload(kind, options, target)?;
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

/// The files of the payload, in the order in which the usual generators write them.
fn payload(kind: Kind, options: &Options, target: &Path) -> Result<Vec<PayloadFile>, Failure> {
    let reproducible = options.reproducible;
    let only = |what: &str| match &options.files[..] {
        [file] => Ok(file.as_path()),
        _ => Err(Failure::usage(what)),
    };
    let line = |name: &str, text: &str| PayloadFile {
        name: name.to_owned(),
        size: text.len() as u64 + 1,
        mode: 0o644,
        mtime: if reproducible { 0 } else { seconds(SystemTime::now()) },
        content: Content::Memory(format!("{text}\n").into_bytes()),
    };
    match kind {
        Kind::Rootfs => {
            let image = only("write rootfs-image needs exactly one --file")?;
            Ok(vec![PayloadFile::examine(image, reproducible)?])
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
            let file = tree::pack(root, output::scratch_beside(target)?, options.owner, reproducible)?;
            let size = file.metadata().map_err(|error| Failure::io("measure update.tar", error))?.len();
            let mtime = if reproducible { 0 } else { seconds(SystemTime::now()) };
            let content = Content::Open(file);
            let archive = PayloadFile { name: "update.tar".to_owned(), size, mode: 0o644, mtime, content };
            Ok(vec![archive, line("dest_dir", destination)])
        }
        Kind::Script if options.files.is_empty() => {
            Err(Failure::usage("write script needs at least one program"))
        }
        Kind::Script | Kind::Module | Kind::Bootstrap => {
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
        Kind::SingleFile => Some(SINGLE_FILE),
        Kind::Directory => Some(DIRECTORY),
        Kind::Script => Some("script"),
        Kind::Bootstrap => None,
    };
    let mut spec = match kind {
        Kind::Rootfs => ArtifactSpec::rootfs_image(name, types),
        Kind::Module | Kind::SingleFile | Kind::Directory | Kind::Script => {
            ArtifactSpec::module_image(name, types, payload_type.unwrap_or_default())
        }
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

/// A file of the payload.
struct PayloadFile {
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
            name: args::base_name(path)?,
            size: meta.len(),
            mode: if reproducible { 0o644 } else { meta.permissions().mode() & 0o777 },
            mtime: if reproducible { 0 } else { mtime },
            content: Content::Path(path.to_owned()),
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
        Ok(match &self.file.content {
            Content::Path(path) => Box::new(self.progress.count(File::open(path)?)),
            Content::Memory(bytes) => Box::new(self.progress.count(bytes.as_slice())),
            Content::Open(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                Box::new(self.progress.count(file))
            }
        })
    }

    fn mode(&self) -> u32 {
        self.file.mode
    }

    fn mtime(&self) -> u64 {
        self.file.mtime
    }
}
