//! `cargo xtask device DIRECTORY`: a device of files for the desk, with the commands to use it printed; and its restart.
//!
//! The restart is the bootloader's: it obeys the environment that the client wrote, and says which slot runs. What is in a
//! slot is not looked at.

use std::fs;
use std::path::Path;

use client_core::artifact::Signer;
use serde_json::{Value, json};
use testkit::bootloader::{Boot, Startup};
use xtask::options::Options;
use xtask::{Outcome, workspace};

use crate::virtual_device::{DEVICE_TYPE, Enrolment, VirtualDevice};

/// Where a server listens by itself.
const SERVER: &str = "http://127.0.0.1:8080";
/// The private key, for whoever makes updates; beside it the public one, with the ending `.pub`.
const KEY: &str = "key";
/// What can be done with the device, to be typed.
const COMMANDS: &str = "commands";
/// Seconds between two questions of the daemon: somebody is watching.
const POLL_SECONDS: u64 = 5;

/// Makes a device, or restarts one.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let hangs = options.flag("--hangs");
    let server = options.value("--server")?.unwrap_or(SERVER);
    let slot_mib = options.count("--slot-mib", 32)?;
    let words = options.words();
    options.finish()?;
    match words.as_slice() {
        [directory] if !hangs => make(Path::new(directory), server, slot_mib * 1024 * 1024),
        [directory, "restart"] => restart(Path::new(directory), hangs),
        _ => Err("expected DIRECTORY, or DIRECTORY restart; see cargo xtask device --help".into()),
    }
}

fn make(directory: &Path, server: &str, slot_bytes: u64) -> Outcome {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    // The configuration names its files for ever, from whatever folder it is used.
    let directory = directory.canonicalize().map_err(failed)?;
    if fs::read_dir(&directory).map_err(failed)?.next().is_some() {
        return Err(format!("{} is not empty", directory.display()));
    }
    // fw_env.config separates its columns by white space, and has no quotes.
    if directory.to_string_lossy().contains(char::is_whitespace) {
        return Err(format!(
            "{}: a path with white space cannot be named in fw_env.config",
            directory.display()
        ));
    }
    let key = directory.join(KEY);
    let public = directory.join(format!("{KEY}.pub"));
    let pair = Signer::generate_ecdsa_p256().map_err(|error| format!("cannot make a key: {error}"))?;
    workspace::write(&key, pair.private)?;
    let for_its_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, for_its_owner).map_err(|error| format!("{}: {error}", key.display()))?;
    workspace::write(&public, pair.public)?;
    let mut device = VirtualDevice::create(&directory, slot_bytes, &public)?;
    device.enrol(Enrolment {
        server_url: server.to_owned(),
        poll_seconds: POLL_SECONDS,
        authority: None,
        number: number_of(&directory),
    })?;
    // It must not restart the machine that it stands on.
    let how = format!("cargo xtask device {} restart", quoted(&directory));
    let told = format!("the device was told to restart: stop its daemon, then {how}");
    change(&directory, |config| config["RustOta"]["RebootCommand"] = json!(format!("echo '{told}'")))?;
    let commands = commands(&directory, &crate::folder()?, server);
    workspace::write(&directory.join(COMMANDS), &commands)?;
    println!(
        "{} is a device of files; slot A runs, both slots are empty.\n\n{commands}",
        directory.display()
    );
    Ok(())
}

