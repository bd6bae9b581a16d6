//! The server, `rust-ota-server`, and the commands that ask one.

use crate::{Argument, Block, Command, Flag, Group, Kind, Page, Program};

/// `rust-ota-server`.
pub const PROGRAM: Program = Program {
    name: "rust-ota-server",
    about: "a compatible update server in one process",
    is_titled: true,
    usage_begins: "",
    usage: &[],
    groups: &[
        Group {
            heading: "",
            commands: RUNNING,
            is_spelled: true,
            more: &[
                ("COMMAND [OPTION]...", "ask a running server"),
                ("COMMAND --help", "all about one command"),
            ],
        },
        Group { heading: "", commands: ASKING, is_spelled: false, more: &[] },
    ],
    commands_column: 41,
    options_heading: "Options",
    options: &[
        Flag::new("version", "the version of this program"),
        Flag::new("help", "this text; behind a command, all about it").short('h'),
    ],
    options_column: 41,
    is_aligned: false,
    closing: "",
    help_words: &[],
    exit_codes: &[
        (0, "success"),
        (1, "failure"),
        (2, "the command line is not understood"),
        (3, "a deployment has ended, and not every device has the update (`--wait`)"),
        (4, "a deployment has not ended in time (`--wait`)"),
        (
            5,
            "a fleet was moved or copied, but for what is missing or cannot be read, which is named (`move`, `backup`)",
        ),
    ],
    tells_exit_codes: false,
    page: Page {
        section: 8,
        description: &[
            "`rust-ota-server serve` is an update server for devices with `rust-ota` or the Mender client: device and \
             management API, store and artifacts in one process. The other commands ask a running server, put load on one, \
             or measure.",
        ],
        files: &[
            ("DIR/management-token", "What opens the management API of the server with --data DIR."),
            ("~/.config/rust-ota/server.json", "Which server is asked, with which token, and whom to trust."),
        ],
        environment: &[
            ("RUST_OTA_SERVER", "As --server of a command that asks."),
            ("RUST_OTA_TOKEN_FILE", "As --token-file."),
            ("RUST_OTA_CA", "As --ca."),
            ("RUST_OTA_SERVER_USER", "As --user of `serve`."),
            ("NOTIFY_SOCKET", "Where `serve` says that it is ready, as systemd wants it."),
            ("XDG_CONFIG_HOME", "The directory in place of ~/.config."),
        ],
        examples: &[
            ("rust-ota-server serve --data updates --listen 0.0.0.0:8080", "A server."),
            (
                "rust-ota-server deploy --wait \"first try\" release-2",
                "Sends an artifact to every accepted device, and waits until all have ended it.",
            ),
        ],
        see_also: &[("rust-ota", 8), ("rust-ota-artifact", 1)],
    },
};

const SETTINGS: &str = "\
The environment variables RUST_OTA_SERVER, RUST_OTA_TOKEN_FILE and RUST_OTA_CA say the same; an option is stronger, the
file weaker. DEVICE, KEY, DEPLOYMENT and ARTIFACT are ids, or as much of the beginning of one as tells it from the others.";

const PLAIN: Command = Command { column: 23, ..Command::PLAIN };

