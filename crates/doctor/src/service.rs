//! What starts the daemon and keeps it running, and whether it runs now.

use std::fs;
use std::path::{Path, PathBuf};

use device::compose::Setup;

use crate::finding::{self as check, Finding, add};
use crate::world::World;

/// Where units lie, the stronger place first.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Ours, and those of the Mender client 5.x and 3.x, which are ours too on a device that came from there.
const NAMES: [&str; 3] = ["rust-ota.service", "mender-updated.service", "mender-client.service"];
/// Names of the program.
const PROGRAMS: [&str; 4] = ["rust-ota", "mender-update", "mender-auth", "mender"];

/// What starts the daemon, and whether it runs.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) starter: Starter,
    /// The process that is the daemon.
    pub(crate) daemon: Option<u32>,
    pub(crate) has_server: bool,
    pub(crate) is_virtual: bool,
}

/// What starts services here.
#[derive(Debug, Clone)]
pub(crate) enum Starter {
    Systemd(Vec<Unit>),
    /// What starts the daemon, and whether something leads to it at boot.
    Other(Option<(PathBuf, bool)>),
}

/// One unit that may start a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) is_masked: bool,
    pub(crate) is_enabled: bool,
    /// Another name of one in the list.
    pub(crate) is_alias: bool,
    pub(crate) watchdog: Option<String>,
    /// `OnFailure=`, and whether that unit is installed.
    pub(crate) on_failure: Option<(String, bool)>,
    pub(crate) start_limit_action: Option<String>,
}

pub(crate) fn gather(setup: &Setup, world: &World, is_virtual: bool) -> Facts {
    let starter = if world.at("/run/systemd/system").is_dir() {
        Starter::Systemd(NAMES.iter().filter_map(|name| unit(world, name)).collect())
    } else {
        Starter::Other(script(world))
    };
    let has_server = !setup.config.servers.is_empty();
    Facts { starter, daemon: daemon(setup, world), has_server, is_virtual }
}

/// The process that wrote its number, if it is one of ours. No lock is tried: a daemon that just starts must not find it
/// held.
fn daemon(setup: &Setup, world: &World) -> Option<u32> {
    let pid: u32 = world.text(setup.pid_file())?.parse().ok()?;
    let name = world.text(format!("/proc/{pid}/comm"))?;
    PROGRAMS.contains(&name.as_str()).then_some(pid)
}

fn unit(world: &World, name: &str) -> Option<Unit> {
    let is_there = |place: &&&str| fs::symlink_metadata(world.at(place).join(name)).is_ok();
    let path = world.at(UNITS.iter().find(is_there)?).join(name);
    let target = fs::read_link(&path).ok();
    let is_masked = target.as_deref() == Some(Path::new("/dev/null"));
    let points_to_another = target.is_some_and(|target| {
        let target = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        target != name && NAMES.contains(&target.as_str())
    });
    let mut text = world.text(&path).unwrap_or_default();
    for place in UNITS.iter().rev() {
        let folder = Path::new(place).join(format!("{name}.d"));
        for file in world.names_in(&folder).into_iter().filter(|file| file.ends_with(".conf")) {
            text.push('\n');
            text.push_str(&world.text(folder.join(file)).unwrap_or_default());
        }
    }
    let on_failure = setting(&text, "OnFailure").map(|unit| {
        let is_installed = UNITS.iter().any(|place| world.at(place).join(&unit).exists());
        (unit, is_installed)
    });
    Some(Unit {
        name: name.to_owned(),
        is_masked,
        is_enabled: UNITS.iter().any(|place| is_wanted(world, place, name)),
        is_alias: points_to_another,
        watchdog: setting(&text, "WatchdogSec").filter(|time| time != "0" && time != "infinity"),
        on_failure,
        start_limit_action: setting(&text, "StartLimitAction").filter(|action| action != "none"),
    })
}

/// Whether something in `place` starts the unit.
fn is_wanted(world: &World, place: &str, name: &str) -> bool {
    let folders = world.names_in(place).into_iter();
    let mut folders = folders.filter(|folder| folder.ends_with(".wants") || folder.ends_with(".requires"));
    folders.any(|folder| fs::symlink_metadata(world.at(place).join(folder).join(name)).is_ok())
}

/// The last value of a setting; an empty one takes it back.
fn setting(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().filter_map(value).next_back().filter(|value| !value.is_empty())
}

