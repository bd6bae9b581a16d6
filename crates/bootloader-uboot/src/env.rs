//! The environment on its devices: which copy counts, and how a change gets there.
//!
//! Two copies: the change is written whole into the copy that does **not** count, made durable and read back;
//! only the age mark in its header makes it count. A power cut at any moment leaves the old copy or the new one.
//!
//! One copy: it is rewritten in place. **A power cut during that write can lose the environment**, the
//! bootloader then starts with its compiled-in defaults. Nothing a client does can prevent it; give the board a
//! second copy.
//!
//! Content is never kept between calls: U-Boot's tools may write as well.

use client_core::boot::{BadCopy, BootEnv, BootEnvError, Variables};
use client_core::storage::two_copies::{self, FlushFirst, Refused, Replica};
use client_core::storage::{BlockDevice, Medium};
use log::{debug, warn};

use crate::config::{MAX_ENV_BYTES, MIN_ENV_BYTES};
use crate::diagnosis;
use crate::image::{self, FLAGS_OFFSET, Format, Image};

/// A U-Boot environment in one or two copies.
pub struct UBootEnv<D> {
    copies: Copies<D>,
    size_bytes: usize,
    /// U-Boot may have saved without a flush (its NVMe driver never sends one).
    flush: FlushFirst,
}

/// Where the copies are.
enum Copies<D> {
    Single { device: D, offset: u64 },
    OnOneDevice { device: D, offsets: [u64; 2] },
    OnTwoDevices { devices: [D; 2], offsets: [u64; 2] },
}

/// What the copies look like to somebody who only looks.
#[derive(Debug)]
pub struct Inspection {
    /// The mark of its age of each copy, or what is wrong with it; in the order of the configuration.
    pub copies: Vec<Result<u8, BadCopy>>,
    /// The copy that counts, from 0, with its variables.
    pub active: Option<(usize, image::Variables)>,
    /// What it looks like where no copy is valid.
    pub hint: Option<String>,
}

/// What the flags byte means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlagScheme {
    /// A counter: the larger is newer, and 0 is newer than 255.
    Incremental,
    /// NOR flash: 1 counts, 0 is obsolete. A bit can be cleared there without an erase.
    Boolean,
}

impl FlagScheme {
    fn of(medium: Medium) -> FlagScheme {
        if medium == Medium::NorFlash { FlagScheme::Boolean } else { FlagScheme::Incremental }
    }

    /// The flags of the copy that is to replace one with `active` flags.
    fn successor(self, active: u8) -> u8 {
        match self {
            FlagScheme::Incremental => active.wrapping_add(1),
            FlagScheme::Boolean => 1,
        }
    }
}

/// Which of two copies with right checksums counts, by their flags: the rule of U-Boot's `env_check_redund`
/// (counter) and `env_flash_init` (NOR). libubootenv differs from U-Boot in one case, NOR with both flags 0xFF;
/// there U-Boot decides, since it is U-Boot that boots.
fn active_by_flags(scheme: FlagScheme, first: u8, second: u8) -> Replica {
    if first == second {
        return Replica::First;
    }
    match (scheme, first, second) {
        (FlagScheme::Incremental, 0xFF, 0x00) | (FlagScheme::Boolean, _, 0xFF) => Replica::Second,
        (FlagScheme::Incremental, 0x00, 0xFF) | (FlagScheme::Boolean, 0xFF, _) => Replica::First,
        (FlagScheme::Incremental | FlagScheme::Boolean, _, _) if second > first => Replica::Second,
        (FlagScheme::Incremental | FlagScheme::Boolean, _, _) => Replica::First,
    }
}

impl<D: BlockDevice> UBootEnv<D> {
    /// An environment in one copy. See the module documentation for its hazard.
    ///
    /// # Errors
    /// [`BootEnvError::Config`] when the copy does not lie inside the device.
    pub fn single(device: D, offset: u64, size_bytes: u64) -> Result<UBootEnv<D>, BootEnvError> {
        check_place(&device, offset, size_bytes)?;
        UBootEnv::new(Copies::Single { device, offset }, size_bytes)
    }

