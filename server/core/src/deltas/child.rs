//! The program that makes a delta, as a process of its own: with the lowest priority, for a limited time, and without what
//! the environment of the server says.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use artifact::text::printable;
use rustix::process::{Pid, Signal, kill_process_group, setpriority_pgrp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes of what it says that are kept: the last ones.
const SAID_BYTES: usize = 4096;
/// Those that wait least.
const NICE: i32 = 19;

/// Everything that the program has started, until it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // There may be nobody left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the program in a folder. Dropped before its end, it ends it and what it has started. What it said.
///
/// # Errors
/// It does not start, fails, or takes longer than `limit`.
pub(super) async fn run(
    program: &Path,
    arguments: &[OsString],
    folder: &Path,
    limit: Duration,
) -> Result<String, String> {
    let mut command = Command::new(program);
    // In the environment of the server are the keys of its database and of S3.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("TMPDIR", folder).args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(id);
    if let Err(error) = setpriority_pgrp(id, NICE) {
        log::warn!("the program that makes deltas has the priority of the server: {error}");
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(limit, async { tokio::join!(child.wait(), said(out), said(err)) }).await;
    let Ok((status, out, err)) = ended else {
        return Err(format!("the program took longer than {} seconds", limit.as_secs()));
    };
    let status = status.map_err(|error| format!("the program was lost: {error}"))?;
    group.0 = None;
    let text = [out, err].concat();
    let text = printable(text.trim()).to_string();
    match status.success() {
        true => Ok(text),
        false if text.is_empty() => Err(format!("the program ended with {status} and said nothing")),
        false => Err(format!("the program ended with {status}: {text}")),
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

    async fn shell(script: &str, milliseconds: u64) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-c".into(), script.into()];
        run(Path::new("sh"), &arguments, folder.path(), Duration::from_millis(milliseconds)).await
    }

    #[tokio::test]
    async fn what_a_program_says_is_bounded_and_how_it_ends_is_told() {
        let said = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2", 60_000).await.unwrap();
        assert!(said.len() <= 2 * SAID_BYTES && said.ends_with("end"), "{}", said.len());
        let error = shell("echo no room >&2; exit 3", 60_000).await.unwrap_err();
        assert_eq!(error, "the program ended with exit status: 3: no room");
        assert_eq!(
            shell("env | grep -v -e PWD -e SHLVL -e PATH -e _=", 60_000).await.unwrap().lines().count(),
            1
        );
        let folder = tempfile::tempdir().unwrap();
        let missing = run(&folder.path().join("x"), &[], folder.path(), Duration::from_secs(60)).await;
        assert!(missing.unwrap_err().contains("cannot be started: No such file"));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_ends_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", path.display());
        assert_eq!(shell(&script, 500).await.unwrap_err(), "the program took longer than 0 seconds");
        let pid = std::fs::read_to_string(&path).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Nobody may be there yet who asks how it ended.
        let mut left = 1000;
        while state().is_ok_and(|stat| !stat.contains(") Z")) && left > 0 {
            left -= 1;
            // Another process ends when it does: it is asked again and again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(left > 0, "it goes on");
    }
}
