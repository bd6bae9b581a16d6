//! The client, `rust-ota`.

use crate::{Argument, Block, Command, Flag, Group, Kind, Page, Program};

/// `rust-ota`.
pub const PROGRAM: Program = Program {
    name: "rust-ota",
    about: "installs signed artifacts on devices with two root partitions",
    is_titled: true,
    usage_begins: "Usage: ",
    usage: &["[global options] COMMAND [options]"],
    groups: &[Group { heading: "Commands", commands: COMMANDS, is_spelled: false, more: &[] }],
    commands_column: 23,
    options_heading: "Global options (before the command)",
    options: GLOBAL,
    options_column: 31,
    is_aligned: true,
    closing: "",
    help_words: &["help"],
    exit_codes: &[
        (0, "success"),
        (1, "failure"),
        (2, "no update in progress"),
        (4, "reboot needed\n(only with --reboot-exit-code)"),
    ],
    tells_exit_codes: true,
    page: Page {
        section: 8,
        description: &[
            "`rust-ota` installs a signed artifact on the root partition that does not run, tells the bootloader to try it \
             once, and makes it permanent when the new system says so. Without that the device falls back by itself.",
            "It answers to the names `mender-update`, `mender-auth` and `mender`, too, for scripts and units that were written \
             for those programs. `mender-auth` has the commands `daemon` and `bootstrap` only.",
        ],
        files: &[
            ("/etc/mender/mender.conf", "The configuration."),
            ("/var/lib/mender/mender.conf", "The configuration under it: what the first one does not say."),
            (
                "/var/lib/mender",
                "The datastore: the record of what is installed, the device key, state scripts.",
            ),
            ("/var/lib/mender/device_type", "A line `device_type=NAME`."),
            ("/etc/mender/scripts", "State scripts of the root file system."),
            ("/usr/share/mender/modules/v3", "Update modules."),
            ("/usr/share/mender/identity/mender-device-identity", "Prints what identifies the device."),
            ("/usr/share/mender/inventory", "Inventory programs, `mender-inventory-*`."),
        ],
        environment: &[
            ("http_proxy, https_proxy, no_proxy", "Proxies for web addresses, and where none is used."),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "Set by systemd: the daemon says that it is ready, and that it works.",
            ),
        ],
        examples: &[
            ("rust-ota install release-2.mender && reboot", "Installs an artifact for a trial."),
            ("rust-ota commit", "Makes the trial permanent."),
            ("rust-ota --json status", "What the daemon is doing, for programs."),
        ],
        see_also: &[
            ("rust-ota-artifact", 1),
            ("rust-ota-server", 8),
            ("fw_printenv", 8),
            ("grub-editenv", 1),
        ],
    },
};

const GLOBAL: &[Flag] = &[
    Flag::new("config", "Configuration [{default}]")
        .short('c')
        .file("FILE")
        .default("/etc/mender/mender.conf"),
    Flag::new("fallback-config", "Configuration under it [{default}]")
        .short('b')
        .file("FILE")
        .default("/var/lib/mender/mender.conf"),
    Flag::new("datastore", "Where state is kept [{default}]")
        .short('d')
        .also(&["data"])
        .folder("DIR")
        .default("/var/lib/mender"),
    Flag::new("log-file", "Log there instead of to standard error").short('L').file("FILE"),
    Flag::new("log-level", "trace, debug, info, warning, error or fatal [{default}]")
        .short('l')
        .value("LEVEL", Kind::Choice(&["trace", "debug", "info", "warning", "error", "fatal"]))
        .default("info"),
    Flag::new("trusted-certs", "Trust these certificate authorities too").short('E').file("FILE"),
    Flag::new(
        "passphrase-file",
        "Open the device key with the first line of FILE, or of standard input for -",
    )
    .file("FILE")
    .behind_too(),
    Flag::new("syslog", "Log to syslog instead of to standard error"),
    Flag::new("no-syslog", "Do not (the default)"),
    Flag::new("skipverify", "Do not verify the certificate of the server"),
    Flag::new("json", "Print one JSON object instead of lines").behind_too(),
    Flag::new("version", "Print the version").short('v'),
    Flag::new("help", "Print this help; after a command, help for it").short('h'),
];

