//! What the daemon is doing, and answers to what it asks, over a local socket: one line of JSON for one line of JSON.
//!
//! Every user of the device may ask what is being done; only root and the user of the daemon may decide anything. Whoever
//! connects can neither hold up the daemon nor fill its memory: a thread answers one after the other, within a deadline, from a board that the daemon keeps.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
#[cfg(feature = "monitor")]
use client_core::clock::utc;
use client_core::deploy::gates::{Decision, Gate, NoSuchQuestion};
use client_core::install::{Account, Cost};
#[cfg(feature = "monitor")]
use client_core::monitor::{CheckState, Level};
use client_core::text::printable;
use linux::local_socket;
use serde_json::{Value, json};

use device::gates::SharedQuestion;

/// How long one client may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take who is nobody in particular. One after the other is answered: they must not keep root waiting.
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_millis(200);
/// Longest question.
const REQUEST_BYTES: u64 = 2048;
/// Longest answer.
const ANSWER_BYTES: u64 = 64 * 1024;
/// Longest text on the board, in characters.
const TEXT_CHARS: usize = 512;
/// Stack of the thread that answers.
const STACK: usize = 128 * 1024;
/// The question.
const REQUEST: &[u8] = b"{\"command\":\"status\"}\n";

/// What the daemon tells about itself. Times are those of [`Clock::now`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    stage: Option<String>,
    deployment: Option<String>,
    artifact_name: Option<String>,
    progress: Option<(u64, Option<u64>)>,
    waiting: Option<(Gate, String)>,
    last_check: Option<Duration>,
    next_check: Option<Duration>,
    last_error: Option<String>,
    record_lost: Option<String>,
    wear: Option<Value>,
    cost: Option<Cost>,
    account: Option<Account>,
    checks: u32,
    server: Option<String>,
    authorized: bool,
    /// How each check is; null where nothing is watched.
    #[cfg(feature = "monitor")]
    monitor: Value,
}

/// Where the daemon writes its status and the socket reads it. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Status>>);

impl StatusBoard {
    /// The status, also after a thread has died with it.
    pub fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    /// What is being done, in a word: the stage of a deployment, or `idle`.
    pub fn set_stage(&mut self, stage: &str) {
        self.stage = Some(short(stage));
    }

    /// The deployment that is carried out: its id, and the name of its artifact as soon as it is known.
    pub fn set_deployment(&mut self, id: &str, artifact_name: Option<&str>) {
        self.deployment = Some(short(id));
        self.artifact_name = artifact_name.map(short);
        self.progress = None;
    }

    /// No deployment is carried out any more.
    pub fn clear_deployment(&mut self) {
        (self.deployment, self.artifact_name, self.progress) = (None, None, None);
        self.waiting = None;
    }

    /// The deployment waits before a gate; `None` when it does not any more.
    pub fn set_waiting(&mut self, waiting: Option<(Gate, &str)>) {
        self.waiting = waiting.map(|(gate, reason)| (gate, short(reason)));
    }

    /// Whether a deployment waits before a gate.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// How many bytes of the payload are verified and written, and how many there are.
    pub fn set_progress(&mut self, verified_bytes: u64, total_bytes: Option<u64>) {
        self.progress = Some((verified_bytes, total_bytes));
    }

    /// The server was asked at `now`, with success or not.
    pub fn set_checked(&mut self, now: Duration) {
        self.last_check = Some(now);
    }

    /// The server will be asked at `then`.
    pub fn set_next_check(&mut self, then: Duration) {
        self.next_check = Some(then);
    }

    /// What went wrong last; `None` when something went right since.
    pub fn set_error(&mut self, error: Option<&str>) {
        self.last_error = error.map(short);
    }

    /// Why the record of what is installed was lost, until something is installed again.
    pub fn set_record_lost(&mut self, reason: Option<&str>) {
        self.record_lost = reason.map(short);
    }

    /// What was done to each slot so far, as the record has it.
    pub fn set_wear(&mut self, wear: Option<Value>) {
        self.wear = wear;
    }

    /// What the download that has begun will cost; `None` when the server was asked again.
    pub fn set_cost(&mut self, cost: Option<Cost>) {
        self.cost = cost;
    }

    /// What the last download has cost.
    pub fn set_account(&mut self, account: Account) {
        self.account = Some(account);
    }

