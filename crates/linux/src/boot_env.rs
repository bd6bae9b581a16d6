//! The boot environment of this machine: finds it, and opens it under the lock its own tools take.
//!
//! Every read and every write takes the lock, opens the files, works on them and closes them again: nothing of
//! an environment is kept while somebody else may change it, and the write protection of an eMMC boot partition
//! is lifted only for the moment of a write.
//!
//! It parses no `mender.conf`; the paths come from the caller.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootloader_grub::block::BLOCK_BYTES;
use bootloader_grub::env::LOCK_SUM_BYTES;
use bootloader_grub::{GrubCopy, GrubEnv, directory};
use bootloader_uboot::UBootEnv;
use bootloader_uboot::config::MAX_CONFIG_BYTES;
pub use bootloader_uboot::{CopyConfig, FwEnvConfig};
use client_core::boot::{BootEnv, BootEnvError, Variables};
use client_core::storage::BlockDevice;
use log::{debug, info, warn};

use crate::atomic_file;
use crate::block_device::mtd::Relock;
use crate::block_device::{self, Access, Kind, MtdDevice};
use crate::lock::{self, FileLock, LockError};
use crate::regular_file;

/// Whose environment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootloader {
    /// The one whose environment is there; GRUB's when both are, as the update modules prefer its tool.
    Auto,
    /// U-Boot, described by `fw_env.config`.
    UBoot,
    /// GRUB, in the layout of grub-mender-grubenv.
    Grub,
}

/// Where to look. [`Default`] has the places of the stock tools.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootEnvPaths {
    /// The description of the U-Boot environment.
    pub fw_env_config: PathBuf,
    /// The directory with `mender_grubenv1` and `mender_grubenv2`; `None` finds it as the stock tool does.
    pub grub_env_dir: Option<PathBuf>,
    /// The file that may name that directory.
    pub grub_config: PathBuf,
    /// The lock of `fw_setenv` and `fw_printenv`.
    pub uboot_lock: PathBuf,
    /// The lock of `grub-mender-grubenv-set` and `-print`.
    pub grub_lock: PathBuf,
    /// How long to wait for whoever holds the lock. The tools hold it for one write.
    pub lock_wait: Duration,
}

impl Default for BootEnvPaths {
    fn default() -> BootEnvPaths {
        BootEnvPaths {
            fw_env_config: "/etc/fw_env.config".into(),
            grub_env_dir: None,
            grub_config: directory::CONFIG_FILE.into(),
            uboot_lock: "/var/lock/fw_printenv.lock".into(),
            grub_lock: "/var/lock/grub-mender-grubenv-set.lock".into(),
            lock_wait: Duration::from_secs(10),
        }
    }
}

/// The boot environment of `bootloader`. Its description is read now, its content and devices only later.
///
/// # Errors
/// When no environment is found, or its description is missing or malformed.
pub fn open(bootloader: Bootloader, paths: &BootEnvPaths) -> Result<Box<dyn BootEnv>, BootEnvError> {
    match bootloader {
        Bootloader::UBoot => Ok(Box::new(LockedUBoot::open(paths)?)),
        Bootloader::Grub => Ok(Box::new(LockedGrub::open(paths)?)),
        Bootloader::Auto => match LockedGrub::open(paths) {
            Ok(grub) => Ok(Box::new(grub)),
            Err(no_grub) if paths.fw_env_config.exists() => {
                debug!("U-Boot is the bootloader: {no_grub}");
                Ok(Box::new(LockedUBoot::open(paths)?))
            }
            Err(no_grub) => Err(BootEnvError::Config {
                place: "boot environment".to_string(),
                reason: format!(
                    "neither U-Boot's nor GRUB's is there: {} does not exist; {no_grub}",
                    paths.fw_env_config.display()
                ),
            }),
        },
    }
}

/// The boot environment of `bootloader` for somebody who only looks: nothing is opened for writing, repaired or locked, so
/// that every user may look, beside a client that works, and on a medium that cannot be written any more. A look into the
/// middle of a write by somebody else may find a copy that is not valid.
///
/// # Errors
/// When no environment is found, or its description is missing or malformed.
pub fn open_to_look(bootloader: Bootloader, paths: &BootEnvPaths) -> Result<Box<dyn BootEnv>, BootEnvError> {
    match bootloader {
        Bootloader::UBoot => Ok(Box::new(LookedAt(LockedUBoot::open(paths)?))),
        Bootloader::Grub => Ok(Box::new(LookedAt(LockedGrub::open(paths)?))),
        Bootloader::Auto => match LockedGrub::open(paths) {
            Ok(grub) => Ok(Box::new(LookedAt(grub))),
            Err(_) if paths.fw_env_config.exists() => open_to_look(Bootloader::UBoot, paths),
            Err(_) => open(bootloader, paths),
        },
    }
}

/// An environment that can be read without a right to change it.
trait Look {
    fn look(&self, names: &[&str]) -> Result<Variables, BootEnvError>;
    fn description(&self) -> String;
}

struct LookedAt<E>(E);

