//! `modify`, `cp`, `cat`, `install` and `rm`: change an artifact that is there, or a file system image, and look into
//! the root file system in it.
//!
//! An artifact is taken apart, changed and written again. What signed it before did not sign what it says now: it is
//! signed anew with `--key`, and is unsigned without.

use crate::failure::Failure;
use crate::filesystem::{self, FileSystem, Found};
use crate::output::{self, Mode, Output, STANDARD, Workspace};
use crate::partitions;
use crate::progress::Progress;
use crate::write::{self, PayloadFile, SizeBounds};
use crate::{Console, args, keys, sign, source, validate};
use artifact::write::{ArtifactSpec, MetaData, ROOTFS_IMAGE};
use artifact::{ArtifactError, ArtifactName, Compression, PayloadType, SignatureStatus, Trust};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const CONFIGURATION: &str = "/etc/mender/mender.conf";
const ARTIFACT_INFO: &str = "/etc/mender/artifact_info";
const SERVER_CERTIFICATE: &str = "/etc/mender/server.crt";
const VERIFICATION_KEY: &str = "/etc/mender/artifact-verify-key.pem";
/// No client has a larger configuration.
const CONFIGURATION_BYTES: u64 = 1 << 20;

/// The options that all of these have.
#[derive(Default)]
struct Common {
    key: Option<PathBuf>,
    temporary: Option<PathBuf>,
    compression: Option<String>,
}

/// An artifact taken apart, or an image.
struct Opened {
    path: PathBuf,
    content: Content,
    /// What takes the place of an image when all has gone well: a copy, on which the changes are made.
    replacement: Option<Output>,
    /// Where payload files and copies are until the end.
    workspace: Workspace,
    common: Common,
}

enum Content {
    Artifact {
        spec: Box<ArtifactSpec>,
        files: Vec<PathBuf>,
        signed: bool,
    },
    /// The image, or the copy that is changed.
    Image(PathBuf),
    /// A disk image, with the offsets of its four partitions: boot, both root file systems, data.
    Disk(PathBuf, [u64; 4]),
}

impl Opened {
    /// To be changed. Whatever fails before [`Opened::close`], the artifact or image stays as it was.
    fn open_to_change(path: &Path, common: Common) -> Result<Opened, Failure> {
        let mut opened = Opened::open(path, common)?;
        if let Content::Image(image) | Content::Disk(image, _) = &mut opened.content {
            let mut replacement = Output::create(path, Mode::New(0o644))?;
            if let Some(copy) = replacement.begin_with_copy()? {
                *image = copy;
            }
            opened.replacement = Some(replacement);
        }
        Ok(opened)
    }

    /// To be looked into.
    fn open(path: &Path, common: Common) -> Result<Opened, Failure> {
        let file = source::open(path, common.temporary.as_deref())?;
        let beside = || path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
        let workspace = match &common.temporary {
            Some(folder) => Workspace::create(folder)?,
            // Where the artifact is there is room for it; who only looks into it may not be allowed to write there.
            None => Workspace::create(&beside().unwrap_or_else(|| PathBuf::from(".")))
                .or_else(|_| Workspace::create(&std::env::temp_dir()))?,
        };
        let refused = match validate::read(path, source::again(&file)?, &Trust::DangerUnsigned) {
            Ok(mut artifact) => {
                let mut spec = Box::new(ArtifactSpec::of(&artifact.header));
                if let Some(name) = &common.compression {
                    spec.compression = write::compression(name)?;
                    // There are none in another compression.
                    spec.frames &= spec.compression.compression == Compression::Zstd;
                }
                let signed = artifact.header.signature != SignatureStatus::Unsigned;
                let wrong = |error| Failure::artifact(path, error);
                let mut files = Vec::new();
                fs::create_dir(workspace.path("files"))
                    .map_err(|error| Failure::io("make a temporary folder", error))?;
                while let Some(mut content) = artifact.payload.next_file().map_err(wrong)? {
                    let target = workspace.path("files").join(content.name());
                    let copied = File::create_new(&target).and_then(|mut to| io::copy(&mut content, &mut to));
                    copied.map_err(|error| {
                        match error.get_ref().is_some_and(|inner| inner.is::<ArtifactError>()) {
                            true => wrong(ArtifactError::from_io(error)),
                            false => Failure::io(format_args!("write {}", target.display()), error),
                        }
                    })?;
                    files.push(target);
                }
                let content = Content::Artifact { spec, files, signed };
                return Ok(Opened { path: path.to_owned(), content, replacement: None, workspace, common });
            }
            Err(refused) => refused,
        };
        // What it is not as an artifact says more than what it is not as an image.
        let content = Content::of_image(path)?.ok_or(refused)?;
        Ok(Opened { path: path.to_owned(), content, replacement: None, workspace, common })
    }