    /// The server has answered, or something went wrong: whoever asked for a check can tell that it was made.
    pub fn count_check(&mut self) {
        self.checks = self.checks.wrapping_add(1);
    }

    /// The server in use, and whether it accepts this device.
    pub fn set_server(&mut self, server: Option<&str>, authorized: bool) {
        self.server = server.map(short);
        self.authorized = authorized;
    }

    /// How the checks of the monitor are.
    #[cfg(feature = "monitor")]
    pub fn set_monitor(&mut self, states: impl Iterator<Item = CheckState>) {
        let one = |state: CheckState| {
            json!({
                "name": short(&state.name),
                "state": state.level.map(Level::name),
                "since": state.since.map(utc),
                "alerts_waiting": state.alerts_waiting,
            })
        };
        self.monitor = Value::Array(states.map(one).collect());
    }

    /// All of it at `now` as one JSON object.
    pub fn to_json(&self, now: Duration) -> Value {
        #[cfg_attr(not(feature = "monitor"), allow(unused_mut))]
        let mut object = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "stage": self.stage.as_deref().unwrap_or("starting"),
            "deployment_id": self.deployment,
            "artifact_name": self.artifact_name,
            "verified_bytes": self.progress.map(|(verified, _)| verified),
            "total_bytes": self.progress.and_then(|(_, total)| total),
            "waiting_before": self.waiting.as_ref().map(|(gate, _)| gate.name()),
            "waiting_because": self.waiting.as_ref().map(|(_, reason)| reason),
            "last_check_seconds_ago": self.last_check.map(|then| now.saturating_sub(then).as_secs()),
            "next_check_in_seconds": self.next_check.map(|then| then.saturating_sub(now).as_secs()),
            "last_error": self.last_error,
            "record_lost": self.record_lost,
            "wear": self.wear,
            "cost": self.cost,
            "last_download": self.account,
            "checks": self.checks,
            "server": self.server,
            "authorized": self.authorized,
        });
        #[cfg(feature = "monitor")]
        {
            object["monitor"] = self.monitor.clone();
        }
        object
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

/// Answers until it is dropped; then the socket is gone, and the thread ends with the answer that it gives.
#[derive(Debug)]
pub struct StatusServer {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread. Where that fails it waits on, for nobody.
        let _ = UnixStream::connect(&self.path);
        // A socket that stays is replaced by the next daemon.
        let _ = fs::remove_file(&self.path);
    }
}

/// Begins to answer at `path`. Makes its directory, and replaces the socket of a daemon that is gone.
///
/// # Errors
/// When the socket cannot be made, and when another daemon answers there.
/// `question` is what they are about; `wake` is called after each.
pub fn serve(
    path: &Path,
    board: StatusBoard,
    clock: Arc<dyn Clock>,
    question: SharedQuestion,
    wake: impl Fn() + Send + 'static,
) -> io::Result<StatusServer> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        if !directory.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            // Whatever the umask is: others may see that there is a socket.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        }
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Whatever the umask is. Who may decide is asked of each connection.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let answer_all = move || {
        for stream in listener.incoming() {
            if is_over.load(Ordering::Acquire) {
                return;
            }
            match stream.and_then(|stream| answer(&stream, &board, &*clock, &question, &wake)) {
                Ok(()) => {}
                Err(error) => {
                    log::debug!("status: {error}");
                    // Without descriptors, for example, the next attempt fails at once too.
                    clock.pause(Duration::from_millis(50));
                }
            }
        }
    };
    thread::Builder::new().name("status".into()).stack_size(STACK).spawn(answer_all)?;
    Ok(StatusServer { path: path.to_owned(), over })
}

fn answer(
    stream: &UnixStream,
    board: &StatusBoard,
    clock: &dyn Clock,
    question: &SharedQuestion,
    wake: &dyn Fn(),
) -> io::Result<()> {
    let is_trusted = local_socket::peer_is_trusted(stream)?;
    let patience = if is_trusted { PATIENCE } else { PATIENCE_WITH_STRANGERS };
    let request = read_line(stream, REQUEST_BYTES, patience)?;
    let request: Option<Value> = serde_json::from_slice(&request).ok();
    let command = request.as_ref().and_then(|request| request["command"].as_str());
    let mut answer = match (command, &request) {
        (Some("status"), _) => board.lock().to_json(clock.now()).to_string(),
        (Some("allow" | "refuse"), _) if !is_trusted => {
            json!({ "error": "only root and the user of the daemon may decide" }).to_string()
        }
        (Some("allow" | "refuse"), Some(request)) => {
            let answer = take_answer(request, question);
            wake();
            answer.to_string()
        }
        (_, _) => json!({ "error": "the commands are status, allow and refuse" }).to_string(),
    };
    answer.push('\n');
    stream.set_write_timeout(Some(patience))?;
    // It fits into the buffer of the socket: a client that never reads holds up nobody.
    (&*stream).write_all(answer.as_bytes())
}

