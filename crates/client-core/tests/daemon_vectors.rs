//! The daemon's loop against the 92 recorded behaviours of the Mender client's daemon: the same calls and scripts in the
//! same order, the same reports, the same end, for every fault at every point. Where ours differ, the difference and its
//! reason are in [`DIFFERENT`].
//!
//! Twice: with a module in this process, and with a shell script that the real code for update modules calls.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_core::agent::{Agent, AgentSettings, Event, Host, HostError, Known, Memory};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{Limits, StateScript, Trust};
use client_core::boot::{Armable, BootControl, BootEnvError, BootError, BootState};
use client_core::clock::{Waiter, Wake};
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::scripts::{
    OnScriptFailure, ScriptAction, ScriptError, ScriptPoint, ScriptRunner, ScriptState,
};
use client_core::deploy::{Device, Policy, PolicyError, Reporter};
use client_core::install::PreferBuiltIn;
use client_core::install::{
    Arriving, Candidates, HandledBy, InstallError, Modules, PayloadHandler, Progress, RebootNeed,
    UpdateModuleFile,
};
use client_core::schedule::Schedule;
use client_core::server::{Attribute, DownloadSettings, Transport};
use client_core::slot::{Slot, SlotError, Slots};
use client_core::state_store::{StateError, StateStore};
use client_core::storage::{BlockDevice, ReadAt};
use linux::handlers::{ModuleSettings, UpdateModules};
use server_mender::{Api, Settings};
use testkit::artifacts::{self, MemoryFile};
use testkit::clock::VirtualClock;
use testkit::device::{KnownSystem, Notices};
use testkit::server::{Failure, Matcher, SERVER, ServerModel, TestCredentials};

const VECTORS: &str = include_str!("fixtures/daemon-vectors.txt");
const TYPE: &str = "tmod";
const ID: &str = "d0000000-0000-4000-8000-000000000001";

/// What ours does otherwise: number, what is compared, ours, why. An empty text leaves that part as recorded.
const DIFFERENT: &[(u32, &str, &str, &str, &str)] = &[
    (13, "D+ Q D Z D+ Q D D- I+ I I- R+ R VR R- C+ C C- Z", "dl dl in rb in OK", "new", CUT_DOWNLOAD),
    // The module was not called yet, so there is nothing it could clean up.
    (39, "D+ D+ Q D D- I+ I I- R+ R VR R- C+ C C- Z", "dl dl in rb in OK", "new", CUT_DOWNLOAD),
    (58, "D+ Q D D- Z D+ Q D D- I+ I I- R+ R VR R- C+ C C- Z", "dl dl in rb in OK", "new", CUT_DOWNLOAD),
    (
        75,
        "D+ Q D D- I+ I I- R+ R VR R! B+ B B- BR+ (BR VBR)x3 F+ F F- Z",
        "",
        "",
        "an old system that does not come back is restarted three times, not twenty-two; then it is wound up properly",
    ),
    (
        76,
        "D+ Q D D- I+ I I- R+ R VR R! B+ B B- BR+ BR VBR BR- (F+ F)x11",
        "",
        "",
        "each start of a stage and each start of the process counts one of 28; the recorded one counts more",
    ),
    (
        80,
        "",
        "dl in rb in FAIL",
        "",
        "the same reports; here those without an answer are written down as well",
    ),
];

const CUT_DOWNLOAD: &str = "a download that is cut short is no failure: it begins again, ten times at most";

/// Rows whose kill is behind the call of a real module and not in it: the file tree is gone then, so that there is nothing
/// to clean up again. The tests of the daemon kill it in the middle.
const CLEANED_UP: [u32; 2] = [32, 33];

/// Rows about data of another program that this client has no counterpart of.
const NOT_APPLICABLE: &[(u32, &str)] = &[
    (84, "a record of the Mender client before 2.0"),
    (91, "update control maps of the Mender client 3.x"),
    (92, "update control maps of the Mender client 3.x"),
];

/// The process was killed here.
struct Killed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fails,
    Kills,
}

