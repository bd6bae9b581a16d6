//! Update modules, protocol version 3: an executable for each payload type, called once per state with the name of the
//! state and the path of its [file tree](crate::payload_tree::Tree).
//!
//! A module is a program of the device: it may do anything, and is trusted as much as the device's own software. It is
//! not trusted to come to an end, to read what it is given, or to keep its output short.

mod streams;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
use client_core::install::{Arriving, InstallError, PayloadHandler, Progress, RebootNeed, Step};

use crate::payload_tree::Tree;
use crate::process_group::{Ended, LAST_WORDS, Output, ProcessGroup, SMALL_STACK};
use crate::{explain, process, regular_file};
use streams::{StreamError, Streams, Taken};

/// Longest answer to a question, in bytes. The longest legal one has ten.
const ANSWER_BYTES: usize = 1024;
/// How long a module that closed a file early has to say why, and to end.
const LAST_ACT: Duration = Duration::from_secs(5);
/// Longest name of a payload type that is read back. Files have shorter ones.
const PAYLOAD_TYPE_BYTES: u64 = 1024;
/// What a module is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ProvidePayloadFileSizes,
    Download,
    DownloadWithFileSizes,
    ArtifactInstall,
    NeedsArtifactReboot,
    SupportsRollback,
    ArtifactReboot,
    ArtifactVerifyReboot,
    ArtifactCommit,
    ArtifactRollback,
    ArtifactRollbackReboot,
    ArtifactVerifyRollbackReboot,
    ArtifactFailure,
    Cleanup,
}

impl State {
    /// The state of a step.
    fn of(step: Step) -> State {
        match step {
            Step::NeedsReboot => State::NeedsArtifactReboot,
            Step::SupportsRollback => State::SupportsRollback,
            Step::Reboot => State::ArtifactReboot,
            Step::VerifyReboot => State::ArtifactVerifyReboot,
            Step::RebootBack => State::ArtifactRollbackReboot,
            Step::VerifyRebootBack => State::ArtifactVerifyRollbackReboot,
            Step::Commit => State::ArtifactCommit,
            Step::RollBack => State::ArtifactRollback,
            Step::Fail => State::ArtifactFailure,
            Step::CleanUp => State::Cleanup,
        }
    }

    /// The first argument of the module.
    fn name(self) -> &'static str {
        match self {
            State::ProvidePayloadFileSizes => "ProvidePayloadFileSizes",
            State::Download => "Download",
            State::DownloadWithFileSizes => "DownloadWithFileSizes",
            State::ArtifactInstall => "ArtifactInstall",
            State::NeedsArtifactReboot => "NeedsArtifactReboot",
            State::SupportsRollback => "SupportsRollback",
            State::ArtifactReboot => "ArtifactReboot",
            State::ArtifactVerifyReboot => "ArtifactVerifyReboot",
            State::ArtifactCommit => "ArtifactCommit",
            State::ArtifactRollback => "ArtifactRollback",
            State::ArtifactRollbackReboot => "ArtifactRollbackReboot",
            State::ArtifactVerifyRollbackReboot => "ArtifactVerifyRollbackReboot",
            State::ArtifactFailure => "ArtifactFailure",
            State::Cleanup => "Cleanup",
        }
    }
}

/// One update module at work on its payload.
pub(crate) struct UpdateModule {
    pub(crate) name: String,
    pub(crate) module: PathBuf,
    pub(crate) tree: Tree,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

impl UpdateModule {
    fn failed(&self, state: State, reason: impl Into<String>) -> InstallError {
        let reason = format!("update module {}: {}", self.name, reason.into());
        InstallError::Handler { step: state.name(), reason }
    }

    fn command(&self, state: State) -> Result<Command, InstallError> {
        let tree = self.tree.absolute().map_err(|error| self.tree.error("find", error))?;
        let mut command = Command::new(&self.module);
        command.arg(state.name()).arg(&tree).current_dir(&tree);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::end_with_this_process(&mut command);
        Ok(command)
    }

