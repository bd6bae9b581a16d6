//! The commands for people: what they are called, what they take, and what is said about them.

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// What stands behind the name.
    pub(super) words: &'static str,
    pub(super) about: &'static str,
    /// More to know, for its own help.
    pub(super) more: &'static str,
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

    fn help(self) -> &'static str {
        match self {
            Opt::Status => "  --status STATUS      only those with this status\n",
            Opt::Group => "  --group GROUP        the devices of this group\n",
            Opt::Force => "  --force              also install what is installed already\n",
            Opt::Wait => {
                "  --wait               until every device has ended it; ends with 0 when all of them have the update,\n\
                 \x20                      with 3 when one has not, with 4 when the time is over\n"
            }
            Opt::Timeout => "  --timeout SECONDS    wait no longer than that (for ever)\n",
            Opt::Description => "  --description TEXT   what it is, for people\n",
        }
    }
}

// The end of the line in front of it takes the blanks of a line along.
const COMMON: &str = "\
\x20 --server URL         http://HOST:PORT or https://HOST:PORT (http://127.0.0.1:8080)
  --token-file FILE    the server's DATA/management-token
  --ca FILE            trust this authority, or the server's own certificate (PEM), in place of the system's
  --config FILE        where the three above stand as JSON, \"server\", \"token_file\", \"ca\"
                       (~/.config/rust-ota/server.json)
  --json               JSON, for programs
  -h, --help           this text

The environment variables RUST_OTA_SERVER, RUST_OTA_TOKEN_FILE and RUST_OTA_CA say the same; an option is stronger, the
file weaker. DEVICE, DEPLOYMENT and ARTIFACT are ids, or as much of the beginning of one as tells it from the others.
";

const WAIT: &[Opt] = &[Opt::Wait, Opt::Timeout];

/// Every command, as the help lists them.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "devices",
        words: "",
        about: "list devices, who they are and when they were last heard of",
        more: "STATUS is accepted, pending, rejected, preauthorized or noauth.\n",
        options: &[Opt::Status, Opt::Group],
    },
    Command {
        name: "accept",
        words: "DEVICE...",
        about: "let devices in",
        more: "The newest key of the device is accepted; the one that was accepted before is not any more.\n",
        options: &[],
    },
    Command {
        name: "reject",
        words: "DEVICE...",
        about: "keep devices out",
        more: "All keys of the device are rejected, and its connection ends. `accept` lets it in again.\n",
        options: &[],
    },
    Command {
        name: "decommission",
        words: "DEVICE...",
        about: "forget devices",
        more: "What is known of the device goes, and its deployments end. It may ask to be let in again.\n",
        options: &[],
    },
    Command { name: "groups", words: "", about: "list groups", more: "", options: &[] },
    Command {
        name: "group",
        words: "GROUP DEVICE...",
        about: "put devices into a group",
        more: "A device is in one group or in none.\n",
        options: &[],
    },
    Command {
        name: "ungroup",
        words: "DEVICE...",
        about: "take devices out of their group",
        more: "",
        options: &[],
    },
    Command { name: "artifacts", words: "", about: "list artifacts", more: "", options: &[] },
    Command {
        name: "upload",
        words: "FILE",
        about: "upload an artifact, and print its id",
        more: "It is taken when all its checksums are right.\n",
        options: &[Opt::Description],
    },
    Command {
        name: "delete",
        words: "ARTIFACT...",
        about: "delete artifacts",
        more: "Not while a deployment needs it.\n",
        options: &[],
    },
    Command {
        name: "deploy",
        words: "NAME ARTIFACT-NAME [DEVICE]...",
        about: "make a deployment, and print its id",
        more: "For every accepted device when neither a device nor a group is named.\n",
        options: &[Opt::Group, Opt::Force, Opt::Wait, Opt::Timeout],
    },
    Command { name: "abort", words: "DEPLOYMENT", about: "stop a deployment", more: "", options: &[] },
    Command {
        name: "status",
        words: "[DEPLOYMENT]",
        about: "list deployments, or the devices of one",
        more: "Of one deployment each device is listed with what became of it and why.\n",
        options: &[Opt::Status, Opt::Wait, Opt::Timeout],
    },
    Command {
        name: "log",
        words: "DEPLOYMENT DEVICE",
        about: "print the log that a device has sent",
        more: "",
        options: &[],
    },
    Command {
        name: "configure",
        words: "DEVICE [NAME=VALUE]...",
        about: "configure a device with this and nothing else, deploy it, and print the deployment's id",
        more: "",
        options: WAIT,
    },
    Command {
        name: "show-configuration",
        words: "DEVICE",
        about: "what a device is to be configured with, and what it says",
        more: "",
        options: &[],
    },
    Command {
        name: "connection",
        words: "DEVICE",
        about: "say whether work on a device is possible: connected, disconnected, or unknown",
        more: "",
        options: &[],
    },
    Command {
        name: "check-update",
        words: "DEVICE...",
        about: "have connected devices ask for an update",
        more: "",
        options: &[],
    },
    Command {
        name: "send-inventory",
        words: "DEVICE...",
        about: "have connected devices send their inventory",
        more: "",
        options: &[],
    },
];

impl Command {
    /// The command called `name`.
    pub(super) fn named(name: &str) -> Option<&'static Command> {
        COMMANDS.iter().find(|command| command.name == name)
    }

    /// All about it.
    pub(super) fn help(&self) -> String {
        let Command { name, words, about, more, options } = self;
        let space = if words.is_empty() { "" } else { " " };
        let own: String = options.iter().map(|option| option.help()).collect();
        format!("rust-ota-server {name}{space}{words} [OPTION]...\n\n{about}\n{more}\n{own}{COMMON}")
    }
}

/// One line for each.
pub(crate) fn overview() -> String {
    let shown = |command: &Command| format!("{} {}", command.name, command.words);
    let width = COMMANDS.iter().map(|command| shown(command).len()).max().unwrap_or(0);
    COMMANDS.iter().map(|command| format!("  {:width$}  {}\n", shown(command), command.about)).collect()
}