impl<E: Look> LookedAt<E> {
    fn refuse(&self) -> BootEnvError {
        io_error("write", Path::new(&self.0.description()), io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl<E: Look> BootEnv for LookedAt<E> {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        self.0.look(names)
    }

    fn write(&mut self, _: &[(&str, &str)]) -> Result<(), BootEnvError> {
        Err(self.refuse())
    }

    fn check_write(&mut self, _: &[(&str, &str)]) -> Result<(), BootEnvError> {
        Err(self.refuse())
    }

    fn describe(&self) -> String {
        self.0.description()
    }
}

impl Look for LockedUBoot {
    fn look(&self, names: &[&str]) -> Result<Variables, BootEnvError> {
        self.open_devices(Access::Read)?.read(names)
    }

    fn description(&self) -> String {
        self.describe()
    }
}

impl Look for LockedGrub {
    fn look(&self, names: &[&str]) -> Result<Variables, BootEnvError> {
        GrubEnv::new(self.open_copies(Access::Read)?).read(names)
    }

    fn description(&self) -> String {
        self.describe()
    }
}

/// The description of a U-Boot environment.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_fw_env_config(path: &Path) -> Result<FwEnvConfig, BootEnvError> {
    let place = path.display().to_string();
    let text = read_small(path, MAX_CONFIG_BYTES)
        .map_err(|error| BootEnvError::Config { place: place.clone(), reason: error.to_string() })?;
    FwEnvConfig::parse(&text, &place)
}

/// One copy of an environment, for somebody who only looks.
#[derive(Debug)]
pub struct InspectedCopy {
    /// The device or file.
    pub path: PathBuf,
    /// Where in it the copy begins; `None` where that could not be told.
    pub offset: Option<u64>,
    /// Bytes of the copy.
    pub size_bytes: u64,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// An environment, for somebody who only looks.
#[derive(Debug)]
pub struct InspectedEnv {
    /// The copies, in their order.
    pub copies: Vec<InspectedCopy>,
    /// The copy that counts, from 0.
    pub active: Option<usize>,
    /// What it looks like where no copy is valid.
    pub hint: Option<String>,
    /// The variables that were asked for and are there, where a copy is valid.
    pub variables: Vec<(&'static str, String)>,
}

impl InspectedEnv {
    /// The value of a variable that was asked for.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

/// The variables of `names` as `value` has them.
fn inspected_variables(
    names: &[&'static str],
    value: impl Fn(&str) -> Option<Vec<u8>>,
) -> Vec<(&'static str, String)> {
    let text = |name: &&'static str| Some((*name, String::from_utf8_lossy(&value(name)?).into_owned()));
    names.iter().filter_map(text).collect()
}

/// The U-Boot environment that `config` describes, as it is: flushes and repairs nothing. An open UBI volume cannot be
/// updated: only there the lock of `paths` is held for the moment of reading, where it exists, and whoever writes waits.
///
/// # Errors
/// When the copies cannot be an environment, whatever they hold, or somebody keeps the lock.
pub fn inspect_uboot(
    config: &FwEnvConfig,
    paths: &BootEnvPaths,
    names: &[&'static str],
) -> Result<InspectedEnv, BootEnvError> {
    let is_volume = |copy: &CopyConfig| {
        device_metadata(copy).is_ok_and(|(path, found)| Kind::of(&path, &found) == Kind::UbiVolume)
    };
    let lock = match config.copies().iter().any(is_volume) {
        true => regular_file::open_for_reading(&paths.uboot_lock).ok(),
        false => None,
    };
    if let Some(file) = &lock {
        let held =
            lock::try_for(file, UBI_WAIT).map_err(|source| io_error("lock", &paths.uboot_lock, source))?;
        if !held {
            return Err(io_error("lock", &paths.uboot_lock, io::ErrorKind::WouldBlock.into()));
        }
    }
    let open = |copy: &CopyConfig| match open_copy(copy, Access::Read) {
        Ok((device, offset)) => (device, Some(offset)),
        Err(error) => {
            let lost = Lost { name: copy.device.clone(), len: u64::MAX, fault: error.to_string() };
            (Box::new(lost) as Box<dyn BlockDevice>, None)
        }
    };
    let (size_bytes, offsets, mut env) = match config {
        FwEnvConfig::Single(copy) => {
            let (device, offset) = open(copy);
            let env = UBootEnv::single(device, offset.unwrap_or(0), copy.size_bytes)?;
            (copy.size_bytes, vec![offset], env)
        }
        FwEnvConfig::Redundant([first, second]) => {
            let ((one, one_offset), (two, two_offset)) = (open(first), open(second));
            // Where one is not known the copies must not be taken for one place.
            let offsets = match (one_offset, two_offset) {
                (None, offset) => [offset.unwrap_or(0).saturating_add(first.size_bytes), offset.unwrap_or(0)],
                (Some(one), two) => [one, two.unwrap_or(one.saturating_add(first.size_bytes))],
            };
            let env = UBootEnv::redundant_on_two([one, two], offsets, first.size_bytes)?;
            (first.size_bytes, vec![one_offset, two_offset], env)
        }
    };
    let found = env.inspect();
    let copies = config.copies().iter().zip(offsets).zip(found.copies);
    let copies = copies.map(|((copy, offset), state)| InspectedCopy {
        path: PathBuf::from(&copy.device),
        offset,
        size_bytes,
        fault: state.err().map(|bad| bad.fault),
    });
    let active = found.active.as_ref().map(|(at, _)| *at);
    let value = |name: &str| found.active.as_ref()?.1.value(name).map(<[u8]>::to_vec);
    let variables = inspected_variables(names, value);
    Ok(InspectedEnv { copies: copies.collect(), active, hint: found.hint, variables })
}

/// The GRUB environment in `directory`, as it is: takes no lock, flushes and repairs nothing.
pub fn inspect_grub(directory: &Path, names: &[&'static str]) -> InspectedEnv {
    let open = |copy: &str, file: &str| {
        let path = directory.join(copy).join(file);
        block_device::open(&path, Access::Read).unwrap_or_else(|error| {
            let name = path.display().to_string();
            Box::new(Lost { name, len: BLOCK_BYTES as u64, fault: error.to_string() })
        })
    };
    let copy = |copy| GrubCopy { env: open(copy, ENV), lock: open(copy, LOCK), lock_sum: None };
    let found = GrubEnv::new(COPIES.map(copy)).inspect();
    let active = found.block.is_some().then(|| found.faults.iter().position(Option::is_none).unwrap_or(0));
    let value = |name: &str| found.block.as_ref()?.value(name);
    let variables = inspected_variables(names, value);
    let copies = COPIES.iter().zip(found.faults).map(|(copy, fault)| InspectedCopy {
        path: directory.join(copy).join(ENV),
        offset: Some(0),
        size_bytes: BLOCK_BYTES as u64,
        fault,
    });
    InspectedEnv { copies: copies.collect(), active, hint: None, variables }
}

/// The directory of the GRUB environment: the one that `paths` name, or the first of the usual ones that is there. `at` says
/// where a path of this machine is.
///
/// # Errors
/// When there is none.
pub fn find_grub(paths: &BootEnvPaths, at: &dyn Fn(&str) -> PathBuf) -> Result<PathBuf, BootEnvError> {
    let directory = match &paths.grub_env_dir {
        Some(directory) => directory.clone(),
        None => {
            let config = match read_small(&paths.grub_config, MAX_GRUB_CONFIG_BYTES) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(io_error("read", &paths.grub_config, source)),
            };
            at(&directory::find(config.as_deref(), |path| at(path).is_dir())?)
        }
    };
    for copy in COPIES {
        let place = directory.join(copy);
        // One that is missing is a copy that was lost, and is made again from the other.
        let is_lost = || {
            let missing = fs::symlink_metadata(&place).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            missing && COPIES.iter().any(|copy| directory.join(copy).is_dir())
        };
        if !place.is_dir() && !is_lost() {
            return Err(BootEnvError::Config {
                place: place.display().to_string(),
                reason: "is not a directory with a copy of the GRUB environment".to_string(),
            });
        }
    }
    Ok(directory)
}

/// A U-Boot environment that is opened, under the lock, for each call.
struct LockedUBoot {
    config: FwEnvConfig,
    lock: LockPlace,
}

impl LockedUBoot {
    fn open(paths: &BootEnvPaths) -> Result<LockedUBoot, BootEnvError> {
        let config = read_fw_env_config(&paths.fw_env_config)?;
        let first = config.copies().first().map(|copy| PathBuf::from(&copy.device));
        let beside = first.filter(|path| path.is_file()).unwrap_or_else(|| paths.fw_env_config.clone());
        let lock = LockPlace {
            standard: paths.uboot_lock.clone(),
            beside: with_suffix(&beside, ".lock"),
            wait: paths.lock_wait,
        };
        Ok(LockedUBoot { config, lock })
    }

    fn open_devices(&self, access: Access) -> Result<UBootEnv<Box<dyn BlockDevice>>, BootEnvError> {
        match &self.config {
            FwEnvConfig::Single(copy) => {
                let (device, offset) = open_copy(copy, access)?;
                UBootEnv::single(device, offset, copy.size_bytes)
            }
            FwEnvConfig::Redundant([first, second]) => {
                let size_bytes = first.size_bytes;
                if let Some(env) = open_with_lost_file(first, second, access)? {
                    return Ok(env);
                }
                let metadata = [device_metadata(first)?, device_metadata(second)?];
                let is_mtd = metadata.iter().any(|(path, found)| Kind::of(path, found) == Kind::Mtd);
                let (one, one_offset) = open_copy(first, access)?;
                if !is_mtd && is_same(&metadata[0].1, &metadata[1].1) {
                    let two_offset = second.offset_on(one.len())?;
                    return UBootEnv::redundant_on_one(one, [one_offset, two_offset], size_bytes);
                }
                if is_mtd && is_same(&metadata[0].1, &metadata[1].1) {
                    check_erase_blocks(&metadata[0].0, [first, second])?;
                }
                let (two, two_offset) = open_copy(second, access)?;
                UBootEnv::redundant_on_two([one, two], [one_offset, two_offset], size_bytes)
            }
        }
    }
}

/// The environment, where one of its two files is missing or was cut short: U-Boot saves one at a time, so that the
/// second is not there before the second save, and a power cut can take one from a FAT file system. To U-Boot that
/// is a copy that is not valid, and it boots from the other one. To be written, the file gets its length first, as
/// U-Boot would give it; what it then holds is no valid copy either.
fn open_with_lost_file(
    first: &CopyConfig,
    second: &CopyConfig,
    access: Access,
) -> Result<Option<UBootEnv<Box<dyn BlockDevice>>>, BootEnvError> {
    let copies = [first, second];
    let (lost, good) = match copies.map(LostFile::find) {
        [Some(lost), None] => (lost, second),
        [None, Some(lost)] => (lost, first),
        // Nothing is lost, or there is nothing to go by.
        [None, None] | [Some(_), Some(_)] => return Ok(None),
    };
    if !lost.is_beside(good) {
        return Ok(None);
    }
    if access != Access::Read {
        // The other copy must be an environment before anything is done to what is left of this one.
        if let Some(mut env) = open_with_lost_file(first, second, Access::Read)? {
            env.read(&[])?;
        }
    }
    let open = |copy: &CopyConfig| match (copy.line == lost.line, access) {
        (true, Access::Read) => {
            Ok((Box::new(lost.stand_in(copy.size_bytes)) as Box<dyn BlockDevice>, lost.offset))
        }
        (true, Access::Write | Access::WriteExclusive) => {
            let end = lost.offset.saturating_add(copy.size_bytes);
            // Nothing of it may become valid by that: it is not what was read.
            cut(&lost.path, lost.offset)
                .and_then(|()| restore_length(&lost.path, end))
                .map_err(|source| io_error("restore the length of", &lost.path, source))?;
            warn!("{} {}; restored its length to {end} bytes", lost.path.display(), lost.fault);
            open_copy(copy, access)
        }
        (false, _) => open_copy(copy, access),
    };
    let ((one, one_offset), (two, two_offset)) = (open(first)?, open(second)?);
    UBootEnv::redundant_on_two([one, two], [one_offset, two_offset], first.size_bytes).map(Some)
}

/// A file of a redundant environment that is missing, or too short for its copy.
struct LostFile {
    /// Its line in `fw_env.config`.
    line: usize,
    path: PathBuf,
    offset: u64,
    fault: String,
}

impl LostFile {
    /// `None` for a file that is whole, and for everything that is no file.
    fn find(copy: &CopyConfig) -> Option<LostFile> {
        let path = PathBuf::from(&copy.device);
        let found = |fault: String, offset, path| Some(LostFile { line: copy.line, path, offset, fault });
        // From the end of a file of unknown length nothing can be counted.
        let offset = u64::try_from(copy.offset).ok()?;
        let path = match block_device::resolve(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return found("is missing".to_owned(), offset, path);
            }
            Err(_) => return None,
            Ok(path) => path,
        };
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        let is_short = offset.checked_add(copy.size_bytes).is_some_and(|end| metadata.len() < end);
        if is_short { found(format!("has {} bytes", metadata.len()), offset, path) } else { None }
    }

    /// Whether the other copy is a whole file on the same file system. Otherwise this one may be lost by a mistake in the
    /// description, and a file must not be made where a device should be.
    fn is_beside(&self, good: &CopyConfig) -> bool {
        let directory = self.path.parent().and_then(|parent| fs::metadata(parent).ok());
        let good = device_metadata(good).ok().filter(|(_, metadata)| metadata.is_file());
        directory.zip(good).is_some_and(|(directory, (_, good))| directory.dev() == good.dev())
    }

    fn stand_in(&self, size_bytes: u64) -> Lost {
        let len = self.offset.saturating_add(size_bytes);
        Lost { name: self.path.display().to_string(), len, fault: format!("the file {}", self.fault) }
    }
}

/// Stands for what is not there, where nothing is to be written.
struct Lost {
    name: String,
    len: u64,
    fault: String,
}

impl BlockDevice for Lost {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other(self.fault.clone()))
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl BootEnv for LockedUBoot {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        let _held = self.lock.acquire()?;
        self.open_devices(Access::Read)?.read(names)
    }

    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let _held = self.lock.acquire()?;
        self.open_devices(Access::Write)?.write(changes)
    }

    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let _held = self.lock.acquire()?;
        self.open_devices(Access::Write)?.check_write(changes)
    }