/// Somebody decides about the deployment that waits.
fn take_answer(request: &Value, question: &SharedQuestion) -> Value {
    let text = |key: &str| request[key].as_str();
    let decision = match request["command"] == "refuse" {
        true => Decision::Refuse { reason: short(text("reason").unwrap_or("refused")) },
        false => Decision::Allow,
    };
    let gate = text("gate").map(|name| Gate::named(name).ok_or(NoSuchQuestion::AnotherOne)).transpose();
    match gate.and_then(|gate| question.decide(gate, text("deployment_id"), decision)) {
        Ok(decided) => json!({ "gate": decided.gate.name(), "deployment_id": decided.deployment }),
        Err(NoSuchQuestion::NothingAsked) => json!({ "error": "nothing is asked" }),
        Err(NoSuchQuestion::AnotherOne) => json!({ "error": "that is not what is asked" }),
    }
}

/// One line, with all its bytes within `patience`.
fn read_line(stream: &UnixStream, limit: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(512, stream).take(limit);
    while !line.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let available = match reader.fill_buf() {
            // A signal ends a read that has a time limit, whatever its handler asks for (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if available.is_empty() || left.is_zero() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = available.iter().position(|byte| *byte == b'\n').map_or(available.len(), |at| at + 1);
        line.extend_from_slice(&available[..end]);
        reader.consume(end);
    }
    Ok(line)
}

/// Why there is no status.
pub enum StatusError {
    /// No daemon answers.
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is there and did not answer.
    NoAnswer {
        /// The error of the operating system.
        source: io::Error,
    },
    /// It does not take this.
    Refused {
        /// Why not.
        reason: String,
    },
    /// What it said is not a status.
    Malformed,
}

client_core::artifact::debug_as_displayed!(StatusError);

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusError::NoDaemon { path, source } => {
                write!(f, "no daemon is running, nobody answers at {}: {source}", path.display())
            }
            StatusError::NoAnswer { source } => write!(f, "the daemon does not answer: {source}"),
            StatusError::Refused { reason } => write!(f, "the daemon refuses: {reason}"),
            StatusError::Malformed => f.write_str("the daemon says something that is not a status"),
        }
    }
}

impl std::error::Error for StatusError {}

/// Asks the daemon that answers at `path`.
///
/// # Errors
/// When there is none, or it does not answer.
pub fn ask(path: &Path) -> Result<Value, StatusError> {
    let answer = converse(path, REQUEST)?;
    if answer["stage"].is_string() { Ok(answer) } else { Err(StatusError::Malformed) }
}

/// Answers the question of the deployment that waits; `refused` is why not. What was answered.
///
/// # Errors
/// When there is no daemon, or it does not take the answer.
pub fn decide(path: &Path, gate: Option<Gate>, refused: Option<&str>) -> Result<Value, StatusError> {
    let mut request = json!({ "command": if refused.is_some() { "refuse" } else { "allow" } });
    if let Some(gate) = gate {
        request["gate"] = gate.name().into();
    }
    if let Some(reason) = refused {
        request["reason"] = short(reason).into();
    }
    let answer = converse(path, format!("{request}\n").as_bytes())?;
    match answer["error"].as_str() {
        Some(reason) => Err(StatusError::Refused { reason: short(reason) }),
        None => Ok(answer),
    }
}

fn converse(path: &Path, request: &[u8]) -> Result<Value, StatusError> {
    let no_answer = |source| StatusError::NoAnswer { source };
    let stream = UnixStream::connect(path)
        .map_err(|source| StatusError::NoDaemon { path: path.to_owned(), source })?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(no_answer)?;
    (&stream).write_all(request).map_err(no_answer)?;
    let answer = read_line(&stream, ANSWER_BYTES, 3 * PATIENCE).map_err(no_answer)?;
    serde_json::from_slice(&answer).map_err(|_| StatusError::Malformed)
}

