//! The environment in its two copies: which one is whole, how a bad one is repaired, how a change is written.
//!
//! A copy is changed between `editing=1` and `editing=0` in its lock. Copy 2 is changed first, then copy 1, which
//! is the one GRUB and we read:
//!
//! ```text
//! cut here                          locks    GRUB and we see
//! while copy 2 is written           2        the old values, copied over copy 2
//! between the copies                none     the old values of copy 1
//! while copy 1 is written           1        the new values, copied over copy 1
//! ```
//!
//! All files are overwritten in place at their full length: they lie on FAT, where a truncated or renamed file
//! can be gone after a power cut. GRUB trusts the lock alone; here the content must hold as well.
//!
//! What this cannot do is change the length of a file: a copy of the wrong length is a bad copy, and the caller
//! who opens files restores the length first.

use client_core::boot::mender_vars::{BOOT_COUNT, BOOT_PART, UPGRADE_AVAILABLE};
use client_core::boot::{BadCopy, BootEnv, BootEnvError, Variables};
use client_core::storage::BlockDevice;
use client_core::storage::two_copies::{self, FlushFirst, Replica};
use log::{info, warn};
use sha2::{Digest, Sha256};

use crate::block::{BLOCK_BYTES, Block, SHARED};

/// Bytes of `lock.sha256sum` as `sha256sum lock` writes it: digest, two blanks, `lock`, line end.
pub const LOCK_SUM_BYTES: usize = 71;
/// Longest `lock.sha256sum` that is looked at.
const MAX_LOCK_SUM_BYTES: u64 = 4096;
/// The variable in `lock`.
const EDITING: &str = "editing";

/// The files of one copy.
pub struct GrubCopy<D> {
    /// `env`: the variables.
    pub env: D,
    /// `lock`: whether `env` is being edited.
    pub lock: D,
    /// `lock.sha256sum`: attests `lock` to the stock tool. GRUB and we do without.
    pub lock_sum: Option<D>,
}

impl<D> GrubCopy<D> {
    fn files(&mut self) -> impl Iterator<Item = &mut D> {
        [&mut self.env, &mut self.lock].into_iter().chain(&mut self.lock_sum)
    }
}

/// A GRUB environment in the two copies of grub-mender-grubenv.
pub struct GrubEnv<D> {
    copies: [GrubCopy<D>; 2],
    /// GRUB saves without ever flushing.
    flush: FlushFirst,
}

/// What the copies look like to somebody who only looks.
#[derive(Debug)]
pub struct Inspection {
    /// What is wrong with each copy.
    pub faults: [Option<String>; 2],
    /// The variables, where a copy can be trusted.
    pub block: Option<Block>,
}

/// What one copy looks like.
struct Found {
    content: Result<Block, String>,
    lock: Lock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Clear,
    /// `editing` is set, or the lock cannot be read: GRUB takes both for the same.
    Editing,
}

/// What to do about two copies.
enum Diagnosis<'f> {
    /// Nothing.
    Sound(&'f Block),
    /// Copy this one over the other.
    CopyFrom { good: Replica, block: &'f Block },
    /// Neither copy can be trusted.
    Lost,
}

/// Which copy is bad. Where both have valid content it is the one GRUB would overwrite:
/// "if `lock` of copy 2 says editing: copy env1 over env2; else if `lock` of copy 1 says editing: copy env2 over
/// env1". Copies that differ under clear locks come from writes that were lost in part; GRUB reads copy 1.
fn diagnose<'f>(first: &'f Found, second: &'f Found) -> Diagnosis<'f> {
    // Content that was being edited can be half old and half new, unless it changes in one piece.
    let is_whole = |found: &Found, block: &Block| match found.lock {
        Lock::Clear => true,
        Lock::Editing => block.ours_lie_in_one_sector(),
    };
    let from_first = |block| Diagnosis::CopyFrom { good: Replica::First, block };
    let from_second = |block| Diagnosis::CopyFrom { good: Replica::Second, block };
    match (&first.content, &second.content) {
        (Ok(block), Err(_)) if is_whole(first, block) => from_first(block),
        (Err(_), Ok(block)) if is_whole(second, block) => from_second(block),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) | (Err(_), Err(_)) => Diagnosis::Lost,
        (Ok(left), Ok(right)) => match (first.lock, second.lock) {
            (Lock::Clear | Lock::Editing, Lock::Editing) => from_first(left),
            (Lock::Editing, Lock::Clear) => from_second(right),
            (Lock::Clear, Lock::Clear) if agree(left, right) => Diagnosis::Sound(left),
            (Lock::Clear, Lock::Clear) => from_first(left),
        },
    }
}

