//! The host tool, `rust-ota-artifact`.

use crate::{Argument, Block, Command, Flag, Group, Kind, Page, Program};

/// `rust-ota-artifact`.
pub const PROGRAM: Program = Program {
    name: "rust-ota-artifact",
    about: "writes, reads, checks, signs and changes artifacts",
    is_titled: false,
    usage_begins: "Usage: ",
    usage: &["[--compression NAME] COMMAND [OPTION]... [ARTIFACT]"],
    groups: &[
        Group { heading: "Making artifacts", commands: MAKING, is_spelled: false, more: &[] },
        Group { heading: "Looking at artifacts", commands: LOOKING, is_spelled: false, more: &[] },
        Group { heading: "Changing artifacts", commands: CHANGING, is_spelled: false, more: &[] },
    ],
    commands_column: 29,
    options_heading: "Options before the command",
    options: &[
        Flag::new("compression", "for write and modify, which take it themselves, too")
            .value("NAME", COMPRESSIONS),
        Flag::new("help", "this text; behind a command, the options of that command").short('h'),
        Flag::new("version", "the version of this program").short('V'),
    ],
    options_column: 29,
    is_aligned: false,
    closing: "An artifact, an image or a result called - is the standard input or output.",
    help_words: &["help", "h"],
    exit_codes: &[
        (0, "success"),
        (1, "failure"),
        (3, "`validate` and `read` cannot open the artifact"),
        (4, "`validate` finds the artifact wrong"),
    ],
    tells_exit_codes: false,
    page: Page {
        section: 1,
        description: &[
            "`rust-ota-artifact` makes the signed files that `rust-ota` and the Mender client install, looks into them, signs \
             and changes them. Its options are named as those of `mender-artifact` where they mean the same.",
            "Keys are read from files in the PEM format. None of the commands needs root.",
        ],
        files: &[("artifact.mender", "Where `write` puts the artifact without --output-path.")],
        environment: &[("TMPDIR", "Where an artifact is kept that is read from a pipe.")],
        examples: &[
            (
                "rust-ota-artifact keygen -o private.key",
                "Makes private.key, which signs, and private.key.pub for devices.",
            ),
            (
                "rust-ota-artifact write rootfs-image -n release-2 -t board -f rootfs.ext4 -k private.key -o release-2.mender",
                "Writes a signed artifact with a root file system.",
            ),
            ("rust-ota-artifact validate -k private.key.pub release-2.mender", "Checks it as a device does."),
        ],
        see_also: &[("rust-ota", 8), ("rust-ota-server", 8), ("debugfs", 8), ("mtools", 1)],
    },
};

const COMPRESSIONS: Kind =
    Kind::Choice(&["gzip", "lzma", "zstd_fastest", "zstd_fast", "zstd_better", "zstd_best", "none"]);

const PLAIN: Command = Command { column: 37, ..Command::PLAIN };

const ARTIFACT: Argument = Argument::needed("ARTIFACT", Kind::Artifact);
const INSIDE: Argument = Argument::needed("ARTIFACT:PATH", Kind::Artifact);

const PRIVATE_KEY: Flag = Flag::new("key", "private key to sign with").short('k').file("KEY");
const KEY_OR_UNSIGNED: Flag =
    Flag::new("key", "private key to sign with; without it the artifact is unsigned afterwards")
        .short('k')
        .file("KEY");
const PUBLIC_KEY: Flag =
    Flag::new("key", "public key; may be given several times").short('k').file("KEY").repeatable();
const TEMPORARY: Flag =
    Flag::new("tmp", "where temporary files go; beside the artifact by default").folder("DIR");