/// A number for a folder, so that two of them are two devices to a server (FNV-1a).
fn number_of(directory: &Path) -> u32 {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(directory.as_os_str());
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The machine goes down and starts as often as it takes until a slot comes up. With `hangs` the first one does not.
fn restart(directory: &Path, hangs: bool) -> Outcome {
    let directory = directory.canonicalize().map_err(|error| format!("{}: {error}", directory.display()))?;
    let device = VirtualDevice::open(&directory)?;
    let mut first = None;
    let boot = device.boot(&mut |slot| {
        println!("the bootloader boots slot {slot}");
        if hangs && *first.get_or_insert(slot) == slot {
            println!("slot {slot} hangs; the watchdog resets the machine");
            return Startup::Fails;
        }
        Startup::ComesUp
    })?;
    let slot = match boot {
        Boot::Up { slot, .. } => slot,
        Boot::Stuck { slot, .. } => return Err(format!("the machine is stuck in slot {slot}")),
    };
    let running = device.slot(slot);
    change(&directory, |config| config["RustOta"]["RunningRoot"] = json!(running))?;
    println!("slot {slot} is up");
    Ok(())
}

/// Changes the configuration and leaves the rest of it as it is: it may have been edited.
fn change(directory: &Path, change: impl FnOnce(&mut Value)) -> Outcome {
    let path = directory.join("mender.conf");
    let mut config: Value = serde_json::from_str(&workspace::read(&path)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    change(&mut config);
    workspace::write(&path, format!("{config:#}\n"))
}

/// What can be done with it, as lines for a shell. `programs` is where they were built.
fn commands(directory: &Path, programs: &Path, server: &str) -> String {
    let path = |name: &str| quoted(&directory.join(name));
    let program = |name: &str| quoted(&programs.join(name));
    let client =
        format!("{} --config {} --datastore {}", program("rust-ota"), path("mender.conf"), path("data"));
    let (tool, host, desk) = (program("rust-ota-artifact"), program("rust-ota-server"), program("desk"));
    let (image, update, here) = (path("rootfs.img"), path("release-2.mender"), quoted(directory));
    let (key, data, token) = (path(KEY), path("server"), path("server/management-token"));
    let listen = server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/');
    let manage = format!("--server {server} --token-file {token}");
    format!(
        "\
# An update, signed on the host.
head -c 1000000 /dev/urandom > {image}
{tool} write rootfs-image -t {DEVICE_TYPE} -n release-2 -f {image} -k {key} -o {update}

# By hand: install, restart into the trial, keep it. `restart --hangs` falls back instead.
{client} install {update}
{desk} device {here} restart
{client} commit
{client} show-artifact

# What is right and what is wrong with it.
{client} doctor --offline

# Over the air: the server in one shell, the daemon in another, and the orders in a third. When the daemon says that the
# device was told to restart: stop it, restart as above, start it again.
{host} serve --data {data} --listen {listen}
{client} daemon
{host} devices {manage}
{host} accept {manage} DEVICE
{host} upload {manage} {update}
{host} deploy {manage} first release-2
"
    )
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn running(directory: &Path) -> PathBuf {
        let config: Value =
            serde_json::from_slice(&fs::read(directory.join("mender.conf")).unwrap()).unwrap();
        PathBuf::from(config["RustOta"]["RunningRoot"].as_str().unwrap())
    }

    #[test]
    fn a_device_is_made_once_and_its_restarts_keep_what_was_edited() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("device");
        make(&directory, SERVER, 1 << 20).unwrap();
        let directory = directory.canonicalize().unwrap();
        assert_eq!(running(&directory), directory.join("slot2"));
        assert!(make(&directory, SERVER, 1 << 20).unwrap_err().contains("not empty"));

        change(&directory, |config| config["UpdatePollIntervalSeconds"] = json!(7)).unwrap();
        restart(&directory, false).unwrap();
        assert_eq!(running(&directory), directory.join("slot2"), "nothing is on trial");
        let config = workspace::read(&directory.join("mender.conf")).unwrap();
        assert!(config.contains("\"UpdatePollIntervalSeconds\": 7"), "{config}");
        assert!(!config.contains("reboot\""), "{config}");
        assert!(restart(folder.path(), false).is_err(), "that is no device");
    }

    #[test]
    fn a_path_that_the_environment_cannot_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = make(&folder.path().join("a device"), SERVER, 1 << 20).unwrap_err();
        assert!(error.contains("white space"), "{error}");
    }

    #[test]
    fn paths_are_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-device.1")), "/tmp/a-device.1");
        assert_eq!(quoted(Path::new("/tmp/it's mine")), "'/tmp/it'\\''s mine'");
    }
}
