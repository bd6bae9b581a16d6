//! Both clients through the same bad days: our daemon, and the one of the Mender client 3.4.
//!
//! Prints a table. What our daemon does is asserted; what the other client does is printed, for people who move from one
//! to the other and want to know what changes. Time for it is bounded: some of its waits are a minute and longer.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use interop::backend::{Backend, FINISHED};
use interop::mender_device::MenderDevice;
use interop::virtual_device::VirtualDevice;
use interop::wait_for;
use testserver::{Action, RecordedRequest, Rule};

/// How long our daemon may take for anything.
const OURS: Duration = Duration::from_secs(75);
/// How long the other client is watched.
const THEIRS: Duration = Duration::from_secs(70);
/// Bytes of the payload: an artifact is a little more.
const PAYLOAD_BYTES: usize = 200_000;
/// Where the download is cut.
const CUT: u64 = 100_000;

/// One bad day.
struct Day {
    name: &'static str,
    rules: Vec<Rule>,
    /// What the deployment ends with on our device.
    ends: &'static str,
}

fn day(name: &'static str, rules: Vec<Rule>) -> Day {
    Day { name, rules, ends: "success" }
}

fn status(code: u16) -> Action {
    Action::Status { code, headers: Vec::new(), body: String::new() }
}

fn days() -> Vec<Day> {
    let download = |action| Rule::new(action).path("/download/");
    let next = |action| Rule::new(action).path("/deployments/next");
    let report = |words: &str, action| Rule::new(action).path("/status").body(words);
    let cut = || download(Action::Cut { after: CUT });
    let later = Action::Status {
        code: 429,
        headers: vec![("Retry-After".to_owned(), "2".to_owned())],
        body: String::new(),
    };
    vec![
        day("nothing", Vec::new()),
        day("download cut in the middle", vec![cut()]),
        day("302 on the download", vec![download(Action::Redirect { to: None })]),
        day("cut, then 200 instead of 206", vec![cut(), download(Action::IgnoreRange).times(0)]),
        day("cut, then an expired link", vec![cut(), download(status(403))]),
        day("expired link", vec![download(status(403))]),
        day("garbage as download", vec![download(Action::Garbage { bytes: 4096 })]),
        day("401 on next", vec![next(status(401))]),
        day("403 on next, 3 times", vec![next(status(403)).times(3)]),
        day("429 with Retry-After on next", vec![next(later)]),
        day("garbage as answer to next", vec![next(Action::Garbage { bytes: 512 })]),
        Day {
            ends: "failure",
            ..day("409 at downloading", vec![report("downloading", status(409)).times(0)])
        },
        Day { ends: "failure", ..day("409 at installing", vec![report("installing", status(409)).times(0)]) },
        day("500 on the final report, 5 times", vec![report("success", status(500)).times(5)]),
        day("lost answer of the final report", vec![report("success", Action::LoseAnswer)]),
    ]
}

/// How a day went.
#[derive(Debug)]
struct Went {
    /// What the server knows in the end; nothing when the client was not done in time.
    ended: Option<String>,
    /// Final reports that the server took.
    finals: Vec<String>,
    downloads: usize,
    /// Bytes of the artifact that were transferred more than once.
    twice: u64,
    polls_again: bool,
}

impl Went {
    fn row(&self, patience: Duration) -> String {
        let Some(ended) = &self.ended else {
            return format!("did not finish in {} s", patience.as_secs());
        };
        let Went { finals, downloads, twice, polls_again, .. } = self;
        let again = if *polls_again { "polls again" } else { "does not poll" };
        format!("{ended}, {} final, {downloads} GET, {twice} B twice, {again}", finals.len())
    }
}

/// A client in the middle of a day.
trait Client {
    /// Whatever has to be done between two looks.
    fn turn(&mut self) {}
}

impl Client for MenderDevice {}

impl Client for VirtualDevice {
    fn turn(&mut self) {
        if self.waits_for_restart() {
            self.restart();
        }
    }
}

fn is_poll(request: &RecordedRequest) -> bool {
    request.path.contains("/deployments/next") && request.status < 300
}

/// Orders the artifact, and looks until the deployment has ended and the client asks again.
fn watch(backend: &Backend, client: &mut dyn Client, artifact: &Path, day: &Day, patience: Duration) -> Went {
    backend.the_device();
    backend.management.upload_artifact(artifact).unwrap();
    backend.running.faults().set(day.rules.clone());
    let deployment = backend.management.deploy("release-2", "release-2", &[]).unwrap();
    let mut ended_at = None;
    let done = wait_for(patience, || {
        client.turn();
        let ended = backend.status(&deployment).filter(|status| FINISHED.contains(&&**status))?;
        let requests = backend.running.requests();
        let since = *ended_at.get_or_insert(requests.len());
        requests[since..].iter().any(is_poll).then_some(ended)
    });
    let polls_again = done.is_some();
    let ended = backend.status(&deployment).filter(|status| FINISHED.contains(&&**status));
    let reported = backend.reported(&deployment);
    let finals = reported.iter().filter(|(status, answer)| FINISHED.contains(&&**status) && *answer < 300);
    let requests = backend.running.requests();
    let downloads: Vec<_> = requests.iter().filter(|request| request.path.contains("/download/")).collect();
    let size = std::fs::metadata(artifact).unwrap().len();
    let twice = transferred(&downloads, day).saturating_sub(size);
    let finals = finals.map(|(status, _)| status.clone()).collect();
    Went { ended, finals, downloads: downloads.len(), twice, polls_again }
}