/// Of all kinds.
const NAMED: &[Flag] = &[
    Flag::new("artifact-name", "name of the artifact").short('n').text("NAME"),
    Flag::new("device-type", "device type it fits; several times").short('t').text("TYPE").repeatable(),
    Flag::new("compatible-types", "the same; several times").short('c').text("TYPE").repeatable(),
    Flag::new("output-path", "where the artifact goes, {default} by default; - is the standard output")
        .short('o')
        .value("FILE", Kind::Artifact)
        .default("artifact.mender"),
    Flag::new(
        "compression",
        "\
{default} (default), lzma, zstd_fastest, zstd_fast, zstd_better, zstd_best or none; may
also stand before the command",
    )
    .value("NAME", COMPRESSIONS)
    .default("gzip"),
    PRIVATE_KEY,
    Flag::new("provides", "what the device provides afterwards; several times")
        .short('p')
        .text("KEY:VALUE")
        .repeatable(),
];

const DEPENDS: Flag =
    Flag::new("depends", "what the device has to provide; several times, the last of a KEY counts")
        .text("KEY:VALUE")
        .repeatable();

/// `-d` is another option where a payload has a destination.
const DEPENDS_BY_LETTER: &[Flag] = &[DEPENDS.short('d')];

const DEPENDS_BY_WORD: &[Flag] = &[DEPENDS];

/// Of all kinds.
const REST: &[Flag] = &[
    Flag::new("provides-group", "group the artifact provides").short('g').text("GROUP"),
    Flag::new("depends-groups", "group it depends on; several times").short('G').text("GROUP").repeatable(),
    Flag::new("artifact-name-depends", "artifact it can be installed on top of; several times")
        .short('N')
        .text("NAME")
        .repeatable(),
    Flag::new("clears-provides", "what the device no longer provides; several times")
        .text("PATTERN")
        .repeatable(),
    Flag::new("max-artifact-size", "fail, and write no artifact, above this size: 5MB, 1.5GB or bytes")
        .text("SIZE"),
    Flag::new("warn-artifact-size", "warn above this size").text("SIZE"),
    TEMPORARY,
    Flag::new("reproducible", "the same input makes the same bytes: all times are 0"),
    Flag::new("no-progress", "show no progress"),
    Flag::new("version", "format of the artifact: 3, the only one that is written")
        .short('v')
        .value("VERSION", Kind::Choice(&["3"]))
        .page_only(),
];

/// Of all that have a payload.
const PAYLOAD: &[Flag] = &[
    Flag::new("script", "state script, or a directory of them; several times")
        .short('s')
        .file("FILE")
        .repeatable(),
    Flag::new("software-filesystem", "first part of the software's name, {default} by default")
        .text("NAME")
        .default("rootfs-image"),
    Flag::new("software-name", "second part of the software's name").text("NAME"),
    Flag::new("software-version", "its version, the name of the artifact by default").text("VERSION"),
    Flag::new(
        "no-default-software-version",
        "provide no software version, and clear nothing but what was asked for",
    ),
    Flag::new("no-default-clears-provides", "clear nothing but what was asked for"),
];

const DESTINATION: Flag =
    Flag::new("dest-dir", "where it goes on the device; not --depends, as elsewhere").short('d').text("DIR");

/// `SOURCE` may be given by the option `-f`.
const SOURCE: &str = "SOURCE";