    /// The file systems that `path` is in, and what it is called there: two of a disk image for what is in the root file
    /// system. Or why there is none to look into.
    fn file_systems(&self, path: &str) -> Result<(Vec<FileSystem>, String), Failure> {
        if !path.starts_with('/') {
            return Err(Failure::usage(format!("{path:?} is not an absolute path in the image")));
        }
        let unknown = || {
            let path = self.path.display();
            Failure::usage(format!("{path}: only ext and FAT file systems can be looked into and changed"))
        };
        let elsewhere = partition_of(path);
        match &self.content {
            Content::Image(image) => {
                let system = FileSystem::detect(image, 0, &self.path)?.ok_or_else(unknown)?;
                Ok((vec![system], path.to_owned()))
            }
            Content::Artifact { spec, files, .. } => {
                if let Some((_, folder, _)) = elsewhere {
                    return Err(Failure::usage(format!(
                        "{folder} is a partition of its own on a device, and not part of the root file system in an \
                         artifact"
                    )));
                }
                let (Some(ROOTFS_IMAGE), [image]) =
                    (spec.payload_type.as_ref().map(PayloadType::as_str), files.as_slice())
                else {
                    let path = self.path.display();
                    return Err(Failure::usage(format!("{path} holds no root file system")));
                };
                let system = FileSystem::detect(image, 0, &self.path)?.ok_or_else(unknown)?;
                Ok((vec![system], path.to_owned()))
            }
            Content::Disk(image, offsets) => {
                let (partitions, path) = match elsewhere {
                    Some((partition, _, rest)) => (&offsets[partition..=partition], format!("/{rest}")),
                    None => (&offsets[1..3], path.to_owned()),
                };
                let mut systems = Vec::new();
                for offset in partitions {
                    // A second slot that nothing was written to yet is left alone.
                    systems.extend(FileSystem::detect(image, *offset, &self.path)?);
                }
                match systems.is_empty() {
                    true => Err(unknown()),
                    false => Ok((systems, path)),
                }
            }
        }
    }

    /// One of them, to look into.
    fn file_system(&self, path: &str) -> Result<(FileSystem, String), Failure> {
        let (systems, path) = self.file_systems(path)?;
        let first = systems.into_iter().next();
        let none = || Failure::usage(format!("{} holds no root file system", self.path.display()));
        Ok((first.ok_or_else(none)?, path))
    }

