//! U-Boot: one or two copies of the environment with CRC-32 and a serial byte, and the script that chooses the slot. That
//! is ours, `boot/u-boot/boot.cmd`: keep them alike. [`UBootModel::stock`] is the integration that devices of the Mender
//! client have: U-Boot counts the boots itself, and `altbootcmd` swaps the slots.
//!
//! On NOR flash the serial byte is a mark instead, as in `env/flash.c`: 1 for the copy that counts, 0 for the other one. It
//! is cleared in place after a save, and at a start where a cut came between the two.

use std::collections::BTreeMap;

use client_core::slot::Slot;
use client_core::storage::{BlockDevice, Medium};

use super::{Boot, Partitions, Startup, reset_until_up};
use crate::storage::CrashWorld;

type Variables = BTreeMap<String, String>;

/// Where a copy lies.
#[derive(Debug, Clone)]
struct Place {
    device: String,
    offset: u64,
}

/// The bootloader and its environment.
#[derive(Debug, Clone)]
pub struct UBootModel {
    places: Vec<Place>,
    size: usize,
    partitions: Partitions,
    defaults: Variables,
    flushes: bool,
    stock: bool,
}

impl UBootModel {
    /// One copy, without a serial byte.
    pub fn single(device: &str, offset: u64, size: usize) -> UBootModel {
        UBootModel::over(vec![Place { device: device.to_owned(), offset }], size)
    }

    /// Two copies.
    pub fn redundant(first: (&str, u64), second: (&str, u64), size: usize) -> UBootModel {
        let place = |(device, offset): (&str, u64)| Place { device: device.to_owned(), offset };
        UBootModel::over(vec![place(first), place(second)], size)
    }

    fn over(places: Vec<Place>, size: usize) -> UBootModel {
        let partitions = Partitions::default();
        let mut defaults = Variables::new();
        for (name, value) in
            [("bootlimit", "1"), ("upgrade_available", "0"), ("mender_check_saveenv_canary", "1")]
        {
            defaults.insert(name.to_owned(), value.to_owned());
        }
        select(&mut defaults, partitions.a);
        UBootModel { places, size, partitions, defaults, flushes: false, stock: false }
    }

    /// Adds a variable to the compiled-in environment.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: &str) -> UBootModel {
        self.defaults.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes the environment of a device that runs from `slot`, into every copy.
    pub fn install(&self, world: &CrashWorld, slot: Slot) {
        let mut variables = self.defaults.clone();
        select(&mut variables, self.partitions.number(slot));
        variables.insert("bootcount".to_owned(), "0".to_owned());
        variables.insert("mender_saveenv_canary".to_owned(), "1".to_owned());
        for index in 0..self.places.len() {
            // The first copy is the newer one.
            self.write(world, index, &variables, u8::from(index == 0));
        }
    }

    /// A storage driver that flushes after each `saveenv`, or a medium without a volatile cache.
    #[must_use]
    pub fn flushing(mut self) -> UBootModel {
        self.flushes = true;
        self
    }

    /// With the boot logic that devices of the Mender client have, in place of ours.
    #[must_use]
    pub fn stock(mut self) -> UBootModel {
        self.stock = true;
        self
    }

    /// What U-Boot would load now; `None` where it would make up its defaults.
    pub fn variables(&self, world: &CrashWorld) -> Option<BTreeMap<String, String>> {
        self.load(world).map(|loaded| loaded.variables)
    }

    /// `setenv` and `saveenv` by hand: sets variables the way U-Boot does. `false` when it has none to start from.
    pub fn set(&self, world: &CrashWorld, changes: &[(&str, &str)]) -> bool {
        let Some(mut session) = self.load(world) else {
            return false;
        };
        for (name, value) in changes {
            session.variables.insert((*name).to_owned(), (*value).to_owned());
        }
        self.save(world, &mut session);
        true
    }

    /// One start of the machine, with as many resets as it takes.
    pub fn boot(&self, world: &CrashWorld, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        reset_until_up(|| self.pass(world), start)
    }

    fn pass(&self, world: &CrashWorld) -> (Slot, bool) {
        let loaded = self.load(world);
        if let Some(loaded) = &loaded {
            self.mark_the_other_copy(world, loaded.valid);
        }
        let defaulted = loaded.is_none();
        let mut session = match loaded {
            Some(loaded) => loaded,
            None => Loaded { variables: self.defaults.clone(), valid: Valid::Neither, serial: 0 },
        };
        if defaulted {
            world.note(|| "U-Boot: bad CRC, using the default environment".to_owned());
        }
        let slot = if self.stock {
            self.choose_stock(world, &mut session)
        } else {
            self.choose(world, &mut session)
        };
        (slot, defaulted)
    }

