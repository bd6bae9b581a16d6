//! Downloads that were cut: nothing is bought twice, and nothing wrong is believed.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::{Machine, RECORD_BYTES, plainly, selected};
use crate::whole_update::{Arrives, Ending, Mistake, assert_arrival_holds, client};
use client_core::artifact::{Compression, HEAD_BYTES, Limits, Places, Reading, Supply, Trust};
use client_core::clock::Clock;
use client_core::deploy::record::{CutDownloads, Record};
use client_core::deploy::{self, Device, Notice, Observer, Options as Order, Policy, Status, Summary};
use client_core::install::{Account, Cost, Progress};
use client_core::server::{Download, DownloadSettings, DownloadStatistics};
use client_core::slot::{Slot, SlotError, Slots};
use client_core::state_store::TwoCopyRecord;
use client_core::storage::{BlockDevice, ReadAt};
use testkit::artifacts::{MemoryFile, build, rootfs_spec};
use testkit::choice::{Choices, so_many};
use testkit::clock::VirtualClock;
use testkit::enumerator::Options;
use testkit::storage::CrashWorld;
use testkit::transport::{Reply, ScriptedTransport, Sent};

const MIB: usize = 1 << 20;

/// A slot in memory that counts its syncs.
#[derive(Clone, Default)]
struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    syncs: Rc<Cell<u32>>,
}

