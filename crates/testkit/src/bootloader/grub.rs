//! GRUB with the boot logic that ships, `boot/grub/grub.cfg`, or with that of grub-mender-grubenv, whose layout both use: two
//! environment blocks, each with a lock block beside it.
//!
//! Each of the four files is one device of exactly 1,024 bytes.

use std::collections::BTreeMap;

use client_core::slot::Slot;
use client_core::storage::BlockDevice;

use super::{Boot, Partitions, Startup, reset_until_up};
use crate::storage::{CrashWorld, SECTOR_LEN};

const BLOCK_LEN: usize = 1024;
const SIGNATURE: &str = "# GRUB Environment Block\n";
/// What the scripts load and save, in their order.
const NAMES: [&str; 3] = ["bootcount", "mender_boot_part", "upgrade_available"];

/// The bootloader and its four files.
#[derive(Debug, Clone)]
pub struct GrubModel {
    env: [String; 2],
    lock: [String; 2],
    partitions: Partitions,
    flushes: bool,
    stock: bool,
}

impl GrubModel {
    /// Over the devices of copy 1 and copy 2, each as (env, lock).
    pub fn new(first: (&str, &str), second: (&str, &str)) -> GrubModel {
        GrubModel {
            env: [first.0.to_owned(), second.0.to_owned()],
            lock: [first.1.to_owned(), second.1.to_owned()],
            partitions: Partitions::default(),
            flushes: false,
            stock: false,
        }
    }

    /// A machine whose disk has no volatile cache.
    #[must_use]
    pub fn flushing(mut self) -> GrubModel {
        self.flushes = true;
        self
    }

    /// With the scripts of grub-mender-grubenv, which devices may have already, in place of ours.
    #[must_use]
    pub fn stock(mut self) -> GrubModel {
        self.stock = true;
        self
    }

    /// The variables of a copy, 0 or 1, as GRUB reads them; empty when its file is not valid.
    pub fn variables(&self, world: &CrashWorld, copy: usize) -> BTreeMap<String, String> {
        let mut variables = Variables::new();
        load(world, &self.env[copy], &NAMES, &mut variables);
        variables
    }

    /// Whether a copy's lock says that nobody was writing.
    pub fn is_open(&self, world: &CrashWorld, copy: usize) -> bool {
        let mut variables = Variables::new();
        load(world, &self.lock[copy], &["editing"], &mut variables);
        variables.get("editing").is_some_and(|editing| editing == "0")
    }

    /// The content of a lock block while somebody writes.
    pub fn held_lock() -> Vec<u8> {
        block("editing=1\n")
    }

    /// The content of an environment block with these variables.
    pub fn env(variables: &BTreeMap<String, String>) -> Vec<u8> {
        block(&variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>())
    }

    /// The content of a new environment block for a device that runs from `slot`.
    pub fn initial_env(&self, slot: Slot) -> Vec<u8> {
        let part = self.partitions.number(slot);
        block(&format!("bootcount=0\nmender_boot_part={part}\nupgrade_available=0\n"))
    }

    /// The content of a lock block that nobody holds.
    pub fn open_lock() -> Vec<u8> {
        block("editing=0\n")
    }

    /// Adds the four files of a device that runs from `slot`.
    pub fn install(&self, world: &CrashWorld, slot: Slot) {
        for copy in 0..2 {
            world.add_device(&self.env[copy], self.initial_env(slot));
            world.add_device(&self.lock[copy], GrubModel::open_lock());
        }
    }

    /// One start of the machine, with as many resets as it takes.
    pub fn boot(&self, world: &CrashWorld, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        reset_until_up(|| self.pass(world), start)
    }