const KINDS: &[Command] = &[
    Command {
        name: "rootfs-image",
        about: "write an artifact with a root file system",
        usage: &["write rootfs-image [OPTION]... -n NAME -t DEVICE-TYPE -f IMAGE -o FILE"],
        body: &[
            Block::Options(NAMED),
            Block::Options(DEPENDS_BY_LETTER),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Options(&[
                Flag::new("file", "image of the root file system").short('f').file("IMAGE"),
                Flag::new("no-checksum-provide", "do not provide the checksum of the image"),
                Flag::new("legacy-rootfs-image-checksum", "provide it as rootfs_image_checksum"),
                Flag::new(
                    "frames",
                    "\
compress it with zstd in independent frames with a table of them, so that devices fetch only
what they lack; 10 to 15 % longer",
                ),
            ]),
        ],
        ..PLAIN
    },
    Command {
        name: "single-file",
        about: "write an artifact with one file and where it goes",
        usage: &["write single-file [OPTION]... --dest-dir DIR -n NAME -t DEVICE-TYPE -o FILE SOURCE"],
        body: &[
            Block::Text("  SOURCE is installed as DIR/SOURCE with the permissions it has."),
            Block::Options(NAMED),
            Block::Options(DEPENDS_BY_WORD),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Options(&[DESTINATION, Flag::new("file", "the same as SOURCE").short('f').file(SOURCE)]),
        ],
        arguments: &[Argument::optional(SOURCE, Kind::File)],
        ..PLAIN
    },
    Command {
        name: "directory",
        about: "write an artifact with a directory tree and where it goes",
        usage: &["write directory [OPTION]... --dest-dir DIR -n NAME -t DEVICE-TYPE -o FILE SOURCE"],
        body: &[
            Block::Text(
                "  \
  What is in the directory SOURCE takes the place of everything in DIR, with owners by number,
  permissions, times, links and extended attributes.",
            ),
            Block::Options(NAMED),
            Block::Options(DEPENDS_BY_WORD),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Options(&[
                DESTINATION,
                Flag::new("file", "the same as SOURCE").short('f').folder(SOURCE),
                Flag::new("owner", "owner and group of everything, in numbers").text("UID:GID"),
            ]),
        ],
        arguments: &[Argument::optional(SOURCE, Kind::Folder)],
        ..PLAIN
    },
    Command {
        name: "script",
        about: "write an artifact with programs that are run once",
        usage: &["write script [OPTION]... -n NAME -t DEVICE-TYPE -o FILE PROGRAM..."],
        body: &[
            Block::Text("  Every PROGRAM is run once on the device, in the order of their names."),
            Block::Options(NAMED),
            Block::Options(DEPENDS_BY_LETTER),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Options(&[Flag::new("file", "the same as PROGRAM; several times")
                .short('f')
                .file("PROGRAM")
                .repeatable()]),
        ],
        arguments: &[Argument::optional("PROGRAM", Kind::File).repeatable()],
        ..PLAIN
    },
    Command {
        name: "module-image",
        about: "write an artifact for an update module",
        usage: &["write module-image [OPTION]... -T TYPE -n NAME -t DEVICE-TYPE -o FILE"],
        body: &[
            Block::Options(NAMED),
            Block::Options(DEPENDS_BY_LETTER),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Options(&[
                Flag::new("type", "payload type: the name of the update module").short('T').text("TYPE"),
                Flag::new("file", "payload file; several times").short('f').file("FILE").repeatable(),
                Flag::new("meta-data", "JSON object for the update module").short('m').file("FILE"),
            ]),
        ],
        ..PLAIN
    },
    Command {
        name: "bootstrap-artifact",
        about: "write an artifact without a payload",
        usage: &["write bootstrap-artifact [OPTION]... -n NAME -t DEVICE-TYPE -o FILE"],
        body: &[Block::Options(NAMED), Block::Options(DEPENDS_BY_LETTER), Block::Options(REST)],
        ..PLAIN
    },
];

