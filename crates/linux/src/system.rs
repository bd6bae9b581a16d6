//! Device type, running slot and reboot on Linux.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client_core::slot::{Restart, Slot, SlotError, System, Traces};

use crate::clock::LinuxClock;
use crate::explain;
use crate::flight_recorder::FlightRecorder;
use crate::process_group::{Ended, ProcessGroup};
use crate::regular_file;
use crate::running_slot;
use crate::slot_paths::SlotPaths;

/// How long the program may take that restarts the device.
const REBOOT_COMMAND: Duration = Duration::from_secs(120);
/// Longest device type file that is read, in bytes.
const DEVICE_TYPE_BYTES: u64 = 4096;

/// The running Linux system.
pub struct LinuxSystem {
    paths: SlotPaths,
    device_type_file: PathBuf,
    reboot_command: String,
    recorder: FlightRecorder,
}

impl LinuxSystem {
    /// `reboot_command` is a program with arguments, separated by blanks.
    pub fn new(
        paths: SlotPaths,
        device_type_file: PathBuf,
        reboot_command: String,
        recorder: FlightRecorder,
    ) -> LinuxSystem {
        LinuxSystem { paths, device_type_file, reboot_command, recorder }
    }
}

impl System for LinuxSystem {
    fn running_slot(&self) -> Result<Slot, SlotError> {
        running_slot::find(&self.paths)
    }

    fn device_type(&self) -> Result<String, SlotError> {
        let path = self.device_type_file.display().to_string();
        let wrong = |reason: String| SlotError::DeviceType { path: path.clone(), reason };
        let content = regular_file::read(&self.device_type_file, DEVICE_TYPE_BYTES)
            .map_err(|error| wrong(error.to_string()))?;
        parse_device_type(&content).map_err(|reason| wrong(reason.to_owned()))
    }

    fn reboot(&self, restart: &Restart) -> Result<(), SlotError> {
        let io_error = |source| SlotError::Io { doing: "run", path: self.reboot_command.clone(), source };
        let mut words = self.reboot_command.split_whitespace();
        let program = words.next().ok_or_else(|| io_error(std::io::ErrorKind::InvalidInput.into()))?;
        let mut command = Command::new(program);
        command.args(words);
        match restart {
            Restart::Plain => {}
            Restart::With { argument } => {
                command.arg(argument);
            }
        }
        let mut group = ProcessGroup::spawn(&mut command).map_err(io_error)?;
        // A clock that nobody asks to stop: the shutdown that the program begins asks this process, and must not end it.
        match group.wait(REBOOT_COMMAND, &LinuxClock::new()).map_err(io_error)? {
            Ended::Exited(status) if status.success() => {
                group.spare_the_rest();
                Ok(())
            }
            Ended::Exited(status) => {
                Err(io_error(std::io::Error::other(explain::ended(Path::new(program), status))))
            }
            Ended::TimedOut | Ended::Stopped => {
                // It may have done its work all the same: whoever asked waits for the restart and sees.
                log::warn!("{} does not come to an end", self.reboot_command);
                Ok(())
            }
        }
    }

    fn begin_traces(&self) {
        self.recorder.begin();
    }

    fn traces(&self) -> Traces {
        self.recorder.traces()
    }
}

/// Exactly one line `device_type=<value>`, with or without its line end; the value is not trimmed.
fn parse_device_type(content: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(content).map_err(|_| "not UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.contains('\n') {
        return Err("more than one line");
    }
    match line.strip_prefix("device_type=") {
        Some("") => Err("the value is empty"),
        Some(value) => Ok(value.to_owned()),
        None => Err("the line does not begin with device_type="),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_type_file_holds_exactly_one_line() {
        let check = |content: &str, expected: Result<&str, &str>| {
            let actual = parse_device_type(content.as_bytes());
            assert_eq!(actual.as_deref().map_err(|reason| *reason), expected, "{content:?}");
        };
        check("device_type=qemux86-64\n", Ok("qemux86-64"));
        check("device_type= x", Ok(" x"));
        check("device_type=a\n\n", Err("more than one line"));
        check("device_type=a\nb=c\n", Err("more than one line"));
        check("DEVICE_TYPE=a", Err("the line does not begin with device_type="));
        check("device_type=", Err("the value is empty"));
    }

    #[test]
    fn what_the_bootloader_asks_for_is_one_argument_of_the_restart() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("reboot");
        std::fs::write(&script, r#"test "$#,$1" = "1,0 tryboot""#).unwrap();
        let command = format!("sh {}", script.display());
        let system = LinuxSystem::new(
            SlotPaths::default(),
            PathBuf::new(),
            command,
            FlightRecorder::new(folder.path()),
        );
        assert!(system.reboot(&Restart::With { argument: "0 tryboot".into() }).is_ok());
        assert!(system.reboot(&Restart::Plain).is_err());
    }
}