    /// An environment in two copies on one device.
    ///
    /// # Errors
    /// [`BootEnvError::Config`] when a copy does not lie inside the device, or the copies overlap.
    pub fn redundant_on_one(
        device: D,
        offsets: [u64; 2],
        size_bytes: u64,
    ) -> Result<UBootEnv<D>, BootEnvError> {
        for offset in offsets {
            check_place(&device, offset, size_bytes)?;
        }
        check_apart(device.name(), offsets, size_bytes)?;
        UBootEnv::new(Copies::OnOneDevice { device, offsets }, size_bytes)
    }

    /// An environment in two copies on two devices, which may also be two handles of one device.
    ///
    /// # Errors
    /// [`BootEnvError::Config`] when a copy does not lie inside its device, the devices are of different kinds,
    /// or have one name and the copies overlap.
    pub fn redundant_on_two(
        devices: [D; 2],
        offsets: [u64; 2],
        size_bytes: u64,
    ) -> Result<UBootEnv<D>, BootEnvError> {
        for (device, offset) in devices.iter().zip(offsets) {
            check_place(device, offset, size_bytes)?;
        }
        let [first, second] = &devices;
        if first.medium() != second.medium() {
            return Err(BootEnvError::Config {
                place: format!("{} and {}", first.name(), second.name()),
                reason: "the copies lie on different kinds of storage, which mark their age differently"
                    .to_string(),
            });
        }
        if first.name() == second.name() {
            check_apart(first.name(), offsets, size_bytes)?;
        }
        UBootEnv::new(Copies::OnTwoDevices { devices, offsets }, size_bytes)
    }

    fn new(copies: Copies<D>, size_bytes: u64) -> Result<UBootEnv<D>, BootEnvError> {
        let too_odd = || BootEnvError::Config {
            place: "U-Boot environment".to_string(),
            reason: format!(
                "its size {size_bytes:#x} is not between {MIN_ENV_BYTES:#x} and {MAX_ENV_BYTES:#x}"
            ),
        };
        if !(MIN_ENV_BYTES..=MAX_ENV_BYTES).contains(&size_bytes) {
            return Err(too_odd());
        }
        let size_bytes = usize::try_from(size_bytes).map_err(|_| too_odd())?;
        Ok(UBootEnv { copies, size_bytes, flush: FlushFirst::default() })
    }

    fn format(&self) -> Format {
        match self.copies {
            Copies::Single { .. } => Format::Single,
            Copies::OnOneDevice { .. } | Copies::OnTwoDevices { .. } => Format::Redundant,
        }
    }

    fn place(&mut self, copy: Replica) -> (&mut D, u64) {
        match &mut self.copies {
            Copies::Single { device, offset } => (device, *offset),
            Copies::OnOneDevice { device, offsets } => (device, offsets[copy.index()]),
            Copies::OnTwoDevices { devices, offsets } => {
                let index = copy.index();
                (&mut devices[index], offsets[index])
            }
        }
    }

    /// The copy that counts, with its content.
    fn load(&mut self) -> Result<(Replica, Image), BootEnvError> {
        match &mut self.copies {
            Copies::Single { device, .. } | Copies::OnOneDevice { device, .. } => {
                self.flush.before_reading([device])?;
            }
            Copies::OnTwoDevices { devices, .. } => self.flush.before_reading(devices)?,
        }
        match self.format() {
            Format::Single => match self.read_copy(Replica::First) {
                Ok(image) => Ok((Replica::First, image)),
                Err(bad) => Err(self.no_valid_copy([bad])),
            },
            Format::Redundant => self.load_newest(),
        }
    }

    fn load_newest(&mut self) -> Result<(Replica, Image), BootEnvError> {
        let scheme = FlagScheme::of(self.place(Replica::First).0.medium());
        let (first, second) = (self.read_copy(Replica::First), self.read_copy(Replica::Second));
        let newest = two_copies::newest(first, second, |first, second| {
            let active = active_by_flags(scheme, first.flags, second.flags);
            debug!("U-Boot environment: flags {} and {}, {active:?}", first.flags, second.flags);
            active
        });
        let newest = newest.map_err(|bad| self.no_valid_copy(bad))?;
        if let Some(bad) = newest.other_is_bad {
            warn!("U-Boot environment: only one copy is valid; {bad}");
        }
        Ok((newest.replica, newest.content))
    }