fn agree(left: &Block, right: &Block) -> bool {
    SHARED.iter().all(|name| left.value(name) == right.value(name))
}

impl Found {
    fn fault(&self) -> String {
        match (&self.content, self.lock) {
            (Err(fault), _) => fault.clone(),
            (Ok(_), Lock::Editing) => "left in the middle of an edit".to_string(),
            (Ok(_), Lock::Clear) => "differs from the other copy".to_string(),
        }
    }
}

impl<D: BlockDevice> GrubEnv<D> {
    /// The environment in `copies`: `mender_grubenv1`, then `mender_grubenv2`. Nothing is read yet.
    pub fn new(copies: [GrubCopy<D>; 2]) -> GrubEnv<D> {
        GrubEnv { copies, flush: FlushFirst::default() }
    }

    /// The variables, after a bad copy was repaired from the good one.
    fn load(&mut self) -> Result<Block, BootEnvError> {
        self.flush.before_reading(self.copies.iter_mut().flat_map(GrubCopy::files))?;
        let (first, second) = (self.inspect_copy(Replica::First), self.inspect_copy(Replica::Second));
        let block = match diagnose(&first, &second) {
            Diagnosis::Sound(block) => block,
            Diagnosis::CopyFrom { good, block } => {
                let (good_lock, bad) = match good {
                    Replica::First => (first.lock, &second),
                    Replica::Second => (second.lock, &first),
                };
                let path = self.copies[good.other().index()].env.name();
                warn!("GRUB environment: {path} {}; repairing it from the other copy", bad.fault());
                self.repair(good, good_lock, block)?;
                block
            }
            Diagnosis::Lost => return Err(self.no_valid_copy([&first, &second])),
        };
        self.attest(Replica::Second);
        self.attest(Replica::First);
        Ok(block.clone())
    }

    /// The copies as they are, without a flush and without a repair: what another process is just writing looks torn.
    pub fn inspect(&mut self) -> Inspection {
        let (first, second) = (self.inspect_copy(Replica::First), self.inspect_copy(Replica::Second));
        match diagnose(&first, &second) {
            Diagnosis::Sound(block) => Inspection { faults: [None, None], block: Some(block.clone()) },
            Diagnosis::CopyFrom { good: Replica::First, block } => {
                Inspection { faults: [None, Some(second.fault())], block: Some(block.clone()) }
            }
            Diagnosis::CopyFrom { good: Replica::Second, block } => {
                Inspection { faults: [Some(first.fault()), None], block: Some(block.clone()) }
            }
            Diagnosis::Lost => {
                Inspection { faults: [Some(first.fault()), Some(second.fault())], block: None }
            }
        }
    }

    fn no_valid_copy(&self, found: [&Found; 2]) -> BootEnvError {
        let bad = |(copy, found): (&GrubCopy<D>, &Found)| BadCopy {
            place: copy.env.name().to_owned(),
            fault: found.fault(),
        };
        BootEnvError::NoValidCopy { copies: self.copies.iter().zip(found).map(bad).collect(), hint: None }
    }

    fn inspect_copy(&mut self, copy: Replica) -> Found {
        let files = &mut self.copies[copy.index()];
        let content = read_block(&mut files.env).and_then(|block| {
            check_variables(&block)?;
            Ok(block)
        });
        let editing = read_block(&mut files.lock).ok().and_then(|block| block.value(EDITING));
        let lock = if editing.as_deref() == Some(b"0") { Lock::Clear } else { Lock::Editing };
        Found { content, lock }
    }

    fn repair(&mut self, good: Replica, good_lock: Lock, block: &Block) -> Result<(), BootEnvError> {
        let bad = good.other();
        let bytes = block.encode()?;
        if good_lock == Lock::Editing {
            // First: seeing this lock, GRUB would copy the bad one over the good one.
            self.write_lock(good, Lock::Clear)?;
        }
        self.write_copy(bad, &bytes)?;
        info!("GRUB environment: repaired {}", self.copies[bad.index()].env.name());
        Ok(())
    }

