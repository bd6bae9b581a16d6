//! Payloads other than images under power cuts: the daemon's loop and state machine with an update module that keeps an
//! application on a device, and with the built-in handlers over a file system.
//!
//! Power fails at every durable operation, before and after every request, and before and after every call of the
//! module. What must hold once the device was started again:
//! - the application, the file or the tree is the old one or the new one; anything else only where the record says
//!   INCONSISTENT, and it says so only where the module cannot go back or failed to;
//! - the server gets a final report, all final reports say the same, and what they say is true;
//! - the record names what is there, no deployment is left, the daemon asks again;
//! - the last thing a module is called for is to clean up; the built-in handlers leave nothing behind.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::machine::board::{Board, Restarting, Waits, told};
use crate::machine::{Machine, add_record};
use client_core::agent::{Agent, AgentSettings, Memory};
use client_core::artifact::tree::{Attributes, Member, MemberKind, MemberWriter};
use client_core::artifact::write::{ArtifactSpec, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel};
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::install::files::{Files, Node};
use client_core::install::{
    Arriving, Candidates, DIRECTORY, DirectoryTree, HandledBy, HandlerState, InstallError, Modules,
    PayloadHandler, Progress, RebootNeed, SINGLE_FILE, SingleFile, UpdateModuleFile,
};
use client_core::schedule::Schedule;
use client_core::server::DownloadSettings;
use client_core::slot::Slot;
use client_core::state_store::{StateStore, TwoCopyRecord};
use client_core::storage::BlockDevice;
use serde_json::Value;
use server_mender::{Api, Settings};
use testkit::artifacts::{self, MemoryFile};
use testkit::choice::so_many;
use testkit::clock::VirtualClock;
use testkit::device::{ScriptLog, slot_device};
use testkit::enumerator::{After, Options, Report, Scenario, explore};
use testkit::files::{CrashFiles, Suppressed};
use testkit::server::{SERVER, ServerFacts, ServerModel, TestCredentials};
use testkit::storage::{CrashWorld, PowerCuts, Suppressed as SuppressedDevice};

const ID: &str = "d0000000-0000-4000-8000-000000000001";

/// What the outside knows: the server, and how often what happened.
#[derive(Clone, Hash)]
struct Facts {
    server: ServerFacts,
    seen: Seen,
    boots: u32,
}

/// What the module notes of its calls.
#[derive(Clone, Copy, Default, Hash)]
struct Seen {
    /// What it was called for last.
    last_call: Option<Call>,
    /// It did not find what it had kept.
    state_lost: bool,
}

/// What a server is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Commit,
    /// Aborts when it is asked whether the installation may be committed.
    LateAbort,
}

/// The daemon from its start to its end. Whether it asked for a restart.
fn daemon(world: &CrashWorld, case: &Case, facts: &mut Facts) -> bool {
    let server = facts.server.0.clone();
    let seen = Rc::new(Cell::new(facts.seen));
    let _keep = Keep { facts, seen: Rc::clone(&seen) };
    let _cuts = PowerCuts::of(world);
    let time = VirtualClock::new(4);
    let clock = time.shared();
    let settings = Settings { servers: vec![SERVER.into()], ..Settings::default() };
    let credentials = Box::new(TestCredentials::default());
    let api = Api::new(server.transport(), credentials, Arc::clone(&clock), settings);
    let rebooted = Rc::new(Cell::new(false));
    let restart = Restart { rebooted: Rc::clone(&rebooted), time: time.clone() };
    let mut waits = Waits { time, rebooted: Rc::clone(&rebooted), server: server.clone(), left: 40 };
    let mut host = Board {
        world: world.clone(),
        machine: Machine::UBoot,
        system: Restarting::new(Slot::A, Rc::clone(&rebooted)),
        scripts: ScriptLog::default(),
        modules: Box::new(Handlers { world: world.clone(), kind: case.kind, seen, restart }),
        gates: Box::new(AlwaysOpen),
        wire: Box::new(move || server.transport()),
        openings: Rc::default(),
        logs: Vec::new(),
        clock: Arc::clone(&clock),
        watch: None,
    };
    let schedule = Schedule::new(&*clock, Duration::from_secs(1800), Duration::from_secs(28800));
    let settings = AgentSettings {
        retry_interval: Duration::from_secs(300),
        retry_count: 3,
        download: DownloadSettings::default(),
    };
    Agent::new(
        &mut host,
        Arc::new(Mutex::new(api)),
        clock,
        &mut waits,
        &settings,
        &mut Memory::new(schedule, &settings),
    )
    .run();
    rebooted.get()
}