    fn pass(&self, world: &CrashWorld) -> (Slot, bool) {
        if self.stock {
            return self.pass_stock(world);
        }
        self.repair(world);
        let Some(found) = self.load_best(world) else {
            // What a copy says of the slot counts where nothing else does.
            let mut variables = Variables::new();
            load(world, &self.env[1], &NAMES, &mut variables);
            let part = variables.get("mender_boot_part").map_or("", String::as_str);
            let slot = self.partitions.slot(part).unwrap_or(Slot::A);
            world.note(|| format!("GRUB: environment is corrupt, boots slot {slot}"));
            return (slot, true);
        };
        let slot = match (found.trial, found.count) {
            (false, _) => found.selected,
            (true, 0) => {
                let mut variables = found.variables.clone();
                variables.insert("bootcount".to_owned(), "1".to_owned());
                self.save_all(world, &mut variables);
                match self.load_best(world) {
                    Some(now) if now.count == 1 => found.selected,
                    Some(_) | None => {
                        world.note(|| "GRUB: the trial cannot be counted".to_owned());
                        !found.selected
                    }
                }
            }
            (true, _) => {
                let other = !found.selected;
                let part = self.partitions.number(other).to_string();
                let mut variables = found.variables.clone();
                for (name, value) in
                    [("mender_boot_part", part.as_str()), ("upgrade_available", "0"), ("bootcount", "0")]
                {
                    variables.insert(name.to_owned(), value.to_owned());
                }
                self.save_all(world, &mut variables);
                other
            }
        };
        world.note(|| format!("GRUB: boots slot {slot}, trial {}, counted {}", found.trial, found.count));
        (slot, false)
    }

    /// What counts: copy 1, or copy 2 where copy 1 makes no sense.
    fn load_best(&self, world: &CrashWorld) -> Option<Whole> {
        self.load_whole(world, 0).or_else(|| self.load_whole(world, 1))
    }