    fn start(&self, state: State) -> Result<ProcessGroup, InstallError> {
        log::info!("update module {}: {}", self.name, state.name());
        ProcessGroup::spawn(&mut self.command(state)?)
            .map_err(|error| self.failed(state, format!("cannot run {}: {error}", self.module.display())))
    }

    /// Starts it with all it writes in the log.
    fn start_logged(&self, state: State) -> Result<(ProcessGroup, Output), InstallError> {
        let mut group = self.start(state)?;
        let (stdout, stderr) = group.take_output();
        let output = Output::log(&self.name, stdout, stderr);
        Ok((group, output))
    }

    /// What the end of a call means.
    fn judge(&self, state: State, ended: io::Result<Ended>) -> Result<(), InstallError> {
        match ended {
            Ok(Ended::Exited(status)) if status.success() => Ok(()),
            Ok(Ended::Exited(status)) => Err(self.failed(state, explain::ended(&self.module, status))),
            Ok(Ended::TimedOut) => {
                let seconds = self.timeout.as_secs();
                Err(self.failed(state, format!("ended because it took longer than {seconds} s")))
            }
            Ok(Ended::Stopped) => Err(self.failed(state, "stopped")),
            Err(error) => Err(self.failed(state, format!("cannot wait for it: {error}"))),
        }
    }

    /// Calls the module for what it does.
    fn act(&self, state: State) -> Result<(), InstallError> {
        self.check_tree(state)?;
        let (mut group, output) = self.start_logged(state)?;
        let ended = group.wait(self.timeout, &*self.clock);
        output.await_end(LAST_WORDS);
        // Services that it restarted live on.
        if matches!(ended, Ok(Ended::Exited(_))) {
            group.spare_the_rest();
        }
        self.judge(state, ended)
    }

    /// Calls the module for what it says. Nothing, or one line.
    fn ask(&self, state: State) -> Result<String, InstallError> {
        self.check_tree(state)?;
        let mut group = self.start(state)?;
        let (stdout, stderr) = group.take_output();
        let output = Output::log(&self.name, None, stderr);
        let answer =
            stdout.map(read_answer).transpose().map_err(|error| self.failed(state, error.to_string()))?;
        let ended = group.wait(self.timeout, &*self.clock);
        let answer = answer.and_then(|answer| answer.recv_timeout(LAST_WORDS).ok());
        output.await_end(LAST_WORDS);
        self.judge(state, ended)?;
        let answer = answer.ok_or_else(|| self.failed(state, "does not close its output"))?;
        let text = String::from_utf8_lossy(&answer);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.contains('\n') || answer.len() > ANSWER_BYTES {
            return Err(self.failed(state, "says more than one line"));
        }
        Ok(line.to_owned())
    }

    /// One of the words that may be said, or nothing for the first of them.
    fn ask_for<T: Copy>(&self, state: State, words: &[(&str, T)]) -> Result<T, InstallError> {
        let answer = self.ask(state)?;
        let known = words.iter().find(|(word, _)| answer == *word);
        match (known, words.first()) {
            (Some((_, meaning)), _) => Ok(*meaning),
            (None, Some((_, default))) if answer.is_empty() => Ok(*default),
            (None, _) => {
                let said: String = answer.chars().take(64).collect();
                Err(self.failed(state, format!("says {said:?}, which is none of its answers")))
            }
        }
    }

    fn check_tree(&self, state: State) -> Result<(), InstallError> {
        match self.tree.exists() {
            true => Ok(()),
            false => Err(self.failed(state, "its file tree is gone")),
        }
    }

    /// A download that was stopped has not happened, but its module was called: it may have left something behind. The
    /// module that is called for it must be the one that was.
    fn clean_up_after_another(&self) {
        let left = regular_file::read(&self.tree.path("header/payload_type"), PAYLOAD_TYPE_BYTES);
        if left.unwrap_or_default() == self.name.as_bytes() {
            self.act(State::Cleanup).unwrap_or_else(|error| log::warn!("ignored: {error}"));
        }
    }