/// Copies what the module saw back into the facts, also when the power fails.
struct Keep<'f> {
    facts: &'f mut Facts,
    seen: Rc<Cell<Seen>>,
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        self.facts.seen = self.seen.get();
    }
}

/// How a handler restarts the device by itself: the process is asked to stop.
#[derive(Clone)]
struct Restart {
    rebooted: Rc<Cell<bool>>,
    time: VirtualClock,
}

/// What is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Application(Module),
    Built(Place),
}

/// One scenario.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    order: Order,
    broken: Broken,
}

struct Handlers {
    world: CrashWorld,
    kind: Kind,
    seen: Rc<Cell<Seen>>,
    restart: Restart,
}

impl Modules for Handlers {
    fn candidates(&self, _: &str) -> Candidates {
        match self.kind {
            Kind::Application(_) => {
                Candidates { update_module: UpdateModuleFile::Executable, ..Candidates::default() }
            }
            Kind::Built(place) => Candidates {
                built_in: true,
                marked_built_in: place.has_mark(&self.world),
                ..Candidates::default()
            },
        }
    }

    fn open<'m>(
        &'m mut self,
        payload_type: &str,
        _: HandledBy,
    ) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        Ok(match self.kind {
            Kind::Application(module) => {
                assert_eq!(payload_type, "application");
                let (world, seen) = (self.world.clone(), Rc::clone(&self.seen));
                Box::new(Application { world, seen, module, restart: self.restart.clone() })
            }
            Kind::Built(place) => match payload_type {
                SINGLE_FILE => Box::new(SingleFile::new(place.files(&self.world))),
                DIRECTORY => Box::new(DirectoryTree::new(place.files(&self.world))),
                other => panic!("{other}"),
            },
        })
    }
}

/// What was asked of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Call {
    Download,
    Install,
    NeedsReboot,
    SupportsRollback,
    Reboot,
    VerifyReboot,
    RebootBack,
    VerifyRebootBack,
    Commit,
    RollBack,
    Fail,
    CleanUp,
}

/// What a module can do, and where it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Module {
    rollback: bool,
    reboot: Reboot,
    failing: Option<Call>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reboot {
    No,
    /// The module restarts the device.
    Itself,
    /// What the module restarts is not the device.
    Something,
    Automatic,
}

/// An update module with an application of two sectors, and a copy of the old one where it can go back.
struct Application {
    world: CrashWorld,
    seen: Rc<Cell<Seen>>,
    module: Module,
    restart: Restart,
}

/// What the module keeps when it has taken so many of its files.
fn taken(files: u32) -> HandlerState {
    HandlerState::of(&serde_json::json!({ "taken": files })).unwrap()
}

const APPLICATION_BYTES: usize = 1024;
const OLD: u8 = 1;
const NEW: u8 = 2;

impl Application {
    /// Does what is asked, and then perhaps says that it failed: whatever failed may have happened.
    fn called(&mut self, call: Call, act: impl FnOnce(&CrashWorld)) -> Result<(), InstallError> {
        self.world.crash_point(&format!("before {call:?}"));
        self.seen.set(Seen { last_call: Some(call), ..self.seen.get() });
        act(&self.world);
        self.world.crash_point(&format!("after {call:?}"));
        match self.module.failing == Some(call) {
            true => Err(InstallError::Handler { step: "the module", reason: format!("{call:?}") }),
            false => Ok(()),
        }
    }

    fn restart(&mut self) {
        match self.module.reboot {
            Reboot::Itself => {
                self.restart.rebooted.set(true);
                self.restart.time.stop();
            }
            Reboot::No | Reboot::Something | Reboot::Automatic => {}
        }
    }
}