const RUNNING: &[Command] = &[
    Command {
        name: "serve",
        about: "run a server",
        usage: &["serve --data DIR [OPTION]..."],
        body: &[
            Block::Options(SERVE),
            Block::Text(
                "When it is ready it prints `listening on URL`, and while there is no user, a link with which the first one is\nmade. \
                 URL has a page for people. What opens the management API is in DIR/management-token.\nSIGHUP has it read the certificate, the key and the authority of clients anew; it does \
                 so by itself within a\nminute after their files have changed.",
            ),
        ],
        column: 26,
        ..PLAIN
    },
    Command {
        name: "load",
        about: "put load on a server, and measure it",
        usage: &["load --server URL [OPTION]..."],
        body: &[
            Block::Text(
                "Makes devices, lets them authenticate, and then lets them ask for updates as devices do.",
            ),
            Block::Options(LOAD),
        ],
        column: 26,
        ..PLAIN
    },
    Command {
        name: "move",
        about: "move a fleet between a data folder and a database",
        usage: &["move --from DIR|URL --to DIR|URL [OPTION]..."],
        body: &[
            Block::Text(
                "Both must not be served meanwhile, and what it is moved to has to be empty. Where it comes from stays as it is. A\n\
                 backup is put back the same way. Artifacts go first, and each is checked: a\n\
                 move that was cut short among them goes on when it is begun again. What is not named, of a database, stays where it is.",
            ),
            Block::Options(MOVE),
        ],
        column: 26,
        ..PLAIN
    },
    Command {
        name: "backup",
        about: "copy a fleet into a new folder while it is served",
        usage: &["backup --data DIR [--database URL] --to DIR [OPTION]..."],
        body: &[
            Block::Text(
                "The folder can be served as it is. Artifacts are linked where the file system is the same, else copied and\n\
                 checked; what is there already is not copied again.",
            ),
            Block::Options(BACKUP),
        ],
        column: 26,
        ..PLAIN
    },
    Command {
        name: "openapi",
        about: "print the OpenAPI description of the server's API",
        usage: &["openapi"],
        body: &[Block::Text(
            "As the server gives it to whoever asks for /api/openapi.json: OpenAPI 3.1, in JSON.",
        )],
        ..PLAIN
    },
    Command {
        name: "seed",
        about: "fill an empty folder with a fleet that is made up",
        usage: &["seed --data DIR [--devices N] [--json]"],
        body: &[
            Block::Text(
                "Makes accepted devices with 25 attributes each, for measurements. Never a folder that is in use: their keys are \
                 no secret.",
            ),
            Block::Options(&[
                Flag::new("data", "where; made when it is not there").folder("DIR"),
                Flag::new("devices", "how many ({default})").text("N").default("1000"),
                Flag::new("json", "print one JSON object"),
            ]),
        ],
        column: 16,
        ..PLAIN
    },
    Command {
        name: "simulate",
        about: "let a fleet of `seed` ask a server, and measure it",
        usage: &["simulate --server URL --data DIR [OPTION]..."],
        body: &[
            Block::Text(
                "Speaks for the devices that `seed` has made: it signs their tokens itself, with the key in the server's folder. A\n\
                 question's time begins when it was due. Prints JSON.",
            ),
            Block::Options(SIMULATE),
        ],
        column: 26,
        ..PLAIN
    },
    Command {
        name: "measure",
        about: "measure single steps of the server on this machine",
        usage: &["measure [--tokens N] [--names N]"],
        body: &[
            Block::Text("Measures single steps of the server on this machine, without a server."),
            Block::Options(&[
                Flag::new("tokens", "check so many different tokens of devices ({default})")
                    .text("N")
                    .default("200000"),
                Flag::new("names", "look for a pattern in so many names ({default})")
                    .text("N")
                    .default("1000000"),
            ]),
        ],
        column: 16,
        ..PLAIN
    },
];

