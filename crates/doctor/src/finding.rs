//! What is said about a board: a finding is a line of text for one of the checks in the table below.
//!
//! A check has its level and its advice once and for all, so that its identifier means the same on every board.
//! `docs/doctor.md` has the same table, and a test compares the two.

use std::fmt;

use client_core::text::printable;

/// Longest text of a finding, in characters: some of it comes from files that may hold anything.
const TEXT_CHARS: usize = 700;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, or may work; somebody should know.
    Warning,
    /// Updates do not work, or what protects them does not.
    Wrong,
}

impl Level {
    /// As it is printed, and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Wrong => "wrong",
        }
    }
}

/// One thing that is looked at, with what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// The stable name.
    pub id: &'static str,
    /// What part of the board it is about.
    pub area: &'static str,
    /// How bad a finding of it is.
    pub level: Level,
    /// What to do; empty where nothing is.
    pub advice: &'static str,
}

/// A check with what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// What is, on one line.
    pub text: String,
}

impl Check {
    /// A finding of this check. Not inlined, and without a string of the caller's: it is called in more than a hundred places.
    #[inline(never)]
    pub(crate) fn found(&'static self, text: fmt::Arguments<'_>) -> Finding {
        let mut text = printable(&text.to_string()).into_owned();
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS) {
            text.truncate(end);
            text.push_str(" ...");
        }
        Finding { check: self, text }
    }
}

/// Adds a finding. Not inlined, for the same reason.
#[inline(never)]
pub(crate) fn add(said: &mut Vec<Finding>, check: &'static Check, text: fmt::Arguments<'_>) {
    said.push(check.found(text));
}

macro_rules! checks {
    ($($area:literal { $($name:ident $level:ident $id:literal $advice:literal)* })*) => {
        $($(pub(crate) static $name: Check =
            Check { id: $id, area: $area, level: Level::$level, advice: $advice };)*)*

        /// Every check, in the order of the areas.
        pub static CHECKS: &[&Check] = &[$($(&$name),*),*];
    };
}