fn write(world: &CrashWorld, device: &str, content: &[u8]) {
    let mut device = world.open(device);
    device.write_at(0, content).unwrap();
    device.sync().unwrap();
}

fn read(world: &CrashWorld, device: &str) -> Vec<u8> {
    let mut content = vec![0; APPLICATION_BYTES];
    world.open(device).read_at(0, &mut content).unwrap();
    content
}

impl PayloadHandler for Application {
    fn download(&mut self, arriving: &mut Arriving<'_>, _: &mut dyn Progress) -> Result<(), InstallError> {
        arriving.state.set(taken(0));
        arriving.state.save()?;
        arriving.payload.drain()?;
        arriving.state.set(taken(1));
        self.called(Call::Download, |_| {})
    }
    fn restore(&mut self, state: HandlerState) {
        let seen = self.seen.get();
        let state_lost = match seen.last_call {
            // Cut in the download, or before it was begun again.
            None | Some(Call::CleanUp) => ![HandlerState::default(), taken(0), taken(1)].contains(&state),
            Some(Call::Download) => ![taken(0), taken(1)].contains(&state),
            Some(_) => state != taken(1),
        };
        self.seen.set(Seen { state_lost: seen.state_lost || state_lost, ..seen });
    }
    fn install(&mut self) -> Result<(), InstallError> {
        let rollback = self.module.rollback;
        self.called(Call::Install, |world| {
            if rollback {
                write(world, "backup", &read(world, "application"));
                write(world, "backup-complete", &[1; 512]);
            }
            write(world, "application", &[NEW; APPLICATION_BYTES]);
        })
    }
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        self.called(Call::NeedsReboot, |_| {})?;
        Ok(match self.module.reboot {
            Reboot::No => RebootNeed::None,
            Reboot::Itself | Reboot::Something => RebootNeed::Custom,
            Reboot::Automatic => RebootNeed::Automatic,
        })
    }
    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        self.called(Call::SupportsRollback, |_| {})?;
        Ok(self.module.rollback)
    }
    fn reboot(&mut self) -> Result<(), InstallError> {
        self.called(Call::Reboot, |_| {})?;
        self.restart();
        Ok(())
    }
    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        self.called(Call::VerifyReboot, |_| {})
    }
    fn reboot_back(&mut self) -> Result<(), InstallError> {
        self.called(Call::RebootBack, |_| {})?;
        self.restart();
        Ok(())
    }
    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.called(Call::VerifyRebootBack, |_| {})
    }
    fn commit(&mut self) -> Result<(), InstallError> {
        self.called(Call::Commit, |_| {})
    }
    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.called(Call::RollBack, |world| {
            if world.live("backup-complete")[0] == 1 {
                write(world, "application", &read(world, "backup"));
            }
        })
    }
    fn fail(&mut self) -> Result<(), InstallError> {
        self.called(Call::Fail, |_| {})
    }
    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.called(Call::CleanUp, |world| write(world, "backup-complete", &[0; 512]))
    }
}

fn application_of(world: &CrashWorld) -> Option<&'static str> {
    let content = world.live("application");
    [("old", OLD), ("new", NEW)]
        .into_iter()
        .find(|(_, byte)| content.iter().all(|b| b == byte))
        .map(|(n, _)| n)
}

/// Where the built-in handlers install, and what their file system can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    directory: bool,
    before: Before,
    links: bool,
    exchange: bool,
    recorded: RecordedBy,
}

/// Whose words the record and the tree of the payload have after a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RecordedBy {
    ThisClient,
    /// A file in the tree said that a built-in handler began, and the record said nothing.
    OlderClient,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    There,
    Symlink,
    Missing,
    ParentsMissing,
}

impl Place {
    fn files(self, world: &CrashWorld) -> CrashFiles {
        let mut files = CrashFiles::new(world);
        (files.links, files.exchange) = (self.links, self.exchange);
        files
    }

    fn mark(self, world: &CrashWorld) -> PathBuf {
        self.files(world).tree().join("tmp/built-in")
    }

