//! State scripts on disk: stored privately, published as a whole, run one at a time with a deadline.
//!
//! Artifact scripts lie in `<datastore>/scripts`, those of the root file system in `<configuration>/scripts`. A
//! directory with scripts may hold a `version` file; `2` and `3` are known.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_core::artifact::StateScript;
use client_core::clock::{Clock, Paused};
use client_core::deploy::scripts::{OnScriptFailure, ScriptError, ScriptPoint, ScriptRunner};

use crate::process_group::{Ended, LAST_WORDS, Output, ProcessGroup};
use crate::{atomic_file, explain, regular_file};

/// Exit status by which a script asks to be run again later.
const RETRY_LATER: i32 = 21;

/// Limits on how long scripts may take.
#[derive(Debug, Clone, Copy)]
pub struct ScriptTimes {
    /// One run of one script.
    pub timeout: Duration,
    /// From a script's first request to be retried.
    pub retry_timeout: Duration,
    /// Between two runs of a script that asked to be retried.
    pub retry_interval: Duration,
}

/// Stores and runs state scripts.
pub struct LinuxScripts {
    artifact_directory: PathBuf,
    staging_directory: PathBuf,
    rootfs_directory: PathBuf,
    times: ScriptTimes,
    clock: Arc<dyn Clock>,
}

impl LinuxScripts {
    /// Artifact scripts go to `datastore/scripts`; those of the root file system are looked for in
    /// `configuration/scripts`. A request to stop that `clock` has ends the script that runs, and the wait for its retry.
    pub fn new(
        datastore: &Path,
        configuration: &Path,
        times: ScriptTimes,
        clock: Arc<dyn Clock>,
    ) -> LinuxScripts {
        LinuxScripts {
            artifact_directory: datastore.join("scripts"),
            staging_directory: datastore.join("scripts.new"),
            rootfs_directory: configuration.join("scripts"),
            times,
            clock,
        }
    }

    /// The scripts of one point, sorted bytewise.
    fn find(&self, directory: &Path, point: ScriptPoint) -> Result<Vec<PathBuf>, ScriptError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", directory, error)),
        };
        let prefix = format!("{point}_");
        let mut scripts = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| io_error("read", directory, error))?;
            if entry.file_name().to_str().is_some_and(|name| is_script_of(&prefix, name)) {
                scripts.push(entry.path());
            }
        }
        scripts.sort();
        if !scripts.is_empty() {
            check_version(&directory.join("version"))?;
        }
        Ok(scripts)
    }

    /// One script, run again for as long as it asks for it.
    fn run_one(&self, script: &Path) -> Result<(), ScriptError> {
        let name = file_name(script);
        let mut first_retry: Option<Instant> = None;
        loop {
            let status = self.run_once(script, &name)?;
            if status.success() {
                return Ok(());
            }
            if status.code() != Some(RETRY_LATER) {
                return Err(ScriptError::Failed { script: name, how: explain::ended(script, status) });
            }
            let since = first_retry.get_or_insert_with(Instant::now).elapsed();
            if since.saturating_add(self.times.retry_interval) > self.times.retry_timeout {
                let seconds = self.times.retry_timeout.as_secs();
                return Err(ScriptError::RetriedTooLong { script: name, seconds });
            }
            log::info!("state script {name} asks to be retried in {} s", self.times.retry_interval.as_secs());
            match self.clock.pause(self.times.retry_interval) {
                Paused::Elapsed => {}
                Paused::Stopped => return Err(stopped(&name)),
            }
        }
    }

    fn run_once(&self, script: &Path, name: &str) -> Result<ExitStatus, ScriptError> {
        log::info!("running state script {name}");
        let mut command = Command::new(script);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = ProcessGroup::spawn(&mut command).map_err(|error| io_error("run", script, error))?;
        let (stdout, stderr) = group.take_output();
        let output = Output::log(name, stdout, stderr);
        let ended = group.wait(self.times.timeout, &*self.clock);
        output.await_end(LAST_WORDS);
        match ended.map_err(|error| io_error("wait for", script, error))? {
            Ended::Exited(status) => {
                group.spare_the_rest();
                Ok(status)
            }
            Ended::TimedOut => {
                let seconds = self.times.timeout.as_secs();
                Err(ScriptError::TimedOut { script: name.to_owned(), seconds })
            }
            Ended::Stopped => Err(stopped(name)),
        }
    }
}

impl ScriptRunner for LinuxScripts {
    fn stage(&mut self, scripts: &[StateScript]) -> Result<(), ScriptError> {
        self.discard()?;
        if scripts.is_empty() {
            return Ok(());
        }
        let directory = &self.staging_directory;
        atomic_file::create_private_directory(directory).map_err(|e| io_error("create", directory, e))?;
        for script in scripts {
            let path = directory.join(&script.name);
            atomic_file::write_new(&path, &script.content, 0o700).map_err(|e| io_error("write", &path, e))?;
        }
        let version = directory.join("version");
        atomic_file::write_new(&version, b"3", 0o600).map_err(|e| io_error("write", &version, e))?;
        // Files first, then the names that lead to them.
        atomic_file::sync_directory(directory).map_err(|e| io_error("sync", directory, e))
    }