/// Those figures of `object` that are known, for people.
fn figures(object: &Value) -> Option<String> {
    let known = object.as_object()?.iter().filter(|(_, figure)| figure.is_u64());
    let named = known.map(|(key, figure)| format!("{} {figure}", key.trim_end_matches("_bytes")));
    Some(format!("{} bytes", named.collect::<Vec<_>>().join(", ")))
}

/// A status for people.
pub fn shown(status: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |label: &str, text: Option<String>| {
        if let Some(text) = text {
            lines.push(format!("{label:<12}{}", printable(&text)));
        }
    };
    let text = |key: &str| status[key].as_str().map(str::to_owned);
    let number = |key: &str| status[key].as_u64();
    line("Stage", text("stage"));
    line("Deployment", text("deployment_id"));
    line("Artifact", text("artifact_name"));
    line(
        "Progress",
        number("verified_bytes").map(|verified| match number("total_bytes").filter(|total| *total > 0) {
            Some(total) => {
                let percent = u128::from(verified) * 100 / u128::from(total);
                format!("{verified} of {total} bytes ({percent} %)")
            }
            None => format!("{verified} bytes"),
        }),
    );
    for (label, key) in [("Cost ahead", "cost"), ("Cost", "last_download")] {
        line(label, figures(&status[key]));
    }
    let waiting = text("waiting_before").zip(text("waiting_because"));
    line("Waiting", waiting.map(|(gate, reason)| format!("before {gate}: {reason}")));
    line("Server", text("server"));
    line("Authorized", status["authorized"].as_bool().map(|yes| if yes { "yes" } else { "no" }.to_owned()));
    line("Last check", number("last_check_seconds_ago").map(|seconds| format!("{seconds} s ago")));
    line("Next check", number("next_check_in_seconds").map(|seconds| format!("in {seconds} s")));
    line("Last error", text("last_error"));
    line("Record", text("record_lost").map(|reason| format!("lost: {reason}")));
    for (slot, wear) in status["wear"].as_object().into_iter().flatten() {
        let number = |key: &str| wear[key].as_u64().unwrap_or_default();
        let text = format!(
            "{} installations, {} bytes written, {} already there, {} discarded",
            number("installations"),
            number("written_bytes"),
            number("skipped_bytes"),
            number("discarded_bytes")
        );
        line(&format!("Slot {slot}"), Some(text));
    }
    #[cfg(feature = "monitor")]
    for check in status["monitor"].as_array().into_iter().flatten() {
        line("Monitor", Some(check_shown(check)));
    }
    line("Process", number("pid").map(|pid| pid.to_string()));
    line("Version", text("version"));
    lines.join("\n")
}

/// How a check is, for people.
#[cfg(feature = "monitor")]
fn check_shown(check: &Value) -> String {
    let text = |key: &str| check[key].as_str();
    let mut shown = format!("{}: {}", text("name").unwrap_or_default(), text("state").unwrap_or("not known"));
    if let Some(since) = text("since") {
        shown.push_str(&format!(" since {since}"));
    }
    match check["alerts_waiting"].as_u64().unwrap_or_default() {
        0 => {}
        1 => shown.push_str(", 1 alert waits to be sent"),
        count => shown.push_str(&format!(", {count} alerts wait to be sent")),
    }
    shown
}