    fn has_mark(self, world: &CrashWorld) -> bool {
        self.files(world).look(&self.mark(world)).unwrap().is_some()
    }

    /// What is there when this client is started.
    fn leave_to_this_client(self, world: &CrashWorld) {
        let mut store = TwoCopyRecord::open(world.open("record")).unwrap();
        let mut record: Value = serde_json::from_slice(&store.load().unwrap()).unwrap();
        let Some(deployment) = record["deployment"].as_object_mut() else { return };
        match self.recorded {
            RecordedBy::ThisClient => return,
            RecordedBy::OlderClient => {
                if deployment.remove("handled_by").is_none() {
                    return;
                }
            }
        }
        let (mut files, mark) = (self.files(world), self.mark(world));
        // The power may have failed between the mark and the record.
        if files.look(mark.parent().unwrap()).unwrap().is_some() && !self.has_mark(world) {
            files.set_up_file(mark.to_str().unwrap(), b"", &Attributes::default());
        }
        // It was durable before the record that counts on it.
        if self.has_mark(world) {
            files.sync_tree(mark.parent().unwrap()).unwrap();
        }
        store.save(&serde_json::to_vec(&record).unwrap()).unwrap();
    }

    /// What is replaced.
    fn destination(self) -> &'static str {
        match self.before {
            Before::There | Before::Symlink | Before::Missing => "/opt/app",
            Before::ParentsMissing => "/opt/a/b/app",
        }
    }

    fn set_up(self, world: &CrashWorld) {
        let mut files = self.files(world);
        let attributes = |mode| Attributes { mode, uid: 7, mtime: (5, 6), ..Attributes::default() };
        files.set_up_file("/opt/other", b"other", &attributes(0o600));
        files.set_up_directory("/datastore");
        let app = Path::new("/opt/app");
        match (self.before, self.directory) {
            (Before::There, false) => files.set_up_file("/opt/app", b"old content", &attributes(0o4755)),
            (Before::There, true) => {
                files.create(app, Node::Directory, Some(&attributes(0o2770))).unwrap();
                files.set_up_file("/opt/app/old-file", b"old", &attributes(0o640));
                files.link(Path::new("/opt/app/old-file"), Path::new("/opt/app/same")).unwrap_or(());
            }
            (Before::Symlink, _) => {
                let target = if self.directory { "elsewhere" } else { "other" };
                files.create(app, Node::Symlink(target.as_bytes()), Some(&attributes(0o777))).unwrap();
            }
            (Before::Missing | Before::ParentsMissing, _) => {}
        }
    }

    fn artifact(self) -> Vec<u8> {
        let payload = |files: &[(&str, Vec<u8>)]| -> Vec<MemoryFile> {
            files
                .iter()
                .map(|(name, content)| MemoryFile { name: (*name).into(), content: content.clone() })
                .collect()
        };
        let parent = Path::new(self.destination()).parent().unwrap().display();
        let files = match self.directory {
            false => payload(&[
                ("dest_dir", format!("{parent}\n").into()),
                ("filename", b"app\n".to_vec()),
                ("permissions", b"640\n".to_vec()),
                ("app", b"new content".to_vec()),
            ]),
            true => payload(&[
                ("update.tar", new_tree()),
                ("dest_dir", format!("{}\n", self.destination()).into()),
            ]),
        };
        build(if self.directory { DIRECTORY } else { SINGLE_FILE }, &files)
    }

    /// Everything but the datastore, when the new content is there.
    fn expected(self, old: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let destination = self.destination();
        let mut expected = old.clone();
        expected.retain(|path, _| path != destination && !path.starts_with(&format!("{destination}/")));
        let parents = Path::new(destination).ancestors().skip(1);
        for parent in parents.filter(|parent| parent.parent().is_some()) {
            let there = expected.entry(parent.display().to_string());
            there.or_insert_with(|| format!("directory {:?}", Attributes::default()));
        }
        let mut add = |path: &str, what: &str, attributes: &Attributes| {
            expected.insert(format!("{destination}{path}"), format!("{what} {attributes:?}"));
        };
        if self.directory {
            add("", "directory", &attributes(0o2755));
            add("/bin", "directory", &attributes(0o700));
            add("/bin/tool", "file \"tool\"", &attributes(0o4755));
            add("/link", "link to \"bin/tool\"", &attributes(0o777));
        } else {
            let attributes = Attributes { mode: 0o640, ..Attributes::default() };
            add("", "file \"new content\"", &attributes);
        }
        expected
    }
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, uid: 1, gid: 2, mtime: (3, 0), ..Attributes::default() }
}