    /// Changes one copy, under its lock.
    fn write_copy(&mut self, copy: Replica, bytes: &[u8; BLOCK_BYTES]) -> Result<(), BootEnvError> {
        self.write_lock(copy, Lock::Editing)?; // durable before the content is touched
        write_block(&mut self.copies[copy.index()].env, bytes)?; // durable and read back
        self.write_lock(copy, Lock::Clear) // only now is it to be trusted
    }

    /// Writes the lock of `copy`, keeping what else is in it, so that the stock tool's checksum of the clear lock
    /// stays right. A lock that cannot be read becomes like the other one, or a plain one.
    fn write_lock(&mut self, copy: Replica, lock: Lock) -> Result<(), BootEnvError> {
        let own = read_block(&mut self.copies[copy.index()].lock);
        let block = own.or_else(|_| read_block(&mut self.copies[copy.other().index()].lock));
        let mut block = block.unwrap_or_default();
        block.set(
            EDITING,
            match lock {
                Lock::Clear => "0",
                Lock::Editing => "1",
            },
        )?;
        write_block(&mut self.copies[copy.index()].lock, &block.encode()?)
    }

    /// Renews `lock.sha256sum` where it does not attest the lock that is there. Nothing that boots reads it, so
    /// a failure is only told.
    fn attest(&mut self, copy: Replica) {
        let files = &mut self.copies[copy.index()];
        let Some(sum) = &mut files.lock_sum else {
            return;
        };
        let name = sum.name().to_string();
        match renew_sum(&mut files.lock, sum) {
            Ok(false) => {}
            Ok(true) => info!("GRUB environment: renewed {name}"),
            Err(error) => warn!("GRUB environment: {name} stays wrong for the stock tool: {error}"),
        }
    }

    /// The block with `changes`, if there is room and GRUB would accept it.
    fn changed(&mut self, changes: &[(&str, &str)]) -> Result<[u8; BLOCK_BYTES], BootEnvError> {
        let mut block = self.load()?;
        for (name, value) in changes {
            block.set(name, value)?;
        }
        block.keep_ours_in_one_sector()?;
        if let Err(reason) = check_variables(&block) {
            warn!("GRUB environment: refusing a change after which it {reason}");
            let name = changes.first().map_or("", |(name, _)| name).to_string();
            return Err(BootEnvError::InvalidVariable { name, reason: "GRUB would not accept the result" });
        }
        block.encode()
    }

    fn change(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let bytes = self.changed(changes)?;
        self.write_copy(Replica::Second, &bytes)?; // until this is done, copy 1 is what counts
        self.write_copy(Replica::First, &bytes)?; // from its lock on, copy 2 is
        self.attest(Replica::Second);
        self.attest(Replica::First);
        Ok(())
    }
}

impl<D: BlockDevice> BootEnv for GrubEnv<D> {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        let block = self.load()?;
        Variables::from_bytes(names, |name| block.value(name))
    }

    /// An empty value is stored as such, as the stock tool does.
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let result = self.change(changes);
        if result.is_err() {
            self.flush.again();
        }
        result
    }

    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        self.changed(changes).map(drop)
    }

    fn describe(&self) -> String {
        let [first, second] = &self.copies;
        format!("GRUB environment in {} and {}", first.env.name(), second.env.name())
    }
}

