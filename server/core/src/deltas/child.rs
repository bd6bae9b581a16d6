//! The program that makes a delta, as a process of its own: with a priority, for a limited time and with limited room, and
//! without what the environment of the server says.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use artifact::text::printable;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getpriority_process, kill_process_group, pidfd_open,
    pidfd_send_signal, prlimit, setpriority_pgrp,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes of what it says that are kept: the last ones.
const SAID_BYTES: usize = 4096;
/// How often it is looked how much it has written.
const LOOK: Duration = Duration::from_millis(500);
/// Files that it may make: each is looked at.
const FILES: usize = 10_000;
/// Bytes of an environment that are read.
const ENVIRONMENT_BYTES: u64 = 128 * 1024;
/// So often it is looked for processes that go on, with a pause in between: what is ended may have started another one.
const ROUNDS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// What the program may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long it may take.
    pub(super) time: Duration,
    /// What a file, and all that is in its folder, may have.
    pub(super) bytes: u64,
    /// How much it gives way to others: 0 as much as the server, 19 to all.
    pub(super) nice: i32,
}

/// Everything that the program has started, until it has ended.
struct Started {
    group: Option<Pid>,
    folder: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // There may be nobody left.
            let _ = kill_process_group(group, Signal::KILL);
        }
        end_all(&self.folder);
    }
}

/// Ends every process that keeps its temporary files in a folder or below, which is how the program was started, and all that it has
/// started: also one that has left its group. One that has been given another environment as well is not found.
pub(super) fn end_all(folder: &Path) {
    let mut is_left = false;
    for round in 0..ROUNDS {
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
        let (found, is_sure) = started_in(folder);
        if found.is_empty() && is_sure {
            return;
        }
        is_left = !found.is_empty();
        for process in found {
            // It may have ended by itself.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
    if is_left {
        log::warn!("what the program that makes deltas has started in {} goes on", folder.display());
    }
}

/// The processes of a folder, and whether there can be no other: one that is becoming another program has no environment for a
/// moment, as one that was started without any. What is held is the process itself, so that its number can mean nobody else.
fn started_in(folder: &Path) -> (Vec<OwnedFd>, bool) {
    let Ok(all) = fs::read_dir("/proc") else { return (Vec::new(), true) };
    let mut is_sure = true;
    let processes = all.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let number: i32 = name.to_str()?.parse().ok()?;
        let pid = Pid::from_raw(number).filter(|pid| *pid != getpid())?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let mut environment = Vec::new();
        // That of somebody else cannot be read.
        let file = File::open(format!("/proc/{number}/environ")).ok()?;
        file.take(ENVIRONMENT_BYTES).read_to_end(&mut environment).ok()?;
        // What has ended, and what is the kernel's, is no program.
        if environment.is_empty() && fs::read_link(format!("/proc/{number}/exe")).is_ok() {
            is_sure = false;
        }
        let mut variables = environment.split(|byte| *byte == 0);
        let is_there = |variable: &[u8]| {
            let value = variable.strip_prefix(b"TMPDIR=").map(std::ffi::OsStr::from_bytes);
            value.is_some_and(|value| Path::new(value).starts_with(folder))
        };
        variables.any(is_there).then_some(process)
    });
    (processes.collect(), is_sure)
}

/// Waits until there is more in a folder than there may be.
async fn until_full(folder: &Path, bytes: u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        let folder = folder.to_owned();
        let used = tokio::task::spawn_blocking(move || used(&folder)).await;
        if used.is_ok_and(|used| used.is_none_or(|used| used > bytes)) {
            return;
        }
    }
}

/// The bytes that a folder takes; `None` when it has more files than are looked at. What goes meanwhile takes none.
fn used(folder: &Path) -> Option<u64> {
    let (mut folders, mut bytes, mut files) = (vec![folder.to_owned()], 0_u64, 0_usize);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES {
                return None;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Some(bytes)
}

/// Why there is nothing of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may be otherwise next time: the program is being replaced, or the machine has no room or no processes.
    Passing(String),
    /// It will be the same again.
    Lasting(String),
}

/// What a program says when there is no room on the disk: the words of the system for it.
const NO_ROOM: &str = "No space left on device";

/// Runs the program in a folder. Dropped before its end, it ends it and what it has started. What it said.
///
/// # Errors
/// It does not start, fails, or uses more than it may.
pub(super) async fn run(
    program: &Path,
    arguments: &[OsString],
    folder: &Path,
    bounds: Bounds,
) -> Result<String, Trouble> {
    let mut command = Command::new(program);
    // In the environment of the server are the keys of its database and of S3.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("TMPDIR", folder).args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let not_started = |error| Trouble::Passing(format!("{} cannot be started: {error}", program.display()));
    let mut child = command.spawn().map_err(not_started)?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut started = Started { group: id, folder: folder.to_owned() };
    // Never less than the server, which may have been started with a priority of its own.
    let own = getpriority_process(None).unwrap_or_default();
    if let Err(error) = setpriority_pgrp(id, bounds.nice.max(own)) {
        log::warn!("the program that makes deltas has the priority of the server: {error}");
    }
    for (resource, most) in [(Resource::Fsize, bounds.bytes), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        match id.map(|id| prlimit(Some(id), resource, limit)) {
            // It has ended already.
            None | Some(Ok(_) | Err(rustix::io::Errno::SRCH)) => {}
            Some(Err(error)) => {
                return Err(Trouble::Passing(format!("the program could not be given a limit: {error}")));
            }
        }
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let status = child.wait().await;
        // Its number may be somebody else's from here on.
        started.group = None;
        // What it has left behind would go on, and keep its output open. It is looked for once more when all is over.
        end_all(folder);
        status
    };
    let all = async { tokio::join!(ended, said(out), said(err)) };
    let ended = tokio::select! {
        ended = tokio::time::timeout(bounds.time, all) => ended,
        () = until_full(folder, bounds.bytes) => {
            let reason = format!("the program has written more than {} bytes, or {FILES} files", bounds.bytes);
            return Err(Trouble::Lasting(reason));
        }
    };
    let Ok((status, out, err)) = ended else {
        let reason = format!("the program took longer than {} seconds", bounds.time.as_secs());
        return Err(Trouble::Lasting(reason));
    };
    let status = status.map_err(|error| Trouble::Passing(format!("the program was lost: {error}")))?;
    let text = [out, err].concat();
    let text = printable(text.trim()).to_string();
    if status.success() {
        return Ok(text);
    }
    let reason = match text.is_empty() {
        true => format!("the program ended with {status} and said nothing"),
        false => format!("the program ended with {status}: {text}"),
    };
    // The limit of a file ends it with a signal too; what else ends others so is a person, or the system for want of memory.
    let is_killed = status.signal() == Some(Signal::KILL.as_raw());
    match is_killed || text.contains(NO_ROOM) {
        true => Err(Trouble::Passing(reason)),
        false => Err(Trouble::Lasting(reason)),
    }
}