const SERVE: &[Flag] = &[
    Flag::new("data", "where everything is kept; made when it is not there").folder("DIR"),
    Flag::new("listen", "where to listen ({default}; port 0 is any that is free)")
        .text("ADDRESS:PORT")
        .default("127.0.0.1:8080"),
    Flag::new("tls-cert", "speak TLS with this certificate chain (PEM)").file("FILE"),
    Flag::new("tls-key", "and this key (PEM)").file("FILE"),
    Flag::new("client-ca", "serve only clients with a certificate of this authority (PEM)").file("FILE"),
    Flag::new("public-url", "what download links begin with (the host of the request)").text("URL"),
    Flag::new("auto-accept", "accept new devices without asking"),
    Flag::new("max-devices", "most accepted devices (no limit)").text("N"),
    Flag::new("link-lifetime", "seconds for which a download link opens its artifact ({default})")
        .text("N")
        .default("86400"),
    Flag::new("token-lifetime", "seconds for which a device's token is valid ({default})")
        .text("N")
        .default("604800"),
    Flag::new("max-artifact", "bytes of the largest artifact that is taken (10 GiB)").text("N"),
    Flag::new("configuration-key", "sign generated configuration artifacts with this private key (PEM)")
        .file("FILE"),
    Flag::new("deltas", "make so many deltas at a time for deployments that want them ({default}: none)")
        .text("N")
        .default("0"),
    Flag::new("delta-key", "sign deltas that are made with this private key (PEM)").file("FILE"),
    Flag::new("delta-command", "the program that makes them (rust-ota-artifact beside this one, or in PATH)")
        .file("PROGRAM"),
    Flag::new("delta-time", "end that program after so many seconds ({default})").text("N").default("3600"),
    Flag::new(
        "delta-nice",
        "how much that program gives way to others: 0 is as little as the server, 19 to all ({default})",
    )
    .text("N")
    .default("19"),
    Flag::new("database", "keep the fleet in this database of PostgreSQL, which several servers may share")
        .text("URL"),
    Flag::new("database-password", "the password of the database is in FILE (PGPASSWORD)").file("FILE"),
    Flag::new("database-ca", "speak TLS to the database, and trust these certificates (PEM)").file("FILE"),
    Flag::new(
        "s3-bucket",
        "\
keep artifacts in this bucket of an S3 store; keys and region come from
the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    .text("NAME"),
    Flag::new("s3-prefix", "what the names of its objects begin with").text("TEXT"),
    Flag::new("s3-endpoint", "where this server reaches the store (AWS_ENDPOINT_URL, or Amazon)").text("URL"),
    Flag::new("s3-public-endpoint", "where devices and people reach it, if elsewhere").text("URL"),
    Flag::new("s3-region", "the region of the bucket (AWS_REGION)").text("NAME"),
    Flag::new("s3-allow-http", "reach the store without TLS when its address says so"),
    Flag::new("s3-through-server", "send nobody to the store: this server loads from it and passes on"),
    Flag::new("no-v2", "answer 404 to the second version of deployments/next"),
    Flag::new(
        "user",
        "\
let this person log in; read from the environment variable
RUST_OTA_SERVER_USER when the option is not there",
    )
    .text("NAME:PASSWORD"),
    Flag::new("page", "serve the page for people from this folder, and not the one in the program")
        .folder("DIR"),
    Flag::new("threads", "threads that serve ({default})").text("N").default("2"),
    Flag::new(
        "metrics",
        "\
also listen here, without TLS and tokens, for /metrics and /health of
whoever watches the server",
    )
    .text("ADDRESS:PORT"),
    Flag::new("device-requests", "answer so many requests of devices at a time ({default}; 0: no limit)")
        .text("N")
        .default("1024"),
    Flag::new("downloads", "send so many artifacts at a time ({default}; 0: no limit)")
        .text("N")
        .default("1024"),
    Flag::new("people-requests", "answer so many requests of people at a time ({default}; 0: no limit)")
        .text("N")
        .default("128"),
    Flag::new("late", "answer an eighth of the devices when so many milliseconds late ({default})")
        .text("N")
        .default("1000"),
    Flag::new("device-rate", "requests of one device in a second ({default}; 0: no limit)")
        .text("N")
        .default("20"),
    Flag::new("address-rate", "requests of one address in a second (no limit)").text("N"),
    Flag::new("keep-audit", "keep for so many days what people did ({default}; 0: for ever)")
        .text("DAYS")
        .default("365"),
    Flag::new("keep-alerts", "keep alerts of monitors for so many days ({default}; 0: for ever)")
        .text("DAYS")
        .default("90"),
    Flag::new("record-terminals", "record what terminals of devices print"),
    Flag::new("keep-recordings", "keep recorded terminals for so many days ({default}; 0: for ever)")
        .text("DAYS")
        .default("30"),
    Flag::new("keep-webhooks", "keep what webhooks were told for so many days ({default}; 0: for ever)")
        .text("DAYS")
        .default("14"),
    Flag::new("webhook-allow-private", "tell webhooks also at addresses that are not public"),
    Flag::new("webhook-ca", "trust the authorities of webhooks in FILE (PEM), and not the system's")
        .file("FILE"),
    Flag::new(
        "smtp",
        "\
send mails about alerts by this server, smtps://[USER@]HOST[:PORT] or, with
STARTTLS, smtp://[USER@]HOST[:PORT]",
    )
    .text("URL"),
    Flag::new("smtp-password", "the password of USER is in FILE, which is read each time").file("FILE"),
    Flag::new("smtp-ca", "trust the authorities of that server in FILE (PEM), and not the system's")
        .file("FILE"),
    Flag::new("mail-from", "the address that mails are from").text("ADDRESS"),
    Flag::new("keep-logs", "keep logs of devices for so many days ({default}; 0: for ever)")
        .text("DAYS")
        .default("365"),
    Flag::new("keep-deployments", "keep deployments that ended for so many days ({default}: for ever)")
        .text("DAYS")
        .default("0"),
    Flag::new("log-format", "how a line of the log is written ({default})")
        .value("text|json", Kind::Choice(&["text", "json"]))
        .default("text"),
    Flag::new("enable-faults", "let PUT /api/internal/v1/faults set faults: for tests"),
    Flag::new("faults", "begin with the faults in FILE (JSON): for tests").file("FILE"),
    Flag::new("quiet", "say only what is wrong"),
    Flag::new("verbose", "also say what happens with every poll"),
];

const LOAD: &[Flag] = &[
    Flag::new("server", "http://HOST:PORT of the server").text("URL"),
    Flag::new("devices", "how many devices ({default})").text("N").default("1000"),
    Flag::new("seconds", "for how long they ask ({default})").text("N").default("10"),
    Flag::new("rate", "questions in a second (as many as the server answers)").text("N"),
    Flag::new("connections", "connections at a time ({default})").text("N").default("64"),
    Flag::new("keep-alive", "whether a connection is used again ({default})")
        .value("yes|no", Kind::Choice(&["yes", "no"]))
        .default("yes"),
    Flag::new(
        "token-file",
        "\
pre-authorise the devices with this management token; else the server has to accept new
devices by itself",
    )
    .file("FILE"),
    Flag::new("json", "print one JSON object"),
    Flag::new("not-loopback", "allow a server that is not on this machine: do that to none but your own"),
];

const S3_ENDPOINT: Flag = Flag::new("s3-endpoint", "where S3 is reached (AWS_ENDPOINT_URL)").text("URL");
const S3_REGION: Flag =
    Flag::new("s3-region", "the region that requests are signed for (AWS_REGION)").text("REGION");
const S3_ALLOW_HTTP: Flag = Flag::new("s3-allow-http", "S3 may be reached without TLS");

const MOVE: &[Flag] = &[
    Flag::new("from", "a data folder, or postgres://USER@HOST/NAME").text("DIR|URL"),
    Flag::new("to", "the same").text("DIR|URL"),
    Flag::new(
        "artifacts",
        "a data folder or s3://BUCKET/PREFIX that has the artifacts of the fleet in the database",
    )
    .text("PLACE"),
    Flag::new("from-artifacts", "the same for whatever is moved; by itself the data folder").text("PLACE"),
    Flag::new("to-artifacts", "the same for where it is moved to").text("PLACE"),
    S3_ENDPOINT,
    S3_REGION,
    S3_ALLOW_HTTP,
    Flag::new("database-password", "the password of the database is in FILE (PGPASSWORD)").file("FILE"),
    Flag::new("database-ca", "speak TLS to the database, and trust these certificates (PEM)").file("FILE"),
    Flag::new("json", "print one JSON object"),
];

const BACKUP: &[Flag] = &[
    Flag::new("data", "the data folder of the server").folder("DIR"),
    Flag::new("to", "where; made here").folder("DIR"),
    Flag::new("from-artifacts", "a data folder or s3://BUCKET/PREFIX that has the artifacts (--data)")
        .text("PLACE"),
    Flag::new("to-artifacts", "where they are copied to, the same (--to)").text("PLACE"),
    S3_ENDPOINT,
    S3_REGION,
    S3_ALLOW_HTTP,
    Flag::new("database", "the database that has the fleet, if it is not in the folder").text("URL"),
    Flag::new("database-password", "the password of the database is in FILE (PGPASSWORD)").file("FILE"),
    Flag::new("database-ca", "speak TLS to the database, and trust these certificates (PEM)").file("FILE"),
    Flag::new("json", "print one JSON object"),
];

const SIMULATE: &[Flag] = &[
    Flag::new("server", "http://HOST:PORT of a server; again for each further process on the same store")
        .text("URL"),
    Flag::new("data", "the data folder of the server, for its keys").folder("DIR"),
    Flag::new("devices", "how many devices were made ({default})").text("N").default("1000"),
    Flag::new("seconds", "for how long they ask ({default})").text("N").default("10"),
    Flag::new("polls", "so many ask for an update in a second; `full`: as many as the server answers")
        .text("RATE"),
    Flag::new("inventories", "so many report all their attributes in a second").text("RATE"),
    Flag::new("herd", "every device asks once, all of them within so many seconds").text("SECONDS"),
    Flag::new("roll-out", "make a deployment to every tenth device, or to all of them, and carry it out")
        .value("tenth|all", Kind::Choice(&["tenth", "all"])),
    Flag::new(
        "within",
        "\
let the devices of the deployment begin over this time, and stop after --seconds (as
fast as the server answers, until all are done)",
    )
    .text("SECONDS"),
    Flag::new("browse", "look at lists with 50 devices a page meanwhile"),
    Flag::new("check", "compare every device of the deployment with what was acknowledged"),
    Flag::new("connections", "connections at a time, for each kind of load ({default})")
        .text("N")
        .default("32"),
    Flag::new("keep-alive", "whether a connection is used again ({default})")
        .value("yes|no", Kind::Choice(&["yes", "no"]))
        .default("yes"),
    Flag::new("json", "print it on one line"),
    Flag::new("not-loopback", "allow a server that is not on this machine: do that to none but your own"),
];

