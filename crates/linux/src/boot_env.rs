//! The boot environment of this machine: finds it, and opens it under the lock its own tools take.
//!
//! Every read and every write takes the lock, opens the files, works on them and closes them again: nothing of
//! an environment is kept while somebody else may change it, and the write protection of an eMMC boot partition
//! is lifted only for the moment of a write.
//!
//! It parses no `mender.conf`; the paths come from the caller.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootloader_grub::block::BLOCK_BYTES;
use bootloader_grub::env::LOCK_SUM_BYTES;
use bootloader_grub::{GrubCopy, GrubEnv, directory};
use bootloader_uboot::config::MAX_CONFIG_BYTES;
use bootloader_uboot::{CopyConfig, FwEnvConfig, UBootEnv};
use client_core::boot::{BootEnv, BootEnvError};
use client_core::storage::BlockDevice;
use log::{debug, info, warn};

use crate::block_device::mtd::Relock;
use crate::block_device::{self, Access, Kind, MtdDevice};
use crate::lock::{FileLock, LockError};

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

/// A U-Boot environment that is opened, under the lock, for each call.
struct LockedUBoot {
    config: FwEnvConfig,
    lock: LockPlace,
}

impl LockedUBoot {
    fn open(paths: &BootEnvPaths) -> Result<LockedUBoot, BootEnvError> {
        let place = paths.fw_env_config.display().to_string();
        let text = read_small(&paths.fw_env_config, MAX_CONFIG_BYTES)
            .map_err(|error| BootEnvError::Config { place: place.clone(), reason: error.to_string() })?;
        let config = FwEnvConfig::parse(&text, &place)?;
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

impl BootEnv for LockedUBoot {
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
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

/// Longest `/etc/mender_grubenv.config` that is looked at. Real ones are one line.
const MAX_GRUB_CONFIG_BYTES: usize = 64 * 1024;

impl LockedGrub {
    fn open(paths: &BootEnvPaths) -> Result<LockedGrub, BootEnvError> {
        let directory = match &paths.grub_env_dir {
            Some(directory) => directory.clone(),
            None => {
                let config = match read_small(&paths.grub_config, MAX_GRUB_CONFIG_BYTES) {
                    Ok(text) => Some(text),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(source) => return Err(io_error("read", &paths.grub_config, source)),
                };
                directory::find(config.as_deref(), |path| Path::new(path).is_dir())?.into()
            }
        };
        for copy in COPIES {
            if !directory.join(copy).is_dir() {
                return Err(BootEnvError::Config {
                    place: directory.join(copy).display().to_string(),
                    reason: "is not a directory with a copy of the GRUB environment".to_string(),
                });
            }
        }
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
        let open_copy = |copy: &str| {
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

    /// Gives files that `grub-editenv` or FAT left missing or too short their length again, so that they can be
    /// repaired in place from the other copy. What they then hold is no valid block.
    fn restore_lengths(&self) -> Result<(), BootEnvError> {
        let [first, second] = COPIES;
        for (file, bytes) in [(ENV, BLOCK_BYTES), (LOCK, BLOCK_BYTES), (LOCK_SUM, LOCK_SUM_BYTES)] {
            let lengths = [first, second].map(|copy| length(&self.directory.join(copy).join(file)));
            for (copy, own, other) in [(first, lengths[0], lengths[1]), (second, lengths[1], lengths[0])] {
                let is_short = own.is_none_or(|have| have < bytes as u64);
                // Without another copy there is nothing to repair from; locks and sums can be made anew.
                let can_be_repaired = file != ENV || other == Some(bytes as u64);
                if is_short && can_be_repaired {
                    let path = self.directory.join(copy).join(file);
                    restore_length(&path, bytes as u64)
                        .map_err(|source| io_error("restore the length of", &path, source))?;
                    warn!(
                        "{} was missing or too short; restored its length to {bytes} bytes",
                        path.display()
                    );
                }
            }
        }
        Ok(())
    }
}

impl BootEnv for LockedGrub {
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
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
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.is_file() {
        file.set_len(bytes)?;
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?; // The name as well, when it is new.
        }
    }
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
    File::open(path)?.take(limit as u64 + 1).read_to_string(&mut text)?;
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
                lock_wait: Duration::ZERO,
            }
        }

        /// An empty redundant environment in one file.
        fn with_uboot(self) -> Folder {
            let mut copy = vec![0; SIZE];
            let checksum = bootloader_uboot::image::Image { flags: 0, variables: Default::default() };
            let format = bootloader_uboot::image::Format::Redundant;
            copy.copy_from_slice(&checksum.encode(format, SIZE, 0).unwrap());
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

    fn check_writes(bootloader: Bootloader, paths: &BootEnvPaths) {
        let mut env = open(bootloader, paths).unwrap();
        env.write(&[("upgrade_available", "1")]).unwrap();
        assert_eq!(env.read(&["upgrade_available"]).unwrap(), [Some("1".to_string())]);
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
            let paths = folder.paths();
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
                assert_eq!(env.read(&["mender_boot_part"]).unwrap(), [Some("2".to_string())]);
                let [one, two] =
                    COPIES.map(|copy| fs::read(folder.path("grub").join(copy).join(ENV)).unwrap());
                assert_eq!(one, two);
                assert_eq!(one.len(), BLOCK_BYTES);
            }
        }
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