/// Reads to the end, and keeps the last bytes.
async fn said(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; SAID_BYTES]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(SAID_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1024 * 1024;

    /// Whoever gives way to all waits for ever on a busy machine, and these times are for programs that do not.
    fn bounds(milliseconds: u64) -> Bounds {
        Bounds { time: Duration::from_millis(milliseconds), bytes: BYTES, nice: 0 }
    }

    /// A reason that stays.
    fn lasting(ended: Result<String, Trouble>) -> String {
        match ended {
            Err(Trouble::Lasting(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn shell(script: &str, milliseconds: u64) -> Result<String, Trouble> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-c".into(), script.into()];
        run(Path::new("sh"), &arguments, folder.path(), bounds(milliseconds)).await
    }

    /// Until a process has ended whose number is in a file.
    async fn has_ended(path: &Path) {
        let pid = fs::read_to_string(path).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Nobody may be there yet who asks how it ended.
        let mut left = 1000;
        while state().is_ok_and(|stat| !stat.contains(") Z")) && left > 0 {
            left -= 1;
            // Another process ends when it does: it is asked again and again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(left > 0, "it goes on");
    }

    #[tokio::test]
    async fn what_a_program_says_is_bounded_and_how_it_ends_is_told() {
        let said = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2", 60_000).await.unwrap();
        assert!(said.len() <= 2 * SAID_BYTES && said.ends_with("end"), "{}", said.len());
        let error = lasting(shell("echo no room >&2; exit 3", 60_000).await);
        assert_eq!(error, "the program ended with exit status: 3: no room");
        assert_eq!(
            shell("env | grep -v -e PWD -e SHLVL -e PATH -e _=", 60_000).await.unwrap().lines().count(),
            1
        );
        let folder = tempfile::tempdir().unwrap();
        let missing = run(&folder.path().join("x"), &[], folder.path(), bounds(60_000)).await;
        let Err(Trouble::Passing(reason)) = missing else { panic!("{missing:?}") };
        assert!(reason.contains("cannot be started: No such file"), "{reason}");
        for script in ["kill -9 $$", "echo 'a: No space left on device (os error 28)' >&2; exit 1"] {
            let ended = shell(script, 60_000).await;
            assert!(matches!(ended, Err(Trouble::Passing(_))), "{script}: {ended:?}");
        }
    }

    #[tokio::test]
    async fn a_program_and_what_it_starts_give_way_as_much_as_they_are_told_to() {
        let folder = tempfile::tempdir().unwrap();
        // It has its priority as soon as it runs, and not before.
        let script = "until test $(nice) = 7; do :; done; sh -c nice";
        let bounds = Bounds { nice: 7, ..bounds(60_000) };
        let said = run(Path::new("sh"), &["-c".into(), script.into()], folder.path(), bounds).await;
        assert_eq!(said, Ok("7".to_owned()));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_ends_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", path.display());
        assert_eq!(lasting(shell(&script, 500).await), "the program took longer than 0 seconds");
        has_ended(&path).await;
    }

    #[tokio::test]
    async fn what_has_left_the_group_ends_as_well_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        for (name, last, milliseconds) in [("ends", "true", 60_000), ("goes on", "sleep 1000", 500)] {
            let path = folder.path().join(name);
            let script = format!("setsid sleep 1000 & echo $! > '{}'; {last}", path.display());
            // It has the output of the program still.
            assert_eq!(shell(&script, milliseconds).await.is_ok(), name == "ends", "{name}");
            has_ended(&path).await;
        }
    }

    #[test]
    fn whoever_has_no_environment_may_be_one_of_them_and_is_not_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = std::process::Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
        let (found, is_sure) = started_in(folder.path());
        assert!(found.is_empty() && !is_sure);
        end_all(folder.path());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[tokio::test]
    async fn what_a_program_writes_is_bounded_in_one_file_and_in_many() {
        // It has its limit as soon as it runs, and not before.
        let one = "while test $(ulimit -f) = unlimited; do :; done; head -c 3000000 /dev/zero > x";
        let error = lasting(shell(one, 60_000).await);
        assert!(error.starts_with("the program ended with "), "{error}");
        let many = "n=0; while :; do n=$((n + 1)); head -c 100000 /dev/zero > f$n; done";
        let error = lasting(shell(many, 60_000).await);
        assert!(error.starts_with("the program has written more than 1048576 bytes"), "{error}");
    }
}