    /// Our script: one save, and only with a trial. What cannot be saved is not tried.
    fn choose(&self, world: &CrashWorld, session: &mut Loaded) -> Slot {
        let value = |name: &str| session.variables.get(name).map_or("", String::as_str);
        let digit = |text: &str| match text.as_bytes() {
            [digit @ b'0'..=b'9'] => Some(digit - b'0'),
            _ => None,
        };
        let Some(selected) = self.partitions.slot(value("mender_boot_part")) else {
            world.note(|| "the script: the environment is corrupt, boots slot A".to_owned());
            return Slot::A;
        };
        if value("upgrade_available") != "1" {
            world.note(|| format!("the script: boots slot {selected}"));
            return selected;
        }
        let limit = digit(value("bootlimit")).filter(|&limit| limit > 0).unwrap_or(1);
        let count = if value("bootcount").is_empty() { Some(0) } else { digit(value("bootcount")) };
        let slot = match count {
            Some(count) if count < limit => {
                session.variables.insert("bootcount".to_owned(), (count + 1).to_string());
                selected
            }
            Some(_) | None => {
                select(&mut session.variables, self.partitions.number(!selected));
                session.variables.insert("upgrade_available".to_owned(), "0".to_owned());
                session.variables.insert("bootcount".to_owned(), "0".to_owned());
                !selected
            }
        };
        if self.save(world, session) {
            world.note(|| format!("the script: boots slot {slot} of a trial of slot {selected}"));
            slot
        } else {
            world.note(|| format!("the script: cannot save, boots slot {}", !selected));
            !selected
        }
    }