/// What the module and the scripts pass through, and what goes wrong there.
#[derive(Default)]
struct Plan {
    passed: RefCell<Vec<String>>,
    faults: RefCell<Vec<(String, Kind, u32)>>,
    idle_scripts: Cell<bool>,
    rollback: Cell<bool>,
    reboot: Cell<bool>,
    sizes: Cell<bool>,
    /// The module that is a program; otherwise it is [`Module`].
    program: Option<Program>,
}

impl Plan {
    fn pass(&self, point: &str) -> Result<(), ()> {
        self.passed.borrow_mut().push(point.to_owned());
        self.ask(point)
    }

    /// As `pass`, for what is not part of a chain.
    fn ask(&self, point: &str) -> Result<(), ()> {
        let mut faults = self.faults.borrow_mut();
        let Some(fault) = faults.iter_mut().find(|(at, _, left)| at == point && *left > 0) else {
            return Ok(());
        };
        fault.2 -= 1;
        match fault.1 {
            Kind::Fails => Err(()),
            Kind::Kills => {
                drop(faults);
                panic_any(Killed)
            }
        }
    }
}

struct Module(Rc<Plan>);

impl Module {
    fn call(&self, point: &'static str) -> Result<(), InstallError> {
        self.0.pass(point).map_err(|()| InstallError::Handler { step: point, reason: "injected".into() })
    }
}

impl PayloadHandler for Module {
    fn download(&mut self, arriving: &mut Arriving<'_>, _: &mut dyn Progress) -> Result<(), InstallError> {
        self.call("Q")?;
        self.call(if self.0.sizes.get() { "DS" } else { "D" })?;
        while let Some(mut file) = arriving.payload.next_file()? {
            std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        }
        Ok(())
    }
    fn install(&mut self) -> Result<(), InstallError> {
        self.call("I")
    }
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        let asked = self.0.ask("NeedsArtifactReboot");
        asked
            .map_err(|()| InstallError::Handler { step: "NeedsArtifactReboot", reason: "injected".into() })?;
        Ok(if self.0.reboot.get() { RebootNeed::Custom } else { RebootNeed::None })
    }
    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        let asked = self.0.ask("SupportsRollback");
        asked.map_err(|()| InstallError::Handler { step: "SupportsRollback", reason: "injected".into() })?;
        Ok(self.0.rollback.get())
    }
    fn reboot(&mut self) -> Result<(), InstallError> {
        self.call("R")
    }
    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        self.call("VR")
    }
    fn reboot_back(&mut self) -> Result<(), InstallError> {
        self.call("BR")
    }
    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.call("VBR")
    }
    fn commit(&mut self) -> Result<(), InstallError> {
        self.call("C")
    }
    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.call("B")
    }
    fn fail(&mut self) -> Result<(), InstallError> {
        self.call("F")
    }
    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.call("Z")
    }
}

/// What the module is called with, and how the table says it. Without a word it is not part of a chain.
const STATES: &[(&str, &str)] = &[
    ("ProvidePayloadFileSizes", "Q"),
    ("Download", "D"),
    ("DownloadWithFileSizes", "DS"),
    ("ArtifactInstall", "I"),
    ("NeedsArtifactReboot", ""),
    ("SupportsRollback", ""),
    ("ArtifactReboot", "R"),
    ("ArtifactVerifyReboot", "VR"),
    ("ArtifactCommit", "C"),
    ("ArtifactRollback", "B"),
    ("ArtifactRollbackReboot", "BR"),
    ("ArtifactVerifyRollbackReboot", "VBR"),
    ("ArtifactFailure", "F"),
    ("Cleanup", "Z"),
];

/// Ends when the plan says so: each line of `fail-STATE` is one time.
const SCRIPT: &str = r#"
echo "$1" >> "$HERE/calls"
if test -s "$HERE/fail-$1"; then
    sed -i 1d "$HERE/fail-$1"
    exit 1