impl BlockDevice for Memory {
    fn len(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }
    fn name(&self) -> &str {
        "memory"
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes.borrow()[at..at + buf.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.bytes.borrow_mut()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct OtherSlot(Memory);

impl Slots for OtherSlot {
    fn open(&mut self, _: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        Ok(Box::new(self.0.clone()))
    }
    fn open_source(&mut self, _: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        Err(SlotError::NotConfigured { key: "a source" })
    }
}

/// A device whose other slot lies in memory.
struct Board {
    world: CrashWorld,
    slot: Memory,
}

/// How an installation went, and what it bought.
struct Went {
    summary: Summary,
    received: u64,
    cost: Option<Cost>,
    account: Option<Account>,
}

/// Remembers what it is told of the cost.
#[derive(Default)]
struct Bill(Option<Cost>, Option<Account>);

impl Progress for Bill {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
    fn will_cost(&mut self, cost: &Cost) {
        self.0 = Some(*cost);
    }
}

impl Observer for Bill {
    fn notice(&mut self, _: Notice) {}
    fn did_cost(&mut self, account: &Account) {
        self.1 = Some(*account);
    }
}

impl Board {
    fn new(slot_bytes: usize) -> Board {
        let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
        Machine::UBoot.install(&world, Slot::A);
        world.add_device("record", vec![0; 2 * RECORD_BYTES]);
        TwoCopyRecord::format_new(world.open("record"), &Record::new().to_json().unwrap()).unwrap();
        let slot = Memory::default();
        *slot.bytes.borrow_mut() = vec![0x55; slot_bytes];
        Board { world, slot }
    }

    /// Installs `artifact` from a server that is gone after `cut` bytes.
    fn install(&self, artifact: &Arc<Vec<u8>>, cut: usize) -> Went {
        let clock = VirtualClock::new(1);
        let (served, given) = (Arc::clone(artifact), AtomicUsize::new(0));
        let transport = ScriptedTransport::answering(move |sent| {
            let (reply, length) = part(&served, sent);
            let left = cut.saturating_sub(given.fetch_add(length, Ordering::SeqCst));
            match left {
                0 => Reply::no_trust("gone"),
                left if left < length => reply.breaking_after(left),
                _ => reply,
            }
        });
        let settings = DownloadSettings { begin_with: Some(HEAD_BYTES), ..DownloadSettings::default() };
        let opened = Download::open("https://a.test/", transport.boxed(), clock.shared(), settings);
        let statistics = opened.as_ref().ok().map(Download::statistics);
        let supply = match opened {
            Ok(download) => Supply::Places(download.into_places()),
            Err(error) => Supply::Stream(Box::new(Broken(error.to_string()))),
        };
        self.install_from(supply, statistics.as_deref())
    }

    fn install_from(&self, supply: Supply, statistics: Option<&DownloadStatistics>) -> Went {
        let mut limits = Limits::default();
        limits.reading = Reading::InTurn;
        let policy = Policy { trust: Trust::DangerUnsigned, limits };
        let mut bill = Bill::default();
        let summary = client(&self.world, Machine::UBoot, plainly(Slot::A), None, |device| {
            let Device { boot, system, modules, state, scripts, gates, reporter, slots: _, observer: _ } =
                device;
            let mut device = Device {
                boot: &mut **boot,
                slots: &mut OtherSlot(self.slot.clone()),
                system: *system,
                modules: &mut **modules,
                state: &mut **state,
                scripts: &mut **scripts,
                observer: &mut bill,
                gates: &mut **gates,
                reporter: &mut **reporter,
            };
            deploy::install(&mut device, supply, &policy, &Order::default())
        });
        let received = statistics.map_or(0, DownloadStatistics::received);
        Went { summary: summary.unwrap(), received, cost: bill.0, account: bill.1 }
    }

    fn record(&self) -> Record {
        Record::load(&mut TwoCopyRecord::open(self.world.open("record")).unwrap()).unwrap()
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) {
        let mut store = TwoCopyRecord::open(self.world.open("record")).unwrap();
        let mut record = Record::load(&mut store).unwrap();
        change(&mut record);
        record.save(&mut store).unwrap();
    }

    #[track_caller]
    fn assert_installed(&self, went: &Went, image: &[u8]) {
        assert!(went.summary.success, "{:?}", went.summary.error);
        assert_eq!(selected(&self.world, Machine::UBoot).unwrap().0, Slot::B);
        assert!(self.slot.bytes.borrow().starts_with(image));
        assert_eq!(self.record().journal, None);
    }
}

/// An artifact in a file: its bytes cost nothing, and nothing of it has to be noted.
struct InFile(Arc<Vec<u8>>);

impl Places for InFile {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn io::Read + Send>> {
        let end = end.map_or(self.0.len(), |end| self.0.len().min(end as usize));
        Ok(Box::new(io::Cursor::new(self.0[offset as usize..end].to_vec())))
    }
    fn can_jump(&self) -> bool {
        true
    }
    fn total_bytes(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
    fn note_every(&self) -> Option<u64> {
        None
    }
}

struct Broken(String);

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(self.0.clone()))
    }
}

/// What a server with ranges answers, and how long that is.
fn part(bytes: &[u8], sent: &Sent) -> (Reply, usize) {
    let (first, last) =
        sent.header("range").unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = if last.is_empty() { bytes.len() } else { last.parse::<usize>().unwrap() + 1 }.min(bytes.len());
    let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
    let reply = Reply::new(206, &bytes[first..end]).sized();
    (reply.header("content-range", range).header("etag", "\"v1\""), end - first)
}

/// Compresses to about three quarters.
fn image(length: usize) -> Vec<u8> {
    let clock = VirtualClock::new(7);
    (0..length.div_ceil(8))
        .flat_map(|_| (clock.random() & 0x3f3f_3f3f_3f3f_3f3f).to_le_bytes())
        .take(length)
        .collect()
}

fn made(image: &[u8], compression: Compression) -> Arc<Vec<u8>> {
    let file = MemoryFile { name: "rootfs.img".into(), content: image.to_vec() };
    let mut spec = rootfs_spec("new", compression);
    if compression == Compression::Gzip {
        spec.compression.level = 4;
    }
    Arc::new(build(&spec, &[file], None))
}

/// Twenty-odd cuts by default, 200 in the long run: the share of the bytes that is bought twice is the same.
fn cut_everywhere(compression: Compression, image_bytes: usize) {
    let image = image(image_bytes);
    let artifact = made(&image, compression);
    let (cuts, length) = (so_many(20), artifact.len() as u64);
    let (mut received, mut alone) = (0, 0);
    for cut in 0..cuts {
        let board = Board::new(image_bytes);
        let at = usize::try_from(length * (2 * cut + 1) / (2 * cuts)).unwrap();
        let first = board.install(&artifact, at);
        assert_eq!(first.summary.status, Status::NotModified);
        let second = board.install(&artifact, usize::MAX);
        board.assert_installed(&second, &image);
        let (cost, account) = (second.cost.unwrap().transfer_bytes.unwrap(), second.account.unwrap());
        assert_eq!(account.bought_bytes, Some(second.received));
        // The head, and what is before and behind the payload, come besides.
        assert!((cost..cost + HEAD_BYTES + 8192).contains(&second.received), "{cost} {}", second.received);
        let slot_bytes = account.written_bytes.unwrap() + account.skipped_bytes.unwrap();
        assert!(slot_bytes <= image_bytes as u64, "{account}");
        received += first.received + second.received;
        alone += length;
    }
    let again = received - alone;
    let share = again as f64 / alone as f64;
    println!(
        "{compression}: {cuts} cuts of {length} bytes, {received} bought, {again} of them again ({:.2} %)",
        share * 100.0
    );
    assert!(share <= 0.02, "{again} of {alone} bytes were bought again");
}

#[test]
fn a_cut_of_an_uncompressed_download_costs_next_to_nothing() {
    cut_everywhere(Compression::None, 32 * MIB);
}

#[test]
fn a_cut_of_a_download_of_gzip_with_flushes_costs_next_to_nothing() {
    cut_everywhere(Compression::Gzip, 48 * MIB);
}

#[test]
fn cuts_of_one_download_add_up_to_progress() {
    let image = image(8 * MIB);
    let artifact = made(&image, Compression::None);
    let board = Board::new(8 * MIB);
    let mut received = 0;
    // Each process ends after an eighth of what there is.
    let mut went = board.install(&artifact, MIB);
    let mut processes = 1;
    while !went.summary.success {
        received += went.received;
        went = board.install(&artifact, MIB);
        processes += 1;
        assert!(processes < 20, "no progress");
    }
    received += went.received;
    board.assert_installed(&went, &image);
    assert!(received < 12 * MIB as u64, "{received}");
}

/// After a cut in the middle, `disturb` happens; then nothing but the beginning helps.
#[track_caller]
fn begins_anew_after(disturb: impl FnOnce(&Board), compression: Compression) {
    let image = image(4 * MIB);
    let board = Board::new(4 * MIB);
    board.install(&made(&image, Compression::None), 2 * MIB);
    assert!(board.record().journal.is_some());
    disturb(&board);
    let artifact = made(&image, compression);
    let went = board.install(&artifact, usize::MAX);
    board.assert_installed(&went, &image);
    assert_eq!(went.received, artifact.len() as u64);
}

#[test]
fn what_is_not_on_the_medium_any_more_is_bought_again() {
    begins_anew_after(|board| board.slot.bytes.borrow_mut()[MIB] ^= 1, Compression::None);
}

#[test]
fn a_journal_that_means_nothing_leads_to_the_beginning() {
    for state in [r#"{"slot":"B","point":7}"#, r#"{"x":1}"#, r#"{"slot":"A","point":{}}"#] {
        let state: client_core::install::HandlerState = serde_json::from_str(state).unwrap();
        begins_anew_after(
            |board| board.change_record(|record| record.journal.as_mut().unwrap().state = state),
            Compression::None,
        );
    }
}

#[test]
fn the_same_artifact_packed_in_another_way_is_bought_as_a_whole() {
    begins_anew_after(|_| {}, Compression::Gzip);
}

#[test]
fn another_artifact_forgets_what_was_there_of_the_one_before() {
    let (one, other) = (image(4 * MIB), vec![3; 4 * MIB]);
    let board = Board::new(4 * MIB);
    board.install(&made(&one, Compression::None), 2 * MIB);
    let manifest = board.record().journal.unwrap().manifest;
    let went = board.install(&made(&other, Compression::None), 2 * MIB);
    assert!(!went.summary.success);
    assert_ne!(board.record().journal.unwrap().manifest, manifest);
    let went = board.install(&made(&one, Compression::None), usize::MAX);
    board.assert_installed(&went, &one);
}

/// Between two blocks of the slot, too.
#[test]
fn what_was_downloaded_and_cut_is_installed_from_a_file() {
    let image = image(16 * MIB);
    for compression in [Compression::None, Compression::Gzip] {
        let artifact = made(&image, compression);
        let board = Board::new(16 * MIB);
        board.install(&artifact, artifact.len() / 2);
        assert!(board.record().journal.is_some(), "{compression}");
        let went = board.install_from(Supply::Places(Box::new(InFile(artifact))), None);
        board.assert_installed(&went, &image);
    }
}

/// Or one that is cut in the same place every time, because of what it is, would never be given up.
#[test]
fn only_a_download_that_goes_on_forgets_how_often_it_was_cut() {
    let artifact = made(&image(8 * MIB), Compression::None);
    for goes_on in [true, false] {
        let board = Board::new(8 * MIB);
        board.install(&artifact, 3 * MIB);
        let cut = CutDownloads { id: "deployment".into(), times: 3 };
        board.change_record(|record| record.cut_downloads = Some(cut.clone()));
        if !goes_on {
            board.slot.bytes.borrow_mut()[100] ^= 1;
        }
        let went = board.install(&artifact, 3 * MIB);
        assert!(!went.summary.success && board.record().journal.is_some());
        assert_eq!(board.record().cut_downloads, (!goes_on).then_some(cut));
    }
}

/// What is in the record is a claim. One that fits the slot and not the artifact comes out at the checksum, and is not made
/// again.
#[test]
fn a_download_that_goes_on_wrongly_fails_once_and_then_begins_anew() {
    let image = image(4 * MIB);
    let artifact = made(&image, Compression::None);
    let board = Board::new(4 * MIB);
    board.install(&artifact, 2 * MIB);
    // The slot has other bytes, and the record their digest.
    let journal = board.record().journal.unwrap();
    let mut state = serde_json::to_value(&journal.state).unwrap();
    let at = usize::try_from(state["point"]["at"].as_u64().unwrap()).unwrap();
    board.slot.bytes.borrow_mut()[100] ^= 1;
    let digest = client_core::artifact::Sha256::of(&board.slot.bytes.borrow()[..at]);
    state["point"]["sha256"] = digest.to_string().into();
    board.change_record(|record| {
        record.journal.as_mut().unwrap().state = serde_json::from_value(state).unwrap();
    });
    let went = board.install(&artifact, usize::MAX);
    let error = went.summary.error.unwrap();
    assert!(error.is_not_as_before(), "{error}");
    assert!(went.received < 3 * MIB as u64);
    assert_eq!(selected(&board.world, Machine::UBoot).unwrap().0, Slot::A);
    assert_eq!(board.record().journal, None);
    let went = board.install(&artifact, usize::MAX);
    board.assert_installed(&went, &image);
}

#[test]
fn every_power_cut_of_a_download_that_is_gone_on_with_leaves_a_whole_system_and_a_true_record() {
    let machines = [Machine::UBoot];
    let states =
        assert_arrival_holds(Arrives::ByPlace, machines, &[Ending::Commit], Mistake::None, |machine| {
            machine.limits(1)
        });
    println!("power-cut states of a download with one cut: {states}");
}

#[test]
fn a_second_power_cut_of_such_a_download_changes_nothing_about_that() {
    let budget = so_many(2_000);
    let machines = [Machine::UBoot];
    let states =
        assert_arrival_holds(Arrives::ByPlace, machines, &[Ending::Commit], Mistake::None, |machine| {
            machine.limits(2).budget(budget, budget / 20)
        });
    println!("power-cut states of a download with two cuts: {states}");
}
