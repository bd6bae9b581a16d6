//! The way of the code under test to a device: every call is an operation of the machine, which can fail and lose power.

use std::fmt;
use std::io;
use std::rc::Rc;

use client_core::storage::{BlockDevice, Medium, PastCache, ReadAt};

use super::faults::{Fault, Operation};
use super::medium::{Device, EIO, ENOSPC};
use super::world::{CrashWorld, World};

/// A handle on one device of a [`CrashWorld`], valid until the machine starts again.
#[derive(Clone)]
pub struct CrashDevice {
    world: CrashWorld,
    index: usize,
    boot: u32,
    name: Rc<str>,
    len: u64,
    medium: Medium,
    discards: bool,
}

impl CrashDevice {
    /// Lets [`discard_behind`](BlockDevice::discard_behind) do something.
    #[must_use]
    pub fn discarding(mut self) -> CrashDevice {
        self.discards = true;
        self
    }

    pub(super) fn new(world: CrashWorld, index: usize, boot: u32, device: &Device) -> CrashDevice {
        let (len, medium) = (device.model().len() as u64, device.model().medium());
        CrashDevice { world, index, boot, name: device.name.clone(), len, medium, discards: false }
    }

    /// One operation, with the fault it meets.
    fn act<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut World, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let world = &mut *self.world.0.borrow_mut();
        let fault = world.begin(self.index, self.boot, operation)?;
        act(world, fault)
    }

    /// Puts a write on its way, or as much of it as its fault lets through.
    fn write(&self, world: &mut World, start: usize, data: &[u8], fault: Option<Fault>) -> io::Result<()> {
        let (part, outcome) = match fault {
            None | Some(Fault::LostWrite | Fault::CorruptWrite) => (data.len(), Ok(())),
            Some(Fault::NoSpace) => return Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::ShortWrite) => (data.len() / 2, Err(io::ErrorKind::WriteZero.into())),
            Some(Fault::InputOutput) => {
                let part = [0, data.len() / 2, data.len()][world.choices.choose(3)];
                (part, Err(io::Error::from_raw_os_error(EIO)))
            }
        };
        world.devices[self.index].model_mut().write(start, &data[..part], fault)?;
        outcome
    }
}

impl BlockDevice for CrashDevice {
    fn len(&self) -> u64 {
        self.len
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.act(Operation::Read, |world, fault| {
            fails_with_eio(fault)?;
            let device = &world.devices[self.index];
            let range = device.range(offset, buf.len())?;
            buf.copy_from_slice(device.model().read(range)?);
            Ok(())
        })
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let line = || format!("write {} {offset}+{}", self.name, data.len());
        self.act(Operation::Write, |world, fault| {
            world.trace.note(line);
            let start = world.devices[self.index].range(offset, data.len())?.start;
            self.write(world, start, data, fault)?;
            world.maybe_cut(line);
            Ok(())
        })
    }

    fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
        if self.medium != Medium::NorFlash {
            return self.write_at(offset, &[value]);
        }
        let line = || format!("clear bits of {} {offset}", self.name);
        self.act(Operation::Write, |world, fault| {
            world.trace.note(line);
            let device = &mut world.devices[self.index];
            let start = device.range(offset, 1)?.start;
            if let Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) = fault {
                return fails_with_eio(fault);
            }
            device.model_mut().clear_bits(start, value, fault)?;
            world.maybe_cut(line);
            Ok(())
        })
    }

    fn begin_replace(&mut self, len: u64) -> io::Result<()> {
        if self.medium != Medium::UbiVolume {
            return Ok(());
        }
        let line = || format!("begin the update of {}", self.name);
        self.act(Operation::Write, |world, fault| {
            world.trace.note(line);
            let device = &mut world.devices[self.index];
            let len = device.range(0, usize::try_from(len).unwrap_or(usize::MAX))?.len();
            fails_with_eio(fault)?;
            device.model_mut().begin_replace(len);
            world.maybe_cut(line);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let line = || format!("sync {}", self.name);
        self.act(Operation::Sync, |world, fault| {
            world.trace.note(line);
            if let Some(reason) = world.devices[self.index].model().sync_refused() {
                return Err(io::Error::other(reason));
            }
            if world.count_sync(self.index) {
                return Ok(());
            }
            world.maybe_cut(line);
            let Some(fault) = fault else {
                world.devices[self.index].model_mut().flush();
                return Ok(());
            };
            world.fail_sync(self.index);
            Err(io::Error::from_raw_os_error(match fault {
                Fault::NoSpace => ENOSPC,
                Fault::InputOutput | Fault::ShortWrite | Fault::LostWrite | Fault::CorruptWrite => EIO,
            }))
        })
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        self.act(Operation::DropCache, |world, fault| {
            fails_with_eio(fault)?;
            world.devices[self.index].model_mut().drop_cache();
            Ok(())
        })
    }

    fn past_cache(&mut self) -> PastCache {
        let reads = self.world.0.borrow().devices[self.index].model().read_medium(0..0).is_some();
        if reads { PastCache::Here(Box::new(MediumReader(self.clone()))) } else { PastCache::No }
    }

    fn discard_behind(&mut self, offset: u64) -> io::Result<u64> {
        let bytes = self.len.saturating_sub(offset);
        if !self.discards || bytes == 0 {
            return Ok(0);
        }
        // A cut may leave any of it as it was, and what is there afterwards says nothing.
        let content = vec![DISCARDED; usize::try_from(bytes).unwrap_or(usize::MAX)];
        self.write_at(offset, &content)?;
        Ok(bytes)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// What a discarded byte reads as.
const DISCARDED: u8 = 0xDD;

/// The medium under a device, without its cache: what is pending is not there yet.
struct MediumReader(CrashDevice);

impl ReadAt for MediumReader {
    fn len(&self) -> u64 {
        self.0.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.act(Operation::Read, |world, fault| {
            fails_with_eio(fault)?;
            let device = &world.devices[self.0.index];
            let range = device.range(offset, buf.len())?;
            let content = device.model().read_medium(range).expect("there is a way past its cache")?;
            buf.copy_from_slice(content);
            Ok(())
        })
    }

    fn name(&self) -> &str {
        &self.0.name
    }
}

/// What becomes of an operation that can only happen or not.
fn fails_with_eio(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |_| Err(io::Error::from_raw_os_error(EIO)))
}

impl fmt::Debug for CrashDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashDevice({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::cut::CLASSES;
    use super::super::{Injection, Lasting, Limits, SECTOR_LEN, Tear};
    use super::*;
    use crate::choice::Choices;

    fn world(sectors: usize) -> CrashWorld {
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        world.add_device("disk", vec![0; sectors * SECTOR_LEN]);
        world
    }

    fn inject(world: &CrashWorld, operation: Operation, fault: Fault, lasting: Lasting) {
        world.inject(Injection { device: Some("disk".to_owned()), operation, nth: 1, fault, lasting });
    }

    fn first_byte(disk: &mut CrashDevice) -> u8 {
        let mut byte = [0];
        disk.read_at(0, &mut byte).unwrap();
        byte[0]
    }

    /// Every content a cut can leave after two whole-device writes, as the first byte of each sector.
    fn images(sectors: usize, tears: Vec<Tear>) -> BTreeSet<Vec<u8>> {
        let mut choices = Choices::exhaustive();
        let mut images = BTreeSet::new();
        loop {
            let limits = Limits { cuts: 1, tears: tears.clone(), ..Limits::default() };
            let world = CrashWorld::new(choices, limits);
            world.add_device("disk", vec![0; sectors * SECTOR_LEN]);
            let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut disk = world.open("disk");
                disk.write_at(0, &vec![1; sectors * SECTOR_LEN]).unwrap();
                disk.write_at(0, &vec![2; sectors * SECTOR_LEN]).unwrap();
            }));
            if cut.is_err() {
                images.insert(world.durable("disk").chunks(SECTOR_LEN).map(|sector| sector[0]).collect());
            }
            choices = world.with_choices(|choices| choices.clone());
            if !choices.advance() {
                return images;
            }
        }
    }

    #[test]
    fn each_pending_sector_is_old_or_any_version_of_it() {
        let expected = (0..9).map(|n| vec![n / 3, n % 3]).collect();
        assert_eq!(images(2, Vec::new()), expected);
    }

    #[test]
    fn a_torn_sector_is_neither_and_the_others_are_whole() {
        let all = images(2, vec![Tear::Garbage]);
        let whole = |byte: &u8| *byte <= 2;
        assert!(all.iter().any(|image| !whole(&image[0]) && whole(&image[1])));
        assert!(all.iter().any(|image| whole(&image[0]) && !whole(&image[1])));
        assert!(all.iter().any(|image| !image.iter().any(whole)));
    }

    #[test]
    fn a_big_device_goes_by_classes() {
        let all = images(64, Vec::new());
        assert!(all.len() <= 2 * (CLASSES.len() + 2));
        for expected in [vec![0; 64], vec![2; 64]] {
            assert!(all.contains(&expected));
        }
    }

    #[test]
    fn a_sync_makes_only_its_own_device_durable_whoever_wrote() {
        let world = world(1);
        world.add_device("other", vec![0; SECTOR_LEN]);
        world.open("disk").write_at(0, &[1]).unwrap();
        world.open("other").write_at(0, &[1]).unwrap();
        world.open("disk").sync().unwrap();
        assert_eq!((world.durable("disk")[0], world.durable("other")[0]), (1, 0));
        assert!(world.is_pending("other"));
    }

    #[test]
    fn a_later_sync_does_not_bring_back_what_a_failed_one_lost() {
        let world = world(1);
        let mut disk = world.open("disk");
        inject(&world, Operation::Sync, Fault::InputOutput, Lasting::Once);
        disk.write_at(0, &[1]).unwrap();
        assert_eq!(disk.sync().unwrap_err().raw_os_error(), Some(EIO));
        disk.sync().unwrap();
        // The first choice is that the old content stayed.
        assert_eq!((first_byte(&mut disk), world.durable("disk")[0]), (1, 0));
        disk.drop_cache().unwrap();
        assert_eq!(first_byte(&mut disk), 0);
    }

    #[test]
    fn a_lost_write_and_a_corrupt_one_show_only_after_the_cache_is_dropped() {
        for fault in [Fault::LostWrite, Fault::CorruptWrite] {
            let world = world(1);
            let mut disk = world.open("disk");
            inject(&world, Operation::Write, fault, Lasting::Once);
            disk.write_at(0, &[1]).unwrap();
            disk.sync().unwrap();
            assert_eq!(first_byte(&mut disk), 1, "{fault:?}");
            disk.drop_cache().unwrap();
            assert_ne!(first_byte(&mut disk), 1, "{fault:?}");
        }
    }

    #[test]
    fn a_short_write_leaves_its_first_half() {
        let world = world(2);
        inject(&world, Operation::Write, Fault::ShortWrite, Lasting::Once);
        assert!(world.open("disk").write_at(0, &[1; 2 * SECTOR_LEN]).is_err());
        assert_eq!((world.live("disk")[0], world.live("disk")[SECTOR_LEN]), (1, 0));
    }

    #[test]
    fn a_fault_happens_once_or_for_good() {
        for (lasting, second_fails) in [(Lasting::Once, false), (Lasting::ForGood, true)] {
            let world = world(1);
            let mut disk = world.open("disk");
            inject(&world, Operation::Write, Fault::NoSpace, lasting);
            assert_eq!(disk.write_at(0, &[1]).unwrap_err().raw_os_error(), Some(ENOSPC));
            assert_eq!(disk.write_at(0, &[1]).is_err(), second_fails);
        }
    }

    #[test]
    fn an_unreadable_sector_is_healed_only_by_a_whole_write() {
        let world = world(1);
        world.0.borrow_mut().devices[0].disk_mut().unwrap().spoil(0);
        let mut disk = world.open("disk");
        assert!(disk.read_at(0, &mut [0]).is_err());
        assert!(disk.write_at(0, &[1; 100]).is_err());
        disk.write_at(0, &[1; SECTOR_LEN]).unwrap();
        assert_eq!(first_byte(&mut disk), 1);
    }

    #[test]
    fn calls_past_the_end_are_errors_without_effect() {
        let world = world(1);
        let mut disk = world.open("disk");
        for offset in [1, SECTOR_LEN as u64, u64::MAX] {
            assert!(disk.write_at(offset, &[1; SECTOR_LEN]).is_err());
            assert!(disk.read_at(offset, &mut [0; SECTOR_LEN]).is_err());
        }
        assert!(!world.is_pending("disk"));
    }

    #[test]
    fn writing_to_a_dead_machine_or_through_an_old_handle_is_remembered() {
        let world = world(1);
        let mut disk = world.open("disk");
        world.0.borrow_mut().powered = false;
        assert!(disk.write_at(0, &[1]).is_err());
        world.start();
        assert!(disk.write_at(0, &[1]).is_err());
        assert_eq!(world.misuse().len(), 2);
        assert_eq!(world.live("disk")[0], 0);
    }
}
