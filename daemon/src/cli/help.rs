//! What `--help` prints.

/// Help for the whole program.
pub const ALL: &str = "\
rust-ota: installs signed artifacts on devices with two root partitions

Usage: rust-ota [global options] COMMAND [options]

Commands:
  install FILE|URL|-   Install an artifact on the other slot and try it at the next boot
  commit               Make the running trial permanent
  rollback             Go back to the old software, until it was committed; after that see its --help
  resume               Go on with an update that was stopped or interrupted
  show-artifact        Print the name of the installed artifact
  show-provides        Print everything the installed artifacts provide
  daemon               Ask the server for updates, and install them
  status               Print what the daemon is doing
  check-update         Tell the daemon to ask for an update now
  send-inventory       Tell the daemon to send the inventory now
  allow [GATE]         Let the deployment go on that waits for an answer
  refuse [GATE]        End it
  doctor               Say what is right and what is wrong with this board
  bootstrap            Make the device key, and ask the server to accept this device

Global options (before the command):
  -c, --config FILE            Configuration [/etc/mender/mender.conf]
  -b, --fallback-config FILE   Configuration under it [/var/lib/mender/mender.conf]
  -d, --datastore DIR          Where state is kept [/var/lib/mender]
  -L, --log-file FILE          Log there instead of to standard error
  -l, --log-level LEVEL        trace, debug, info, warning, error or fatal [info]
  -E, --trusted-certs FILE     Trust these certificate authorities too
      --passphrase-file FILE   Open the device key with the first line of FILE, or of standard input for -
      --syslog                 Log to syslog instead of to standard error
      --no-syslog              Do not (the default)
      --skipverify             Do not verify the certificate of the server
      --json                   Print one JSON object instead of lines
  -v, --version                Print the version
  -h, --help                   Print this help; after a command, help for it

Exit codes: 0 success; 1 failure; 2 no update in progress; 4 reboot needed
(only with --reboot-exit-code). Those of doctor are in its --help.
";

/// Help for `install`.
pub const INSTALL: &str = "\
Usage: rust-ota install [options] FILE|URL|-

Verifies the artifact, writes it to the slot that does not run, reads it back, and points the bootloader at it for one
trial boot. Restart the device, then run `commit`; without a commit the bootloader goes back at the next boot.

  -                      Read the artifact from standard input
  --reboot-exit-code     Exit with 4 instead of 0 when the device must be restarted
  --stop-before STATE    Stop before STATE, one of ArtifactInstall_Enter, ArtifactCommit_Enter,
                         ArtifactCommit_Leave, ArtifactRollback_Enter, ArtifactFailure_Enter, Cleanup;
                         may be given several times
";

/// Help for `resume`.
pub const RESUME: &str = "\
Usage: rust-ota resume [--reboot-exit-code] [--stop-before STATE]...

Goes on with an update that was stopped with --stop-before or interrupted by a power cut. What happens is decided by
the boot environment: an interrupted installation is rolled back, an update that waits for its restart goes on waiting, a
running trial is committed, a commit that had taken effect is completed.
";

/// Help for `commit`.
pub const COMMIT: &str = "\
Usage: rust-ota commit [--stop-before STATE]...

Makes the running trial permanent. Before the restart it is refused and changes nothing; when the bootloader has gone
back to the old system, the update is wound up as failed.
";

/// Help for `rollback`.
pub const ROLLBACK: &str = "\
Usage: rust-ota rollback [--to-other-slot] [--stop-before STATE]...

Goes back to the old software, until `commit`. If the new one runs already, the old one runs after the next restart.

  --to-other-slot        After `commit`: try what the other slot holds. Only for an image that this client installed there
                         and committed, and that is still there to the byte: it is read in full first, and refused
                         when the slot was written since (also by mounting it writable). Then restart and `commit`, as
                         after `install`; without a commit the bootloader returns to the slot that runs now
";

/// Help for `daemon`.
pub const DAEMON: &str = "\
Usage: rust-ota daemon

Runs until it is told to stop: authenticates, sends the inventory, asks for updates, installs them and reports. SIGUSR1
makes it ask for an update at once, SIGUSR2 send the inventory, SIGTERM stop within two seconds.
";

/// Help for `status`.
pub const STATUS: &str = "\
Usage: rust-ota status [--json]

Prints what the daemon is doing. Exits with 1 when none is running.
";

/// Help for `check-update` and `send-inventory`.
pub const DEMAND: &str = "\
Usage: rust-ota check-update
       rust-ota send-inventory

Tell the running daemon to ask for an update, or to send the inventory, now. Exit with 1 when none is running.
";

/// Help for `allow` and `refuse`.
pub const ANSWER: &str = "\
Usage: rust-ota allow [GATE]
       rust-ota refuse [--reason TEXT] [GATE]

Answer the question of a deployment that waits (`AskBefore` in the configuration, `rust-ota status` shows it). GATE is
download, install, reboot or commit; with it, only that question is answered. A deployment that is refused fails, and
what it did is undone. Exit with 1 when nothing is asked.

  --reason TEXT   Why not; the server is told
";

/// Help for `doctor`.
pub const DOCTOR: &str = "\
Usage: rust-ota doctor [--offline] [--json]

Looks at configuration, keys, slots, boot environment, bootloader, data partition, server, service and memory, and says line
by line what is as it should be and what is not, with what to do. Reads only. Run it as root.

  --offline   Make no connection to the server

Exit codes: 0 everything is as it should be; 1 warnings; 2 something is wrong.
";

/// Help for `bootstrap`.
pub const BOOTSTRAP: &str = "\
Usage: rust-ota bootstrap [-F|--forcebootstrap]

Makes the device key if there is none, and asks the server to accept this device.

  -F, --forcebootstrap   Make a new key even if there is one: the server then knows the device no more, until
                         somebody accepts it again
";

/// Help for `show-artifact` and `show-provides`.
pub const SHOW: &str = "\
Usage: rust-ota show-artifact
       rust-ota show-provides

Print the name of the installed artifact, or every key=value pair it provides.
";