    /// Changes all of them.
    fn change(
        &self,
        path: &str,
        change: impl Fn(&FileSystem, &str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (systems, path) = self.file_systems(path)?;
        for system in &systems {
            system.replay_journal()?;
            change(system, &path)?;
        }
        Ok(())
    }

    /// The specification of an artifact; an image has none.
    fn spec(&mut self, option: &str) -> Result<&mut ArtifactSpec, Failure> {
        match &mut self.content {
            Content::Artifact { spec, .. } => Ok(spec),
            Content::Image(_) | Content::Disk(..) => {
                let path = self.path.display();
                Err(Failure::usage(format!("{option} is for artifacts, and {path} is an image")))
            }
        }
    }

    /// Puts what was changed into its place.
    fn close(self, console: &mut Console<'_>) -> Result<(), Failure> {
        let (spec, files, signed) = match &self.content {
            Content::Artifact { spec, files, signed } => (spec, files, signed),
            Content::Image(_) | Content::Disk(..) => {
                return self.replacement.map_or(Ok(()), |replacement| replacement.commit(console.out));
            }
        };
        let signer = self.common.key.as_deref().map(keys::signer).transpose()?;
        match &signer {
            Some(signer) => sign::warn_of_ed25519(signer.kind(), console),
            None if *signed => console.warn(&format!(
                "{} was signed; it is not any more: use -k, or sign it again",
                self.path.display()
            )),
            None => {}
        }
        let files: Result<Vec<PayloadFile>, Failure> =
            files.iter().map(|path| PayloadFile::examine(path, false)).collect();
        let scratch = output::scratch(self.common.temporary.as_deref(), &self.path)?;
        let progress = Progress::hidden();
        let bounds = SizeBounds::default();
        write::put(spec, &files?, signer.as_ref(), &progress, scratch, &self.path, &bounds, console)
    }
}

impl Content {
    /// A file system, or a disk with the partitions of a device.
    fn of_image(path: &Path) -> Result<Option<Content>, Failure> {
        if FileSystem::detect(path, 0, path)?.is_some() {
            return Ok(Some(Content::Image(path.to_owned())));
        }
        let offsets = partitions::offsets(path)
            .map_err(|error| Failure::io(format_args!("read the partitions of {}", path.display()), error))?;
        match <[u64; 4]>::try_from(offsets.as_slice()) {
            Ok(offsets) => Ok(Some(Content::Disk(path.to_owned(), offsets))),
            Err(_) if offsets.is_empty() => Ok(None),
            Err(_) => Err(Failure::usage(format!(
                "{}: {} partitions, and 4 are needed: boot, two root file systems, data",
                path.display(),
                offsets.len()
            ))),
        }
    }
}

/// The partition of a disk image that holds what is mounted at the start of `path`, where that is, and what is left.
fn partition_of(path: &str) -> Option<(usize, &'static str, &str)> {
    let mounted = [(0, "/uboot"), (0, "/boot/efi"), (0, "/boot/grub"), (3, "/data")];
    mounted.into_iter().find_map(|(partition, folder)| {
        let rest = path.strip_prefix(folder)?;
        let rest = if rest.is_empty() { Some("") } else { rest.strip_prefix('/') };
        rest.map(|rest| (partition, folder, rest))
    })
}

/// `IMAGE:PATH`: the first part that is a file.
fn inside(argument: &Path) -> Option<(PathBuf, String)> {
    let text = argument.to_str()?;
    let splits = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let mut found = splits.filter(|(image, path)| !path.is_empty() && Path::new(image).is_file());
    found.next().map(|(image, path)| (PathBuf::from(image), path.to_owned()))
}

fn need_inside(argument: &Path) -> Result<(PathBuf, String), Failure> {
    inside(argument).ok_or_else(|| {
        Failure::usage(format!("{} is not ARTIFACT:PATH with an ARTIFACT that is there", argument.display()))
    })
}

#[derive(Default)]
struct Modify {
    name: Option<ArtifactName>,
    depends_names: Vec<String>,
    provides: Vec<(String, String)>,
    depends: Vec<(String, String)>,
    group: Option<String>,
    depends_groups: Vec<String>,
    clears: Vec<String>,
    no_longer_clears: Vec<String>,
    scripts: Vec<PathBuf>,
    meta_data: Option<PathBuf>,
    server: Option<String>,
    tenant_token: Option<String>,
    certificate: Option<PathBuf>,
    verification_key: Option<PathBuf>,
}

pub(crate) fn modify(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut common, mut wanted, mut path) = (Common::default(), Modify::default(), None);
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("modify"),
            Long("artifact-name" | "name") | Short('n') => {
                args::once(&mut wanted.name, args::name(p)?, "--artifact-name")?;
            }
            Long("artifact-name-depends") | Short('N') => wanted.depends_names.push(args::text(p)?),
            Long("provides") | Short('p') => wanted.provides.push(args::key_value(p)?),
            Long("depends") | Short('d') => wanted.depends.push(args::key_value(p)?),
            Long("provides-group") | Short('g') => {
                args::once(&mut wanted.group, args::text(p)?, "--provides-group")?;
            }
            Long("depends-groups") | Short('G') => wanted.depends_groups.push(args::text(p)?),
            Long("clears-provides") => wanted.clears.push(args::text(p)?),
            Long("delete-clears-provides") => wanted.no_longer_clears.push(args::text(p)?),
            Long("script") | Short('s') => wanted.scripts.push(args::path(p)?),
            Long("meta-data") | Short('m') => {
                args::once(&mut wanted.meta_data, args::path(p)?, "--meta-data")?;
            }
            Long("server-uri") | Short('u') => {
                args::once(&mut wanted.server, args::text(p)?, "--server-uri")?
            }
            Long("tenant-token") | Short('t') => {
                args::once(&mut wanted.tenant_token, args::text(p)?, "--tenant-token")?;
            }
            Long("server-cert") | Short('c') => {
                args::once(&mut wanted.certificate, args::path(p)?, "--server-cert")?;
            }
            Long("verification-key") | Short('v') => {
                args::once(&mut wanted.verification_key, args::path(p)?, "--verification-key")?;
            }
            Long("compression") => args::once(&mut common.compression, args::text(p)?, "--compression")?,
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long("key") | Short('k') => args::once(&mut common.key, args::path(p)?, "--key")?,
            Long("tmp") => args::once(&mut common.temporary, args::path(p)?, "--tmp")?,
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| Failure::usage("modify needs an artifact"))?;
    common.compression = common.compression.or_else(|| console.compression.take());
    let mut opened = Opened::open_to_change(&path, common)?;
    change_header(&mut opened, &wanted)?;
    change_image(&mut opened, &wanted, console)?;
    opened.close(console)
}

