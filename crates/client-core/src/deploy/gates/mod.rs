//! Gates: points at which a deployment may be held up or refused from outside of it, before anything of the next step
//! was done. A person at the device, an application, a maintenance window, a health check.
//!
//! A gate is asked before its stage begins and before the server is told of it. While it stays closed the deployment
//! waits in the record, so that neither a restart nor a power cut loses its place, and the daemon goes on with its
//! other work.
//!
//! What a device may be told to hold a deployment up for is decided here from facts, a file each: the time of the week
//! ([`MaintenanceWindow`]), what somebody said ([`PendingQuestion`]), whether the system is well ([`HealthCheck`]) and what
//! other programs want ([`ControlMaps`]). Where the facts come from, and where maps are kept, is the business of whoever
//! implements [`Gatekeeper`].

mod control_map;
mod health;
mod question;
mod rules;
mod window;

use std::fmt;
use std::time::Duration;

use crate::install::Cost;

pub use control_map::{ControlMapError, ControlMaps};
pub use health::{HealthCheck, Judgement, Round};
pub use question::{Decision, NoSuchQuestion, OpenQuestion, PendingQuestion};
pub use rules::{GateRules, Moment};
pub use window::{MaintenanceWindow, WeekTime, Window};

/// Before what a deployment can be held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gate {
    /// Before the first byte of the artifact is asked for.
    Download,
    /// Before anything that boots is changed.
    Install,
    /// Before the restart into the new software.
    Reboot,
    /// Before the new software becomes permanent.
    Commit,
}

impl Gate {
    /// All of them, in the order in which a deployment comes to them.
    pub const ALL: [Gate; 4] = [Gate::Download, Gate::Install, Gate::Reboot, Gate::Commit];

    /// The gate as a word of the configuration and of the local socket.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Download => "download",
            Gate::Install => "install",
            Gate::Reboot => "reboot",
            Gate::Commit => "commit",
        }
    }

    /// The gate with this name, in any letter case.
    pub fn named(name: &str) -> Option<Gate> {
        Gate::ALL.into_iter().find(|gate| gate.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a gatekeeper is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'q> {
    /// Before what.
    pub gate: Gate,
    /// The deployment, where a server ordered it; without one a person gave the command.
    pub deployment: Option<&'q str>,
    /// What is to be installed.
    pub artifact_name: &'q str,
    /// What it costs, as far as this process knows it: before the download of what a server ordered nothing is.
    pub cost: Option<Cost>,
}

/// What a gatekeeper says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Open {
        /// Why, where that is worth telling the server.
        note: Option<String>,
    },
    /// Not now.
    Closed {
        /// Why.
        reason: String,
        /// When to ask again.
        ask_again: Duration,
    },
    /// Not at all: the deployment fails, and what was done is undone.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Answer {
    /// Goes on without a remark.
    pub(crate) const PASS: Answer = Answer::Open { note: None };

    /// What this gatekeeper and the `next` one say together. The next is asked only where this one lets the deployment go on;
    /// what both have to remark is told.
    pub fn and_then(self, next: impl FnOnce() -> Answer) -> Answer {
        let Answer::Open { note } = self else { return self };
        match next() {
            Answer::Open { note: more } => {
                let notes: Vec<String> = note.into_iter().chain(more).collect();
                Answer::Open { note: Some(notes.join(", ")).filter(|note| !note.is_empty()) }
            }
            other @ (Answer::Closed { .. } | Answer::Refused { .. }) => other,
        }
    }
}

/// Decides whether a deployment may go on.
///
/// # Contract
/// May be asked again for the same gate, also by a later process. A person who gave the command waits for its end, so
/// that without a deployment id [`Answer::Closed`] counts as a refusal. May take its time before
/// [`Gate::Commit`]; must come back soon when the process is asked to stop.
pub trait Gatekeeper {
    /// Whether there is anything to ask at `gate`. If not, no time and no write of the record is spent on it.
    fn watches(&self, gate: Gate) -> bool;

    /// Whether the deployment may pass.
    fn ask(&mut self, question: &Question<'_>) -> Answer;
}

/// No gates.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysOpen;

impl Gatekeeper for AlwaysOpen {
    fn watches(&self, _: Gate) -> bool {
        false
    }

    fn ask(&mut self, _: &Question<'_>) -> Answer {
        Answer::Open { note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_is_found_by_its_name_in_any_letter_case_and_nothing_else_is() {
        for gate in Gate::ALL {
            assert_eq!(Gate::named(gate.name()), Some(gate));
            assert_eq!(Gate::named(&gate.name().to_ascii_uppercase()), Some(gate));
        }
        for name in ["", "boot", "install ", "instal"] {
            assert_eq!(Gate::named(name), None, "{name}");
        }
    }

    #[test]
    fn the_first_objection_stands_and_remarks_add_up() {
        let open = |note: &str| Answer::Open { note: Some(note.into()) };
        let refused = || Answer::Refused { reason: "no".into() };
        let closed = || Answer::Closed { reason: "later".into(), ask_again: Duration::from_secs(1) };
        assert_eq!(Answer::PASS.and_then(|| Answer::PASS), Answer::PASS);
        assert_eq!(open("a").and_then(|| Answer::PASS), open("a"));
        assert_eq!(open("a").and_then(|| open("b")), open("a, b"));
        assert_eq!(open("a").and_then(closed), closed());
        assert_eq!(refused().and_then(|| unreachable!("nobody else is asked")), refused());
        assert_eq!(closed().and_then(|| unreachable!("nobody else is asked")), closed());
    }
}