fi
test ! -e "$HERE/forever-$1" || exit 1
test ! -e "$HERE/hang-$1" || { rm "$HERE/hang-$1"; sleep 1000; }
case "$1" in
Download) while f=$(cat stream-next) && test -n "$f"; do cat "$f" > /dev/null; done ;;
DownloadWithFileSizes)
    while f=$(cat stream-next) && test -n "$f"; do
        test "$(cat "${f% *}" | wc -c)" = "${f#* }" || exit 1
    done ;;
*) cat "$HERE/say-$1" 2> /dev/null ;;
esac
exit 0
"#;

/// The module as a program, with what the code that calls it needs.
struct Program {
    folder: tempfile::TempDir,
    timeout: Cell<Duration>,
}

impl Program {
    fn new() -> Program {
        let program =
            Program { folder: tempfile::tempdir().unwrap(), timeout: Cell::new(Duration::from_secs(60)) };
        let modules = program.folder.path().join("share/modules/v3");
        let lines = format!("HERE='{}'\n{SCRIPT}", program.folder.path().display());
        testkit::programs::place_script(&modules.join(TYPE), &lines);
        program
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Lets the script say `word` when it is asked.
    fn says(&self, state: &str, word: &str) {
        self.write(&format!("say-{state}"), word);
    }

    /// Lets it end with a failure in `state`.
    fn fails(&self, state: &str, times: u32, hangs: bool) {
        match (times, hangs) {
            (u32::MAX, _) => self.write(&format!("forever-{state}"), ""),
            (_, true) => {
                self.write(&format!("hang-{state}"), "");
                // The other calls take as long as a shell takes to start.
                self.timeout.set(Duration::from_secs(5));
            }
            (_, false) => self.write(&format!("fail-{state}"), &"x\n".repeat(times as usize)),
        }
    }

    /// What it was called with since the last time.
    fn calls(&self) -> Vec<String> {
        let path = self.folder.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        self.write("calls", "");
        calls.lines().map(str::to_owned).collect()
    }

    fn modules(&self) -> UpdateModules {
        UpdateModules::new(ModuleSettings {
            data_directory: self.folder.path().join("share"),
            datastore: self.folder.path().join("data"),
            timeout: self.timeout.get(),
            prefer_built_in: PreferBuiltIn::None,
            clock: Arc::new(linux::clock::LinuxClock::new()),
        })
    }
}

/// The real handler. What its program was called with is noted behind each step, where the process may be killed.
struct Watched<'m> {
    handler: Box<dyn PayloadHandler + 'm>,
    plan: Rc<Plan>,
}

impl Watched<'_> {
    fn note(&self) {
        for call in self.plan.program.as_ref().unwrap().calls() {
            let (_, word) = STATES.iter().find(|(state, _)| *state == call).unwrap();
            if !word.is_empty() {
                self.plan.passed.borrow_mut().push((*word).to_owned());
            }
        }
    }

    fn step<T>(&mut self, point: &str, step: impl FnOnce(&mut dyn PayloadHandler) -> T) -> T {
        let done = step(&mut *self.handler);
        self.note();
        assert_eq!(self.plan.ask(point), Ok(()), "its own faults are the program's");
        done
    }
}

impl PayloadHandler for Watched<'_> {
    fn download(&mut self, arriving: &mut Arriving<'_>, to: &mut dyn Progress) -> Result<(), InstallError> {
        self.step("D", |handler| handler.download(arriving, to))
    }
    fn install(&mut self) -> Result<(), InstallError> {
        self.step("I", |handler| handler.install())
    }
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        self.step("NeedsArtifactReboot", |handler| handler.needs_reboot())
    }
    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        self.step("SupportsRollback", |handler| handler.supports_rollback())
    }
    fn reboot(&mut self) -> Result<(), InstallError> {
        self.step("R", |handler| handler.reboot())
    }
    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        self.step("VR", |handler| handler.verify_reboot())
    }
    fn reboot_back(&mut self) -> Result<(), InstallError> {
        self.step("BR", |handler| handler.reboot_back())
    }
    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.step("VBR", |handler| handler.verify_reboot_back())
    }
    fn commit(&mut self) -> Result<(), InstallError> {
        self.step("C", |handler| handler.commit())
    }
    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.step("B", |handler| handler.roll_back())
    }
    fn fail(&mut self) -> Result<(), InstallError> {
        self.step("F", |handler| handler.fail())
    }
    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.step("Z", |handler| handler.clean_up())
    }
}