    /// The copies as they are, without a flush: what another process is just writing looks torn. Changes nothing.
    pub fn inspect(&mut self) -> Inspection {
        let first = self.read_copy(Replica::First);
        let (found, active) = match self.format() {
            Format::Single => {
                let active = first.is_ok().then_some(0);
                (vec![first], active)
            }
            Format::Redundant => {
                let scheme = FlagScheme::of(self.place(Replica::First).0.medium());
                let second = self.read_copy(Replica::Second);
                let active = match (&first, &second) {
                    (Ok(one), Ok(two)) => Some(active_by_flags(scheme, one.flags, two.flags).index()),
                    (Ok(_), Err(_)) => Some(0),
                    (Err(_), Ok(_)) => Some(1),
                    (Err(_), Err(_)) => None,
                };
                (vec![first, second], active)
            }
        };
        let variables = |at: usize| Some((at, found.get(at)?.as_ref().ok()?.variables.clone()));
        Inspection {
            active: active.and_then(variables),
            hint: if active.is_none() { self.hint() } else { None },
            copies: found.into_iter().map(|copy| copy.map(|image| image.flags)).collect(),
        }
    }

    /// One copy, or what is wrong with it: a copy that cannot be read is no worse than one that is torn.
    fn read_copy(&mut self, copy: Replica) -> Result<Image, BadCopy> {
        let format = self.format();
        let mut bytes = vec![0; self.size_bytes];
        let (device, offset) = self.place(copy);
        let decoded = match device.read_at(offset, &mut bytes) {
            Ok(()) => Image::decode(format, &bytes),
            Err(source) => Err(format!("cannot be read: {source}")),
        };
        decoded.map_err(|fault| BadCopy { place: format!("copy at {}+{offset:#x}", device.name()), fault })
    }

    fn no_valid_copy(&mut self, copies: impl Into<Vec<BadCopy>>) -> BootEnvError {
        BootEnvError::NoValidCopy { copies: copies.into(), hint: self.hint() }
    }

    /// What it looks like where no copy is valid, to be read behind what is wrong with each.
    fn hint(&mut self) -> Option<String> {
        let (format, size_bytes) = (self.format(), self.size_bytes);
        let (device, offset) = self.place(Replica::First);
        let there = device.len().saturating_sub(offset).min(diagnosis::LOOK_BYTES);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or_default()];
        // It could not be read a moment ago either, and that was said.
        device.read_at(offset, &mut bytes).ok()?;
        diagnosis::hint(format, size_bytes, &bytes)
    }

    /// Replaces one copy as a whole, and comes back when the medium has it.
    fn write_copy(&mut self, copy: Replica, bytes: &[u8]) -> Result<(), BootEnvError> {
        let (device, offset) = self.place(copy);
        if device.medium() == Medium::UbiVolume {
            device
                .begin_replace(bytes.len() as u64)
                .map_err(|source| Refused::by(device, "start the update of", source))?;
        }
        two_copies::replace(device, offset, bytes)
            .map_err(|fault| BootEnvError::writing(&format_args!("{}+{offset:#x}", device.name()), fault))
    }

    /// Marks the copy that counted until now as obsolete, on NOR flash. A cut before this leaves two copies
    /// with flag 1, of which the first counts: the old content or the new.
    fn mark_obsolete(&mut self, copy: Replica) -> Result<(), BootEnvError> {
        let (device, offset) = self.place(copy);
        device
            .clear_bits_at(offset + FLAGS_OFFSET, 0)
            .map_err(|source| Refused::by(device, "mark the older copy on", source))?;
        two_copies::make_durable(device)?;
        let mut flags = [0xFF];
        device
            .read_at(offset + FLAGS_OFFSET, &mut flags)
            .map_err(|source| Refused::by(device, "read back", source))?;
        if flags != [0] {
            return Err(BootEnvError::ReadBack { place: format!("{}+{offset:#x} flags", device.name()) });
        }
        Ok(())
    }

    fn change(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let (active, mut image) = self.load()?;
        for (name, value) in changes {
            image.variables.set(name, value)?;
        }
        let format = self.format();
        let medium = self.place(active).0.medium();
        let padding = padding(medium);
        match format {
            Format::Single => {
                let bytes = image.encode(format, self.size_bytes, padding)?;
                self.write_copy(active, &bytes)
            }
            Format::Redundant => {
                let scheme = FlagScheme::of(medium);
                image.flags = scheme.successor(image.flags);
                let bytes = image.encode(format, self.size_bytes, padding)?;
                // Never the copy that counts: it is what a power cut falls back to.
                self.write_copy(active.other(), &bytes)?;
                match scheme {
                    FlagScheme::Incremental => Ok(()),
                    // Last: the old copy must count until the new one is known to be good.
                    FlagScheme::Boolean => self.mark_obsolete(active),
                }
            }
        }
    }
}