    fn describe(&self) -> String {
        match &self.config {
            FwEnvConfig::Single(copy) => format!("U-Boot environment in {} (1 copy)", copy.device),
            FwEnvConfig::Redundant([first, second]) if first.device == second.device => {
                format!("U-Boot environment in {} (2 copies)", first.device)
            }
            FwEnvConfig::Redundant([first, second]) => {
                format!("U-Boot environment in {} and {}", first.device, second.device)
            }
        }
    }
}

fn device_metadata(copy: &CopyConfig) -> Result<(PathBuf, Metadata), BootEnvError> {
    block_device::resolve(Path::new(&copy.device))
        .and_then(|path| fs::metadata(&path).map(|metadata| (path, metadata)))
        .map_err(|source| io_error("open", Path::new(&copy.device), source))
}

/// Whether two nodes or links are one file or device.
fn is_same(one: &Metadata, two: &Metadata) -> bool {
    let is_device = |metadata: &Metadata| metadata.rdev() != 0;
    if is_device(one) || is_device(two) {
        one.rdev() == two.rdev() && one.mode() & libc::S_IFMT == two.mode() & libc::S_IFMT
    } else {
        (one.dev(), one.ino()) == (two.dev(), two.ino())
    }
}

/// The device of one copy, and where the copy starts in it.
fn open_copy(copy: &CopyConfig, access: Access) -> Result<(Box<dyn BlockDevice>, u64), BootEnvError> {
    let (path, metadata) = device_metadata(copy)?;
    if Kind::of(&path, &metadata) == Kind::Mtd {
        return Ok((Box::new(open_flash(&path, copy, access)?), 0));
    }
    let device = block_device::open(&path, access).map_err(|source| io_error("open", &path, source))?;
    let offset = copy.offset_on(device.len())?;
    Ok((device, offset))
}

/// The good erase blocks of one copy.
fn open_flash(path: &Path, copy: &CopyConfig, access: Access) -> Result<MtdDevice, BootEnvError> {
    let failed = |source| io_error("open", path, source);
    let whole = MtdDevice::open(path, Access::Read).map_err(failed)?;
    let offset = copy.offset_on(whole.len())?;
    let erase_bytes = whole.erase_bytes();
    if copy.sector_bytes != 0 && copy.sector_bytes != erase_bytes {
        warn!(
            "fw_env.config line {}: SECTORSIZE {:#x} differs from the erase block of {erase_bytes:#x}",
            copy.line, copy.sector_bytes
        );
    }
    let sector_bytes = if copy.sector_bytes == 0 { erase_bytes } else { copy.sector_bytes };
    let sectors = copy.sectors.saturating_mul(sector_bytes).div_ceil(erase_bytes);
    let relock = if copy.disable_lock { Relock::No } else { Relock::Yes };
    MtdDevice::open_region(path, access, offset, copy.size_bytes, sectors, relock).map_err(failed)
}

/// Writing one copy erases whole blocks: none of them may hold the other copy.
fn check_erase_blocks(path: &Path, copies: [&CopyConfig; 2]) -> Result<(), BootEnvError> {
    let [first, second] = copies;
    let first = open_flash(path, first, Access::Read)?;
    let second = open_flash(path, second, Access::Read)?;
    match first.block_starts().iter().find(|start| second.block_starts().contains(start)) {
        None => Ok(()),
        Some(start) => Err(BootEnvError::Config {
            place: path.display().to_string(),
            reason: format!("both copies of the environment use the erase block at {start:#x}"),
        }),
    }
}

/// A GRUB environment that is opened, under the lock, for each call.
struct LockedGrub {
    directory: PathBuf,
    lock: LockPlace,
}

/// The files of a copy, by name.
const ENV: &str = "env";
const LOCK: &str = "lock";
const LOCK_SUM: &str = "lock.sha256sum";
/// The copies, by directory.
const COPIES: [&str; 2] = ["mender_grubenv1", "mender_grubenv2"];

/// How long somebody who only looks waits for whoever writes an environment in UBI volumes.
const UBI_WAIT: Duration = Duration::from_secs(1);

/// Longest `/etc/mender_grubenv.config` that is looked at. Real ones are one line.
const MAX_GRUB_CONFIG_BYTES: usize = 64 * 1024;

impl LockedGrub {
    fn open(paths: &BootEnvPaths) -> Result<LockedGrub, BootEnvError> {
        let directory = find_grub(paths, &|path| PathBuf::from(path))?;
        let lock = LockPlace {
            standard: paths.grub_lock.clone(),
            beside: directory.join("rust-ota.lock"),
            wait: paths.lock_wait,
        };
        Ok(LockedGrub { directory, lock })
    }