fn change_header(opened: &mut Opened, wanted: &Modify) -> Result<(), Failure> {
    if let (Some(name), Content::Artifact { spec, .. }) = (&wanted.name, &mut opened.content) {
        spec.artifact_name.clone_from(name);
    }
    if !wanted.depends_names.is_empty() {
        opened.spec("--artifact-name-depends")?.depends_names.clone_from(&wanted.depends_names);
    }
    if !wanted.depends_groups.is_empty() {
        opened.spec("--depends-groups")?.depends_groups.clone_from(&wanted.depends_groups);
    }
    if let Some(group) = &wanted.group {
        opened.spec("--provides-group")?.artifact_group =
            Some(group.clone()).filter(|group| !group.is_empty());
    }
    if !wanted.provides.is_empty() {
        let spec = opened.spec("--provides")?;
        spec.provides = wanted.provides.iter().cloned().collect();
        // As mender-artifact: the checksum stays only where it is named.
        spec.checksum_provides.retain(|key| spec.provides.contains_key(key));
    }
    if !wanted.depends.is_empty() {
        let spec = opened.spec("--depends")?;
        spec.depends = wanted.depends.iter().cloned().collect();
        spec.depends_on_any.clear();
    }
    if !wanted.clears.is_empty() {
        let clears = opened.spec("--clears-provides")?.clears_provides.get_or_insert_default();
        clears.extend(wanted.clears.iter().cloned());
    }
    for pattern in &wanted.no_longer_clears {
        let clears = opened.spec("--delete-clears-provides")?.clears_provides.get_or_insert_default();
        let before = clears.len();
        clears.retain(|one| one != pattern);
        if clears.len() == before {
            return Err(Failure::usage(format!("{pattern:?} is not among what the artifact clears")));
        }
    }
    for script in write::scripts(&wanted.scripts)? {
        let scripts = &mut opened.spec("--script")?.scripts;
        scripts.retain(|old| old.name != script.name);
        scripts.push(script);
    }
    if let Some(path) = &wanted.meta_data {
        let meta_data: MetaData = write::meta_data(path)?;
        opened.spec("--meta-data")?.meta_data = meta_data;
    }
    Ok(())
}

