//! One run of a machine, from power on to its end: QEMU, and what it says on its serial console.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Longest line that is kept; a machine may say garbage.
const LINE_BYTES: usize = 4096;

/// What came of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// This line.
    Line(String),
    /// The machine is off: it was restarted, or it stopped.
    Ended,
}

/// A machine that is on. It loses its power when this is dropped.
pub struct Machine {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    /// All lines so far that somebody waited past.
    heard: Vec<String>,
    /// Whether its processor time is still to be added up.
    counts: bool,
}

impl Machine {
    /// Turns it on. What it says goes to `log`, each line with the seconds since the start.
    pub fn start(command: &Command, log: &Path) -> Outcome<Machine> {
        let mut file =
            File::create(log).map_err(|error| format!("cannot make {}: {error}", log.display()))?;
        // A parameter that is wrong is worth reading.
        let errors = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = ending_with_us(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", command_name(&command)))?;
        let mut output = child.stdout.take().ok_or("the machine has no console")?;
        let (sender, lines) = mpsc::channel();
        let start = Instant::now();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(count) = output.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                for &byte in &buffer[..count] {
                    if byte == b'\n' || line.len() == LINE_BYTES {
                        let text = plain(&line);
                        line.clear();
                        // The log is for whoever looks after a failure.
                        let _ = writeln!(file, "[{:8.3}] {text}", start.elapsed().as_secs_f64());
                        // Nobody may be listening any more.
                        let _ = sender.send(text);
                    } else {
                        line.push(byte);
                    }
                }
            }
            if !line.is_empty() {
                let text = plain(&line);
                let _ = writeln!(file, "[{:8.3}] {text}", start.elapsed().as_secs_f64());
                let _ = sender.send(text);
            }
        });
        Ok(Machine { child, lines, log: log.to_path_buf(), heard: Vec::new(), counts: true })
    }

    /// Waits for a line that contains `marker`, or for the end.
    ///
    /// # Errors
    /// With the last lines, when neither comes within `patience`.
    pub fn wait_for(&mut self, marker: &str, patience: Duration) -> Outcome<Seen> {
        let deadline = Instant::now() + patience;
        loop {
            match self.next_line(deadline.saturating_duration_since(Instant::now())) {
                Heard::Line(line) => {
                    if line.contains(marker) {
                        return Ok(Seen::Line(line));
                    }
                }
                Heard::Ended => return Ok(Seen::Ended),
                Heard::Nothing => return Err(self.because(&format!("no {marker:?} came"))),
            }
        }
    }

    /// Looks until `look` sees something, and after each line of the machine and every few milliseconds again.
    /// `None` when the machine ended first.
    pub fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&[String]) -> Option<T>,
    ) -> Outcome<Option<T>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(seen) = look(&self.heard) {
                return Ok(Some(seen));
            }
            match self.next_line(Duration::from_millis(20)) {
                Heard::Ended => return Ok(look(&self.heard)),
                Heard::Line(_) => {}
                Heard::Nothing if Instant::now() >= deadline => return Err(self.because(what)),
                Heard::Nothing => {}
            }
        }
    }

    /// Lets it run for so long. Whether it is still on.
    pub fn goes_on(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            match self.next_line(deadline.saturating_duration_since(Instant::now())) {
                Heard::Line(_) => {}
                Heard::Nothing => return true,
                Heard::Ended => return false,
            }
        }
    }

    /// Pulls the plug.
    pub fn kill(mut self) -> Vec<String> {
        self.stop();
        std::mem::take(&mut self.heard)
    }

    fn next_line(&mut self, patience: Duration) -> Heard {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                self.heard.push(line.clone());
                Heard::Line(line)
            }
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::Ended,
        }
    }

    fn because(&self, what: &str) -> String {
        let last = self.heard.iter().rev().take(25).rev();
        let last: Vec<String> = last.map(|line| format!("    {line}")).collect();
        format!("{what}; the machine said last ({}):\n{}", self.log.display(), last.join("\n"))
    }

    fn stop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        // As long as nobody waited for it, the kernel knows what it used.
        let used = processor_centiseconds(self.child.id()).unwrap_or(0);
        if std::mem::take(&mut self.counts) {
            USED_CENTISECONDS.with(|all| all.set(all.get() + used));
        }
        let _ = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

thread_local! {
    /// Processor time of the machines that this thread turned off.
    static USED_CENTISECONDS: Cell<u64> = const { Cell::new(0) };
}

/// Hundredths of seconds of processor time of the machines that this thread turned off so far.
pub fn used_centiseconds() -> u64 {
    USED_CENTISECONDS.with(Cell::get)
}

/// User and system time: fields 14 and 15 of proc_pid_stat(5), counted behind the name in parentheses. The unit is 1/100 s
/// on every Linux.
fn processor_centiseconds(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

enum Heard {
    Line(String),
    Nothing,
    Ended,
}

/// The same command, ended by the kernel when the thread that started it is gone: nobody else would.
fn ending_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A line as a person reads it: without escape sequences and control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                // Parameters, then one letter.
                while characters.next_if(|next| !next.is_ascii_alphabetic()).is_some() {}
            }
            characters.next();
        } else if !character.is_control() {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;01H\x1b[=3hrust-ota: boots\r"), "rust-ota: boots");
        assert_eq!(plain(b"plain \xff"), "plain \u{fffd}");
        assert_eq!(plain(b"\x1b"), "");
    }

    #[test]
    fn a_line_is_waited_for_and_the_end_is_told() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; printf three"]);
        let mut machine = Machine::start(&command, log.path()).unwrap();
        let patience = Duration::from_secs(20);
        assert_eq!(machine.wait_for("tw", patience), Ok(Seen::Line("two".into())));
        assert_eq!(machine.wait_for("four", patience), Ok(Seen::Ended));
        assert_eq!(machine.heard, ["one", "two", "three"]);
        assert_eq!(std::fs::read_to_string(log.path()).unwrap().lines().count(), 3);
    }
}