struct OneModule(Rc<Plan>, Option<UpdateModules>);

impl OneModule {
    fn new(plan: &Rc<Plan>) -> OneModule {
        OneModule(Rc::clone(plan), plan.program.as_ref().map(Program::modules))
    }
}

impl Modules for OneModule {
    fn candidates(&self, _: &str) -> Candidates {
        Candidates { update_module: UpdateModuleFile::Executable, ..Candidates::default() }
    }

    fn open<'m>(
        &'m mut self,
        payload_type: &str,
        by: HandledBy,
    ) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        assert_eq!(payload_type, TYPE);
        let plan = Rc::clone(&self.0);
        Ok(match &mut self.1 {
            None => Box::new(Module(plan)),
            Some(real) => Box::new(Watched { handler: real.open(payload_type, by)?, plan }),
        })
    }
}

struct Scripts(Rc<Plan>);

impl ScriptRunner for Scripts {
    fn stage(&mut self, _: &[StateScript]) -> Result<(), ScriptError> {
        Ok(())
    }
    fn publish(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
    fn run(&mut self, point: ScriptPoint, _: OnScriptFailure) -> Result<(), ScriptError> {
        let state = match point.state {
            ScriptState::Idle | ScriptState::Sync if !self.0.idle_scripts.get() => return Ok(()),
            ScriptState::Idle => "Idle",
            ScriptState::Sync => "Sync",
            ScriptState::Download => "D",
            ScriptState::ArtifactInstall => "I",
            ScriptState::ArtifactReboot => "R",
            ScriptState::ArtifactCommit => "C",
            ScriptState::ArtifactRollback => "B",
            ScriptState::ArtifactRollbackReboot => "BR",
            ScriptState::ArtifactFailure => "F",
        };
        let action = match point.action {
            ScriptAction::Enter => '+',
            ScriptAction::Leave => '-',
            ScriptAction::Error => '!',
        };
        let point = format!("{state}{action}");
        self.0.pass(&point).map_err(|()| ScriptError::Failed { script: point, how: "injected".into() })
    }
    fn check_root_scripts(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
    fn discard(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
}

/// A record in memory that may become read-only.
#[derive(Clone)]
struct Store {
    document: Rc<RefCell<Vec<u8>>>,
    writes_left: Rc<Cell<u32>>,
}

impl StateStore for Store {
    fn load(&mut self) -> Result<Vec<u8>, StateError> {
        Ok(self.document.borrow().clone())
    }
    fn save(&mut self, document: &[u8]) -> Result<(), StateError> {
        let Some(left) = self.writes_left.get().checked_sub(1) else {
            return Err(StateError::TooLarge { need_bytes: document.len(), have_bytes: 0 });
        };
        self.writes_left.set(left);
        document.clone_into(&mut self.document.borrow_mut());
        Ok(())
    }
    fn capacity_bytes(&self) -> usize {
        1 << 16
    }
}

/// Nothing that a module needs.
struct NoSlots;

impl Slots for NoSlots {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        Err(SlotError::Missing { slot, path: String::new() })
    }
    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        Err(SlotError::Missing { slot, path: String::new() })
    }
}

struct NoBoot;

impl NoBoot {
    fn none<T>() -> Result<T, BootError> {
        Err(BootEnvError::NoValidCopy { copies: Vec::new(), hint: None }.into())
    }
}

impl BootControl for NoBoot {
    fn check_configured(&mut self) -> Result<(), BootError> {
        NoBoot::none()
    }
    fn state(&mut self) -> Result<BootState, BootError> {
        NoBoot::none()
    }
    fn check_arm(&mut self, _: Slot) -> Result<(), BootError> {
        NoBoot::none()
    }
    fn arm(&mut self, _: Armable) -> Result<(), BootError> {
        NoBoot::none()
    }
    fn commit(&mut self, _: Slot) -> Result<(), BootError> {
        NoBoot::none()
    }
    fn settle_on(&mut self, _: Slot) -> Result<(), BootError> {
        NoBoot::none()
    }
    fn describe(&self) -> String {
        "none".into()
    }
}

struct Waits {
    time: VirtualClock,
    server: ServerModel,
    left: u32,
}

impl Waiter for Waits {
    fn wait(&mut self, time: Duration) -> Wake {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || !self.server.finals(ID).is_empty() {
            self.time.stop();
            return Wake::Stop;
        }
        self.time.advance(time + Duration::from_secs(1));
        Wake::Elapsed
    }
}

/// What the device reported, in the words of the table. Attempts in a row of one that fails are one report.
fn reported(server: &ServerModel, failing: &[&str]) -> String {
    let sent = server.take_sent();
    let reports = sent.iter().filter(|sent| sent.path().ends_with("/status"));
    let mut words: Vec<&str> = Vec::new();
    for report in reports {
        let text = report.text();
        // Ours says what the download cost besides, in words that no other remark begins with.
        let text = match text.split_once(r#","substate":"bytes: "#) {
            Some((before, _)) => format!("{before}}}"),
            None => text.trim_end().to_owned(),
        };
        let word = match text.as_str() {
            r#"{"status":"downloading"}"# => "dl",
            r#"{"status":"installing"}"# => "in",
            r#"{"status":"rebooting"}"# => "rb",
            r#"{"status":"success"}"# => "OK",
            r#"{"status":"failure"}"# => "FAIL",
            other => panic!("{other}"),
        };
        if words.last() != Some(&word) || !failing.contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

struct Machine {
    plan: Rc<Plan>,
    store: Store,
    scripts: Scripts,
    server: ServerModel,
}

impl Host for Machine {
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), HostError> {
        work(&mut Device {
            boot: &mut NoBoot,
            slots: &mut NoSlots,
            system: &KnownSystem { running: Slot::A, device_type: artifacts::DEVICE_TYPE.into() },
            modules: &mut OneModule::new(&self.plan),
            state: &mut self.store,
            scripts: &mut self.scripts,
            observer: &mut Notices::default(),
            gates: &mut AlwaysOpen,
            reporter,
        });
        Ok(())
    }
    fn look(&mut self) -> Result<Option<Known>, HostError> {
        Ok(None)
    }
    fn policy(&mut self) -> Result<Policy, PolicyError> {
        Ok(Policy { trust: Trust::DangerUnsigned, limits: Limits::default() })
    }
    fn scripts(&mut self) -> &mut dyn ScriptRunner {
        &mut self.scripts
    }
    fn inventory(&mut self) -> Result<Vec<Attribute>, HostError> {
        Ok(Vec::new())
    }
    fn download_transport(&mut self) -> Box<dyn Transport> {
        self.server.transport()
    }
    fn begin_log(&mut self, _: &client_core::deploy::DeploymentId) {}
    fn end_log(&mut self) {}
    fn log_messages(&mut self, _: &client_core::deploy::DeploymentId) -> Vec<u8> {
        Vec::new()
    }
    fn tell(&mut self, _: &Event<'_>) {}
}

/// What a run left.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    chain: String,
    statuses: String,
    end: String,
}

fn artifact(payload: bool) -> Vec<u8> {
    let mut spec =
        ArtifactSpec::rootfs_image(artifacts::named("new"), vec![artifacts::named(artifacts::DEVICE_TYPE)]);
    if payload {
        spec.payload_type = Some(artifacts::named(TYPE));
        let file = MemoryFile { name: "file".into(), content: vec![7; 3000] };
        artifacts::build(&spec, &[file], None)
    } else {
        spec.payload_type = None;
        spec.meta_data = client_core::artifact::write::MetaData::Absent;
        artifacts::build(&spec, &[], None)
    }
}

fn run(condition: &str, rollback: bool, reboot: bool, program: Option<Program>) -> Seen {
    let plan = Rc::new(Plan { program, ..Plan::default() });
    plan.rollback.set(rollback);
    plan.reboot.set(reboot);
    if let Some(program) = &plan.program {
        program.says("SupportsRollback", if rollback { "Yes\n" } else { "No\n" });
        program.says("NeedsArtifactReboot", if reboot { "Yes\n" } else { "No\n" });
    }
    let server = ServerModel::new();
    server.deploy(ID, "new", artifacts::DEVICE_TYPE, &artifact(!condition.contains("null payload")));
    let mut failing = Vec::new();
    let times = |lasting: &str| if condition.contains(lasting) { u32::MAX } else { 1 };
    let mut writes = u32::MAX;
    // A server that has aborted says so instead of failing.
    let code = if condition.contains("server answers aborted") { 409 } else { 500 };
    for part in condition.split("; ") {
        let part = part.trim();
        let inject = |points: &str, kind, times| {
            for point in points.split(',') {
                let state = STATES.iter().find(|(state, word)| *word == point || *state == point);
                match (&plan.program, state, kind) {
                    (Some(program), Some((state, _)), Kind::Fails) => {
                        program.fails(state, times, part.starts_with("hang@"));
                    }
                    (_, _, Kind::Fails | Kind::Kills) => {
                        plan.faults.borrow_mut().push((point.to_owned(), kind, times));
                    }
                }
            }
        };
        if let Some(points) = part.strip_prefix("err@").or_else(|| part.strip_prefix("hang@")) {
            inject(points, Kind::Fails, times("err forever"));
        } else if let Some(points) = part.strip_prefix("kill@") {
            inject(points, Kind::Kills, times("kill forever"));
        } else if let Some(status) = part.strip_prefix("status ") {
            let (name, count) = status.split_once(" fails x").unwrap();
            let (word, status) = match name {
                "Downloading" => ("dl", "downloading"),
                "Installing" => ("in", "installing"),
                "Rebooting" => ("rb", "rebooting"),
                other => panic!("{other}"),
            };
            failing.push(word);
            for _ in 0..count.parse().unwrap() {
                server.fail_next(Matcher::Report(status), Failure::Status(code));
            }
        } else {
            match part {
                "(none)" | "server answers aborted" | "null payload" | "err forever" | "kill forever" => {}
                "sizes query answers Yes" => {
                    plan.sizes.set(true);
                    plan.program.iter().for_each(|it| it.says("ProvidePayloadFileSizes", "Yes\n"));
                }
                "sizes query answers No" => {
                    plan.program.iter().for_each(|it| it.says("ProvidePayloadFileSizes", "No\n"));
                }
                "sizes query answers Empty" => {}
                "with Idle/Sync scripts" => plan.idle_scripts.set(true),
                "device type mismatch" => server.mislabel(ID, "another"),
                "DB read-only after 0 writes" => writes = 0,
                "DB read-only after 4 writes" => writes = 2,
                "HTTP body breaks in header" => {
                    let mut broken = artifact(true);
                    broken[600..].fill(0xAA);
                    server.replace_artifact(ID, &broken, None);
                }
                other => panic!("{other}"),
            }
        }
    }
    let mut record = Record::new();
    record.installed.artifact_name = Some("old".into());
    let store = Store {
        document: Rc::new(RefCell::new(record.to_json().unwrap())),
        writes_left: Rc::new(Cell::new(writes)),
    };
    // With this seed what failed first is due first again.
    let time = VirtualClock::new(2);
    // Killed at most as often as the table lets it be.
    for _ in 0..100 {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            process(&plan, &store, &server, &time);
        }));
        match ended {
            Ok(()) => break,
            Err(payload) if payload.is::<Killed>() => {}
            Err(other) => std::panic::resume_unwind(other),
        }
    }
    let name = Record::from_json(&store.document.borrow()).unwrap().installed.name().to_owned();
    let chain = plan.passed.borrow().join(" ");
    // The table ends with the report; the wait after it has begun.
    let chain = chain.strip_suffix(" Idle+").unwrap_or(&chain).to_owned();
    let statuses = reported(&server, &failing);
    let end = if name == "new_INCONSISTENT" { "INC".into() } else { name };
    Seen { chain, statuses, end }
}

