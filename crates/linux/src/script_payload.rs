//! The payload type `script`: programs that are run once.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
use client_core::install::{Arriving, InstallError, PayloadHandler, Progress};
use nix::errno::Errno;

use crate::payload_tree::Tree;
use crate::process_group::{Ended, LAST_WORDS, Output, ProcessGroup};
use crate::{explain, process};

/// The payload type whose files are programs to run once.
pub const SCRIPT: &str = "script";

/// Runs the files of a payload, one after the other in the order of their names' bytes. What they did cannot be taken
/// back.
pub(crate) struct Scripts {
    pub(crate) tree: Tree,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Scripts {
    fn find(&self) -> io::Result<Vec<PathBuf>> {
        let mut scripts = Vec::new();
        for entry in fs::read_dir(std::path::absolute(self.tree.path("files"))?)? {
            let entry = entry?;
            // As a shell's `*`: hidden files are there for the others to use.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                scripts.push(entry.path());
            }
        }
        scripts.sort();
        Ok(scripts)
    }

    fn run(&self, script: &Path, timeout: Duration) -> Result<(), InstallError> {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |reason: String| InstallError::Handler { step: "ArtifactInstall", reason };
        let failed_with = |error: io::Error| failed(format!("script {name}: {error}"));
        let mode = fs::metadata(script).map_err(failed_with)?.permissions().mode();
        fs::set_permissions(script, fs::Permissions::from_mode(mode | 0o100)).map_err(failed_with)?;
        log::info!("running script {name}");
        let mut group = match self.spawn(Command::new(script)) {
            // Without a first line that names an interpreter it is the shell's, as where a shell starts it.
            Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg(script);
                self.spawn(shell)
            }
            started => started,
        }
        .map_err(|error| failed_with(explain::start_error(script.as_os_str(), error)))?;
        let (stdout, stderr) = group.take_output();
        let output = Output::log(&name, stdout, stderr);
        let ended = group.wait(timeout, &*self.clock);
        output.await_end(LAST_WORDS);
        match ended.map_err(failed_with)? {
            Ended::Exited(status) => {
                group.spare_the_rest();
                match status.success() {
                    true => Ok(()),
                    false => {
                        Err(failed(format!("script {name} ended with {}", explain::ended(script, status))))
                    }
                }
            }
            Ended::TimedOut => {
                let seconds = self.timeout.as_secs();
                Err(failed(format!("script {name} was ended because all took longer than {seconds} s")))
            }
            Ended::Stopped => Err(failed(format!("script {name} was stopped"))),
        }
    }

    fn spawn(&self, mut command: Command) -> io::Result<ProcessGroup> {
        command.current_dir(std::path::absolute(self.tree.path(""))?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::end_with_this_process(&mut command);
        ProcessGroup::start(&mut command)
    }
}

impl PayloadHandler for Scripts {
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.tree.create(arriving)?;
        self.tree.store_files(arriving.payload, progress)
    }

    fn install(&mut self) -> Result<(), InstallError> {
        let scripts = self.find().map_err(|error| InstallError::Handler {
            step: "ArtifactInstall",
            reason: format!("cannot list the scripts: {error}"),
        })?;
        let started = Instant::now();
        for script in scripts {
            self.run(&script, self.timeout.saturating_sub(started.elapsed()))?;
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.tree.remove()
    }
}