fn new_tree() -> Vec<u8> {
    let mut tar = MemberWriter::new(Vec::new());
    for (path, kind, mode, content) in [
        ("./", MemberKind::Directory, 0o2755, ""),
        ("./bin/", MemberKind::Directory, 0o700, ""),
        ("./bin/tool", MemberKind::File(4), 0o4755, "tool"),
        ("./link", MemberKind::Symlink(b"bin/tool".to_vec()), 0o777, ""),
    ] {
        tar.begin(&Member { path: path.into(), kind, attributes: attributes(mode) }).unwrap();
        tar.write_all(content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn build(payload_type: &str, files: &[MemoryFile]) -> Vec<u8> {
    let mut spec = ArtifactSpec::module_image(
        artifacts::named("new"),
        vec![artifacts::named(artifacts::DEVICE_TYPE)],
        artifacts::named(payload_type),
    );
    spec.provide_version(&SoftwareName::of_payload_type(payload_type), "new");
    spec.compression = CompressionLevel::default_of(Compression::None);
    artifacts::build(&spec, files, None)
}

/// Everything but the datastore, and the number of what is replaced.
type Start = (BTreeMap<String, String>, Option<u64>);

/// Everything but the datastore.
fn everything(world: &CrashWorld) -> BTreeMap<String, String> {
    let mut all = world.listing("/");
    all = all.into_iter().map(|(path, what)| (path.replacen("//", "/", 1), what)).collect();
    all.retain(|path, _| !path.starts_with("/datastore"));
    all
}

/// What is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    Files(Suppressed),
    Application,
}

/// What was there at the beginning, once a case has begun: the same in every case.
type Noted = Rc<RefCell<Start>>;

fn scenario(kind: Kind, order: Order, broken: Broken) -> Scenario<Facts> {
    let case = Case { kind, order, broken };
    let noted = Noted::default();
    let start = Rc::clone(&noted);
    Scenario::new(move |world| case.set_up(world, &noted))
        .run(move |world, facts| {
            daemon(world, &case, facts);
            Ok(())
        })
        .boot(|_, facts| {
            facts.boots += 1;
            if facts.boots > 12 { Err("the device restarts without end".into()) } else { Ok(()) }
        })
        .recover(move |world, facts| case.recover(world, facts, &start))
        .fold_equal_states()
}

impl Case {
    fn set_up(self, world: &CrashWorld, noted: &Noted) -> Facts {
        for slot in Slot::BOTH {
            world.add_device(slot_device(slot), vec![0; 512]);
        }
        Machine::UBoot.install(world, Slot::A);
        add_record(world);
        match self.kind {
            Kind::Application(_) => {
                world.add_device("application", vec![OLD; APPLICATION_BYTES]);
                world.add_device("backup", vec![0; APPLICATION_BYTES]);
                world.add_device("backup-complete", vec![0; 512]);
            }
            Kind::Built(place) => {
                place.set_up(world);
                noted.replace((everything(world), world.number(place.destination())));
            }
        }
        match self.broken {
            Broken::Nothing => {}
            Broken::Files(which) => world.suppress_file_sync(which),
            Broken::Application => world.suppress_sync("application", SuppressedDevice::Every),
        }
        Facts { server: ServerFacts(self.server()), seen: Seen::default(), boots: 0 }
    }

    fn server(self) -> ServerModel {
        let artifact = match self.kind {
            Kind::Application(_) => build("application", &[]),
            Kind::Built(place) => place.artifact(),
        };
        let server = ServerModel::new();
        server.set_recording(false);
        server.deploy(ID, "new", artifacts::DEVICE_TYPE, &artifact);
        match self.order {
            Order::Commit => {}
            // The second report asks whether the installation may be committed.
            Order::LateAbort => server.abort_at_report(ID, "installing", 2),
        }
        server
    }

    fn recover(self, world: &CrashWorld, facts: &mut Facts, start: &Noted) -> Result<After, String> {
        if let Kind::Built(place) = self.kind {
            place.leave_to_this_client(world);
        }
        if daemon(world, &self, facts) {
            return Ok(After::Reboot);
        }
        if facts.seen.state_lost {
            return Err("the module did not find what it had kept".into());
        }
        let server = &facts.server.0;
        if server.vain_questions() == 0 {
            return Err(format!("the daemon does not ask again: {:?}", server.statuses(ID)));
        }
        let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
        let record = Record::load(&mut store).map_err(|error| error.to_string())?;
        if record.deployment.is_some() || record.unreported.is_some() {
            return Err(format!("the record is not settled: {record:?}"));
        }
        let says = record.installed.name();
        match told(server, ID)? {
            // Aborted, and forgotten with the power before the device could hear of it: there is nobody to tell, and nothing
            // may be left of it.
            None if says == "new" => return Err("what the server aborted is recorded as installed".into()),
            None => {}
            Some(said) if said != (says == "new") => {
                return Err(format!("the server was told success {said}, and the record says {says}"));
            }
            Some(_) => {}
        }
        match self.kind {
            Kind::Application(module) => check_application(world, module, says, facts)?,
            Kind::Built(place) => check_files(world, place, says, &start.borrow())?,
        }
        Ok(After::Settled)
    }
}

fn check_application(world: &CrashWorld, module: Module, says: &str, facts: &Facts) -> Result<(), String> {
    if !matches!(facts.seen.last_call, None | Some(Call::CleanUp)) {
        return Err(format!("the last call was {:?}", facts.seen.last_call));
    }
    let may_be_inconsistent = !module.rollback
        || matches!(
            module.failing,
            Some(
                Call::SupportsRollback
                    | Call::RollBack
                    | Call::VerifyRebootBack
                    | Call::Fail
                    | Call::NeedsReboot
            )
        );
    match (says, application_of(world)) {
        (says, Some(runs)) if says == runs => Ok(()),
        ("new_INCONSISTENT", _) if may_be_inconsistent => Ok(()),
        (_, runs) => Err(format!("the record says {says}, and the application is {runs:?}")),
    }
}

fn check_files(world: &CrashWorld, place: Place, says: &str, (old, number): &Start) -> Result<(), String> {
    let now = everything(world);
    let expected = match says {
        "old" => old.clone(),
        "new" => place.expected(old),
        other => return Err(format!("the record says {other}")),
    };
    if now != expected {
        return Err(format!("the record says {says}, and there is {now:#?}"));
    }
    // Where it can be kept it is the very same file, not a copy of it.
    let copied = !place.directory && !place.links;
    if says == "old" && !copied && world.number(place.destination()) != *number {
        return Err("the old one is a copy".into());
    }
    if world.listing("/datastore").len() != 1 {
        return Err(format!("left behind: {:#?}", world.listing("/datastore")));
    }
    Ok(())
}

fn options(cuts: u32) -> Options {
    let mut options = Options::cuts(cuts);
    // The record has its own test for torn sectors; an application's medium is its module's affair.
    options.limits.tears.clear();
    options
}

const REBOOTS: [Reboot; 4] = [Reboot::No, Reboot::Itself, Reboot::Something, Reboot::Automatic];

const FAILING: [Option<Call>; 13] = [
    None,
    Some(Call::Download),
    Some(Call::Install),
    Some(Call::NeedsReboot),
    Some(Call::SupportsRollback),
    Some(Call::Reboot),
    Some(Call::VerifyReboot),
    Some(Call::RebootBack),
    Some(Call::VerifyRebootBack),
    Some(Call::Commit),
    Some(Call::RollBack),
    Some(Call::Fail),
    Some(Call::CleanUp),
];

fn modules() -> Vec<(Module, Order)> {
    let mut all = Vec::new();
    for rollback in [true, false] {
        for reboot in REBOOTS {
            for failing in FAILING {
                all.push((Module { rollback, reboot, failing }, Order::Commit));
            }
            // Only on the way back are these called.
            for failing in [None, Some(Call::RebootBack), Some(Call::VerifyRebootBack), Some(Call::RollBack)]
            {
                all.push((Module { rollback, reboot, failing }, Order::LateAbort));
            }
        }
    }
    all
}

fn places() -> Vec<(Place, Order)> {
    let mut all = Vec::new();
    for directory in [false, true] {
        for before in [Before::There, Before::Symlink, Before::Missing, Before::ParentsMissing] {
            for can in [true, false] {
                // A symbolic link in place of a directory has to lead to one, which this file system does not know.
                if (directory && before == Before::Symlink) || (!can && before != Before::There) {
                    continue;
                }
                for recorded in [RecordedBy::ThisClient, RecordedBy::OlderClient] {
                    let place = Place { directory, before, links: can, exchange: can, recorded };
                    all.extend([Order::Commit, Order::LateAbort].map(|order| (place, order)));
                }
            }
        }
    }
    all
}

fn run_all(cases: &[(Kind, Order)], cuts: u32, budget: u64) -> u64 {
    let mut states = 0;
    for (kind, order) in cases {
        let options = options(cuts).budget(budget, budget / 20);
        let report: Report = explore(&scenario(*kind, *order, Broken::Nothing), &options);
        println!("{kind:?} {order:?}: {report}");
        report.assert_holds();
        states += report.states;
    }
    states
}

#[test]
fn every_power_cut_of_an_update_module_ends_in_one_true_report() {
    let cases: Vec<_> =
        modules().into_iter().map(|(module, order)| (Kind::Application(module), order)).collect();
    println!("power-cut states with an update module and one cut: {}", run_all(&cases, 1, u64::MAX));
}

#[test]
fn a_second_power_cut_with_an_update_module_changes_nothing_about_that() {
    let cases: Vec<_> =
        modules().into_iter().map(|(module, order)| (Kind::Application(module), order)).collect();
    println!("power-cut states with an update module and two cuts: {}", run_all(&cases, 2, so_many(420)));
}

#[test]
fn every_power_cut_of_a_file_or_a_tree_leaves_exactly_the_old_or_the_new_one() {
    let cases: Vec<_> = places().into_iter().map(|(place, order)| (Kind::Built(place), order)).collect();
    println!("power-cut states of files and trees with one cut: {}", run_all(&cases, 1, u64::MAX));
}

#[test]
fn a_second_power_cut_with_a_file_or_a_tree_changes_nothing_about_that() {
    let cases: Vec<_> = places().into_iter().map(|(place, order)| (Kind::Built(place), order)).collect();
    println!("power-cut states of files and trees with two cuts: {}", run_all(&cases, 2, so_many(1_500)));
}

#[test]
fn files_that_are_never_synced_are_found() {
    for directory in [false, true] {
        for which in [Suppressed::Directories, Suppressed::Trees] {
            let recorded = RecordedBy::ThisClient;
            let place = Place { directory, before: Before::There, links: true, exchange: true, recorded };
            let found = [Order::Commit, Order::LateAbort].into_iter().find_map(|order| {
                let mut options = options(1).budget(20_000, 0);
                options.kept_violations = 1;
                let report = explore(&scenario(Kind::Built(place), order, Broken::Files(which)), &options);
                report.violations.first().map(|violation| violation.invariant.clone())
            });
            println!("{place:?} {which:?}: {found:?}");
            assert!(found.is_some(), "{place:?} {which:?}");
        }
    }
}

#[test]
fn an_application_that_is_never_synced_is_found() {
    let module = Module { rollback: true, reboot: Reboot::No, failing: None };
    let report =
        explore(&scenario(Kind::Application(module), Order::Commit, Broken::Application), &options(1));
    println!("{:?}", report.violations.first().map(|violation| &violation.invariant));
    report.assert_violates("the application is");
}