/// What makes GRUB call an environment corrupt: one of the three variables missing, or not of these values. (GRUB
/// also knows the numbers of the two partitions; that comparison is `client_core::boot::mender_vars`'s.)
fn check_variables(block: &Block) -> Result<(), String> {
    let is_flag = |value: &[u8]| value == b"0" || value == b"1";
    let is_number = |value: &[u8]| (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let check = |name: &str, is_right: &dyn Fn(&[u8]) -> bool| match block.value(name) {
        Some(value) if is_right(&value) => Ok(()),
        Some(value) => Err(format!("has {name}={}", value.escape_ascii())),
        None => Err(format!("has no {name}")),
    };
    check(BOOT_PART, &is_number)?;
    check(BOOT_COUNT, &is_flag)?;
    check(UPGRADE_AVAILABLE, &is_flag)
}

/// A block, or what is wrong with it: a file that cannot be read is no worse than one that is torn.
fn read_block<D: BlockDevice>(device: &mut D) -> Result<Block, String> {
    if device.len() != BLOCK_BYTES as u64 {
        return Err(format!("is {} bytes long instead of {BLOCK_BYTES}", device.len()));
    }
    let mut bytes = [0; BLOCK_BYTES];
    device.read_at(0, &mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    Block::decode(&bytes)
}

/// Overwrites a file in place, and comes back when the medium has it.
fn write_block<D: BlockDevice>(device: &mut D, bytes: &[u8; BLOCK_BYTES]) -> Result<(), BootEnvError> {
    two_copies::replace(device, 0, bytes).map_err(|fault| BootEnvError::writing(&device.name(), fault))
}

/// Whether `sum` had to be written anew.
fn renew_sum<D: BlockDevice>(lock: &mut D, sum: &mut D) -> std::io::Result<bool> {
    let mut bytes = vec![0; usize::try_from(lock.len().min(MAX_LOCK_SUM_BYTES)).unwrap_or_default()];
    lock.read_at(0, &mut bytes)?;
    let right = format!("{}  lock\n", hexadecimal(&Sha256::digest(&bytes)));
    let mut found = vec![0; usize::try_from(sum.len().min(MAX_LOCK_SUM_BYTES)).unwrap_or_default()];
    sum.read_at(0, &mut found)?;
    if attests(&found, &right) {
        return Ok(false);
    }
    if sum.len() < LOCK_SUM_BYTES as u64 {
        return Err(std::io::Error::other("the file is too short to be written in place"));
    }
    let mut line = right.into_bytes();
    line.resize(found.len(), b'\n'); // `sha256sum -c` skips empty lines.
    sum.write_at(0, &line)?;
    sum.sync()?;
    Ok(true)
}

/// Whether `sha256sum -c` would be content: the line is there, text or binary mark, and nothing else is.
fn attests(found: &[u8], right: &str) -> bool {
    let Ok(text) = std::str::from_utf8(found) else {
        return false;
    };
    let mut lines = text.lines().filter(|line| !line.is_empty());
    lines.next().is_some_and(|line| line.replacen(" *", "  ", 1) == right.trim_end())
        && lines.next().is_none()
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    use super::*;

    const OLD: &str = "bootcount=0\nmender_boot_part=2\nupgrade_available=0\n";
    const NEW: &str = "bootcount=0\nmender_boot_part=3\nupgrade_available=1\n";

    fn padded(lines: &str) -> Vec<u8> {
        let mut bytes = crate::block::HEADER.to_vec();
        bytes.extend_from_slice(lines.as_bytes());
        bytes.resize(BLOCK_BYTES, b'#');
        bytes
    }

    /// Six files in memory that count operations, can fail from one on, and remember what was done.
    #[derive(Clone)]
    struct Disk(Rc<RefCell<State>>);

    struct State {
        files: [Vec<u8>; 6],
        log: Vec<String>,
        fail_after: Option<usize>,
        lose_writes_to: Option<usize>,
    }

    struct File {
        disk: Disk,
        index: usize,
    }

    const NAMES: [&str; 6] = ["env1", "lock1", "sum1", "env2", "lock2", "sum2"];

    impl Disk {
        fn new(first: (&[u8], &str), second: (&[u8], &str)) -> Disk {
            let sum = || {
                let digest = hexadecimal(&Sha256::digest(padded("editing=0\n")));
                format!("{digest}  lock\n").into_bytes()
            };
            let lock = |editing: &str| padded(&format!("editing={editing}\n"));
            let files = [first.0.to_vec(), lock(first.1), sum(), second.0.to_vec(), lock(second.1), sum()];
            Disk(Rc::new(RefCell::new(State {
                files,
                log: Vec::new(),
                fail_after: None,
                lose_writes_to: None,
            })))
        }

        fn sound() -> Disk {
            Disk::new((&padded(OLD), "0"), (&padded(OLD), "0"))
        }

        fn env(&self) -> GrubEnv<File> {
            let file = |index| File { disk: self.clone(), index };
            let copy = |at| GrubCopy { env: file(at), lock: file(at + 1), lock_sum: Some(file(at + 2)) };
            GrubEnv::new([copy(0), copy(3)])
        }

        fn read(&self) -> Result<(String, String), BootEnvError> {
            let values = self.env().read(&[BOOT_PART, UPGRADE_AVAILABLE])?;
            let value = |name| values.get(name).unwrap().to_owned();
            Ok((value(BOOT_PART), value(UPGRADE_AVAILABLE)))
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

    impl BlockDevice for File {
        fn len(&self) -> u64 {
            self.disk.0.borrow().files[self.index].len() as u64
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.disk.act(format!("read {}", self.name()))?;
            buf.copy_from_slice(&self.disk.0.borrow().files[self.index][offset as usize..][..buf.len()]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
            let shown = if data == padded("editing=1\n") { " editing" } else { "" };
            self.disk.act(format!("write {} {offset} {}{shown}", self.name(), data.len()))?;
            let mut state = self.disk.0.borrow_mut();
            if state.lose_writes_to != Some(self.index) {
                state.files[self.index][offset as usize..][..data.len()].copy_from_slice(data);
            }
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            self.disk.act(format!("sync {}", self.name()))
        }
        fn drop_cache(&mut self) -> io::Result<()> {
            self.disk.act(format!("drop {}", self.name()))
        }
        fn name(&self) -> &str {
            NAMES[self.index]
        }
    }

    const CHANGE: [(&str, &str); 3] =
        [("bootcount", "0"), ("mender_boot_part", "3"), ("upgrade_available", "1")];

    /// Reads once; afterwards both copies must hold `expected` under clear locks with right sums.
    fn check_repaired(disk: &Disk, expected: &str) {
        disk.read().unwrap();
        let state = disk.0.borrow();
        for (file, wanted) in
            state.files.iter().zip([padded(expected), padded("editing=0\n")].iter().cycle().take(2))
        {
            assert_eq!(file, wanted);
        }
        assert_eq!(state.files[3], padded(expected));
        assert_eq!(state.files[4], padded("editing=0\n"));
        let right = format!("{}  lock\n", hexadecimal(&Sha256::digest(&state.files[1])));
        assert_eq!(state.files[2], right.as_bytes());
        assert_eq!(state.files[5], right.as_bytes());
    }

    fn check_lost(disk: &Disk, expected: &str) {
        let error = disk.read().unwrap_err();
        assert_eq!(error.to_string(), format!("no valid copy of the boot environment: {expected}"));
        assert!(matches!(disk.env().write(&CHANGE), Err(BootEnvError::NoValidCopy { .. })));
        assert!(!disk.0.borrow().log.iter().any(|what| what.starts_with("write")));
    }

    #[test]
    fn a_sound_environment_is_read_without_a_write() {
        let disk = Disk::sound();
        assert_eq!(disk.read().unwrap(), ("2".to_string(), "0".to_string()));
        assert!(!disk.0.borrow().log.iter().any(|what| what.starts_with("write")));
    }

    #[test]
    fn the_first_call_flushes_every_file_before_it_reads() {
        let disk = Disk::sound();
        let mut env = disk.env();
        env.read(&[BOOT_PART]).unwrap();
        let first_read = disk.0.borrow().log.iter().position(|what| what.starts_with("read")).unwrap();
        let expected: Vec<_> =
            NAMES.iter().flat_map(|name| [format!("sync {name}"), format!("drop {name}")]).collect();
        assert_eq!(disk.0.borrow().log[..first_read], expected);
        disk.0.borrow_mut().log.clear();
        env.read(&[BOOT_PART]).unwrap();
        assert!(!disk.0.borrow().log.iter().any(|what| what.starts_with("sync")));
    }

    #[test]
    fn a_write_changes_copy_2_then_copy_1_each_under_its_lock() {
        let disk = Disk::sound();
        disk.env().write(&CHANGE).unwrap();
        let log: Vec<_> = disk.0.borrow().log[12..]
            .iter()
            .filter(|what| what.starts_with("write") || what.starts_with("sync"))
            .cloned()
            .collect();
        assert_eq!(
            log,
            [
                "write lock2 0 1024 editing",
                "sync lock2",
                "write env2 0 1024",
                "sync env2",
                "write lock2 0 1024",
                "sync lock2",
                "write lock1 0 1024 editing",
                "sync lock1",
                "write env1 0 1024",
                "sync env1",
                "write lock1 0 1024",
                "sync lock1",
            ]
        );
        check_repaired(&disk, NEW);
    }

    #[test]
    fn the_content_is_read_back_before_its_lock_is_cleared() {
        let disk = Disk::sound();
        disk.0.borrow_mut().lose_writes_to = Some(3);
        assert!(
            matches!(disk.env().write(&CHANGE), Err(BootEnvError::ReadBack { place }) if place == "env2")
        );
        assert_eq!(disk.0.borrow().files[4], padded("editing=1\n"));
    }

    #[test]
    fn an_edit_of_copy_2_is_undone_from_copy_1() {
        check_repaired(&Disk::new((&padded(OLD), "0"), (&padded(NEW), "1")), OLD);
    }

    #[test]
    fn an_edit_of_copy_1_is_completed_from_copy_2() {
        check_repaired(&Disk::new((&padded(OLD), "1"), (&padded(NEW), "0")), NEW);
    }

    #[test]
    fn with_both_locks_set_copy_1_counts_as_in_grub() {
        check_repaired(&Disk::new((&padded(OLD), "1"), (&padded(NEW), "1")), OLD);
    }

    #[test]
    fn copies_that_differ_under_clear_locks_follow_copy_1() {
        check_repaired(&Disk::new((&padded(OLD), "0"), (&padded(NEW), "0")), OLD);
    }

    #[test]
    fn bad_content_under_a_clear_lock_is_repaired_from_the_other_copy() {
        for bad in
            [vec![0; 1024], padded("bootcount"), padded("mender_boot_part=\n"), padded("bootcount=0\n")]
        {
            check_repaired(&Disk::new((&bad, "0"), (&padded(OLD), "0")), OLD);
            check_repaired(&Disk::new((&padded(OLD), "0"), (&bad, "0")), OLD);
        }
    }

    #[test]
    fn values_that_grub_calls_corrupt_make_a_copy_bad() {
        for lines in [
            "mender_boot_part=x\nbootcount=0\nupgrade_available=0\n",
            "mender_boot_part=2\nbootcount=2\nupgrade_available=0\n",
            "mender_boot_part=2\nbootcount=\nupgrade_available=0\n",
            "mender_boot_part=2\nbootcount=0\nupgrade_available=2\n",
            "mender_boot_part=2\nbootcount=0\nupgrade_available=yes\n",
            "mender_boot_part=2\nbootcount=0\n",
            "mender_boot_part=2\nupgrade_available=0\n",
        ] {
            check_repaired(&Disk::new((&padded(lines), "0"), (&padded(OLD), "0")), OLD);
        }
    }

    #[test]
    fn a_lock_that_cannot_be_read_counts_as_set_and_is_recreated() {
        let disk = Disk::new((&padded(OLD), "0"), (&padded(NEW), "0"));
        disk.0.borrow_mut().files[4] = vec![0; 1024];
        check_repaired(&disk, OLD);
    }

    #[test]
    fn locks_and_sums_are_recreated_when_all_are_gone() {
        let disk = Disk::sound();
        for file in [1, 2, 4, 5] {
            disk.0.borrow_mut().files[file].fill(0);
        }
        check_repaired(&disk, OLD);
    }

    #[test]
    fn content_in_the_middle_of_an_edit_counts_when_it_changes_in_one_piece() {
        check_repaired(&Disk::new((&[0; 1024], "0"), (&padded(NEW), "1")), NEW);
        check_repaired(&Disk::new((&padded(NEW), "1"), (&[0; 1024], "1")), NEW);
    }

    #[test]
    fn the_lock_of_the_good_copy_is_cleared_before_the_bad_one_is_touched() {
        let disk = Disk::new((&[0; 1024], "0"), (&padded(NEW), "1"));
        disk.read().unwrap();
        let writes: Vec<_> =
            disk.0.borrow().log.iter().filter(|what| what.starts_with("write")).cloned().collect();
        assert_eq!(writes[0], "write lock2 0 1024");
        assert_eq!(writes[1], "write lock1 0 1024 editing");
    }

    #[test]
    fn content_in_the_middle_of_an_edit_does_not_count_when_it_can_be_mixed() {
        let spread = padded(&format!("x={}\n{OLD}", "y".repeat(480)));
        check_lost(
            &Disk::new((&[0; 1024], "0"), (&spread, "1")),
            "env1: does not start with the header line; env2: left in the middle of an edit",
        );
    }

    #[test]
    fn two_bad_copies_are_an_error_and_nothing_is_written() {
        check_lost(
            &Disk::new((&[0; 1024], "0"), (&[], "0")),
            "env1: does not start with the header line; env2: is 0 bytes long instead of 1024",
        );
        check_lost(
            &Disk::new((&padded("bootcount=0\n"), "0"), (&padded("mender_boot_part=x\n"), "0")),
            "env1: has no mender_boot_part; env2: has mender_boot_part=x",
        );
    }

    #[test]
    fn a_wrong_sum_alone_is_renewed_and_the_content_left_alone() {
        let disk = Disk::sound();
        disk.0.borrow_mut().files[5] = vec![b'0'; LOCK_SUM_BYTES];
        disk.0.borrow_mut().files[2].extend_from_slice(b"garbage\n");
        disk.read().unwrap();
        let state = disk.0.borrow();
        let right = format!("{}  lock\n", hexadecimal(&Sha256::digest(padded("editing=0\n"))));
        assert_eq!(state.files[5], right.as_bytes());
        assert_eq!(state.files[2], format!("{right}\n\n\n\n\n\n\n\n").as_bytes());
        assert!(!state.log.iter().any(|what| what.starts_with("write env")));
    }

    #[test]
    fn a_sum_file_that_is_too_short_is_only_told() {
        let disk = Disk::sound();
        disk.0.borrow_mut().files[5].clear();
        assert!(disk.read().is_ok());
    }

    #[test]
    fn a_lock_keeps_its_comments_so_that_its_sum_stays_right() {
        let disk = Disk::sound();
        let lock = padded("# WARNING\nediting=0\n");
        let sum = format!("{}  lock\n", hexadecimal(&Sha256::digest(&lock))).into_bytes();
        for (file, bytes) in [(1, &lock), (2, &sum), (4, &lock), (5, &sum)] {
            disk.0.borrow_mut().files[file].clone_from(bytes);
        }
        disk.env().write(&CHANGE).unwrap();
        for (file, bytes) in [(1, &lock), (2, &sum), (4, &lock), (5, &sum)] {
            assert_eq!(disk.0.borrow().files[file], *bytes);
        }
    }

    #[test]
    fn an_error_at_any_operation_leaves_the_old_values_or_the_new() {
        let old = ("2".to_string(), "0".to_string());
        let new = ("3".to_string(), "1".to_string());
        let mut fail_after = 0;
        loop {
            let disk = Disk::sound();
            disk.0.borrow_mut().fail_after = Some(fail_after);
            let result = disk.env().write(&CHANGE);
            let done = disk.0.borrow().fail_after != Some(0);
            disk.0.borrow_mut().fail_after = None;
            let found = disk.read().unwrap();
            match result {
                Ok(()) => assert_eq!(found, new, "{fail_after}"),
                Err(_) => assert!(found == old || found == new, "{fail_after}: {found:?}"),
            }
            if done {
                break;
            }
            fail_after += 1;
        }
        assert!(fail_after > 40);
    }

    #[test]
    fn after_a_failed_write_the_next_call_flushes_again() {
        let disk = Disk::sound();
        let mut env = disk.env();
        disk.0.borrow_mut().fail_after = Some(30);
        env.write(&CHANGE).unwrap_err();
        disk.0.borrow_mut().fail_after = None;
        disk.0.borrow_mut().log.clear();
        env.read(&[BOOT_PART]).unwrap();
        assert_eq!(disk.0.borrow().log[..2], ["sync env1", "drop env1"]);
    }

    #[test]
    fn a_change_that_grub_would_call_corrupt_is_refused() {
        let disk = Disk::sound();
        let refused = disk.env().write(&[(UPGRADE_AVAILABLE, "yes")]);
        assert!(matches!(refused, Err(BootEnvError::InvalidVariable { .. })));
        assert!(!disk.0.borrow().log.iter().any(|what| what.starts_with("write")));
    }

    #[test]
    fn other_variables_survive_a_write() {
        let lines = format!("mender_systemd_machine_id=abc\n{OLD}");
        let disk = Disk::new((&padded(&lines), "0"), (&padded(&lines), "0"));
        disk.env().write(&CHANGE).unwrap();
        check_repaired(&disk, &format!("mender_systemd_machine_id=abc\n{NEW}"));
    }

    #[test]
    fn no_random_damage_to_the_files_makes_it_panic_or_lose_a_sound_copy() {
        let mut random = 7_u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize
        };
        for _round in 0..2_000 {
            let disk = Disk::sound();
            for _hit in 0..=next() % 8 {
                let file = next() % 3; // One copy only.
                let place = next() % 120;
                if let Some(byte) = disk.0.borrow_mut().files[file].get_mut(place) {
                    *byte = next() as u8;
                }
            }
            if disk.read().is_ok() {
                disk.env().write(&CHANGE).unwrap();
                assert_eq!(disk.read().unwrap(), ("3".to_string(), "1".to_string()));
            }
        }
    }
}
