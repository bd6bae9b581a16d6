//! A server that is measured: how soon it answers, what it allocates, and what it needs of the processors.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::memory::Memory;
use crate::http;
use crate::process::Process;
use xtask::{Outcome, cpu, workspace};

/// How long a server may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at whether it answers.
const LOOK: Duration = Duration::from_micros(500);
/// Between two looks at its memory.
const SAMPLE: Duration = Duration::from_millis(100);

const HEALTH: &str = "/api/internal/v1/health";
const LIST: &str = "/api/management/v1/inventory/devices?per_page=1";

/// Where everything of one run is.
pub struct Place<'a> {
    /// The server, and what fills and asks it.
    pub program: &'a Path,
    /// The data folder.
    pub data: PathBuf,
    /// What servers say.
    pub log: PathBuf,
    /// How many devices there are.
    pub devices: u64,
    /// What `serve` is given beside its folder.
    pub options: Vec<String>,
}

impl Place<'_> {
    /// Runs a command of the program, and reads its JSON.
    pub fn json<W: AsRef<OsStr>>(&self, words: &[W]) -> Outcome<Value> {
        let mut command = self.command(words);
        let output = workspace::capture(&mut command)?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{}: {error}", workspace::shown(&command)))
    }

    fn command<W: AsRef<OsStr>>(&self, words: &[W]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words).arg("--json").arg("--data").arg(&self.data);
        command.args(["--devices", &self.devices.to_string()]).stdin(Stdio::null());
        command
    }

    /// Lets the fleet ask these servers.
    pub fn simulate(&self, servers: &[&Server], words: &[&str]) -> Outcome<Value> {
        self.json(&simulating(servers, words))
    }

    /// The same beside what goes on: its JSON comes at the end.
    pub fn begin(&self, servers: &[&Server], words: &[&str]) -> Outcome<Simulating> {
        let mut command = self.command(&simulating(servers, words));
        let begun = command.stdout(Stdio::piped()).spawn();
        begun.map(Simulating).map_err(|error| format!("{}: {error}", workspace::shown(&command)))
    }
}

/// A fleet that asks.
pub struct Simulating(Child);

impl Simulating {
    /// What it has measured.
    pub fn end(self) -> Outcome<Value> {
        let output = self.0.wait_with_output().map_err(|error| format!("simulate: {error}"))?;
        if !output.status.success() {
            return Err(format!("simulate: {}", output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("simulate: {error}"))
    }
}

fn simulating(servers: &[&Server], words: &[&str]) -> Vec<String> {
    let mut all = vec!["simulate".to_owned()];
    for server in servers {
        all.extend(["--server".to_owned(), format!("http://{}", server.address)]);
    }
    all.extend(words.iter().map(|word| (*word).to_owned()));
    all
}

/// A running server.
pub struct Server {
    process: Process,
    address: SocketAddr,
    /// From its start to its first answer: that it is well.
    pub answered_ms: f64,
    /// From its start to the first page of a list of devices.
    pub listed_ms: f64,
    sampling: Option<(Arc<AtomicBool>, Arc<AtomicU64>, JoinHandle<()>)>,
}

impl Server {
    /// Starts one and waits until it has told how many devices there are.
    pub fn start(place: &Place<'_>) -> Outcome<Server> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| format!("no free port: {error}"))?;
        let token = workspace::read(&place.data.join("management-token"))?;
        let mut command = Command::new(place.program);
        command.args(["serve", "--quiet", "--listen", &address.to_string(), "--data"]).arg(&place.data);
        command.args(&place.options);
        let began = Instant::now();
        let process = Process::start(&mut command, &place.log)?;
        let mut server = Server { process, address, answered_ms: 0.0, listed_ms: 0.0, sampling: None };
        loop {
            if server.answered_ms == 0.0 && ask(address, HEALTH, "").is_some_and(|answer| is_good(&answer)) {
                server.answered_ms = milliseconds(began);
            }
            match total(address, token.trim()) {
                Some(total) if total == place.devices => break,
                Some(total) => return Err(format!("the server has {total} devices, not {}", place.devices)),
                None if began.elapsed() > PATIENCE => return Err("the server does not answer".into()),
                None => std::thread::sleep(LOOK),
            }
            // What it says when it ends at once.
            server.process.next_line(Duration::ZERO)?;
        }
        server.listed_ms = milliseconds(began);
        server.sample();
        Ok(server)
    }

    fn sample(&mut self) {
        let (ended, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, highest, id) = (ended.clone(), most.clone(), self.process.id());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok(memory) = Memory::of(id) {
                    highest.fetch_max(memory.anonymous as u64, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE);
            }
        });
        self.sampling = Some((ended, most, thread));
    }

    /// Processor seconds so far.
    pub fn cpu(&self) -> Outcome<f64> {
        cpu::seconds(self.process.id())
    }

    /// MiB that are allocated now.
    pub fn allocated_mib(&self) -> Outcome<f64> {
        Ok(Memory::of(self.process.id())?.anonymous / 1024.0)
    }

    /// The most that was seen, in MiB.
    pub fn most_allocated_mib(&self) -> f64 {
        let most = self.sampling.as_ref().map_or(0, |(_, most, _)| most.load(Ordering::Relaxed));
        most as f64 / 1024.0
    }

    /// Stops it as a service manager does: how long that took, in milliseconds.
    pub fn stop(mut self) -> Outcome<f64> {
        self.end_sampling();
        let began = Instant::now();
        self.process.signal("TERM")?;
        // When it has ended there is nothing more to read.
        while self.process.next_line(PATIENCE).is_ok_and(|line| line.is_some()) {}
        Ok(milliseconds(began))
    }

    /// Its end as by a power cut.
    pub fn kill(mut self) {
        self.end_sampling();
        self.process.kill();
    }

    /// SIGKILL after a while, beside what goes on.
    pub fn kill_after(self, wait: Duration) -> JoinHandle<()> {
        std::thread::spawn(move || {
            std::thread::sleep(wait);
            self.kill();
        })
    }

    fn end_sampling(&mut self) {
        if let Some((ended, _, thread)) = self.sampling.take() {
            ended.store(true, Ordering::Relaxed);
            // It reads a file and sleeps; there is nothing to hear of it.
            let _ = thread.join();
        }
    }
}

/// How many devices the server lists; `None` when it does not answer.
fn total(address: SocketAddr, token: &str) -> Option<u64> {
    total_of(&ask(address, LIST, &format!("Authorization: Bearer {token}\r\n"))?)
}

fn ask(address: SocketAddr, path: &str, header: &str) -> Option<String> {
    http::ask(address, "GET", path, header, "").ok()
}

fn is_good(answer: &str) -> bool {
    answer.lines().next().is_some_and(|line| line.contains(" 200 ") || line.contains(" 204 "))
}

fn total_of(answer: &str) -> Option<u64> {
    if !is_good(answer) {
        return None;
    }
    let named = answer.lines().filter_map(|line| line.split_once(':'));
    let mut totals = named.filter(|(name, _)| name.eq_ignore_ascii_case("x-total-count"));
    totals.next()?.1.trim().parse().ok()
}

/// Since then.
pub fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_of_devices_is_read_of_an_answer() {
        let answer = "HTTP/1.1 200 OK\r\nX-Total-Count: 12\r\n\r\n[]";
        assert_eq!(super::total_of(answer), Some(12));
        assert_eq!(super::total_of(&answer.replace("200 OK", "503 Busy")), None);
        assert_eq!(super::total_of("HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