#[cfg(test)]
mod tests {
    use linux::clock::LinuxClock;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        board: StatusBoard,
        _server: StatusServer,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let board = StatusBoard::default();
            let path = directory.path().join("run/status.sock");
            let question = SharedQuestion::default();
            let clock = Arc::new(LinuxClock::new());
            let server = serve(&path, board.clone(), clock, question, || {}).unwrap();
            Fixture { directory, board, _server: server }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("run/status.sock")
        }

        fn connect(&self) -> UnixStream {
            UnixStream::connect(self.path()).unwrap()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_daemon_tells_what_is_on_its_board() {
        let fixture = Fixture::new();
        assert_eq!((mode(&fixture.path()), mode(fixture.path().parent().unwrap())), (0o666, 0o755));
        assert_eq!(ask(&fixture.path()).unwrap()["stage"], "starting");
        let mut board = fixture.board.lock();
        board.set_stage("Download");
        board.set_deployment("d1", Some("release-2"));
        board.set_progress(50, Some(200));
        board.set_server(Some("https://a"), true);
        board.set_error(Some("no answer"));
        drop(board);
        let status = ask(&fixture.path()).unwrap();
        assert_eq!((&status["deployment_id"], &status["authorized"]), (&json!("d1"), &json!(true)));
        let text = shown(&status);
        assert!(text.contains("Progress    50 of 200 bytes (25 %)"), "{text}");
        assert!(text.contains("Artifact    release-2"), "{text}");
        assert!(!text.contains("Cost"), "{text}");
        let cost = Cost { transfer_bytes: Some(7), memory_bytes: Some(9), ..Cost::default() };
        fixture.board.lock().set_cost(Some(cost));
        let account = Account { bought_bytes: Some(8), ..Account::default() };
        fixture.board.lock().set_account(account);
        let status = ask(&fixture.path()).unwrap();
        assert_eq!(status["cost"]["transfer_bytes"], 7);
        assert_eq!(status["cost"]["changed_bytes"], Value::Null);
        let text = shown(&status);
        assert!(text.contains("Cost ahead  memory 9, transfer 7 bytes"), "{text}");
        assert!(text.contains("Cost        bought 8, reused 0 bytes"), "{text}");
        fixture.board.lock().clear_deployment();
        assert_eq!(ask(&fixture.path()).unwrap()["verified_bytes"], Value::Null);
    }

    #[cfg(feature = "monitor")]
    #[test]
    fn how_the_checks_are_is_told_in_their_order_and_nothing_where_nothing_is_watched() {
        let mut board = Status::default();
        let none = board.to_json(Duration::ZERO);
        assert_eq!(none["monitor"], Value::Null);
        assert!(!shown(&none).contains("Monitor"));
        let state = |name: &str, level, since, alerts_waiting| CheckState {
            name: name.to_owned(),
            level,
            since,
            alerts_waiting,
        };
        let states = [
            state("data", Some(Level::Critical), Some(1_795_860_000), 2),
            state("app", Some(Level::Ok), None, 1),
            state("a\nb", None, None, 0),
        ];
        board.set_monitor(states.into_iter());
        let status = board.to_json(Duration::ZERO);
        assert_eq!(
            status["monitor"][0],
            json!({ "name": "data", "state": "CRITICAL", "since": "2026-11-28T10:00:00Z", "alerts_waiting": 2 })
        );
        let text = shown(&status);
        let lines = "\
Monitor     data: CRITICAL since 2026-11-28T10:00:00Z, 2 alerts wait to be sent
Monitor     app: OK, 1 alert waits to be sent
Monitor     a\\nb: not known
";
        assert!(text.contains(lines), "{text}");
    }

    #[test]
    fn times_are_told_from_now() {
        let mut board = Status::default();
        board.set_checked(Duration::from_secs(100));
        board.set_next_check(Duration::from_secs(190));
        let status = board.to_json(Duration::from_secs(130));
        assert_eq!(status["last_check_seconds_ago"], 30);
        assert_eq!(status["next_check_in_seconds"], 60);
        assert_eq!(board.to_json(Duration::from_secs(500))["next_check_in_seconds"], 0);
    }

    #[test]
    fn hostile_clients_hold_up_nobody_for_long() {
        let fixture = Fixture::new();
        let _never_writes = fixture.connect();
        fixture.connect().write_all(&[b'x'; 10_000]).unwrap_or_default();
        fixture.connect().write_all(b"\xff\xff\n").unwrap();
        let mut never_reads = fixture.connect();
        never_reads.write_all(REQUEST).unwrap();
        drop(fixture.connect());
        assert_eq!(ask(&fixture.path()).unwrap()["stage"], "starting");
        let mut other = fixture.connect();
        other.write_all(b"{\"command\":\"fly\"}\n").unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("the commands are status"), "{answer}");
    }

    #[test]
    fn the_socket_of_a_daemon_that_is_gone_is_replaced_and_another_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(&path), Err(StatusError::NoDaemon { .. })));
        let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
        let another =
            || serve(&path, StatusBoard::default(), Arc::clone(&clock), SharedQuestion::default(), || {});
        let server = another().unwrap();
        assert!(another().is_err());
        assert!(ask(&path).is_ok());
        drop(server);
        assert!(!path.exists());
        let error = ask(&path).unwrap_err().to_string();
        assert!(error.starts_with("no daemon is running"), "{error}");
    }
}