    /// A copy, if everything in it makes sense.
    fn load_whole(&self, world: &CrashWorld, copy: usize) -> Option<Whole> {
        let mut variables = Variables::new();
        load(world, &self.env[copy], &NAMES, &mut variables);
        let value = |name: &str| variables.get(name).map_or("", String::as_str);
        let selected = self.partitions.slot(value("mender_boot_part"))?;
        let trial = match value("upgrade_available") {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let count = value("bootcount");
        let count = count.parse().ok().filter(|_| count.len() == 1)?;
        Some(Whole { selected, trial, count, variables })
    }

    /// Copies the other environment over one whose lock is held: copy 2 is looked at first, for it is written
    /// first, and copy 1 only when copy 2 is fine. Nothing is copied that makes no sense.
    fn repair(&self, world: &CrashWorld) {
        for (held, good) in [(1, 0), (0, 1)] {
            if self.is_open(world, held) {
                continue;
            }
            if let Some(mut whole) = self.load_whole(world, good) {
                world.note(|| format!("GRUB: restores copy {} from copy {}", held + 1, good + 1));
                self.save(world, &self.env[held], &NAMES, &whole.variables);
                whole.variables.insert("editing".to_owned(), "0".to_owned());
                self.save(world, &self.lock[held], &["editing"], &whole.variables);
            }
            return;
        }
    }

    /// One pass of the scripts of grub-mender-grubenv.
    fn pass_stock(&self, world: &CrashWorld) -> (Slot, bool) {
        // Variables outlive a load that fails, as in GRUB.
        let mut variables = Variables::new();
        self.repair_stock(world, &mut variables);
        load(world, &self.env[0], &NAMES, &mut variables);

        let value = |variables: &Variables, name: &str| variables.get(name).cloned().unwrap_or_default();
        let selected = self.partitions.slot(&value(&variables, "mender_boot_part"));
        let flag = |name: &str| match value(&variables, name).as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let (Some(selected), Some(counted), Some(trial)) =
            (selected, flag("bootcount"), flag("upgrade_available"))
        else {
            let slot = selected.unwrap_or(Slot::A);
            world.note(|| format!("GRUB: environment is corrupt, boots slot {slot}"));
            return (slot, true);
        };
        let slot = match (trial, counted) {
            (false, _) => selected,
            (true, false) => {
                variables.insert("bootcount".to_owned(), "1".to_owned());
                self.save_all(world, &mut variables);
                selected
            }
            (true, true) => {
                let other = !selected;
                let part = self.partitions.number(other).to_string();
                for (name, value) in
                    [("mender_boot_part", part.as_str()), ("upgrade_available", "0"), ("bootcount", "0")]
                {
                    variables.insert(name.to_owned(), value.to_owned());
                }
                self.save_all(world, &mut variables);
                other
            }
        };
        world.note(|| format!("GRUB: boots slot {slot}, trial {trial}, counted {counted}"));
        (slot, false)
    }

    /// Copies the other environment over one whose lock is held: copy 2 is looked at first, for it is written
    /// first, and copy 1 only when copy 2 is fine.
    fn repair_stock(&self, world: &CrashWorld, variables: &mut Variables) {
        for (held, good) in [(1, 0), (0, 1)] {
            variables.insert("editing".to_owned(), String::new());
            load(world, &self.lock[held], &["editing"], variables);
            if variables.get("editing").is_none_or(|editing| editing != "0") {
                world.note(|| format!("GRUB: restores copy {} from copy {}", held + 1, good + 1));
                load(world, &self.env[good], &NAMES, variables);
                self.save(world, &self.env[held], &NAMES, variables);
                variables.insert("editing".to_owned(), "0".to_owned());
                self.save(world, &self.lock[held], &["editing"], variables);
                return;
            }
        }
    }

    /// Copy 2, then copy 1, each under its lock.
    fn save_all(&self, world: &CrashWorld, variables: &mut Variables) {
        for copy in [1, 0] {
            variables.insert("editing".to_owned(), "1".to_owned());
            self.save(world, &self.lock[copy], &["editing"], variables);
            self.save(world, &self.env[copy], &NAMES, variables);
            variables.insert("editing".to_owned(), "0".to_owned());
            self.save(world, &self.lock[copy], &["editing"], variables);
        }
    }
}

/// A copy that makes sense.
struct Whole {
    selected: Slot,
    trial: bool,
    count: u8,
    variables: Variables,
}

type Variables = BTreeMap<String, String>;

/// `load_env`: sets the variables that a valid block has. Anything else changes nothing.
fn load(world: &CrashWorld, file: &str, names: &[&str], variables: &mut Variables) {
    let Some(lines) = read(world, file) else {
        return;
    };
    for line in lines {
        if let Some((name, value)) = line.split_once('=') {
            if names.contains(&name) {
                variables.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

impl GrubModel {
    /// `save_env`: refuses a file without the signature; else changes the named lines and writes sector by sector.
    /// A variable that is not set is not saved.
    fn save(&self, world: &CrashWorld, file: &str, names: &[&str], variables: &Variables) {
        let Some(mut lines) = read(world, file) else {
            world.note(|| format!("GRUB: invalid environment block in {file}"));
            return;
        };
        for &name in names {
            let Some(value) = variables.get(name) else {
                continue;
            };
            let line = format!("{name}={value}");
            match lines.iter_mut().find(|line| line.split('=').next() == Some(name)) {
                Some(old) => *old = line,
                None => lines.push(line),
            }
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if SIGNATURE.len() + text.len() > BLOCK_LEN {
            world.note(|| format!("GRUB: {file} is too small"));
            return;
        }
        let mut device = world.open(file);
        for (sector, data) in block(&text).chunks(SECTOR_LEN).enumerate() {
            if device.write_at((sector * SECTOR_LEN) as u64, data).is_err() {
                return;
            }
            if self.flushes && device.sync().is_err() {
                return;
            }
        }
    }
}

/// The lines of a valid block, without its signature and padding.
fn read(world: &CrashWorld, file: &str) -> Option<Vec<String>> {
    let mut content = vec![0; BLOCK_LEN];
    world.open(file).read_at(0, &mut content).ok()?;
    let text = String::from_utf8_lossy(&content);
    let lines = text.strip_prefix(SIGNATURE)?.split('\n');
    Some(lines.filter(|line| !line.starts_with('#') && line.contains('=')).map(str::to_owned).collect())
}

fn block(lines: &str) -> Vec<u8> {
    let mut block = format!("{SIGNATURE}{lines}").into_bytes();
    block.resize(BLOCK_LEN, b'#');
    block
}