fn change_image(opened: &mut Opened, wanted: &Modify, console: &mut Console<'_>) -> Result<(), Failure> {
    let keys = [("ServerURL", &wanted.server), ("TenantToken", &wanted.tenant_token)];
    for (key, value) in keys.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))) {
        set_configuration(opened, key, value)?;
    }
    for (path, source) in
        [(SERVER_CERTIFICATE, &wanted.certificate), (VERIFICATION_KEY, &wanted.verification_key)]
    {
        if let Some(source) = source {
            let copy = opened.workspace.path("copied");
            fs::copy(source, &copy)
                .map_err(|error| Failure::io(format_args!("read {}", source.display()), error))?;
            opened.change(path, |system, path| system.write(path, &copy, Some(0o644)))?;
        }
    }
    let Some(name) = &wanted.name else { return Ok(()) };
    let has_root = match &opened.content {
        Content::Image(_) | Content::Disk(..) => true,
        Content::Artifact { spec, .. } => {
            spec.payload_type.as_ref().is_some_and(|name| *name == ROOTFS_IMAGE)
        }
    };
    if !has_root {
        return Ok(());
    }
    match opened.file_system(ARTIFACT_INFO) {
        Ok((system, _)) if system.look("/etc/mender")? == Found::Directory => {}
        Ok(_) => {
            console.warn("there is no /etc/mender in the root file system: nothing in it says the name");
            return Ok(());
        }
        Err(problem) => {
            console.warn(&format!("the name inside of the root file system stays as it is: {problem}"));
            return Ok(());
        }
    }
    let text = opened.workspace.path("artifact_info");
    fs::write(&text, format!("artifact_name={name}\n"))
        .map_err(|error| Failure::io("write a temporary file", error))?;
    opened.change(ARTIFACT_INFO, |system, path| system.write(path, &text, None))
}

/// Sets a key of the client's configuration, whatever letter case it is there in.
fn set_configuration(opened: &Opened, key: &str, value: &str) -> Result<(), Failure> {
    opened.change(CONFIGURATION, |system, _| {
        let copy = opened.workspace.path("mender.conf");
        // Not into what is left of the one before.
        if copy.exists() {
            fs::remove_file(&copy).map_err(|error| Failure::io("remove a temporary file", error))?;
        }
        set_in(system, &copy, key, value)
    })
}

fn set_in(system: &FileSystem, copy: &Path, key: &str, value: &str) -> Result<(), Failure> {
    system.read(CONFIGURATION, copy)?;
    let wrong = |problem: String| Failure::usage(format!("{CONFIGURATION} in the image: {problem}"));
    let size = fs::metadata(copy).map_err(|error| wrong(error.to_string()))?.len();
    if size > CONFIGURATION_BYTES {
        return Err(wrong(format!("larger than {CONFIGURATION_BYTES} bytes")));
    }
    let text = fs::read_to_string(copy).map_err(|error| wrong(error.to_string()))?;
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    document.retain(|old, _| !old.eq_ignore_ascii_case(key));
    document.insert(key.to_owned(), value.into());
    let text = serde_json::to_string_pretty(&document).map_err(|error| wrong(error.to_string()))?;
    fs::write(copy, text + "\n").map_err(|error| Failure::io("write a temporary file", error))?;
    system.write(CONFIGURATION, copy, None)
}

pub(crate) fn cp(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut common, mut paths) = (Common::default(), Vec::new());
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("cp"),
            Long("key") | Short('k') => args::once(&mut common.key, args::path(p)?, "--key")?,
            Long("tmp") => args::once(&mut common.temporary, args::path(p)?, "--tmp")?,
            Long("compression") => {
                args::text(p)?;
                console.warn("--compression means nothing to cp; modify changes it");
            }
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => paths.push(PathBuf::from(value)),
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let [from, to] = paths.as_slice() else {
        return Err(Failure::usage("cp needs a source and a destination"));
    };
    match (inside(from), inside(to)) {
        (Some((image, path)), None) => copy_out(&image, &path, to, common, console),
        (None, Some((image, path))) => copy_in(from, &image, &path, None, common, console),
        (Some(_), Some(_)) => {
            Err(Failure::usage("cp copies into an artifact or out of one, not both at once"))
        }
        (None, None) => {
            Err(need_inside(to).err().unwrap_or_else(|| Failure::usage("cp needs ARTIFACT:PATH")))
        }
    }
}

fn copy_out(
    image: &Path,
    path: &str,
    to: &Path,
    common: Common,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let opened = Opened::open(image, common)?;
    let copy = opened.workspace.path("copied");
    let (system, place) = opened.file_system(path)?;
    let mode = system.read(&place, &copy)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let target = if to.is_dir() { to.join(name) } else { to.to_owned() };
    let failed = |error| Failure::io(format_args!("copy {path}"), error);
    let mut copied = File::open(&copy).map_err(failed)?;
    let mut output = Output::create(&target, Mode::Always(mode & 0o7777))?;
    io::copy(&mut copied, &mut output.writer(console.out)).map_err(failed)?;
    output.commit(console.out)
}