impl<D: BlockDevice> BootEnv for UBootEnv<D> {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        let (_, image) = self.load()?;
        Variables::from_bytes(names, |name| image.variables.value(name).map(<[u8]>::to_vec))
    }

    /// An empty value removes the variable: to U-Boot `name=` and no entry at all are the same.
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let result = self.change(changes);
        if result.is_err() {
            self.flush.again();
        }
        result
    }

    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let (_, mut image) = self.load()?;
        for (name, value) in changes {
            image.variables.set(name, value)?;
        }
        image.encode(self.format(), self.size_bytes, 0).map(drop)
    }

    fn describe(&self) -> String {
        match &self.copies {
            Copies::Single { device, .. } => {
                format!("U-Boot environment in {} (1 copy)", device.name())
            }
            Copies::OnOneDevice { device, .. } => {
                format!("U-Boot environment in {} (2 copies)", device.name())
            }
            Copies::OnTwoDevices { devices: [first, second], .. } => {
                format!("U-Boot environment in {} and {}", first.name(), second.name())
            }
        }
    }
}

/// What follows the variables: zeros, as U-Boot's `env_export` leaves them; on flash what an erase leaves, to
/// program fewer bits.
fn padding(medium: Medium) -> u8 {
    if medium == Medium::Rewritable { 0x00 } else { 0xFF }
}

fn check_place<D: BlockDevice>(device: &D, offset: u64, size_bytes: u64) -> Result<(), BootEnvError> {
    let refuse = |reason: String| Err(BootEnvError::Config { place: device.name().to_string(), reason });
    if offset.checked_add(size_bytes).is_none_or(|end| end > device.len()) {
        return refuse(format!(
            "{size_bytes:#x} bytes of environment at {offset:#x} do not lie in its {:#x} bytes",
            device.len()
        ));
    }
    if device.medium() == Medium::UbiVolume && offset != 0 {
        return refuse("the environment starts at the beginning of a UBI volume".to_string());
    }
    Ok(())
}