/// Of all commands that ask.
const COMMON: &[Flag] = &[
    Flag::new("server", "http://HOST:PORT or https://HOST:PORT ({default})")
        .text("URL")
        .default("http://127.0.0.1:8080"),
    Flag::new("token-file", "the server's DATA/management-token").file("FILE"),
    Flag::new("ca", "trust this authority, or the server's own certificate (PEM), in place of the system's")
        .file("FILE"),
    Flag::new(
        "config",
        "\
where the three above stand as JSON, \"server\", \"token_file\", \"ca\"
({default})",
    )
    .file("FILE")
    .default("~/.config/rust-ota/server.json"),
    Flag::new("json", "JSON, for programs"),
    Flag::new("help", "this text").short('h'),
];

/// What a device can be.
pub const DEVICE_STATUSES: &[&str] = &["accepted", "pending", "rejected", "preauthorized", "noauth"];
/// What a deployment can be, as people are told of it.
pub const DEPLOYMENT_STATUSES: &[&str] = &["scheduled", "pending", "inprogress", "held", "finished"];
/// How far a device can be with a deployment.
pub const STATUSES_IN_A_DEPLOYMENT: &[&str] = &[
    "pending",
    "downloading",
    "pause_before_installing",
    "installing",
    "pause_before_rebooting",
    "rebooting",
    "pause_before_committing",
    "success",
    "failure",
    "noartifact",
    "already-installed",
    "aborted",
    "decommissioned",
];