    /// The download itself: streamed, or stored where the module does not ask for streams.
    fn receive(&self, arriving: &mut Arriving<'_>, progress: &mut dyn Progress) -> Result<(), InstallError> {
        let with_sizes = self.ask_for(State::ProvidePayloadFileSizes, &[("No", false), ("Yes", true)])?;
        let state = if with_sizes { State::DownloadWithFileSizes } else { State::Download };
        let unusable = |error: io::Error| self.failed(state, format!("cannot use a FIFO: {error}"));
        let streams = Streams::new(&self.tree, with_sizes, self.timeout, &*self.clock).map_err(unusable)?;
        let (mut group, output) = self.start_logged(state)?;
        let started = Instant::now();
        let taken = match streams.feed(arriving.payload, &mut group, progress) {
            Ok(taken) => taken,
            Err(StreamError::Artifact(error)) => return Err(InstallError::Artifact(error)),
            Err(StreamError::Io(error)) => return Err(unusable(error)),
            Err(StreamError::ClosedEarly { file }) => {
                let early = self.failed(state, format!("closed {file} before its end"));
                let left = self.timeout.saturating_sub(started.elapsed()).min(LAST_ACT);
                let ended = group.wait(left, &*self.clock);
                output.await_end(LAST_WORDS);
                // Its own reason, where it gives one.
                let own = self.judge(state, ended);
                own.unwrap_or_else(|error| log::error!("{error}"));
                return Err(early);
            }
        };
        let left = self.timeout.saturating_sub(started.elapsed());
        let ended = group.wait(left, &*self.clock);
        output.await_end(LAST_WORDS);
        self.judge(state, ended)?;
        drop(streams);
        match taken {
            Taken::All => Ok(()),
            Taken::Part => Err(self.failed(state, "started downloading, but did not finish")),
            Taken::Nothing => self.tree.store_files(arriving.payload, progress),
        }
    }
}

impl PayloadHandler for UpdateModule {
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.clean_up_after_another();
        self.tree.create(arriving)?;
        self.receive(arriving, progress)?;
        // What the module has put into `tmp` has to be there after a power cut too.
        sync_file_system(&self.tree).map_err(|error| self.tree.error("sync", error))
    }

    fn install(&mut self) -> Result<(), InstallError> {
        self.act(State::ArtifactInstall)
    }

    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        let words =
            [("No", RebootNeed::None), ("Automatic", RebootNeed::Automatic), ("Yes", RebootNeed::Custom)];
        self.ask_for(State::NeedsArtifactReboot, &words)
    }

    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        self.ask_for(State::SupportsRollback, &[("No", false), ("Yes", true)])
    }

    fn otherwise(&mut self, step: Step) -> Result<(), InstallError> {
        self.act(State::of(step))
    }

    fn clean_up(&mut self) -> Result<(), InstallError> {
        if !self.tree.exists() {
            // Cleaned up already, by a process that did not come to say so.
            return Ok(());
        }
        let cleaned = self.act(State::Cleanup);
        // A stop is no verdict: the next process calls it again, and needs the tree for that.
        if cleaned.is_err() && self.clock.stop_requested() {
            return cleaned;
        }
        self.tree.remove().and(cleaned)
    }
}

/// Without a look at each file, which the module or what it left running may remove meanwhile.
fn sync_file_system(tree: &Tree) -> io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(tree.path(""))?)?)
}

/// Reads what a module says in a thread of its own: at most so much is kept, all is read, so that it cannot block.
fn read_answer(mut pipe: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, answer) = mpsc::channel();
    let read = move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 {
                break;
            }
            // One more than is legal, so that too much is seen as such.
            let room = (ANSWER_BYTES + 1).saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&buffer[..room]);
        }
        // Nobody may be listening any more.
        let _ = sender.send(kept);
    };
    thread::Builder::new().stack_size(SMALL_STACK).spawn(read)?;
    Ok(answer)
}