fn check_apart(name: &str, offsets: [u64; 2], size_bytes: u64) -> Result<(), BootEnvError> {
    let [first, second] = offsets;
    if first.abs_diff(second) < size_bytes {
        return Err(BootEnvError::Config {
            place: name.to_string(),
            reason: format!("the copies at {first:#x} and {second:#x} of {size_bytes:#x} bytes overlap"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    use super::*;

    const SIZE: usize = 0x100;
    const OFFSETS: [u64; 2] = [0x100, 0x200];

    /// A device in memory that remembers what was done to it and can fail from some operation on.
    #[derive(Clone)]
    struct Memory(Rc<RefCell<State>>);

    struct State {
        bytes: Vec<u8>,
        medium: Medium,
        unreadable: Option<u64>,
        fail_after: Option<usize>,
        lose_writes: bool,
        log: Vec<String>,
    }

    impl Memory {
        fn new(medium: Medium, bytes: Vec<u8>) -> Memory {
            let (unreadable, fail_after, lose_writes, log) = (None, None, false, Vec::new());
            Memory(Rc::new(RefCell::new(State { bytes, medium, unreadable, fail_after, lose_writes, log })))
        }

        /// Two copies at [`OFFSETS`]; `None` is an invalid one.
        fn with_copies(medium: Medium, copies: [Option<(u8, &[u8])>; 2]) -> Memory {
            let memory = Memory::new(medium, vec![0xEE; 0x400]);
            for (copy, offset) in copies.into_iter().zip(OFFSETS) {
                let Some((flags, data)) = copy else { continue };
                let mut whole = vec![flags; 5];
                whole.extend_from_slice(data);
                whole.resize(SIZE, 0);
                let checksum = crc32fast::hash(&whole[5..]).to_le_bytes();
                whole[..4].copy_from_slice(&checksum);
                let offset = offset as usize;
                memory.0.borrow_mut().bytes[offset..][..SIZE].copy_from_slice(&whole);
            }
            memory
        }

        fn env(&self) -> UBootEnv<Memory> {
            UBootEnv::redundant_on_one(self.clone(), OFFSETS, SIZE as u64).unwrap()
        }

        fn flags(&self) -> [u8; 2] {
            OFFSETS.map(|offset| self.0.borrow().bytes[offset as usize + 4])
        }

        fn act(&self, what: String) -> io::Result<()> {
            let mut state = self.0.borrow_mut();
            state.log.push(what);
            match state.fail_after {
                Some(0) => Err(io::Error::other("injected")),
                Some(left) => {
                    state.fail_after = Some(left - 1);
                    Ok(())
                }
                None => Ok(()),
            }
        }
    }

    impl BlockDevice for Memory {
        fn len(&self) -> u64 {
            self.0.borrow().bytes.len() as u64
        }
        fn medium(&self) -> Medium {
            self.0.borrow().medium
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.act(format!("read {offset:#x}"))?;
            let state = self.0.borrow();
            if state.unreadable == Some(offset) {
                return Err(io::Error::other("bad page"));
            }
            buf.copy_from_slice(&state.bytes[offset as usize..][..buf.len()]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.act(format!("write {offset:#x} {:#x}", data.len()))?;
            let mut state = self.0.borrow_mut();
            if !state.lose_writes {
                state.bytes[offset as usize..][..data.len()].copy_from_slice(data);
            }
            Ok(())
        }
        fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
            self.act(format!("clear {offset:#x}"))?;
            self.0.borrow_mut().bytes[offset as usize] &= value;
            Ok(())
        }
        fn begin_replace(&mut self, len: u64) -> io::Result<()> {
            self.act(format!("begin {len:#x}"))
        }
        fn sync(&mut self) -> io::Result<()> {
            self.act("sync".to_string())
        }
        fn drop_cache(&mut self) -> io::Result<()> {
            self.act("drop".to_string())
        }
        fn name(&self) -> &str {
            "memory"
        }
    }

    fn value(memory: &Memory, name: &str) -> Option<String> {
        memory.env().read(&[name]).unwrap().get(name).map(str::to_owned)
    }

    fn check_active(medium: Medium, flags: [u8; 2], expected: &str) {
        let memory = Memory::with_copies(
            medium,
            [Some((flags[0], b"v=first\0\0")), Some((flags[1], b"v=second\0\0"))],
        );
        assert_eq!(value(&memory, "v").as_deref(), Some(expected), "{medium:?} {flags:?}");
    }

    fn check_operations(medium: Medium, expected: &[&str]) {
        let memory = Memory::with_copies(medium, [Some((1, b"v=1\0\0")), None]);
        memory.env().write(&[("v", "2")]).unwrap();
        assert_eq!(memory.0.borrow().log, expected);
    }

    #[test]
    fn the_larger_counter_is_active() {
        for medium in [Medium::Rewritable, Medium::NandFlash] {
            check_active(medium, [5, 4], "first");
            check_active(medium, [4, 5], "second");
            check_active(medium, [1, 0xFF], "second");
        }
    }

    #[test]
    fn the_counter_wraps() {
        check_active(Medium::Rewritable, [0xFF, 0x00], "second");
        check_active(Medium::Rewritable, [0x00, 0xFF], "first");
    }

    #[test]
    fn equal_flags_select_the_first_copy() {
        for flags in [0, 1, 7, 0xFF] {
            check_active(Medium::Rewritable, [flags; 2], "first");
            check_active(Medium::NorFlash, [flags; 2], "first");
        }
    }

    #[test]
    fn on_nor_flash_one_is_active_and_erased_counts_as_active() {
        check_active(Medium::NorFlash, [1, 0], "first");
        check_active(Medium::NorFlash, [0, 1], "second");
        check_active(Medium::NorFlash, [0xFF, 1], "first");
        check_active(Medium::NorFlash, [0, 0xFF], "second");
    }

    #[test]
    fn the_only_valid_copy_is_active_whatever_its_flags() {
        for flags in 0..=0xFF {
            let first = Memory::with_copies(Medium::Rewritable, [Some((flags, b"v=1\0\0")), None]);
            assert_eq!(value(&first, "v").as_deref(), Some("1"));
            let second = Memory::with_copies(Medium::NorFlash, [None, Some((flags, b"v=2\0\0"))]);
            assert_eq!(value(&second, "v").as_deref(), Some("2"));
        }
    }

    #[test]
    fn an_unreadable_copy_is_an_invalid_copy() {
        let memory =
            Memory::with_copies(Medium::NandFlash, [Some((1, b"v=first\0\0")), Some((2, b"v=second\0\0"))]);
        memory.0.borrow_mut().unreadable = Some(0x200);
        assert_eq!(value(&memory, "v").as_deref(), Some("first"));
    }

    #[test]
    fn no_valid_copy_is_an_error_that_names_the_fault_of_each() {
        let memory = Memory::with_copies(Medium::Rewritable, [None, None]);
        memory.0.borrow_mut().bytes[0x200..0x300].fill(0xFF);
        let error = memory.env().read(&["v"]).unwrap_err().to_string();
        assert!(error.contains("copy at memory+0x100: checksum eeeeeeee is stored"), "{error}");
        assert!(error.contains("copy at memory+0x200: erased"), "{error}");
        assert!(matches!(memory.env().write(&[("v", "1")]), Err(BootEnvError::NoValidCopy { .. })));
    }

    #[test]
    fn a_write_goes_to_the_inactive_copy_and_leaves_the_active_one_untouched() {
        for flags in [[5, 4], [4, 5], [0xFF, 0], [0, 0xFF], [3, 3], [0xFE, 0xFF]] {
            let memory = Memory::with_copies(
                Medium::Rewritable,
                [Some((flags[0], b"v=old\0\0")), Some((flags[1], b"v=old\0\0"))],
            );
            let active = active_by_flags(FlagScheme::Incremental, flags[0], flags[1]);
            let start = OFFSETS[active.index()] as usize;
            let before = memory.0.borrow().bytes[start..][..SIZE].to_vec();
            memory.env().write(&[("v", "new")]).unwrap();
            assert_eq!(value(&memory, "v").as_deref(), Some("new"), "{flags:?}");
            assert_eq!(memory.0.borrow().bytes[start..][..SIZE], before, "{flags:?}");
        }
    }

    #[test]
    fn a_thousand_writes_wrap_the_counter_and_each_is_seen() {
        for medium in [Medium::Rewritable, Medium::NorFlash] {
            let memory = Memory::with_copies(medium, [Some((1, b"v=old\0\0")), None]);
            for round in 0..1000 {
                let round = round.to_string();
                memory.env().write(&[("v", &round)]).unwrap();
                assert_eq!(value(&memory, "v"), Some(round));
            }
        }
    }

    #[test]
    fn a_redundant_write_is_one_write_made_durable_and_read_back() {
        check_operations(
            Medium::Rewritable,
            &["sync", "drop", "read 0x100", "read 0x200", "write 0x200 0x100", "sync", "drop", "read 0x200"],
        );
    }

    #[test]
    fn on_nor_flash_the_old_copy_is_marked_obsolete_last() {
        check_operations(
            Medium::NorFlash,
            &[
                "sync",
                "drop",
                "read 0x100",
                "read 0x200",
                "write 0x200 0x100",
                "sync",
                "drop",
                "read 0x200",
                "clear 0x104",
                "sync",
                "drop",
                "read 0x104",
            ],
        );
        let memory = Memory::with_copies(Medium::NorFlash, [Some((1, b"v=1\0\0")), None]);
        memory.env().write(&[("v", "2")]).unwrap();
        assert_eq!(memory.flags(), [0, 1]);
    }

    #[test]
    fn a_ubi_volume_is_replaced_as_a_whole() {
        let empty = Image { flags: 0, variables: Default::default() };
        let volume = Memory::new(Medium::UbiVolume, empty.encode(Format::Single, SIZE, 0xFF).unwrap());
        UBootEnv::single(volume.clone(), 0, SIZE as u64).unwrap().write(&[("v", "1")]).unwrap();
        assert_eq!(volume.0.borrow().log[3..5], ["begin 0x100", "write 0x0 0x100"]);
    }

    #[test]
    fn the_settle_flush_happens_once_per_opened_environment() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        let mut env = memory.env();
        env.read(&["v"]).unwrap();
        env.read(&["v"]).unwrap();
        assert_eq!(memory.0.borrow().log.iter().filter(|what| *what == "sync").count(), 1);
    }

    #[test]
    fn a_failed_settle_flush_is_an_error_and_is_tried_again() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        let mut env = memory.env();
        memory.0.borrow_mut().fail_after = Some(0);
        assert!(matches!(env.read(&["v"]), Err(BootEnvError::Io { doing: "flush", .. })));
        memory.0.borrow_mut().fail_after = None;
        assert!(env.read(&["v"]).is_ok());
    }

    #[test]
    fn after_a_failed_write_the_next_call_flushes_again() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        let mut env = memory.env();
        memory.0.borrow_mut().fail_after = Some(5);
        assert!(matches!(env.write(&[("v", "2")]), Err(BootEnvError::Io { doing: "flush", .. })));
        memory.0.borrow_mut().fail_after = None;
        memory.0.borrow_mut().log.clear();
        env.read(&["v"]).unwrap();
        assert_eq!(memory.0.borrow().log[..2], ["sync", "drop"]);
    }

    #[test]
    fn content_is_read_anew_on_every_call() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        let mut env = memory.env();
        assert_eq!(env.read(&["v"]).unwrap().get("v"), Some("1"));
        memory.env().write(&[("v", "2")]).unwrap();
        assert_eq!(env.read(&["v"]).unwrap().get("v"), Some("2"));
    }

    #[test]
    fn an_error_at_any_operation_leaves_the_old_values_or_the_new() {
        for medium in [Medium::Rewritable, Medium::NorFlash] {
            for fail_after in 0..12 {
                let memory =
                    Memory::with_copies(medium, [Some((1, b"v=old\0\0")), Some((0, b"v=older\0\0"))]);
                memory.0.borrow_mut().fail_after = Some(fail_after);
                let result = memory.env().write(&[("v", "new")]);
                memory.0.borrow_mut().fail_after = None;
                let found = value(&memory, "v").unwrap();
                match result {
                    Ok(()) => assert_eq!(found, "new"),
                    Err(_) => assert!(found == "old" || found == "new", "{fail_after}: {found}"),
                }
            }
        }
    }

    #[test]
    fn a_device_that_loses_writes_is_found_by_reading_back() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        memory.0.borrow_mut().lose_writes = true;
        assert!(matches!(memory.env().write(&[("v", "2")]), Err(BootEnvError::ReadBack { .. })));
    }

    #[test]
    fn a_change_that_does_not_fit_writes_nothing() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"v=1\0\0")), None]);
        let refused = memory.env().write(&[("v", &"x".repeat(SIZE))]);
        assert!(matches!(refused, Err(BootEnvError::TooLarge { .. })));
        assert!(!memory.0.borrow().log.iter().any(|what| what.starts_with("write")));
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_an_error_only_for_who_asks_for_it() {
        let memory = Memory::with_copies(Medium::Rewritable, [Some((1, b"bad=\xff\0v=1\0\0")), None]);
        assert_eq!(value(&memory, "v").as_deref(), Some("1"));
        assert!(matches!(memory.env().read(&["bad"]), Err(BootEnvError::InvalidVariable { .. })));
    }

    #[test]
    fn copies_that_overlap_or_leave_the_device_are_refused() {
        for offsets in [[0, 0], [0, 0xFF], [0x1FF, 0x100], [0, 0x301], [u64::MAX, 0]] {
            let memory = Memory::new(Medium::Rewritable, vec![0; 0x400]);
            let refused = UBootEnv::redundant_on_one(memory.clone(), offsets, SIZE as u64);
            assert!(matches!(refused, Err(BootEnvError::Config { .. })), "{offsets:?}");
            let refused = UBootEnv::redundant_on_two([memory.clone(), memory], offsets, SIZE as u64);
            assert!(matches!(refused, Err(BootEnvError::Config { .. })), "{offsets:?}");
        }
    }

    #[test]
    fn every_flag_pair_has_exactly_one_active_copy_that_loses_to_its_successor() {
        for scheme in [FlagScheme::Incremental, FlagScheme::Boolean] {
            for first in 0..=0xFF {
                for second in 0..=0xFF {
                    match active_by_flags(scheme, first, second) {
                        Replica::First if scheme == FlagScheme::Incremental => {
                            assert_eq!(
                                active_by_flags(scheme, first, scheme.successor(first)),
                                Replica::Second
                            );
                        }
                        Replica::Second if scheme == FlagScheme::Incremental => {
                            assert_eq!(
                                active_by_flags(scheme, scheme.successor(second), second),
                                Replica::First
                            );
                        }
                        // The old flag is cleared before the new copy must win.
                        Replica::First => assert_eq!(active_by_flags(scheme, 0, 1), Replica::Second),
                        Replica::Second => assert_eq!(active_by_flags(scheme, 1, 0), Replica::First),
                    }
                }
            }
        }
    }
}
