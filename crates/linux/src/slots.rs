//! The two slots as block devices, UBI volumes or plain files: only the one that does not run is opened.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_core::slot::{Slot, SlotError, Slots};
use client_core::storage::{BlockDevice, PastCache, ReadAt, ReadOnly};

use crate::block_device::{self, Access, FileDevice, Kind};
use crate::lock;
use crate::mounts::{self, Identity, Places};
use crate::running_slot::{RunningRoot, check_that_a_trial_can_be_told};
use crate::slot_paths::{SlotPaths, slot_metadata};

/// How long another process may have a slot that is to be written. A look at it is short.
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// Opens slots, refusing whatever must not be written. What was opened once stays locked until this is dropped.
pub struct LinuxSlots {
    paths: SlotPaths,
    discards: bool,
    held: Vec<(Identity, File)>,
}

impl LinuxSlots {
    /// The slots that `paths` name. Nothing is opened yet.
    pub fn new(paths: SlotPaths) -> LinuxSlots {
        LinuxSlots { paths, discards: false, held: Vec::new() }
    }

    /// Lets a block device know that what lies behind an image is not needed any more.
    #[must_use]
    pub fn discarding(self) -> LinuxSlots {
        LinuxSlots { discards: true, ..self }
    }

    /// Locks a slot itself, which other processes find whatever their datastore is: the lock of a datastore keeps only
    /// those apart that have the same one, and `O_EXCL` says nothing about files.
    fn hold(&mut self, slot: Slot, path: &Path, target: Identity, kind: Kind) -> Result<(), SlotError> {
        if self.held.iter().any(|(held, _)| *held == target) {
            return Ok(());
        }
        match kind {
            Kind::RegularFile | Kind::BlockDevice => {}
            // A second descriptor would keep the volume from being updated. UBI lets only one process do that, and nobody
            // keeps others out between the update and the arming.
            Kind::UbiVolume | Kind::Mtd | Kind::Other(_) => return Ok(()),
        }
        let shown = || path.display().to_string();
        let file =
            File::open(path).map_err(|source| SlotError::Io { doing: "open", path: shown(), source })?;
        match lock::try_for(&file, SLOT_WAIT) {
            Ok(true) => self.held.push((target, file)),
            Ok(false) => return Err(SlotError::InUse { slot, path: shown() }),
            // Some file systems know no locks.
            Err(error) => log::warn!("{} cannot be locked: {error}", path.display()),
        }
        Ok(())
    }
}

/// What is wrong with a slot of this kind.
fn unfit(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::RegularFile | Kind::BlockDevice | Kind::UbiVolume => None,
        // Bad blocks have no meaning to a root file system image.
        Kind::Mtd => Some("a raw flash device"),
        Kind::Other(found) => Some(found),
    }
}

/// What lies at the path of `slot`, if it can hold a root file system.
fn find(paths: &SlotPaths, slot: Slot) -> Result<(PathBuf, Metadata, Kind), SlotError> {
    let path = paths.resolved(slot)?;
    let metadata = slot_metadata(slot, &path)?;
    let kind = Kind::of(&path, &metadata);
    match unfit(kind) {
        Some(found) => Err(SlotError::WrongKind { slot, path: path.display().to_string(), found }),
        None => Ok((path, metadata, kind)),
    }
}

fn open_device(path: &Path, access: Access) -> Result<Box<dyn BlockDevice>, SlotError> {
    let failed = |source| SlotError::Io { doing: "open", path: path.display().to_string(), source };
    block_device::open(path, access).map_err(failed)
}