    /// The integration of the Mender client.
    fn choose_stock(&self, world: &CrashWorld, session: &mut Loaded) -> Slot {
        // The boot count exists only while a trial runs.
        let number = |variables: &Variables, name: &str| -> u64 {
            variables.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let trial = number(&session.variables, "upgrade_available") != 0;
        let count = if trial { number(&session.variables, "bootcount") } else { 0 } + 1;
        if trial {
            session.variables.insert("bootcount".to_owned(), count.to_string());
            self.save(world, session);
        }
        let limit = number(&session.variables, "bootlimit");
        if limit != 0 && count > limit {
            let selected = self.selected(&session.variables);
            world.note(|| format!("U-Boot: boot limit exceeded, leaving slot {selected}"));
            select(&mut session.variables, self.partitions.number(!selected));
            session.variables.insert("upgrade_available".to_owned(), "0".to_owned());
            session.variables.insert("bootcount".to_owned(), "0".to_owned());
            self.save(world, session);
        }
        if session.variables.get("mender_saveenv_canary").is_none_or(|canary| canary != "1") {
            session.variables.insert("mender_saveenv_canary".to_owned(), "1".to_owned());
            self.save(world, session);
        }
        let slot = self.selected(&session.variables);
        world.note(|| format!("U-Boot: boots slot {slot}, boot count {count}"));
        slot
    }

    /// The kernel is loaded from the partition with the hexadecimal number.
    fn selected(&self, variables: &Variables) -> Slot {
        let hex = variables.get("mender_boot_part_hex").map_or("", String::as_str);
        let number = u32::from_str_radix(hex, 16).unwrap_or(0);
        if number == self.partitions.b { Slot::B } else { Slot::A }
    }

    fn load(&self, world: &CrashWorld) -> Option<Loaded> {
        let copies: Vec<_> = (0..self.places.len()).map(|index| self.read(world, index)).collect();
        let loaded = |copy: &Option<CopyImage>, valid| {
            copy.clone().map(|copy| Loaded { variables: copy.variables, valid, serial: copy.serial })
        };
        let Some(second) = copies.get(1) else {
            return loaded(&copies[0], Valid::First);
        };
        match (&copies[0], second) {
            (Some(a), Some(b)) => match self.newer(world, a.serial, b.serial)? {
                Valid::Second => loaded(second, Valid::Second),
                Valid::First | Valid::Neither => loaded(&copies[0], Valid::First),
            },
            (Some(_), None) => loaded(&copies[0], Valid::First),
            (None, Some(_)) => loaded(second, Valid::Second),
            (None, None) => None,
        }
    }

    /// Which of two copies counts, by their serial bytes or marks; `None` for marks that U-Boot has no rule for.
    fn newer(&self, world: &CrashWorld, first: u8, second: u8) -> Option<Valid> {
        if self.has_marks(world) {
            return match (first, second) {
                (ACTIVE, OBSOLETE) => Some(Valid::First),
                (OBSOLETE, ACTIVE) => Some(Valid::Second),
                (first, second) if first == second => Some(Valid::First),
                (0xff, _) => Some(Valid::First),
                (_, 0xff) => Some(Valid::Second),
                _ => None,
            };
        }
        let second_is_newer = match (first, second) {
            (255, 0) => true,
            (0, 255) => false,
            (first, second) => second > first,
        };
        Some(if second_is_newer { Valid::Second } else { Valid::First })
    }

    fn has_marks(&self, world: &CrashWorld) -> bool {
        self.places.len() == 2 && world.open(&self.places[0].device).medium() == Medium::NorFlash
    }

    /// At a start: a good copy that does not count says so, on NOR flash.
    fn mark_the_other_copy(&self, world: &CrashWorld, valid: Valid) {
        let other = match valid {
            Valid::First => 1,
            Valid::Second => 0,
            Valid::Neither => return,
        };
        if self.has_marks(world) && self.read(world, other).is_some_and(|copy| copy.serial != OBSOLETE) {
            self.mark_obsolete(world, other);
        }
    }

    fn mark_obsolete(&self, world: &CrashWorld, index: usize) {
        let place = &self.places[index];
        let mut device = world.open(&place.device);
        let marked = device.clear_bits_at(place.offset + 4, OBSOLETE);
        if self.flushes && marked.is_ok() {
            // As for any other write: an error is printed.
            device.sync().unwrap_or_default();
        }
    }

    fn read(&self, world: &CrashWorld, index: usize) -> Option<CopyImage> {
        let place = &self.places[index];
        let mut image = vec![0; self.size];
        world.open(&place.device).read_at(place.offset, &mut image).ok()?;
        let data = &image[self.header_len()..];
        if image[..4] != crc32(data).to_le_bytes() {
            return None;
        }
        let mut variables = Variables::new();
        for entry in data.split(|&byte| byte == 0).take_while(|entry| !entry.is_empty()) {
            if let Some((name, value)) = String::from_utf8_lossy(entry).split_once('=') {
                variables.insert(name.to_owned(), value.to_owned());
            }
        }
        let serial = if self.places.len() == 2 { image[4] } else { 0 };
        Some(CopyImage { variables, serial })
    }

    /// `saveenv`: into the copy that is not the valid one, and into the first where none is. Whether it worked.
    fn save(&self, world: &CrashWorld, session: &mut Loaded) -> bool {
        let (index, now) = match session.valid {
            Valid::First if self.places.len() == 2 => (1, Valid::Second),
            Valid::First | Valid::Second => (0, Valid::First),
            // U-Boot then takes the second copy for the valid one and writes the first again.
            Valid::Neither => (0, Valid::Second),
        };
        session.valid = now;
        if self.has_marks(world) {
            let saved = self.write(world, index, &session.variables, ACTIVE);
            // The old copy counts until the new one is there.
            if saved {
                self.mark_obsolete(world, 1 - index);
            }
            return saved;
        }
        session.serial = session.serial.wrapping_add(1);
        self.write(world, index, &session.variables, session.serial)
    }

    fn write(&self, world: &CrashWorld, index: usize, variables: &Variables, serial: u8) -> bool {
        let place = &self.places[index];
        let image = self.image(variables, serial);
        // U-Boot prints an error and goes on.
        let mut device = world.open(&place.device);
        // A UBI volume is replaced as a whole.
        let begun = device.begin_replace(image.len() as u64);
        let written = begun.and_then(|()| device.write_at(place.offset, &image));
        let flushed = if self.flushes { device.sync() } else { Ok(()) };
        let worked = written.and(flushed).is_ok();
        if !worked {
            world.note(|| format!("U-Boot: cannot write {}", place.device));
        }
        worked
    }

    fn image(&self, variables: &Variables, serial: u8) -> Vec<u8> {
        let mut image = vec![0; self.header_len()];
        for (name, value) in variables {
            image.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        assert!(image.len() < self.size, "the environment does not fit");
        image.resize(self.size, 0);
        if self.places.len() == 2 {
            image[4] = serial;
        }
        let crc = crc32(&image[self.header_len()..]);
        image[..4].copy_from_slice(&crc.to_le_bytes());
        image
    }

    fn header_len(&self) -> usize {
        if self.places.len() == 2 { 5 } else { 4 }
    }
}

/// The environment in memory, and what `saveenv` needs to know.
struct Loaded {
    variables: Variables,
    valid: Valid,
    serial: u8,
}

#[derive(Clone)]
struct CopyImage {
    variables: Variables,
    serial: u8,
}

/// The marks of copies on NOR flash.
const ACTIVE: u8 = 1;
const OBSOLETE: u8 = 0;

/// The copy that was loaded.
#[derive(Clone, Copy)]
enum Valid {
    First,
    Second,
    Neither,
}

fn select(variables: &mut Variables, number: u32) {
    variables.insert("mender_boot_part".to_owned(), number.to_string());
    variables.insert("mender_boot_part_hex".to_owned(), format!("{number:x}"));
}

fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut word = index as u32;
            let mut bit = 0;
            while bit < 8 {
                word = if word & 1 == 1 { (word >> 1) ^ 0xedb8_8320 } else { word >> 1 };
                bit += 1;
            }
            table[index] = word;
            index += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc, &byte| TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