    fn publish(&mut self) -> Result<(), ScriptError> {
        let staged = &self.staging_directory;
        if !staged.try_exists().map_err(|error| io_error("look at", staged, error))? {
            return Ok(());
        }
        let to = &self.artifact_directory;
        atomic_file::remove_directory(to).map_err(|e| io_error("remove", to, e))?;
        atomic_file::publish(&self.staging_directory, to).map_err(|e| io_error("rename", to, e))
    }

    fn run(&mut self, point: ScriptPoint, on_failure: OnScriptFailure) -> Result<(), ScriptError> {
        let directory =
            if point.state.from_artifact() { &self.artifact_directory } else { &self.rootfs_directory };
        let mut first_error = None;
        for script in self.find(directory, point)? {
            if !is_executable(&script) {
                log::warn!("state script {} is not executable and is left out", script.display());
                continue;
            }
            let Err(error) = self.run_one(&script) else { continue };
            // A script that kept asking for a retry has used up the time of the whole set.
            let gave_up = matches!(error, ScriptError::RetriedTooLong { .. });
            if on_failure == OnScriptFailure::Stop || gave_up {
                return Err(error);
            }
            log::error!("{error}");
            first_error.get_or_insert(error);
        }
        first_error.map_or(Ok(()), Err)
    }

    fn check_root_scripts(&mut self) -> Result<(), ScriptError> {
        check_version(&self.rootfs_directory.join("version"))
    }

    fn discard(&mut self) -> Result<(), ScriptError> {
        for directory in [&self.staging_directory, &self.artifact_directory] {
            atomic_file::remove_directory(directory).map_err(|e| io_error("remove", directory, e))?;
        }
        Ok(())
    }
}

/// `<State>_<Action>_NN`, or the same with `_` and something without white space behind it.
fn is_script_of(prefix: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix) else { return false };
    let bytes = rest.as_bytes();
    let number = bytes.len() >= 2 && bytes[..2].iter().all(u8::is_ascii_digit);
    number && (bytes.len() == 2 || bytes[2] == b'_' && !rest.contains(char::is_whitespace))
}

/// Longest version file of a script directory that is read.
const VERSION_BYTES: u64 = 1024;

/// Whether the file `version` of a directory with scripts names a version that is known; a missing one does.
///
/// # Errors
/// When it does not, or cannot be read.
pub fn check_version(path: &Path) -> Result<(), ScriptError> {
    let text = regular_file::read(path, VERSION_BYTES);
    match text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
        Ok(text) if ["2", "3"].contains(&text.trim()) => Ok(()),
        Ok(text) => Err(ScriptError::Version {
            path: path.display().to_string(),
            found: text.trim().chars().take(32).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("read", path, error)),
    }
}