checks! {
    "device" {
        NOT_ROOT Warning "not-root" "run it as root: what this user may not look at is left out"
        VIRTUAL Warning "virtual-device"
            "nothing to do on a desk; on a board RootfsPartA and RootfsPartB are block devices or UBI volumes"
        DEVICE_TYPE Ok "device-type" ""
        DEVICE_TYPE_WRONG Wrong "device-type-wrong"
            "write one line, device_type=NAME, into the file: no artifact is for a device without a type"
        DEVICE_TYPE_ODD Warning "device-type-odd"
            "write the bare name behind device_type=: quotes and blanks count as a part of it"
        IDENTITY Ok "identity" ""
        IDENTITY_MISSING Wrong "identity-missing"
            "install an identity program (docs/daemon.md, Identity) or name one in RustOta.IdentityScript"
        IDENTITY_NOT_EXECUTABLE Wrong "identity-not-executable" "chmod 755 the program"
    }
    "configuration" {
        CONFIG Ok "config-read" ""
        CONFIG_MISSING Wrong "config-missing" "write /etc/mender/mender.conf (docs/porting-a-board.md, The client)"
        CONFIG_UNUSABLE Wrong "config-unusable" "put the file right; docs/configuration.md has every key"
        CONFIG_FORBIDDEN Warning "config-forbidden" "run it as root: what is said without this file may be wrong"
        CONFIG_LAST_GOOD Warning "config-last-good"
            "put the file right: until then the daemon runs with this copy, and commits no update"
        CONFIG_KEY_UNKNOWN Warning "config-key-unknown" "correct the name of the key, or remove it"
        CONFIG_KEY_IGNORED Ok "config-key-ignored" ""
        CONFIG_KEY_OVERRIDDEN Ok "config-key-overridden" ""
        CONFIG_KEY_WITHOUT_EFFECT Warning "config-key-without-effect" "remove the key, or what keeps it from its effect"
    }
    "keys" {
        VERIFY_KEYS Ok "verify-keys" ""
        VERIFY_KEYS_NONE Wrong "verify-keys-none"
            "set ArtifactVerifyKey to the public key that your artifacts are signed with: without one every artifact is refused"
        VERIFY_KEYS_NONE_USABLE Wrong "verify-keys-none-usable"
            "install a public key in PEM (rust-ota-artifact keygen makes a pair) at that path"
        VERIFY_KEY_UNUSABLE Warning "verify-key-unusable"
            "replace the file or remove it from ArtifactVerifyKeys: the other keys still count"
        VERIFY_DANGER_UNSIGNED Warning "verify-danger-unsigned"
            "set ArtifactVerifyKey and remove RustOta.DangerAcceptUnsigned before the device leaves the desk"
        DEVICE_KEY Ok "device-key" ""
        DEVICE_KEY_TO_COME Ok "device-key-to-come" ""
        DEVICE_KEY_ENCRYPTED Warning "device-key-encrypted"
            "start the daemon with --passphrase-file, and give it here too to have the key looked at"
        DEVICE_KEY_UNUSABLE Wrong "device-key-unusable"
            "bring the key back from where it is kept; `rust-ota bootstrap --forcebootstrap` makes another one, which the server has to accept anew"
        DEVICE_KEY_OPEN Warning "device-key-open" "chmod 600 the file: who reads it can pass for this device"
    }
    "slots" {
        SLOTS Ok "slots" ""
        SLOTS_NONE Warning "slots-none"
            "set RootfsPartA and RootfsPartB; without them only update modules and built-in handlers can install"
        SLOTS_ONE_ONLY Wrong "slots-one-only" "set both RootfsPartA and RootfsPartB"
        SLOTS_SAME Wrong "slots-same" "set RootfsPartA and RootfsPartB to two different partitions"
        SLOTS_SAME_NUMBER Wrong "slots-same-number"
            "use two partitions whose numbers differ: mender_boot_part has to tell them apart"
        SLOTS_SIZE Warning "slots-differ-in-size" "make both as long as the longest image to come: the shorter one decides"
        SLOTS_KINDS Warning "slots-of-two-kinds" "set both to a partition, or both to a UBI volume"
        SLOT_MISSING Wrong "slot-missing" "correct RootfsPartA or RootfsPartB, or make the partition (lsblk shows what there is)"
        SLOT_KIND Wrong "slot-of-wrong-kind" "set the path of a partition or of a UBI volume"
        SLOT_WHOLE_DISK Wrong "slot-is-whole-disk" "name a partition: an update would write over the table of the disk"
        SLOT_NO_NUMBER Wrong "slot-without-number"
            "use a path that ends in the number of the partition, or leads to a partition"
        SLOT_MOUNTED Wrong "slot-mounted" "unmount it and take it out of fstab: a mounted slot is never written"
        SLOT_IS_DATA Wrong "slot-is-data" "put /var/lib/mender on a partition of its own: an update writes over this one"
        SLOT_READ_ONLY Wrong "slot-read-only" "lift the write protection (blockdev --getro, the switch of the card, ro_lock)"
        RUNNING Ok "running-slot" ""
        RUNNING_UNKNOWN Wrong "running-slot-unknown"
            "have an initial ram disk make a link at each boot and name it in RustOta.RunningRoot (docs/porting-a-board.md, The client)"
        RUNNING_KEY_WRONG Warning "running-root-wrong" "remove RustOta.RunningRoot: what is mounted tells it"
        RUNNING_KEY_FIXED Warning "running-root-fixed"
            "make it a link that is made at each boot: this one says the same after an update, which then cannot be committed"
    }
    "boot environment" {
        ENV Ok "boot-env" ""
        ENV_NONE Wrong "boot-env-none"
            "install /etc/fw_env.config, or the directory of the GRUB environment (docs/porting-a-board.md, The environment)"
        ENV_BOTH Warning "boot-env-both" "set RustOta.Bootloader to \"uboot\" or \"grub\", or remove what is not used"
        ENV_CONFIG Wrong "boot-env-config" "correct fw_env.config: a line `DEVICE OFFSET ENVSIZE` for each copy"
        ENV_UNREADABLE Wrong "boot-env-unreadable"
            "compare fw_env.config with CONFIG_ENV_OFFSET, CONFIG_ENV_SIZE and CONFIG_ENV_REDUNDANT of U-Boot; `saveenv` at its prompt writes a first one"
        ENV_FORBIDDEN Warning "boot-env-forbidden" "run it as root"
        ENV_COPY_BAD Warning "boot-env-copy-bad"
            "the next write repairs it; if it stays so, compare offset and size of this copy with the bootloader's"
        ENV_SINGLE Warning "boot-env-single-copy"
            "give U-Boot a second copy (CONFIG_ENV_REDUNDANT) and fw_env.config a second line: a power cut during a write loses the only one"
        ENV_OVERLAP Wrong "boot-env-copies-overlap" "correct OFFSET or ENVSIZE: each copy needs a place of its own"
        ENV_IN_SLOT Wrong "boot-env-in-slot" "move the environment out of the slot: an update writes over it"
        ENV_IN_MOUNTED Wrong "boot-env-in-mounted-partition" "correct OFFSET: a file system lies there too"
        ENV_IN_PARTITION Warning "boot-env-in-partition"
            "see that nothing else uses the partition, or name it as the device with offset 0"
        ENV_ON_TABLE Wrong "boot-env-on-partition-table" "correct OFFSET: the table of partitions lies there"
        ENV_UNALIGNED Warning "boot-env-unaligned" "use an offset and a size that are multiples of 512 bytes"
        ENV_SECTOR_SIZE Warning "boot-env-sector-size" "set SECTORSIZE in fw_env.config to the size of the erase block"
        ENV_ERASE_BLOCK Wrong "boot-env-erase-block-shared" "put the second copy into an erase block of its own"
        ENV_NO_SPARE Warning "boot-env-no-spare-blocks"
            "give NSECTORS in fw_env.config more than one erase block, as CONFIG_ENV_RANGE of U-Boot: NAND has bad ones"
        ENV_READ_ONLY Wrong "boot-env-read-only" "make it writable for root: an update could not be armed"
        ENV_BOOT_PARTITION Ok "boot-env-boot-partition" ""
        ENV_BOOT_PARTITION_LOCKED Wrong "boot-env-boot-partition-locked"
            "do not set the lock (ro_lock_until_next_power_on, mmc writeprotect): it lasts until the power goes off"
        ENV_LOST Wrong "boot-env-lost-at-restart" "name the file on the partition that the bootloader reads, and mount that one before the client starts"
        ENV_WRITE_CACHE Warning "boot-env-write-cache"
            "have two copies of the environment, and a cache that the bootloader flushes or that is off: what it saved may be lost in a power cut"
        ENV_FLUSHED Ok "boot-env-cache" ""
        ENV_VARIABLE Wrong "boot-env-variable-wrong"
            "set up the variables of docs/boot-environment.md in the bootloader and save them"
        ENV_CANARY Ok "boot-env-canary" ""
        ENV_CANARY_MISSING Wrong "boot-env-canary-missing"
            "the bootloader saves another environment than the one that fw_env.config describes: compare device, offset and size"
    }
    "bootloader" {
        SELECTED Ok "bootloader-selected" ""
        BOOTS_ANOTHER Wrong "bootloader-boots-another"
            "the bootloader does not boot what this environment says: have it read mender_boot_part from there (docs/boot-environment.md)"
        LOGIC_SLOT Wrong "bootloader-slot-differs"
            "correct root= for the slots in the bootloader's settings: the kernel runs from another one than was chosen"
        COUNTS Ok "bootloader-counts" ""
        DOES_NOT_COUNT Wrong "bootloader-does-not-count"
            "have the bootloader count bootcount while upgrade_available is 1 (boot/u-boot and boot/grub do): a trial that hangs would not be given up"
        EVIDENCE Ok "bootloader-evidence" ""
        NO_EVIDENCE Warning "bootloader-no-evidence"
            "install an image that does not come up, and see the old one return (docs/porting-a-board.md, Checks)"
        NO_LIMIT Warning "bootloader-no-limit" "set bootlimit=1 in U-Boot's environment: without it U-Boot never gives a trial up"
        NO_ALTERNATIVE Warning "bootloader-no-altbootcmd"
            "set altbootcmd in U-Boot's environment: it runs when the limit is passed, and without it U-Boot stops at its prompt"
        PANIC Ok "panic-restarts" ""
        PANIC_STAYS Warning "panic-does-not-restart" "add panic=5 to the kernel's command line: only a restart lets the bootloader go back"
        WATCHDOG Ok "watchdog" ""
        WATCHDOG_NONE Warning "watchdog-none" "enable the driver of the hardware watchdog: nothing else ends a system that hangs"
        WATCHDOG_IDLE Warning "watchdog-idle" "start it: RuntimeWatchdogSec= in /etc/systemd/system.conf, or the bootloader"
    }
    "data" {
        DATA Ok "data-partition" ""
        DATA_MISSING Wrong "data-missing" "mount the data partition before the client starts, and make the directory on it"
        DATA_IN_SLOT Wrong "data-in-slot" "mount a partition of its own there: the next update takes the state and the device key away"
        DATA_ON_ROOT Warning "data-on-root" "use a partition of its own, unless this root file system outlives updates"
        DATA_LOST Wrong "data-lost-at-restart" "mount a partition there that keeps its content: state and device key are gone at each restart"
        DATA_READ_ONLY Wrong "data-read-only" "mount it writable; see the kernel's log for why it is not (dmesg)"
        DATA_FULL Wrong "data-full" "make room: not even the state of an update can be written"
        DATA_LITTLE Warning "data-little-room" "make room: logs of deployments take up to 20 MiB, and update modules need their payloads"
    }
    "server" {
        SERVER_NONE Warning "server-none" "set ServerURL for updates over the air; by hand it works without"
        SERVER_NOT_ASKED Ok "server-not-asked" ""
        SERVER Ok "server-reached" ""
        SERVER_UNREACHABLE Wrong "server-unreachable" "check the network, the name and the port from here (or use --offline)"
        SERVER_FALLBACK Warning "server-fallback-unreachable" "check the address: another one of Servers was reached"
        SERVER_REFUSED Wrong "server-certificate-refused" "do what the line says; docs/configuration.md (Certificates) has the choices"
        SERVER_TIME Wrong "server-certificate-time" "set the clock of the device, or renew the certificate"
        SERVER_ENDS Warning "server-certificate-ends-soon" "renew it in time: devices refuse it afterwards"
        SERVER_PLAIN Warning "server-unencrypted" "use https: everybody on the way can read and change what the server says"
        SERVER_SKIP_VERIFY Warning "server-skip-verify" "remove SkipVerify; ServerCertificate names a certificate to trust"
        SERVER_PROXY Ok "server-proxy" ""
        SERVER_PROXY_WRONG Wrong "server-proxy-wrong" "correct the variable where the daemon is started"
        SERVER_FILE Wrong "server-certificate-file" "install the file in PEM at that path"
        SERVER_FILE_EXPIRED Warning "server-certificate-file-expired" "replace the certificate in the file"
        CLOCK_EARLY Warning "clock-before-build" "set the clock (NTP, or a clock with a battery): certificates are compared with the date of the build until then"
    }
    "service" {
        SERVICE Ok "service" ""
        SERVICE_MISSING Warning "service-missing" "install daemon/rust-ota.service, or another supervisor that starts `rust-ota daemon`"
        SERVICE_NOT_ENABLED Warning "service-not-enabled" "systemctl enable rust-ota.service (in the image: a link in multi-user.target.wants)"
        SERVICE_MASKED Warning "service-masked" "systemctl unmask rust-ota.service"
        SERVICE_ANOTHER Wrong "service-another-client" "disable the other client: two of them work against each other"
        SERVICE_NO_WATCHDOG Warning "service-no-watchdog" "add WatchdogSec=300 and Type=notify to the unit, as in daemon/rust-ota.service"
        SERVICE_NO_GIVE_UP Warning "service-no-give-up"
            "add OnFailure=rust-ota-failed.service and install that unit: a trial whose client does not stay up is given up by it"
        SERVICE_GIVE_UP_MISSING Wrong "service-give-up-missing" "install daemon/rust-ota-failed.service too"
        SERVICE_START_LIMIT Warning "service-start-limit-action"
            "remove StartLimitAction: it restarts a committed system again and again (docs/porting-a-board.md, What restarts a trial)"
        DAEMON Ok "daemon-running" ""
        DAEMON_STOPPED Warning "daemon-not-running" "start it: systemctl start rust-ota.service; its log says why it ended"
    }
    "memory" {
        MEMORY Ok "memory" ""
        MEMORY_SOME Warning "memory-not-for-all" "write artifacts with gzip or zstd, which need less, or leave more memory free"
        MEMORY_LITTLE Wrong "memory-too-little" "leave more memory free, also in the control group of the service (MemoryMax=); gzip needs the least"
    }
    "programs" {
        MODULES Ok "update-modules" ""
        MODULE_NOT_EXECUTABLE Warning "update-module-not-executable" "chmod 755 the module: its artifacts are refused"
        SCRIPT_NOT_EXECUTABLE Warning "state-script-not-executable" "chmod 755 the script: it is left out"
        SCRIPT_NAME Warning "state-script-name" "name it as Download_Enter_10 or Idle_Leave_05_text; the other states are for scripts of artifacts. It is left out"
        SCRIPT_VERSION Wrong "state-script-version" "write 3 into the file `version` of the directory: updates fail at the first state"
    }
    "deployment" {
        RECORD Ok "record" ""
        RECORD_UNREADABLE Wrong "record-unreadable" "see what is wrong with the data partition; the next start sets the file aside and begins a new one"
        RECORD_LOST Warning "record-lost" "nothing: what is installed is known again after the next update"
        DEPLOYMENT_WAITS Warning "deployment-waits" "`rust-ota resume`, `commit` or `rollback` ends it; one that the server ordered the daemon ends by itself (`rust-ota status`)"
        DEPLOYMENT_FAILED Warning "deployment-failed" "`rust-ota resume` winds it up, or the daemon does"
        DEPLOYMENT_INCONSISTENT Wrong "deployment-inconsistent" "install a good artifact: the way back failed, or there was none"
        DEPLOYMENT_UNREPORTED Warning "deployment-unreported" "see that the server can be reached: the daemon reports again"
    }
}