fn copy_in(
    from: &Path,
    image: &Path,
    path: &str,
    mode: Option<u32>,
    common: Common,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut path = path.to_owned();
    if path.ends_with('/') {
        match from == Path::new(STANDARD) {
            true => return Err(Failure::usage("the standard input has no name: say the name of the file")),
            false => path.push_str(&args::base_name(from)?),
        }
    }
    let mut content = source::open(from, common.temporary.as_deref())?;
    let opened = Opened::open_to_change(image, common)?;
    let failed = |error| Failure::io(format_args!("read {}", from.display()), error);
    let copy = opened.workspace.path("copied");
    io::copy(&mut content, &mut File::create(&copy).map_err(failed)?).map_err(failed)?;
    // The mode of what has no name is nobody's choice.
    let bits = match content.metadata() {
        Ok(meta) if from != Path::new(STANDARD) => filesystem::permissions(&meta),
        Ok(_) | Err(_) => 0o644,
    };
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(bits | 0o400)).map_err(failed)?;
    opened.change(&path, |system, path| system.write(path, &copy, mode))?;
    opened.close(console)
}

pub(crate) fn cat(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut common, mut path) = (Common::default(), None);
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("cat"),
            Long("tmp") => args::once(&mut common.temporary, args::path(p)?, "--tmp")?,
            Value(value) => args::once(&mut path, PathBuf::from(value), "the file")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path: PathBuf = path.ok_or_else(|| Failure::usage("cat needs ARTIFACT:PATH"))?;
    let (image, path) = need_inside(&path)?;
    let opened = Opened::open(&image, common)?;
    let copy = opened.workspace.path("copied");
    let (system, path) = opened.file_system(&path)?;
    system.read(&path, &copy)?;
    let copied = File::open(&copy).and_then(|mut file| io::copy(&mut file, console.out));
    copied.map(|_| ()).map_err(|error| Failure::io("write to the standard output", error))
}

pub(crate) fn install(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut common, mut paths, mut mode, mut directory) = (Common::default(), Vec::new(), None, false);
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("install"),
            Long("mode") | Short('m') => args::once(&mut mode, args::mode(p)?, "--mode")?,
            Long("directory") | Short('d') => directory = true,
            Long("key") | Short('k') => args::once(&mut common.key, args::path(p)?, "--key")?,
            Long("tmp") => args::once(&mut common.temporary, args::path(p)?, "--tmp")?,
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => paths.push(PathBuf::from(value)),
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    match (directory, paths.as_slice()) {
        (true, [place]) => {
            let (image, path) = need_inside(place)?;
            let opened = Opened::open_to_change(&image, common)?;
            opened.change(path.trim_end_matches('/'), FileSystem::make_directory)?;
            opened.close(console)
        }
        (false, [from, to]) => {
            let mode = mode.ok_or_else(|| Failure::usage("install needs --mode; cp copies without one"))?;
            let (image, path) = need_inside(to)?;
            copy_in(from, &image, &path, Some(mode), common, console)
        }
        (true, _) => Err(Failure::usage("install --directory needs one ARTIFACT:DIRECTORY")),
        (false, _) => Err(Failure::usage("install needs a file and ARTIFACT:PATH")),
    }
}

pub(crate) fn rm(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut common, mut path, mut recursive) = (Common::default(), None, false);
    let p = &mut parser;
    while let Some(arg) = p.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("rm"),
            Long("recursive") | Short('r') => recursive = true,
            Long("key") | Short('k') => args::once(&mut common.key, args::path(p)?, "--key")?,
            Long("tmp") => args::once(&mut common.temporary, args::path(p)?, "--tmp")?,
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => args::once(&mut path, PathBuf::from(value), "the file")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path: PathBuf = path.ok_or_else(|| Failure::usage("rm needs ARTIFACT:PATH"))?;
    let (image, path) = need_inside(&path)?;
    let opened = Opened::open_to_change(&image, common)?;
    opened.change(&path, |system, path| system.remove(path, recursive))?;
    opened.close(console)
}