/// Whether it is a file that can be run.
pub fn is_executable(script: &Path) -> bool {
    fs::metadata(script)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The script did not end by itself, nor did it fail: this process was asked to stop.
fn stopped(script: &str) -> ScriptError {
    ScriptError::Failed { script: script.to_owned(), how: "stopped".into() }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ScriptError {
    ScriptError::Io { doing, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use client_core::deploy::scripts::{ScriptAction, ScriptState};

    use crate::clock::LinuxClock;

    use super::*;

    const ENTER: ScriptPoint =
        ScriptPoint { state: ScriptState::ArtifactInstall, action: ScriptAction::Enter };

    struct Fixture {
        directory: tempfile::TempDir,
        scripts: LinuxScripts,
    }

    impl Fixture {
        fn new(retry_timeout: Duration) -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let times = ScriptTimes {
                timeout: Duration::from_secs(30),
                retry_timeout,
                retry_interval: Duration::from_millis(1),
            };
            let clock = Arc::new(LinuxClock::new());
            let scripts = LinuxScripts::new(directory.path(), &directory.path().join("etc"), times, clock);
            Fixture { directory, scripts }
        }

        fn publish(&mut self, scripts: &[(&str, &str)]) {
            let scripts: Vec<StateScript> = scripts
                .iter()
                .map(|(name, body)| StateScript {
                    name: name.to_string(),
                    content: format!("#!/bin/sh\ncd {}\n{body}\n", self.directory.path().display())
                        .into_bytes(),
                })
                .collect();
            self.scripts.stage(&scripts).unwrap();
            self.scripts.publish().unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
        }
    }

    #[test]
    fn only_whole_names_with_two_digits_are_scripts() {
        let check =
            |name, expected| assert_eq!(is_script_of("ArtifactInstall_Enter_", name), expected, "{name}");
        check("ArtifactInstall_Enter_00", true);
        check("ArtifactInstall_Enter_99_x.sh", true);
        check("ArtifactInstall_Enter_00.sh", false);
        check("ArtifactInstall_Enter_0", false);
        check("ArtifactInstall_Enter_000", false);
        check("ArtifactInstall_Enter_00_a b", false);
        check("ArtifactInstall_Leave_00", false);
    }

    #[test]
    fn scripts_run_in_the_order_of_their_names_and_the_first_failure_stops_the_set() {
        let mut fixture = Fixture::new(Duration::ZERO);
        fixture.publish(&[
            ("ArtifactInstall_Enter_10_b", "echo b >> log; exit 3"),
            ("ArtifactInstall_Enter_02_a", "echo a >> log"),
            ("ArtifactInstall_Enter_20_c", "echo c >> log"),
            ("ArtifactInstall_Leave_00", "echo wrong >> log"),
        ]);
        let error = fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap_err().to_string();
        assert!(error.contains("ArtifactInstall_Enter_10_b failed: exit status: 3"), "{error}");
        assert_eq!(fixture.read("log"), "a\nb\n");
        assert!(fixture.scripts.run(ENTER, OnScriptFailure::RunTheRest).is_err());
        assert_eq!(fixture.read("log"), "a\nb\na\nb\nc\n");
    }

    #[test]
    fn nothing_staged_is_run_before_it_is_published() {
        let mut fixture = Fixture::new(Duration::ZERO);
        let script =
            StateScript { name: "ArtifactInstall_Enter_00".into(), content: b"#!/bin/false\n".to_vec() };
        fixture.scripts.stage(std::slice::from_ref(&script)).unwrap();
        fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap();
        fixture.scripts.publish().unwrap();
        fixture.scripts.publish().unwrap();
        assert!(fixture.scripts.run(ENTER, OnScriptFailure::Stop).is_err());
        fixture.scripts.discard().unwrap();
        fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap();
        assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_script_is_retried_until_it_succeeds_or_its_time_is_up() {
        let body = "echo x >> log; test $(wc -l < log) -ge 3 || exit 21";
        let mut fixture = Fixture::new(Duration::from_secs(60));
        fixture.publish(&[("ArtifactInstall_Enter_00", body)]);
        fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap();
        assert_eq!(fixture.read("log"), "x\nx\nx\n");

        let mut fixture = Fixture::new(Duration::ZERO);
        fixture.publish(&[("ArtifactInstall_Enter_00", "exit 21")]);
        let error = fixture.scripts.run(ENTER, OnScriptFailure::RunTheRest).unwrap_err();
        assert!(matches!(error, ScriptError::RetriedTooLong { .. }), "{error}");
    }

    #[test]
    fn a_script_that_hangs_is_killed_with_its_children() {
        let mut fixture = Fixture::new(Duration::ZERO);
        fixture.scripts.times.timeout = Duration::from_millis(200);
        fixture.publish(&[("ArtifactInstall_Enter_00", "sleep 1000 & echo $! > child; wait")]);
        let error = fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap_err();
        assert!(matches!(error, ScriptError::TimedOut { .. }), "{error}");
        let child: i32 = fixture.read("child").trim().parse().unwrap();
        // The signal was sent; that its receiver is gone is for the kernel to do.
        let state = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(state().is_empty() || state().contains(" Z ")) {
            assert!(Instant::now() < deadline, "{}", state());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_stop_ends_the_script_that_runs_and_the_wait_for_a_retry() {
        for body in ["touch started; trap '' TERM; while :; do sleep 1000; done", "touch started; exit 21"] {
            let mut fixture = Fixture::new(Duration::from_secs(3600));
            fixture.scripts.times.retry_interval = Duration::from_secs(600);
            fixture.scripts.times.timeout = Duration::from_secs(600);
            let clock = LinuxClock::new();
            fixture.scripts.clock = Arc::new(clock.clone());
            fixture.publish(&[("ArtifactInstall_Enter_00", body)]);
            let started = fixture.directory.path().join("started");
            let stopping = std::thread::spawn(move || {
                while !started.exists() {
                    std::thread::yield_now();
                }
                clock.request_stop();
                Instant::now()
            });
            let error = fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap_err().to_string();
            let asked = stopping.join().unwrap();
            assert!(asked.elapsed() < Duration::from_millis(1800), "{:?}", asked.elapsed());
            assert!(error.contains("stopped"), "{error}");
        }
    }

    #[test]
    fn scripts_of_an_unknown_version_are_refused() {
        let mut fixture = Fixture::new(Duration::ZERO);
        fixture.publish(&[("ArtifactInstall_Enter_00", "true")]);
        fs::write(fixture.directory.path().join("scripts/version"), "4").unwrap();
        let error = fixture.scripts.run(ENTER, OnScriptFailure::Stop).unwrap_err().to_string();
        assert!(error.contains("version \"4\""), "{error}");
    }
}