/// The daemon from its start until it is killed or the deployment is over.
fn process(plan: &Rc<Plan>, store: &Store, server: &ServerModel, time: &VirtualClock) {
    let mut host = Machine {
        plan: Rc::clone(plan),
        store: store.clone(),
        scripts: Scripts(Rc::clone(plan)),
        server: server.clone(),
    };
    let clock = time.shared();
    let settings = Settings { servers: vec![SERVER.into()], ..Settings::default() };
    let api =
        Api::new(server.transport(), Box::new(TestCredentials::default()), Arc::clone(&clock), settings);
    let mut waits = Waits { time: time.clone(), server: server.clone(), left: 60 };
    let schedule = Schedule::new(&*clock, Duration::from_secs(1800), Duration::from_secs(28800));
    let settings = AgentSettings {
        retry_interval: Duration::from_secs(300),
        retry_count: 0,
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
}

/// Writes out `(A B)xN`.
fn expand(chain: &str) -> String {
    let mut out = Vec::new();
    let mut rest = chain;
    while let Some((before, after)) = rest.split_once('(') {
        out.extend(before.split_whitespace().map(str::to_owned));
        let (group, after) = after.split_once(")x").unwrap();
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        for _ in 0..after[..digits].parse::<u32>().unwrap() {
            out.extend(group.split_whitespace().map(str::to_owned));
        }
        rest = &after[digits..];
    }
    out.extend(rest.split_whitespace().map(str::to_owned));
    out.join(" ").replace("(no module call)", "")
}

#[test]
fn the_daemon_does_what_the_recorded_one_does() {
    compare(|| None);
}

#[test]
fn the_daemon_does_what_the_recorded_one_does_with_a_real_module() {
    compare(|| Some(Program::new()));
}

/// Every row of the table, with a module of `make` each.
#[track_caller]
fn compare(make: impl Fn() -> Option<Program>) {
    // Kills are part of the plan; anything else that panics is shown.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            hook(info);
        }
    }));
    let (mut same, mut different, mut wrong) = (0, 0, Vec::new());
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [number, condition, answers, chain, statuses, end] = columns[..] else { panic!("{line}") };
        let number: u32 = number.parse().unwrap();
        if NOT_APPLICABLE.iter().any(|(row, _)| *row == number) {
            continue;
        }
        let (rollback, reboot) = answers.split_once('/').unwrap();
        let chain = if chain == "(no module call)" { String::new() } else { expand(chain) };
        let mut expected = Seen { chain, statuses: statuses.to_owned(), end: end.to_owned() };
        match DIFFERENT.iter().find(|(row, ..)| *row == number) {
            None => same += 1,
            Some((_, ours_chain, ours_statuses, ours_end, _)) => {
                different += 1;
                assert!(DIFFERENT.iter().all(|(.., why)| !why.is_empty()));
                let replace = |to: &mut String, ours: &str| {
                    if !ours.is_empty() {
                        *to = expand(ours);
                    }
                };
                replace(&mut expected.chain, ours_chain);
                replace(&mut expected.statuses, ours_statuses);
                replace(&mut expected.end, ours_end);
            }
        }
        let program = make();
        if program.is_some() && CLEANED_UP.contains(&number) {
            expected.chain = expected.chain.strip_suffix(" Z").unwrap().to_owned();
        }
        let seen = run(condition, rollback == "yes", reboot == "yes", program);
        if seen != expected {
            wrong.push(format!(
                "{number} {condition} ({answers}):\n  expected {expected:?}\n  seen     {seen:?}"
            ));
        }
    }
    println!("{same} as recorded, {different} different on purpose, {} not applicable", NOT_APPLICABLE.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