const MAKING: &[Command] = &[
    Command {
        name: "write",
        about: "write an artifact",
        usage: &["write KIND [OPTION]... -n NAME -t DEVICE-TYPE -o FILE"],
        body: &[
            Block::Text(
                "  KIND is rootfs-image, single-file, directory, script, module-image or bootstrap-artifact; each has its own \
                 --help.",
            ),
            Block::Example(
                "rust-ota-artifact write rootfs-image -n release-2 -t board -f rootfs.ext4 -k private.key -o release-2.mender",
            ),
            Block::Shown(NAMED),
            Block::Shown(DEPENDS_BY_LETTER),
            Block::Shown(REST),
        ],
        commands: KINDS,
        ..PLAIN
    },
    Command {
        name: "delta",
        about: "write an artifact that makes one image of another",
        usage: &["delta [OPTION]... OLD NEW -o FILE"],
        body: &[
            Block::Text(
                "\
OLD and NEW are images of a root file system, or artifacts with one. The artifact that is written fits devices that run OLD,
and leaves them with NEW. What it says is what the artifact NEW says, and what the options say: -n and -t are needed where NEW
is an image. What was made is applied to OLD and compared with NEW before it is written.",
            ),
            Block::Options(&[
                Flag::new("artifact-name", "name of the artifact; that of NEW by default").short('n').text("NAME"),
                Flag::new("device-type", "device type it fits; several times").short('t').text("TYPE").repeatable(),
                Flag::new("compatible-types", "the same; several times").short('c').text("TYPE").repeatable(),
                Flag::new("output-path", "where the artifact goes, {default} by default; - is the standard output")
                    .short('o')
                    .value("FILE", Kind::Artifact)
                    .default("artifact.mender"),
                Flag::new(
                    "compression",
                    "{default} (default), or lzma, which is smaller and costs the device more time",
                )
                .value("NAME", Kind::Choice(&["zstd_best", "lzma"]))
                .default("zstd_best"),
                Flag::new("jobs", "work in this many threads, 3 at most; as many as there are processors by default")
                    .short('j')
                    .text("NUMBER"),
                Flag::new("json", "print what was made as JSON"),
                Flag::new("no-verify", "do not apply it before it is written"),
                PRIVATE_KEY,
                Flag::new("provides", "what the device provides afterwards; several times")
                    .short('p')
                    .text("KEY:VALUE")
                    .repeatable(),
            ]),
            Block::Options(DEPENDS_BY_LETTER),
            Block::Options(REST),
            Block::Options(PAYLOAD),
            Block::Example(
                "rust-ota-artifact delta -k private.key release-1.mender release-2.mender -o release-1-to-2.mender",
            ),
        ],
        arguments: &[Argument::needed("OLD", Kind::Artifact), Argument::needed("NEW", Kind::Artifact)],
        ..PLAIN
    },
    Command {
        name: "keygen",
        about: "make a key pair for signing",
        usage: &["keygen [OPTION]... -o KEY"],
        body: &[
            Block::Text(
                "\
Writes a private key to KEY and its public key to KEY.pub. Where KEY is no file but -, a device or a pipe, both go there,
the private key first.",
            ),
            Block::Options(&[
                Flag::new("output-path", "where the private key goes").short('o').file("KEY"),
                Flag::new(
                    "type",
                    "{default} (default; understood by all clients) or ed25519 (by this project only)",
                )
                .short('T')
                .value("TYPE", Kind::Choice(&["ecdsa-p256", "ed25519"]))
                .default("ecdsa-p256"),
                Flag::new("force", "replace files that are there").short('f'),
            ]),
            Block::Example("rust-ota-artifact keygen -o private.key"),
        ],
        column: 26,
        ..PLAIN
    },
];

