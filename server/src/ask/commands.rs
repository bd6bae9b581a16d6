//! The commands for people: what they are called, and which options they take. What is said about them is in `manual`.

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Options beside those that all of them take.
    pub(super) options: &'static [Opt],
}

/// An option that only some commands take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opt {
    Status,
    Group,
    Force,
    Wait,
    Timeout,
    Description,
}

impl Opt {
    pub(super) fn name(self) -> &'static str {
        match self {
            Opt::Status => "status",
            Opt::Group => "group",
            Opt::Force => "force",
            Opt::Wait => "wait",
            Opt::Timeout => "timeout",
            Opt::Description => "description",
        }
    }
}

const WAIT: &[Opt] = &[Opt::Wait, Opt::Timeout];

/// Every command.
pub(super) const COMMANDS: &[Command] = &[
    Command { name: "devices", options: &[Opt::Status, Opt::Group] },
    Command { name: "accept", options: &[] },
    Command { name: "reject", options: &[] },
    Command { name: "decommission", options: &[] },
    Command { name: "groups", options: &[] },
    Command { name: "group", options: &[] },
    Command { name: "ungroup", options: &[] },
    Command { name: "artifacts", options: &[] },
    Command { name: "upload", options: &[Opt::Description] },
    Command { name: "delete", options: &[] },
    Command { name: "deploy", options: &[Opt::Group, Opt::Force, Opt::Wait, Opt::Timeout] },
    Command { name: "abort", options: &[] },
    Command { name: "status", options: &[Opt::Status, Opt::Wait, Opt::Timeout] },
    Command { name: "log", options: &[] },
    Command { name: "configure", options: WAIT },
    Command { name: "show-configuration", options: &[] },
    Command { name: "connection", options: &[] },
    Command { name: "mail-test", options: &[] },
    Command { name: "check-update", options: &[] },
    Command { name: "send-inventory", options: &[] },
];

impl Command {
    /// The command called `name`.
    pub(super) fn named(name: &str) -> Option<&'static Command> {
        COMMANDS.iter().find(|command| command.name == name)
    }
}