    /// The files for writing even for a read, which may have to repair; for reading where that is all there is.
    fn open_files(&self) -> Result<GrubEnv<Box<dyn BlockDevice>>, BootEnvError> {
        match self.restore_lengths().and_then(|()| self.open_copies(Access::Write)) {
            Err(BootEnvError::Io { source, path, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                debug!("{path} is open for reading only: {source}");
                self.open_copies(Access::Read)
            }
            other => other,
        }
        .map(GrubEnv::new)
    }

    fn open_copies(&self, access: Access) -> Result<[GrubCopy<Box<dyn BlockDevice>>; 2], BootEnvError> {
        let open = |copy: &str, file: &str| {
            let path = self.directory.join(copy).join(file);
            block_device::open(&path, access).map_err(|source| io_error("open", &path, source))
        };
        let open_copy = |copy: &str| -> Result<_, BootEnvError> {
            let lock_sum = match open(copy, LOCK_SUM) {
                Ok(sum) => Some(sum),
                Err(error) => {
                    debug!("GRUB environment: {error}"); // Only the stock tool wants it.
                    None
                }
            };
            Ok(GrubCopy { env: open(copy, ENV)?, lock: open(copy, LOCK)?, lock_sum })
        };
        let [first, second] = COPIES;
        Ok([open_copy(first)?, open_copy(second)?])
    }

    /// Gives files that `grub-editenv` or FAT left missing, too short or too long their length again, so that they can be
    /// repaired in place from the other copy. What they then hold is no valid block.
    fn restore_lengths(&self) -> Result<(), BootEnvError> {
        let [first, second] = COPIES;
        for copy in COPIES {
            restore_directory(&self.directory.join(copy))?;
        }
        for (file, bytes) in [(ENV, BLOCK_BYTES), (LOCK, BLOCK_BYTES), (LOCK_SUM, LOCK_SUM_BYTES)] {
            let lengths = [first, second].map(|copy| length(&self.directory.join(copy).join(file)));
            for (copy, own, other) in [(first, lengths[0], lengths[1]), (second, lengths[1], lengths[0])] {
                let bytes_wanted = bytes as u64;
                // A sum may be as long as it likes.
                let is_wrong =
                    own.is_none_or(|have| have < bytes_wanted || file != LOCK_SUM && have > bytes_wanted);
                // Without another copy there is nothing to repair from; locks and sums can be made anew.
                let can_be_repaired = file != ENV || other == Some(bytes_wanted);
                if is_wrong && can_be_repaired {
                    let path = self.directory.join(copy).join(file);
                    restore_length(&path, bytes as u64)
                        .map_err(|source| io_error("restore the length of", &path, source))?;
                    warn!(
                        "{} was missing or had another length; restored it to {bytes} bytes",
                        path.display()
                    );
                }
            }
        }
        Ok(())
    }
}

impl BootEnv for LockedGrub {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        let _held = self.lock.acquire()?;
        self.open_files()?.read(names)
    }

    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let _held = self.lock.acquire()?;
        self.open_files()?.write(changes)
    }