const STOP_BEFORE: Flag = Flag::new(
    "stop-before",
    "Stop before STATE, one of ArtifactInstall_Enter, ArtifactCommit_Enter,\n\
     ArtifactCommit_Leave, ArtifactRollback_Enter, ArtifactFailure_Enter, Cleanup;\n\
     may be given several times",
)
.value(
    "STATE",
    Kind::Choice(&[
        "ArtifactInstall_Enter",
        "ArtifactCommit_Enter",
        "ArtifactCommit_Leave",
        "ArtifactRollback_Enter",
        "ArtifactFailure_Enter",
        "Cleanup",
    ]),
)
.repeatable();

const REBOOT_EXIT_CODE: Flag =
    Flag::new("reboot-exit-code", "Exit with 4 instead of 0 when the device must be restarted");

const REASON: Flag = Flag::new("reason", "Why not; the server is told").text("TEXT");

const GATE: Argument = Argument::optional("GATE", Kind::Choice(&["download", "install", "reboot", "commit"]));

const PLAIN: Command = Command { column: 25, ..Command::PLAIN };

const ANSWER_USAGE: &[&str] = &["allow [GATE]", "refuse [--reason TEXT] [GATE]"];
const ANSWER: &str = "\
Answer the question of a deployment that waits (`AskBefore` in the configuration, `rust-ota status` shows it). GATE is
download, install, reboot or commit; with it, only that question is answered. A deployment that is refused fails, and
what it did is undone. Exit with 1 when nothing is asked.";

const SHOW_USAGE: &[&str] = &["show-artifact", "show-provides"];
const SHOW: &[Block] =
    &[Block::Text("Print the name of the installed artifact, or every key=value pair it provides.")];

const DEMAND_USAGE: &[&str] = &["send-inventory"];
const DEMAND: &[Block] =
    &[Block::Text("Tells the running daemon to send the inventory now. Exits with 1 when none is running.")];