/// What starts the daemon where there is no systemd: a script of System V or busybox, a service of OpenRC or runit, or a
/// line of inittab.
fn script(world: &World) -> Option<(PathBuf, bool)> {
    let scripts = world.names_in("/etc/init.d");
    if let Some(name) =
        scripts.iter().find(|name| name.contains("rust-ota") || name.contains("mender-update"))
    {
        // Busybox starts everything of this form itself.
        let by_itself = name.starts_with('S') && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let is_linked = |folder: &str| {
            let links = world.names_in(format!("/etc/{folder}"));
            links.iter().any(|link| link.starts_with('S') && link.ends_with(name.as_str()) || link == name)
        };
        let run_levels = ["rc2.d", "rc3.d", "rc4.d", "rc5.d", "rcS.d", "runlevels/default", "runlevels/boot"];
        return Some((
            Path::new("/etc/init.d").join(name),
            by_itself || run_levels.into_iter().any(is_linked),
        ));
    }
    for place in ["/etc/service", "/var/service", "/etc/sv"] {
        let path = Path::new(place).join("rust-ota");
        if world.at(&path).is_dir() {
            return Some((path, place != "/etc/sv"));
        }
    }
    let inittab = world.text("/etc/inittab")?;
    let starts = |line: &str| !line.starts_with('#') && line.contains("rust-ota");
    inittab.lines().any(starts).then(|| (PathBuf::from("/etc/inittab"), true))
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut said = Vec::new();
    // What only a hand works with needs no daemon; a device of files is started by hand.
    if facts.has_server && !facts.is_virtual {
        match &facts.starter {
            Starter::Systemd(units) => said.extend(judge_units(units)),
            Starter::Other(Some((path, true))) => {
                add(&mut said, &check::SERVICE, format_args!("{} starts the daemon", path.display()))
            }
            Starter::Other(Some((path, false))) => add(
                &mut said,
                &check::SERVICE_NOT_ENABLED,
                format_args!("{} is there, and nothing starts it at boot", path.display()),
            ),
            Starter::Other(None) => add(
                &mut said,
                &check::SERVICE_MISSING,
                format_args!("nothing that starts the daemon was found (no systemd here)"),
            ),
        }
    }
    match facts.daemon {
        Some(pid) => add(&mut said, &check::DAEMON, format_args!("the daemon runs (process {pid})")),
        None if facts.has_server && !facts.is_virtual => {
            add(&mut said, &check::DAEMON_STOPPED, format_args!("no daemon runs"))
        }
        None => {}
    }
    said
}

fn judge_units(units: &[Unit]) -> Vec<Finding> {
    let Some(unit) = units.iter().find(|unit| !unit.is_alias) else {
        return vec![
            check::SERVICE_MISSING.found(format_args!("systemd has none of the units {}", NAMES.join(", "))),
        ];
    };
    let name = &unit.name;
    if unit.is_masked {
        return vec![check::SERVICE_MASKED.found(format_args!("{name} is masked"))];
    }
    let mut said = Vec::new();
    said.push(match unit.is_enabled {
        true => check::SERVICE.found(format_args!("{name} is enabled")),
        false => check::SERVICE_NOT_ENABLED.found(format_args!("{name} is installed and not enabled")),
    });
    let others = units.iter().filter(|other| other.name != *name && !other.is_alias && !other.is_masked);
    for other in others.filter(|other| other.is_enabled) {
        add(&mut said, &check::SERVICE_ANOTHER, format_args!("{} is enabled beside {name}", other.name));
    }
    if unit.watchdog.is_none() {
        add(
            &mut said,
            &check::SERVICE_NO_WATCHDOG,
            format_args!("{name} has no WatchdogSec: a client that hangs stays so"),
        );
    }
    match &unit.on_failure {
        None => add(&mut said, &check::SERVICE_NO_GIVE_UP, format_args!("{name} has no OnFailure")),
        Some((other, false)) => add(
            &mut said,
            &check::SERVICE_GIVE_UP_MISSING,
            format_args!("{name} has OnFailure={other}, which is not installed"),
        ),
        Some((_, true)) => {}
    }
    if let Some(action) = &unit.start_limit_action {
        add(&mut said, &check::SERVICE_START_LIMIT, format_args!("{name} has StartLimitAction={action}"));
    }
    said
}