    /// Without the way out that reading has.
    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let _held = self.lock.acquire()?;
        GrubEnv::new(self.open_copies(Access::Write)?).check_write(changes)
    }

    fn describe(&self) -> String {
        format!("GRUB environment in {} (2 copies)", self.directory.display())
    }
}

/// Length of a regular file; `None` when there is none.
fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

fn restore_length(path: &Path, bytes: u64) -> io::Result<()> {
    let file = regular_file::open(path, OpenOptions::new().write(true).create(true).truncate(false))?;
    file.set_len(bytes)?;
    file.sync_all()?;
    // The name as well, when it is new.
    atomic_file::sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Removes what a file has from `offset` on; a missing file is fine.
fn cut(path: &Path, offset: u64) -> io::Result<()> {
    match regular_file::open(path, OpenOptions::new().write(true)) {
        Ok(file) if file.metadata()?.len() > offset => file.set_len(offset),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory that is missing.
fn restore_directory(path: &Path) -> Result<(), BootEnvError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir(path)
        .and_then(|()| atomic_file::sync_directory(path.parent().unwrap_or(Path::new("."))))
        .map_err(|source| io_error("make", path, source))?;
    warn!("{} was missing; made it again", path.display());
    Ok(())
}

/// The lock of the stock tools, and where to go when it is out of reach.
struct LockPlace {
    standard: PathBuf,
    beside: PathBuf,
    wait: Duration,
}

impl LockPlace {
    /// The standard lock; where this user cannot have it, one beside the environment. That one keeps two of us
    /// apart, but not us and a stock tool run by somebody who can.
    fn acquire(&self) -> Result<FileLock, BootEnvError> {
        let standard = FileLock::acquire(&self.standard, self.wait);
        let refused = match standard {
            Ok(held) => return Ok(held),
            Err(LockError::Open { path, source })
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::ReadOnlyFilesystem
                        // Not a file: everybody may put a FIFO into the directory of the locks.
                        | io::ErrorKind::InvalidInput
                ) =>
            {
                format!("{}: {source}", path.display())
            }
            Err(error) => return Err(lock_error(error)),
        };
        info!("locking {} instead of {refused}", self.beside.display());
        FileLock::acquire(&self.beside, self.wait).map_err(lock_error)
    }
}

fn lock_error(error: LockError) -> BootEnvError {
    match error {
        LockError::Held { path } => BootEnvError::Locked { path: path.display().to_string() },
        LockError::Open { path, source } => io_error("open the lock", &path, source),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// A text file of at most `limit` bytes.
fn read_small(path: &Path, limit: usize) -> io::Result<String> {
    let mut text = String::new();
    // A FIFO would wait for its other end.
    regular_file::open_for_reading(path)?.take(limit as u64 + 1).read_to_string(&mut text)?;
    if text.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    Ok(text)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> BootEnvError {
    BootEnvError::Io { doing, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 0x1000;

    /// A folder with environments made of plain files, and locks of its own.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn paths(&self) -> BootEnvPaths {
            BootEnvPaths {
                fw_env_config: self.path("fw_env.config"),
                grub_env_dir: Some(self.path("grub")),
                grub_config: self.path("mender_grubenv.config"),
                uboot_lock: self.path("uboot.lock"),
                grub_lock: self.path("grub.lock"),
                // A process that another test starts has our lock until it becomes its program.
                lock_wait: Duration::from_secs(60),
            }
        }

        /// A redundant environment in the files `env0` and `env1`.
        fn with_uboot_in_two_files(self) -> Folder {
            let mut config = String::new();
            for (name, flags) in [("env0", 1), ("env1", 0)] {
                fs::write(self.path(name), uboot_copy(flags)).unwrap();
                config.push_str(&format!("{} 0 {SIZE:x}\n", self.path(name).display()));
            }
            fs::write(self.path("fw_env.config"), config).unwrap();
            self
        }

        /// An empty redundant environment in one file.
        fn with_uboot(self) -> Folder {
            let copy = uboot_copy(0);
            fs::write(self.path("uboot.env"), [copy.clone(), copy].concat()).unwrap();
            let device = self.path("uboot.env").display().to_string();
            let config = format!("{device} 0 {SIZE:x}\n{device} -{SIZE:#x} {SIZE:x}\n");
            fs::write(self.path("fw_env.config"), config).unwrap();
            self
        }

        fn with_grub(self) -> Folder {
            for copy in COPIES {
                let directory = self.path("grub").join(copy);
                fs::create_dir_all(&directory).unwrap();
                let mut env = bootloader_grub::block::Block::default();
                for (name, value) in
                    [("bootcount", "0"), ("mender_boot_part", "2"), ("upgrade_available", "0")]
                {
                    env.set(name, value).unwrap();
                }
                fs::write(directory.join(ENV), env.encode().unwrap()).unwrap();
                let mut lock = bootloader_grub::block::Block::default();
                lock.set("editing", "0").unwrap();
                fs::write(directory.join(LOCK), lock.encode().unwrap()).unwrap();
            }
            self
        }
    }

    fn uboot_copy(flags: u8) -> Vec<u8> {
        let mut variables = bootloader_uboot::image::Variables::default();
        variables.set("kept", "by all means").unwrap();
        let image = bootloader_uboot::image::Image { flags, variables };
        image.encode(bootloader_uboot::image::Format::Redundant, SIZE, 0).unwrap()
    }

    fn check_writes(bootloader: Bootloader, paths: &BootEnvPaths) {
        let mut env = open(bootloader, paths).unwrap();
        env.write(&[("upgrade_available", "1")]).unwrap();
        assert_eq!(env.read(&["upgrade_available"]).unwrap().get("upgrade_available"), Some("1"));
    }

    #[test]
    fn a_fifo_in_place_of_a_description_keeps_nobody_waiting() {
        let folder = Folder::new();
        for (name, bootloader) in
            [("fw_env.config", Bootloader::UBoot), ("mender_grubenv.config", Bootloader::Grub)]
        {
            assert!(std::process::Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
            let paths = BootEnvPaths { grub_env_dir: None, ..folder.paths() };
            check_error(bootloader, &paths, "a FIFO, not a regular file");
        }
    }

    #[test]
    fn a_look_changes_nothing_and_sees_each_copy() {
        let folder = Folder::new().with_uboot_in_two_files().with_grub();
        fs::write(folder.path("env1"), "torn").unwrap();
        fs::write(folder.path("grub/mender_grubenv1/env"), "torn").unwrap();
        let config = read_fw_env_config(&folder.path("fw_env.config")).unwrap();
        let uboot = inspect_uboot(&config, &folder.paths(), &["kept"]).unwrap();
        assert_eq!((uboot.active, uboot.value("kept")), (Some(0), Some("by all means")));
        assert!(uboot.copies[0].fault.is_none() && uboot.copies[1].fault.is_some());
        let grub = inspect_grub(&folder.path("grub"), &["bootcount"]);
        assert_eq!((grub.active, grub.value("bootcount")), (Some(1), Some("0")));
        for torn in ["env1", "grub/mender_grubenv1/env"] {
            assert_eq!(fs::read(folder.path(torn)).unwrap(), b"torn");
        }
        assert!(!folder.path("uboot.lock").exists() && !folder.path("grub.lock").exists());
    }

    fn check_error(bootloader: Bootloader, paths: &BootEnvPaths, expected: &str) {
        let error = open(bootloader, paths).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }

    fn kind(paths: &BootEnvPaths) -> String {
        let describe = open(Bootloader::Auto, paths).unwrap().describe();
        describe.split(' ').next().unwrap().to_string()
    }

    #[test]
    fn a_uboot_environment_in_a_plain_file_is_written_and_read() {
        let folder = Folder::new().with_uboot();
        check_writes(Bootloader::UBoot, &folder.paths());
        assert!(folder.path("uboot.lock").exists());
        assert_eq!(length(&folder.path("uboot.env")), Some(2 * SIZE as u64));
    }

    #[test]
    fn a_grub_environment_in_plain_files_is_written_and_read() {
        let folder = Folder::new().with_grub();
        check_writes(Bootloader::Grub, &folder.paths());
        assert!(folder.path("grub.lock").exists());
    }

    #[test]
    fn auto_takes_the_environment_that_is_there_and_prefers_grub() {
        assert_eq!(kind(&Folder::new().with_uboot().paths()), "U-Boot");
        assert_eq!(kind(&Folder::new().with_grub().paths()), "GRUB");
        assert_eq!(kind(&Folder::new().with_grub().with_uboot().paths()), "GRUB");
    }

    #[test]
    fn no_environment_at_all_names_both_places() {
        let paths = Folder::new().paths();
        check_error(Bootloader::Auto, &paths, &paths.fw_env_config.display().to_string());
        check_error(Bootloader::Auto, &paths, "mender_grubenv1");
    }

    #[test]
    fn a_missing_description_names_the_file() {
        let paths = Folder::new().paths();
        check_error(Bootloader::UBoot, &paths, &paths.fw_env_config.display().to_string());
    }

    #[test]
    fn the_grub_directory_is_found_through_its_configuration() {
        let folder = Folder::new().with_grub();
        let mut paths = folder.paths();
        paths.grub_env_dir = None;
        fs::write(&paths.grub_config, format!("ENV_DIR={}\n", folder.path("grub").display())).unwrap();
        check_writes(Bootloader::Grub, &paths);
    }

    #[test]
    fn a_held_lock_refuses_reads_and_writes_and_names_the_file() {
        for folder in [Folder::new().with_uboot(), Folder::new().with_grub()] {
            let paths = BootEnvPaths { lock_wait: Duration::ZERO, ..folder.paths() };
            let mut env = open(Bootloader::Auto, &paths).unwrap();
            let locks = [&paths.uboot_lock, &paths.grub_lock];
            let _held = locks.map(|path| FileLock::acquire(path, Duration::ZERO).unwrap());
            for result in [env.read(&["a"]).map(drop), env.write(&[("a", "1")])] {
                assert!(matches!(result, Err(BootEnvError::Locked { path }) if path.ends_with(".lock")));
            }
        }
    }

    #[test]
    fn a_lock_that_cannot_be_had_is_replaced_by_one_beside_the_environment() {
        let folder = Folder::new().with_uboot().with_grub();
        let mut paths = folder.paths();
        paths.uboot_lock = folder.path("missing/uboot.lock");
        paths.grub_lock = folder.path("missing/grub.lock");
        check_writes(Bootloader::UBoot, &paths);
        check_writes(Bootloader::Grub, &paths);
        let fifo = folder.path("fifo.lock");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        (paths.uboot_lock, paths.grub_lock) = (fifo.clone(), fifo);
        check_writes(Bootloader::UBoot, &paths);
        check_writes(Bootloader::Grub, &paths);
        assert!(folder.path("uboot.env.lock").exists());
        assert!(folder.path("grub/rust-ota.lock").exists());
    }

    #[test]
    fn a_write_is_checked_without_being_done() {
        for (bootloader, folder) in
            [(Bootloader::UBoot, Folder::new().with_uboot()), (Bootloader::Grub, Folder::new().with_grub())]
        {
            let mut env = open(bootloader, &folder.paths()).unwrap();
            let before = env.read(&["upgrade_available", "x"]).unwrap();
            env.check_write(&[("upgrade_available", "1"), ("x", "1")]).unwrap();
            assert_eq!(env.read(&["upgrade_available", "x"]).unwrap(), before);
            let much = "y".repeat(2 * SIZE);
            let (checked, written) =
                (env.check_write(&[("x", &much)]).unwrap_err(), env.write(&[("x", &much)]).unwrap_err());
            assert_eq!(checked.to_string(), written.to_string());
            assert_eq!(env.read(&["upgrade_available", "x"]).unwrap(), before);
        }
    }

    #[test]
    fn copies_that_overlap_are_refused() {
        let folder = Folder::new().with_uboot();
        let device = folder.path("uboot.env").display().to_string();
        fs::write(folder.path("fw_env.config"), format!("{device} 0 {SIZE:x}\n{device} 1 {SIZE:x}\n"))
            .unwrap();
        let mut env = open(Bootloader::UBoot, &folder.paths()).unwrap();
        assert!(matches!(env.read(&["a"]), Err(BootEnvError::Config { .. })));
    }

    #[test]
    fn one_file_under_two_names_is_one_device() {
        let folder = Folder::new().with_uboot();
        let (file, link) = (folder.path("uboot.env"), folder.path("link.env"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let config = format!("{} 0 {SIZE:x}\n{} 0x10 {SIZE:x}\n", file.display(), link.display());
        fs::write(folder.path("fw_env.config"), config).unwrap();
        let mut env = open(Bootloader::UBoot, &folder.paths()).unwrap();
        assert!(matches!(env.read(&["a"]), Err(BootEnvError::Config { .. })));
    }

    #[test]
    fn files_of_one_copy_that_were_cut_short_or_lost_are_repaired_from_the_other() {
        for copy in COPIES {
            for damage in
                [|path: &Path| fs::write(path, "").unwrap(), |path: &Path| fs::remove_file(path).unwrap()]
            {
                let folder = Folder::new().with_grub();
                for file in [ENV, LOCK] {
                    damage(&folder.path("grub").join(copy).join(file));
                }
                let mut env = open(Bootloader::Grub, &folder.paths()).unwrap();
                assert_eq!(env.read(&["mender_boot_part"]).unwrap().get("mender_boot_part"), Some("2"));
                let [one, two] =
                    COPIES.map(|copy| fs::read(folder.path("grub").join(copy).join(ENV)).unwrap());
                assert_eq!(one, two);
                assert_eq!(one.len(), BLOCK_BYTES);
            }
        }
    }

    #[test]
    fn a_file_of_a_uboot_environment_that_is_missing_or_short_is_a_bad_copy_and_made_again_by_a_write() {
        let damages: [fn(&Path); 4] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(SIZE as u64 - 1).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("elsewhere", path).unwrap();
            },
        ];
        for lost in ["env0", "env1"] {
            for damage in damages {
                let folder = Folder::new().with_uboot_in_two_files();
                damage(&folder.path(lost));
                let before = fs::read(folder.path(lost)).ok();
                let mut env = open(Bootloader::UBoot, &folder.paths()).unwrap();
                assert_eq!(env.read(&["kept"]).unwrap().get("kept"), Some("by all means"));
                // Reading writes nothing.
                assert_eq!(fs::read(folder.path(lost)).ok(), before);
                check_writes(Bootloader::UBoot, &folder.paths());
                // The copy that was written is the lost one, and now it is enough.
                assert_eq!(length(&folder.path(lost)), Some(SIZE as u64));
                let other = if lost == "env0" { "env1" } else { "env0" };
                fs::write(folder.path(other), vec![0; SIZE]).unwrap();
                let read = env.read(&["kept", "upgrade_available"]).unwrap();
                let found = (read.get("kept"), read.get("upgrade_available"));
                assert_eq!(found, (Some("by all means"), Some("1")));
            }
        }
    }

    #[test]
    fn one_file_with_both_copies_that_was_cut_behind_the_first_is_made_whole_by_a_write() {
        let folder = Folder::new().with_uboot();
        let file = folder.path("uboot.env");
        let config = format!("{} 0 {SIZE:x}\n{} {SIZE:#x} {SIZE:x}\n", file.display(), file.display());
        fs::write(folder.path("fw_env.config"), config).unwrap();
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(SIZE as u64 + 7).unwrap();
        check_writes(Bootloader::UBoot, &folder.paths());
        assert_eq!(length(&file), Some(2 * SIZE as u64));
    }

    #[test]
    fn both_files_of_a_uboot_environment_lost_is_an_error_and_no_file_is_made() {
        let folder = Folder::new().with_uboot_in_two_files();
        fs::remove_file(folder.path("env0")).unwrap();
        fs::remove_file(folder.path("env1")).unwrap();
        let mut env = open(Bootloader::UBoot, &folder.paths()).unwrap();
        assert!(env.read(&["kept"]).is_err() && env.write(&[("a", "1")]).is_err());
        // One lost and the other one no environment: neither counts.
        fs::write(folder.path("env0"), vec![0; SIZE]).unwrap();
        let error = env.write(&[("a", "1")]).unwrap_err();
        assert!(matches!(error, BootEnvError::NoValidCopy { .. }), "{error}");
        assert!(!folder.path("env1").exists());
        // What is left may be all there is.
        fs::write(folder.path("env1"), &uboot_copy(1)[..SIZE - 1]).unwrap();
        assert!(env.write(&[("a", "1")]).is_err());
        assert_eq!(length(&folder.path("env1")), Some(SIZE as u64 - 1));
    }

    #[test]
    fn no_file_is_made_on_another_file_system_where_a_device_should_be() {
        let folder = Folder::new().with_uboot_in_two_files();
        let missing = Path::new("/dev/shm/rust-ota-test-no-such-env");
        let config =
            format!("{} 0 {SIZE:x}\n{} 0 {SIZE:x}\n", folder.path("env0").display(), missing.display());
        fs::write(folder.path("fw_env.config"), config).unwrap();
        let mut env = open(Bootloader::UBoot, &folder.paths()).unwrap();
        assert!(env.write(&[("a", "1")]).is_err());
        assert!(!missing.exists());
    }

    #[test]
    fn the_directory_of_one_grub_copy_that_was_lost_is_made_again_and_files_too_long_are_cut() {
        for copy in COPIES {
            let damages: [fn(&Path); 2] = [
                |copy| fs::remove_dir_all(copy).unwrap(),
                |copy| {
                    for file in [ENV, LOCK] {
                        fs::write(copy.join(file), [b'#'; 4096]).unwrap();
                    }
                },
            ];
            for damage in damages {
                let folder = Folder::new().with_grub();
                damage(&folder.path("grub").join(copy));
                check_writes(Bootloader::Grub, &folder.paths());
                let [one, two] =
                    COPIES.map(|copy| fs::read(folder.path("grub").join(copy).join(ENV)).unwrap());
                assert_eq!((one.len(), &one), (BLOCK_BYTES, &two));
            }
        }
        let folder = Folder::new().with_grub();
        fs::remove_dir_all(folder.path("grub").join(COPIES[0])).unwrap();
        fs::write(folder.path("grub").join(COPIES[0]), "a file").unwrap();
        check_error(Bootloader::Grub, &folder.paths(), "is not a directory");
    }

    #[test]
    fn two_lost_copies_are_an_error_and_no_file_is_made() {
        let folder = Folder::new().with_grub();
        for copy in COPIES {
            fs::remove_file(folder.path("grub").join(copy).join(ENV)).unwrap();
        }
        let mut env = open(Bootloader::Grub, &folder.paths()).unwrap();
        assert!(env.read(&["mender_boot_part"]).is_err());
        assert!(COPIES.iter().all(|copy| !folder.path("grub").join(copy).join(ENV).exists()));
    }
}