const COMMANDS: &[Command] = &[
    Command {
        name: "install",
        words: "FILE|URL|-",
        about: "Install an artifact on the other slot and try it at the next boot",
        usage: &["install [options] FILE|URL|-"],
        body: &[
            Block::Text(
                "\
Verifies the artifact, writes it to the slot that does not run, reads it back, and points the bootloader at it for one
trial boot. Restart the device, then run `commit`; without a commit the bootloader goes back at the next boot.",
            ),
            Block::Rows(&[("-", "Read the artifact from standard input")]),
            Block::Options(&[REBOOT_EXIT_CODE, STOP_BEFORE]),
        ],
        arguments: &[Argument::needed("FILE|URL|-", Kind::Artifact)],
        ..PLAIN
    },
    Command {
        name: "commit",
        about: "Make the running trial permanent",
        usage: &["commit [--stop-before STATE]..."],
        body: &[
            Block::Text(
                "\
Makes the running trial permanent. Before the restart it is refused and changes nothing; when the bootloader has gone
back to the old system, the update is wound up as failed.",
            ),
            Block::Options(&[STOP_BEFORE]),
        ],
        ..PLAIN
    },
    Command {
        name: "rollback",
        about: "Go back to the old software, until it was committed; after that see its --help",
        usage: &["rollback [--to-other-slot] [--stop-before STATE]..."],
        body: &[
            Block::Text(
                "Goes back to the old software, until `commit`. If the new one runs already, the old one runs after the \
                 next restart.",
            ),
            Block::Options(&[
                Flag::new(
                    "to-other-slot",
                    "\
After `commit`: try what the other slot holds. Only for an image that this client installed there
and committed, and that is still there to the byte: it is read in full first, and refused
when the slot was written since (also by mounting it writable). Then restart and `commit`, as
after `install`; without a commit the bootloader returns to the slot that runs now",
                ),
                STOP_BEFORE,
            ]),
        ],
        ..PLAIN
    },
    Command {
        name: "resume",
        about: "Go on with an update that was stopped or interrupted",
        usage: &["resume [--reboot-exit-code] [--stop-before STATE]..."],
        body: &[
            Block::Text(
                "\
Goes on with an update that was stopped with --stop-before or interrupted by a power cut. What happens is decided by
the boot environment: an interrupted installation is rolled back, an update that waits for its restart goes on waiting, a
running trial is committed, a commit that had taken effect is completed.",
            ),
            Block::Options(&[REBOOT_EXIT_CODE, STOP_BEFORE]),
        ],
        ..PLAIN
    },
    Command {
        name: "show-artifact",
        about: "Print the name of the installed artifact",
        usage: SHOW_USAGE,
        body: SHOW,
        ..PLAIN
    },
    Command {
        name: "show-provides",
        about: "Print everything the installed artifacts provide",
        usage: SHOW_USAGE,
        body: SHOW,
        ..PLAIN
    },
    Command {
        name: "daemon",
        about: "Ask the server for updates, and install them",
        usage: &["daemon"],
        body: &[Block::Text(
            "\
Runs until it is told to stop: authenticates, sends the inventory, asks for updates, installs them and reports. SIGUSR1
makes it ask for an update at once, SIGUSR2 send the inventory, SIGTERM stop within two seconds.",
        )],
        ..PLAIN
    },
    Command {
        name: "status",
        about: "Print what the daemon is doing",
        usage: &["status [--json]"],
        body: &[Block::Text("Prints what the daemon is doing. Exits with 1 when none is running.")],
        ..PLAIN
    },
    Command {
        name: "check-update",
        about: "Tell the daemon to ask for an update now",
        usage: &["check-update [--json]"],
        body: &[Block::Text(
            "\
Tells the running daemon to ask for an update now. With --json, waits up to 60 s and prints what is offered and what it will
cost. Exits with 1 when none is running.",
        )],
        ..PLAIN
    },
    Command {
        name: "send-inventory",
        about: "Tell the daemon to send the inventory now",
        usage: DEMAND_USAGE,
        body: DEMAND,
        ..PLAIN
    },
    Command {
        name: "allow",
        words: "[GATE]",
        about: "Let the deployment go on that waits for an answer",
        usage: ANSWER_USAGE,
        body: &[Block::Text(ANSWER), Block::Shown(&[REASON])],
        column: 18,
        arguments: &[GATE],
        ..PLAIN
    },
    Command {
        name: "refuse",
        words: "[GATE]",
        about: "End it",
        usage: ANSWER_USAGE,
        body: &[Block::Text(ANSWER), Block::Options(&[REASON])],
        column: 18,
        arguments: &[GATE],
        ..PLAIN
    },
    Command {
        name: "doctor",
        about: "Say what is right and what is wrong with this board",
        usage: &["doctor [--offline] [--json]"],
        body: &[
            Block::Text(
                "\
Looks at configuration, keys, slots, boot environment, bootloader, data partition, server, service and memory, and says line
by line what is as it should be and what is not, with what to do. Reads only. Run it as root.

Exits with 0 when everything is as it should be, with 1 when there are warnings, and with 2 when something is wrong.",
            ),
            Block::Options(&[Flag::new("offline", "Make no connection to the server")]),
        ],
        ..PLAIN
    },
    Command {
        name: "bootstrap",
        about: "Make the device key, and ask the server to accept this device",
        usage: &["bootstrap [-F|--forcebootstrap]"],
        body: &[
            Block::Text("Makes the device key if there is none, and asks the server to accept this device."),
            Block::Options(&[Flag::new(
                "forcebootstrap",
                "\
Make a new key even if there is one: the server then knows the device no more, until
somebody accepts it again",
            )
            .short('F')]),
        ],
        ..PLAIN
    },
];