/// Bytes of artifacts that reached the client. The server counts what it handed to a connection; of an answer that was
/// cut or replaced only the part counts that was let through.
fn transferred(downloads: &[&RecordedRequest], day: &Day) -> u64 {
    let good = |request: &&&RecordedRequest| (200..300).contains(&request.status);
    let is_cut = day.rules.iter().any(|rule| matches!(rule.action, Action::Cut { .. }));
    let is_garbage = day.rules.iter().any(|rule| matches!(rule.action, Action::Garbage { .. }));
    let garbled = is_garbage && day.rules.iter().any(|rule| rule.path.as_deref() == Some("/download/"));
    let through = |(index, request): (usize, &&RecordedRequest)| match index {
        0 if garbled => 0,
        0 if is_cut => request.response_bytes.min(CUT),
        _ => request.response_bytes,
    };
    downloads.iter().filter(good).enumerate().map(through).sum()
}

fn backend() -> Backend {
    Backend::start(|options| options.auto_accept(true))
}

/// Bytes that do not compress.
fn payload() -> Vec<u8> {
    let words = (0..PAYLOAD_BYTES as u32 / 4).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31));
    words.flat_map(u32::to_le_bytes).collect()
}

/// What is wrong with how our daemon took the day.
fn ours(day: &Day) -> (String, Vec<String>) {
    let backend = backend();
    let mut device = VirtualDevice::new();
    device.configure(backend.running.url(), |_| {});
    device.start();
    let image = payload();
    let artifact = device.artifact("release-2", &image);
    let went = watch(&backend, &mut device, &artifact, day, OURS);
    let mut wrong = Vec::new();
    let mut check = |right: bool, what: &str| {
        if !right {
            wrong.push(format!("{}: {what}: {went:?}", day.name));
        }
    };
    check(went.ended.as_deref() == Some(day.ends), "the deployment does not end as it should");
    check(went.polls_again, "the daemon does not ask again");
    let hits = backend.running.faults().hits();
    check(hits.iter().all(|hits| *hits > 0), &format!("a fault did not happen ({hits:?})"));
    // A report whose answer is lost is one that the server takes twice.
    let lost = day.rules.iter().any(|rule| rule.action == Action::LoseAnswer);
    let finals = if lost { vec![day.ends; 2] } else { vec![day.ends] };
    check(went.finals == finals, "the final report is not one true report");
    let installed = device.running_image(image.len()) == image;
    check(installed == (day.ends == "success"), "what was reported is not what runs");
    let rest_is_sent_again = day.name.contains("200 instead of 206");
    let most = if rest_is_sent_again { CUT } else { 0 };
    check(went.twice <= most, "bytes were transferred twice");
    if !wrong.is_empty() {
        wrong.push(device.log());
    }
    device.stop();
    (went.row(OURS), wrong)
}

fn theirs(day: &Day) -> String {
    let Some(mut device) = MenderDevice::new() else { return "not installed".to_owned() };
    let backend = backend();
    device.bring_key();
    device.module("test-module", "true");
    device.start(backend.running.url(), |_| {});
    let artifact = device.artifact("release-2", "test-module", &payload());
    let went = watch(&backend, &mut device, &artifact, day, THEIRS);
    device.stop();
    went.row(THEIRS)
}

#[test]
fn our_daemon_ends_every_bad_day_with_one_true_report_and_asks_again() {
    interop::programs::client_program();
    let (rows, wrong) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for (number, day) in days().into_iter().enumerate() {
            let (rows, wrong) = (&rows, &wrong);
            scope.spawn(move || {
                let (one, other) = std::thread::scope(|both| {
                    let other = both.spawn(|| theirs(&day));
                    (ours(&day), other.join())
                });
                let other = other.unwrap_or_else(|_| "the test of it failed".to_owned());
                rows.lock().unwrap().push((number, [day.name.to_owned(), one.0, other]));
                wrong.lock().unwrap().extend(one.1);
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort();
    let heading = (0, ["fault", "rust-ota", "mender 3.4.0"].map(str::to_owned));
    for (_, [fault, one, other]) in std::iter::once(&heading).chain(&rows) {
        println!("{fault:<34}| {one:<58}| {other}");
    }
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