const LOOKING: &[Command] = &[
    Command {
        name: "read",
        about: "print what an artifact says",
        usage: &["read [OPTION]... ARTIFACT"],
        body: &[
            Block::Text(
                "Prints what the artifact says. With a key it fails when the signature is not by that key, after printing.",
            ),
            Block::Options(&[PUBLIC_KEY, Flag::new("no-progress", "accepted for compatibility")]),
            Block::Example("rust-ota-artifact read release-2.mender"),
        ],
        column: 19,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
    Command {
        name: "validate",
        about: "check an artifact completely",
        usage: &["validate [OPTION]... ARTIFACT"],
        body: &[
            Block::Text(
                "\
Succeeds when the artifact is complete, every checksum is right, and its signature is by one of the keys. Without a
key only an artifact without a signature is valid.",
            ),
            Block::Options(&[PUBLIC_KEY, Flag::new("no-progress", "show no progress")]),
            Block::Text("The exit code is 3 when the artifact cannot be opened, and 4 when it is wrong."),
            Block::Example("rust-ota-artifact validate -k public.key release-2.mender"),
        ],
        column: 19,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
    Command {
        name: "frames",
        about: "say what a device would fetch of an artifact that was written with --frames",
        usage: &["frames [OPTION]... ARTIFACT"],
        body: &[
            Block::Text(
                "Reads the frame table, and reckons as a device does that has these images in its slots. Nothing is verified but \
                 the table.",
            ),
            Block::Options(&[
                Flag::new("running", "image in the slot that runs").file("IMAGE"),
                Flag::new("target", "image in the slot that is written").file("IMAGE"),
                Flag::new("json", "print the figures as one JSON object"),
            ]),
            Block::Example("rust-ota-artifact frames --running release-1.ext4 release-2.mender"),
        ],
        column: 22,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
    Command {
        name: "dump",
        about: "write the parts of an artifact to folders",
        usage: &["dump [OPTION]... ARTIFACT"],
        body: &[
            Block::Text(
                "Checks the artifact, its signature apart, and writes its parts. Nothing gets its name before everything was \
                 right.",
            ),
            Block::Options(&[
                Flag::new("scripts", "write the state scripts to DIR").folder("DIR"),
                Flag::new("meta-data", "write the meta-data to DIR/0000.meta-data").folder("DIR"),
                Flag::new("files", "write the payload files to DIR").folder("DIR"),
                Flag::new("print-cmdline", "print the command that makes the same artifact from what was dumped"),
                Flag::new("print0-cmdline", "the same, with a NUL behind each argument"),
            ]),
            Block::Text(
                "Without a folder nothing is written. Words that a shell would take apart are quoted in the command.",
            ),
            Block::Example(
                "rust-ota-artifact dump --scripts scripts --files files --print-cmdline release-2.mender",
            ),
        ],
        column: 22,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
];

const CHANGING: &[Command] = &[
    Command {
        name: "sign",
        about: "sign an artifact",
        usage: &["sign [OPTION]... -k KEY ARTIFACT"],
        body: &[
            Block::Text("Checks the artifact completely, and signs it."),
            Block::Options(&[
                Flag::new("key", "private key").short('k').file("KEY"),
                Flag::new(
                    "output-path",
                    "where the signed artifact goes; without it the artifact is replaced, and keeps owner and mode",
                )
                .short('o')
                .value("FILE", Kind::Artifact),
                Flag::new("force", "replace a signature that is there").short('f'),
            ]),
            Block::Text(
                "\
An ARTIFACT that is a link leads to the artifact that is signed. The artifact - is the standard input; its output goes to
the standard output if no other is named.",
            ),
            Block::Example("rust-ota-artifact sign -k private.key release-2.mender"),
        ],
        column: 27,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
    Command {
        name: "modify",
        about: "change what an artifact says, and the client's configuration in its root file system",
        usage: &["modify [OPTION]... ARTIFACT"],
        body: &[
            Block::Text(
                "Changes an artifact, or the image of a file system. The signature is made anew with --key, and is gone \
                 without.",
            ),
            Block::Titled("What the artifact says", MODIFY_HEADER),
            Block::Titled("In the root file system (ext by debugfs of e2fsprogs, FAT by mtools)", MODIFY_FILES),
            Block::Options(&[PRIVATE_KEY, TEMPORARY]),
            Block::Example("rust-ota-artifact modify -n release-3 -k private.key release-2.mender"),
        ],
        column: 39,
        arguments: &[ARTIFACT],
        ..PLAIN
    },
    Command {
        name: "cp",
        about: "copy a file into the root file system of an artifact, or out of it",
        usage: &["cp [OPTION]... FILE ARTIFACT:PATH", "cp [OPTION]... ARTIFACT:PATH FILE"],
        body: &[
            Block::Text(
                "\
Copies a file into the root file system of an artifact or an image, or out of it. FILE may be -. A file that is there
keeps its owner and mode; a new one is root's, with the mode of FILE.",
            ),
            Block::Options(&[
                KEY_OR_UNSIGNED,
                TEMPORARY,
                Flag::new("compression", "means nothing here; `modify` changes it")
                    .value("NAME", COMPRESSIONS)
                    .page_only(),
            ]),
            Block::Example("rust-ota-artifact cp -k private.key app.conf release-2.mender:/etc/app.conf"),
        ],
        column: 19,
        arguments: &[Argument::needed("FILE", Kind::File), Argument::needed("ARTIFACT:PATH", Kind::File)],
        ..PLAIN
    },
    Command {
        name: "cat",
        about: "print a file from there",
        usage: &["cat ARTIFACT:PATH"],
        body: &[
            Block::Text("Prints a file of the root file system of an artifact or an image."),
            Block::Options(&[TEMPORARY]),
            Block::Example("rust-ota-artifact cat release-2.mender:/etc/mender/mender.conf"),
        ],
        column: 19,
        arguments: &[INSIDE],
        ..PLAIN
    },
    Command {
        name: "install",
        about: "copy a file there with a mode, or make a directory",
        usage: &["install -m MODE [OPTION]... FILE ARTIFACT:PATH", "install -d [OPTION]... ARTIFACT:DIRECTORY"],
        body: &[
            Block::Text(
                "Copies a file into the root file system of an artifact or an image with a mode, or makes a directory and \
                 those above it.",
            ),
            Block::Options(&[
                Flag::new("mode", "permissions in octal digits").short('m').text("MODE"),
                Flag::new("directory", "make a directory").short('d'),
                KEY_OR_UNSIGNED,
                TEMPORARY,
            ]),
            Block::Example("rust-ota-artifact install -m 0755 -k private.key start.sh release-2.mender:/usr/bin/start.sh"),
        ],
        column: 21,
        arguments: &[Argument::needed("FILE", Kind::File), Argument::optional("ARTIFACT:PATH", Kind::Artifact)],
        ..PLAIN
    },
    Command {
        name: "rm",
        about: "remove a file or directory there",
        usage: &["rm [OPTION]... ARTIFACT:PATH"],
        body: &[
            Block::Text("Removes a file or an empty directory in the root file system of an artifact or an image."),
            Block::Options(&[
                Flag::new("recursive", "a directory with everything in it").short('r'),
                KEY_OR_UNSIGNED,
                TEMPORARY,
            ]),
            Block::Example("rust-ota-artifact rm -r -k private.key release-2.mender:/usr/share/doc"),
        ],
        column: 21,
        arguments: &[INSIDE],
        ..PLAIN
    },
];

const MODIFY_HEADER: &[Flag] = &[
    Flag::new("artifact-name", "its name; in a root file system also the one in /etc/mender/artifact_info")
        .short('n')
        .also(&["name"])
        .text("NAME"),
    Flag::new("artifact-name-depends", "in place of the artifacts it depends on; several times")
        .short('N')
        .text("NAME")
        .repeatable(),
    Flag::new("provides", "in place of what it provides; several times")
        .short('p')
        .text("KEY:VALUE")
        .repeatable(),
    Flag::new("depends", "in place of what it depends on; several times")
        .short('d')
        .text("KEY:VALUE")
        .repeatable(),
    Flag::new("provides-group", "the group it provides; empty for none").short('g').text("GROUP"),
    Flag::new("depends-groups", "in place of the groups it depends on; several times")
        .short('G')
        .text("GROUP")
        .repeatable(),
    Flag::new("clears-provides", "one more pattern of what is no longer provided; several times")
        .text("PATTERN")
        .repeatable(),
    Flag::new("delete-clears-provides", "one pattern less; several times").text("PATTERN").repeatable(),
    Flag::new("script", "one more state script, or a directory of them; several times")
        .short('s')
        .file("FILE")
        .repeatable(),
    Flag::new("meta-data", "in place of its meta-data").short('m').file("FILE"),
    Flag::new("compression", "compress it this way; may also stand before the command")
        .value("NAME", COMPRESSIONS),
];

const MODIFY_FILES: &[Flag] = &[
    Flag::new("server-uri", "ServerURL in /etc/mender/mender.conf").short('u').text("URI"),
    Flag::new("tenant-token", "TenantToken there").short('t').text("TOKEN"),
    Flag::new("server-cert", "becomes /etc/mender/server.crt").short('c').file("FILE"),
    Flag::new("verification-key", "becomes /etc/mender/artifact-verify-key.pem").short('v').file("FILE"),
];