impl Slots for LinuxSlots {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        let (path, metadata, kind) = find(&self.paths, slot)?;
        let shown = || path.display().to_string();
        let target = Identity::of(&metadata);
        let other_path = self.paths.resolved(!slot)?;
        if Identity::of(&slot_metadata(!slot, &other_path)?) == target {
            return Err(self.paths.same_device()?);
        }
        if let Some(mount) =
            mounts::read(&Places::default())?.iter().find(|mount| mount.lies_on(target, &Places::default()))
        {
            let path = shown();
            return Err(if mount.point == "/" {
                SlotError::Running { slot, path }
            } else {
                SlotError::Mounted { slot, path, mount_point: mount.point.clone() }
            });
        }
        if let Some(running) = &self.paths.running {
            if RunningRoot::look(running, &self.paths, &Places::default())?.slot == Some(slot) {
                return Err(SlotError::Running { slot, path: shown() });
            }
            check_that_a_trial_can_be_told(&self.paths, running)?;
        }
        self.hold(slot, &path, target, kind)?;
        if self.discards && kind == Kind::BlockDevice {
            let failed = |source| SlotError::Io { doing: "open", path: shown(), source };
            let device = FileDevice::open(&path, Access::WriteExclusive).map_err(failed)?;
            return Ok(Box::new(device.discarding()));
        }
        open_device(&path, Access::WriteExclusive)
    }

    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        let (path, ..) = find(&self.paths, slot)?;
        let mut device = open_device(&path, Access::Read)?;
        // Of a mounted slot the cache of the device is not what is on the medium: ext4 keeps its superblock there, changed
        // in memory even where it is mounted to be read only.
        Ok(match device.past_cache() {
            PastCache::Here(source) => source,
            PastCache::Anywhere(source) => source,
            PastCache::No => Box::new(ReadOnly::new(device)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::running_slot;
    use crate::slot_paths::tests::files;

    use super::*;

    fn open_error(paths: &SlotPaths, slot: Slot) -> String {
        match LinuxSlots::new(paths.clone()).open(slot) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_running_root_is_compared_as_a_device_and_followed_when_it_is_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = files(directory.path());
        let link = directory.path().join("this-boot");
        for (target, expected) in [("slot2", Slot::A), ("slot3", Slot::B)] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            paths.running = Some(link.to_string_lossy().into_owned());
            assert_eq!(running_slot::find(&paths).unwrap(), expected);
            assert!(
                !RunningRoot::look(paths.running.as_deref().unwrap(), &paths, &Places::default())
                    .unwrap()
                    .is_fixed
            );
            assert!(open_error(&paths, expected).contains("holds the running root file system"));
            fs::remove_file(&link).unwrap();
        }
        // Another name of the same file, and slots that are links themselves.
        let hard = directory.path().join("other-name");
        fs::hard_link(directory.path().join("slot3"), &hard).unwrap();
        paths.running = hard.to_str().map(str::to_owned);
        assert_eq!(running_slot::find(&paths).unwrap(), Slot::B);
        let named = directory.path().join("rootfs3");
        std::os::unix::fs::symlink("slot3", &named).unwrap();
        paths.b = named.to_str().map(str::to_owned);
        paths.running = directory.path().join("slot3").to_str().map(str::to_owned);
        assert_eq!(running_slot::find(&paths).unwrap(), Slot::B);
        paths.running = paths.b.clone();
        assert!(
            RunningRoot::look(paths.running.as_deref().unwrap(), &paths, &Places::default())
                .unwrap()
                .is_fixed
        );
    }

    #[test]
    fn only_the_slot_that_does_not_run_opens() {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        assert!(open_error(&paths, Slot::A).contains("holds the running root file system"));
        assert_eq!(LinuxSlots::new(paths).open(Slot::B).unwrap().len(), 7);
    }

    #[test]
    fn either_slot_opens_as_a_source_that_nobody_can_write_through() {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        let mut slots = LinuxSlots::new(paths.clone());
        for slot in Slot::BOTH {
            let mut source = slots.open_source(slot).unwrap();
            let mut content = [0; 7];
            source.read_at(0, &mut content).unwrap();
            assert_eq!((source.len(), &content), (7, b"content"), "{slot}");
            assert!(source.read_at(1, &mut content).is_err());
            assert_eq!(access_modes(source.name()), [libc::O_RDONLY], "{slot}");
        }
        // The running one beside the other one that is written, of this process or of another.
        let mut source = slots.open_source(Slot::A).unwrap();
        let mut target = slots.open(Slot::B).unwrap();
        let mut content = [0; 7];
        source.read_at(0, &mut content).unwrap();
        target.write_at(0, b"changed").unwrap();
        LinuxSlots::new(paths).open_source(Slot::B).unwrap().read_at(0, &mut content).unwrap();
        assert_eq!(&content, b"changed");
    }

    /// How this process has `path` open.
    fn access_modes(path: &str) -> Vec<i32> {
        let mut modes = Vec::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap() {
            let entry = entry.unwrap();
            if fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(path)) {
                let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
                let info = fs::read_to_string(info).unwrap();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                modes.push(i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE);
            }
        }
        modes
    }

    #[test]
    fn what_cannot_be_a_slot_is_no_source() {
        let directory = tempfile::tempdir().unwrap();
        let check = |b: Option<&str>, expected: &str| {
            let paths = SlotPaths { b: b.map(str::to_owned), ..files(directory.path()) };
            let error = LinuxSlots::new(paths).open_source(Slot::B).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(None, "RootfsPartB is not set");
        check(directory.path().join("slot9").to_str(), "does not exist");
        check(Some("/dev/null"), "a character device");
    }

    #[test]
    fn a_slot_belongs_to_one_process_until_its_slots_are_dropped_whatever_it_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        let mut first = LinuxSlots::new(paths.clone());
        drop(first.open(Slot::B).unwrap());
        drop(first.open(Slot::B).unwrap());
        let link = directory.path().join("other3");
        std::os::unix::fs::symlink(paths.b.as_deref().unwrap(), &link).unwrap();
        let linked = SlotPaths { b: link.to_str().map(str::to_owned), ..paths.clone() };
        for other in [&paths, &linked] {
            let error = open_error(other, Slot::B);
            assert!(error.starts_with("another process is writing slot B"), "{error}");
        }
        drop(first);
        assert!(LinuxSlots::new(linked).open(Slot::B).is_ok());
    }

    #[test]
    fn a_slot_that_cannot_be_one_is_refused_by_name_and_nothing_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let good = files(directory.path());
        let check = |b: Option<&str>, expected: &str| {
            let paths = SlotPaths { b: b.map(str::to_owned), ..good.clone() };
            let error = open_error(&paths, Slot::B);
            assert!(error.contains(expected), "{error}");
        };
        check(None, "RootfsPartB is not set");
        let missing = directory.path().join("slot9");
        check(missing.to_str(), "does not exist");
        assert!(!missing.exists());
        check(directory.path().to_str(), "a directory");
        check(Some("/dev/null"), "a character device");
        check(good.a.as_deref(), "are the same device");
        let link = directory.path().join("link5");
        std::os::unix::fs::symlink(good.a.as_deref().unwrap(), &link).unwrap();
        check(link.to_str(), "are the same device");
    }
}