const STATUS: Flag = Flag::new("status", "only those with this status").text("STATUS");
const STATUS_OF_DEVICES: Flag =
    Flag::new("status", "only those with this status").value("STATUS", Kind::Choice(DEVICE_STATUSES));
const GROUP: Flag = Flag::new("group", "the devices of this group").text("GROUP");
const WAIT: Flag = Flag::new(
    "wait",
    "\
until every device has ended it; ends with 0 when all of them have the update,
with 3 when one has not, with 4 when the time is over",
);
const TIMEOUT: Flag = Flag::new("timeout", "wait no longer than that (for ever)").text("SECONDS");

const DEVICE: Argument = Argument::needed("DEVICE", Kind::Text);
const DEPLOYMENT: Argument = Argument::needed("DEPLOYMENT", Kind::Text);
const DEVICES: &[Argument] = &[DEVICE.repeatable()];
const DEVICES_OR_KEYS: &[Argument] = &[Argument::needed("DEVICE|KEY", Kind::Text).repeatable()];

/// The end of the help of a command that asks.
const OF_ALL: Block = Block::Options(COMMON);
const END: Block = Block::Text(SETTINGS);

const ASKING: &[Command] = &[
    Command {
        name: "devices",
        words: "[DEVICE]...",
        about: "list devices, who they are and when they were last heard of, or the keys of some",
        body: &[
            Block::About(
                "STATUS is accepted, pending, rejected, preauthorized or noauth. A device that is accepted can have another key\n\
                 that waits: it is in the column KEYS. Of devices that are named the keys are listed, each with the digest\n\
                 that `openssl pkey -pubout -outform DER | sha256sum` says of the device's own key.",
            ),
            Block::Options(&[STATUS_OF_DEVICES, GROUP]),
            OF_ALL,
            END,
        ],
        arguments: &[Argument::optional("DEVICE", Kind::Text).repeatable()],
        ..PLAIN
    },
    Command {
        name: "accept",
        words: "DEVICE|KEY...",
        about: "let devices in",
        body: &[
            Block::About(
                "Of a device its newest key that waits is accepted, or the newest of all when the device was rejected. KEY, as\n\
                 `devices DEVICE` lists it, is that one. The key that was accepted before is not any more.",
            ),
            OF_ALL,
            END,
        ],
        arguments: DEVICES_OR_KEYS,
        ..PLAIN
    },
    Command {
        name: "reject",
        words: "DEVICE|KEY...",
        about: "keep devices out",
        body: &[
            Block::About(
                "All keys of a device are rejected, and its connection ends; `accept` lets it in again. Of KEY, as\n\
                 `devices DEVICE` lists it, that one alone.",
            ),
            OF_ALL,
            END,
        ],
        arguments: DEVICES_OR_KEYS,
        ..PLAIN
    },
    Command {
        name: "decommission",
        words: "DEVICE...",
        about: "forget devices",
        body: &[
            Block::About(
                "What is known of the device goes, and its deployments end. It may ask to be let in again.",
            ),
            OF_ALL,
            END,
        ],
        arguments: DEVICES,
        ..PLAIN
    },
    Command { name: "groups", about: "list groups", body: &[Block::About(""), OF_ALL, END], ..PLAIN },
    Command {
        name: "group",
        words: "GROUP DEVICE...",
        about: "put devices into a group",
        body: &[Block::About("A device is in one group or in none."), OF_ALL, END],
        arguments: &[Argument::needed("GROUP", Kind::Text), DEVICE.repeatable()],
        ..PLAIN
    },
    Command {
        name: "ungroup",
        words: "DEVICE...",
        about: "take devices out of their group",
        body: &[Block::About(""), OF_ALL, END],
        arguments: DEVICES,
        ..PLAIN
    },
    Command { name: "artifacts", about: "list artifacts", body: &[Block::About(""), OF_ALL, END], ..PLAIN },
    Command {
        name: "upload",
        words: "FILE",
        about: "upload an artifact, and print its id",
        body: &[
            Block::About("It is taken when all its checksums are right."),
            Block::Options(&[Flag::new("description", "what it is, for people").text("TEXT")]),
            OF_ALL,
            END,
        ],
        arguments: &[Argument::needed("FILE", Kind::Artifact)],
        ..PLAIN
    },
    Command {
        name: "delete",
        words: "ARTIFACT...",
        about: "delete artifacts",
        body: &[Block::About("Not while a deployment needs it."), OF_ALL, END],
        arguments: &[Argument::needed("ARTIFACT", Kind::Text).repeatable()],
        ..PLAIN
    },
    Command {
        name: "deploy",
        words: "NAME ARTIFACT-NAME [DEVICE]...",
        about: "make a deployment, and print its id",
        body: &[
            Block::About("For every accepted device when neither a device nor a group is named."),
            Block::Options(&[
                GROUP,
                Flag::new("force", "also install what is installed already"),
                WAIT,
                TIMEOUT,
            ]),
            OF_ALL,
            END,
        ],
        arguments: &[
            Argument::needed("NAME", Kind::Text),
            Argument::needed("ARTIFACT-NAME", Kind::Text),
            Argument::optional("DEVICE", Kind::Text).repeatable(),
        ],
        ..PLAIN
    },
    Command {
        name: "abort",
        words: "DEPLOYMENT",
        about: "stop a deployment",
        body: &[Block::About(""), OF_ALL, END],
        arguments: &[DEPLOYMENT],
        ..PLAIN
    },
    Command {
        name: "status",
        words: "[DEPLOYMENT]",
        about: "list deployments, or the devices of one",
        body: &[
            Block::About(
                "Of one deployment each device is listed with what became of it and why. STATUS of a deployment is scheduled,\n\
                 pending, inprogress, held or finished. STATUS of a device in one is pending, downloading,\n\
                 pause_before_installing, installing, pause_before_rebooting, rebooting, pause_before_committing, success,\n\
                 failure, noartifact, already-installed, aborted or decommissioned.",
            ),
            Block::Options(&[STATUS, WAIT, TIMEOUT]),
            OF_ALL,
            END,
        ],
        arguments: &[Argument::optional("DEPLOYMENT", Kind::Text)],
        ..PLAIN
    },
    Command {
        name: "log",
        words: "DEPLOYMENT DEVICE",
        about: "print the log that a device has sent",
        body: &[Block::About(""), OF_ALL, END],
        arguments: &[DEPLOYMENT, DEVICE],
        ..PLAIN
    },
    Command {
        name: "configure",
        words: "DEVICE [NAME=VALUE]...",
        about: "configure a device with this and nothing else, deploy it, and print the deployment's id",
        body: &[Block::About(""), Block::Options(&[WAIT, TIMEOUT]), OF_ALL, END],
        arguments: &[DEVICE, Argument::optional("NAME=VALUE", Kind::Text).repeatable()],
        ..PLAIN
    },
    Command {
        name: "show-configuration",
        words: "DEVICE",
        about: "what a device is to be configured with, and what it says",
        body: &[Block::About(""), OF_ALL, END],
        arguments: &[DEVICE],
        ..PLAIN
    },
    Command {
        name: "connection",
        words: "DEVICE",
        about: "say whether work on a device is possible: connected, disconnected, or unknown",
        body: &[Block::About(""), OF_ALL, END],
        arguments: &[DEVICE],
        ..PLAIN
    },
    Command {
        name: "mail-test",
        words: "ADDRESS",
        about: "have the server send a mail for trying, and say what the mail server said of it",
        body: &[
            Block::About(
                "The server has to be started with --smtp. Ends with 1 when the mail was not taken.",
            ),
            OF_ALL,
            END,
        ],
        arguments: &[Argument::needed("ADDRESS", Kind::Text)],
        ..PLAIN
    },
    Command {
        name: "check-update",
        words: "DEVICE...",
        about: "have connected devices ask for an update",
        body: &[Block::About(""), OF_ALL, END],
        arguments: DEVICES,
        ..PLAIN
    },
    Command {
        name: "send-inventory",
        words: "DEVICE...",
        about: "have connected devices send their inventory",
        body: &[Block::About(""), OF_ALL, END],
        arguments: DEVICES,
        ..PLAIN
    },
];
