//! The configuration: whether it can be used, and which of its keys do nothing.

use std::path::{Path, PathBuf};

use client_core::install::{DIRECTORY, PreferBuiltIn, SINGLE_FILE};
use device::compose::{ComposeError, Setup, StandIn};
use device::config::{Config, SetKey, set_keys};
use linux::boot_env::Bootloader;
use linux::script_payload::SCRIPT;

use crate::finding::{self as check, Finding, add};

/// Keys that are named in one line.
const NAMED: usize = 12;

/// What the files say.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) files: Vec<(PathBuf, Option<Vec<SetKey>>)>,
    /// Those that are there and that this user may not read.
    pub(crate) forbidden: Vec<PathBuf>,
    /// Why they cannot be used, and what stands in for them.
    pub(crate) problem: Option<(String, StandIn)>,
    pub(crate) config: Config,
    /// Whether this build serves the add-ons of the Mender client.
    pub(crate) serves_add_ons: bool,
}

pub(crate) fn gather(setup: Setup, problem: Option<(ComposeError, StandIn)>, serves_add_ons: bool) -> Facts {
    let files = setup.config_files().contents();
    let is_forbidden = |(path, content): &(PathBuf, Option<Vec<u8>>)| content.is_none() && path.exists();
    let forbidden = files.iter().filter(|file| is_forbidden(file)).map(|(path, _)| path.clone()).collect();
    let keys = |content: Option<Vec<u8>>| content.map(|content| set_keys(&content));
    Facts {
        files: files.into_iter().map(|(path, content)| (path, keys(content))).collect(),
        forbidden,
        problem: problem.map(|(error, stand_in)| (error.to_string(), stand_in)),
        config: setup.config,
        serves_add_ons,
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((error, stand_in)) = &facts.problem {
        add(&mut found, &check::CONFIG_UNUSABLE, format_args!("{error}"));
        match stand_in {
            StandIn::LastGood => add(
                &mut found,
                &check::CONFIG_LAST_GOOD,
                format_args!(
                    "the daemon goes on with the configuration that was last good; so do the checks below"
                ),
            ),
            StandIn::Defaults => {}
        }
        return found;
    }
    let read: Vec<&Path> =
        facts.files.iter().filter(|(_, keys)| keys.is_some()).map(|(path, _)| path.as_path()).collect();
    match read.as_slice() {
        [] if !facts.forbidden.is_empty() => {}
        [] => {
            let places: Vec<String> =
                facts.files.iter().rev().map(|(path, _)| path.display().to_string()).collect();
            add(&mut found, &check::CONFIG_MISSING, format_args!("there is no {}", places.join(" and no ")));
        }
        [one] => add(&mut found, &check::CONFIG, format_args!("{}", one.display())),
        [weak, strong, ..] => add(
            &mut found,
            &check::CONFIG,
            format_args!("{}, and under it {}", strong.display(), weak.display()),
        ),
    }
    let forbidden = facts.forbidden.iter();
    found.extend(forbidden.map(|path| {
        check::CONFIG_FORBIDDEN
            .found(format_args!("{} is there, and this user may not read it", path.display()))
    }));
    found.extend(
        facts
            .config
            .warnings
            .iter()
            .map(|warning| check::CONFIG_KEY_UNKNOWN.found(format_args!("{warning}"))),
    );
    found.extend(ignored(facts));
    found.extend(overridden(facts));
    found.extend(without_effect(facts));
    found
}

fn keys(facts: &Facts) -> impl Iterator<Item = &SetKey> {
    facts.files.iter().filter_map(|(_, keys)| keys.as_ref()).flatten()
}

/// `a, b, c`, shortened.
fn listed(mut names: Vec<&str>) -> Option<String> {
    names.dedup();
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    (!names.is_empty()).then(|| format!("{}{more}", names[..names.len().min(NAMED)].join(", ")))
}

fn ignored(facts: &Facts) -> Option<Finding> {
    let names = keys(facts).filter(|key| key.is_ignored).map(|key| key.name.as_str()).collect();
    let names = listed(names)?;
    Some(
        check::CONFIG_KEY_IGNORED
            .found(format_args!("{names}: the Mender client's, and not used here on purpose")),
    )
}

fn overridden(facts: &Facts) -> Option<Finding> {
    let [(_, Some(weak)), (path, Some(strong))] = facts.files.as_slice() else { return None };
    // Of an object the keys in it count.
    let is_object = |key: &&SetKey| {
        weak.iter().any(|other| other.name.strip_prefix(&key.name).is_some_and(|rest| rest.starts_with('.')))
    };
    let both = weak.iter().filter(|key| strong.iter().any(|other| other.name == key.name));
    let names = both.filter(|key| !is_object(key)).map(|key| key.name.as_str()).collect();
    let names = listed(names)?;
    Some(
        check::CONFIG_KEY_OVERRIDDEN
            .found(format_args!("{names}: in both files, the one in {} counts", path.display())),
    )
}

/// Keys that are understood and change nothing, with what keeps them from it.
fn without_effect(facts: &Facts) -> Vec<Finding> {
    let config = &facts.config;
    let is_set = |name: &str| keys(facts).any(|key| key.name == name);
    let https = config.servers.iter().any(|url| url.to_ascii_lowercase().starts_with("https://"));
    let only_plain = !config.servers.is_empty() && !https;
    let mut found = Vec::new();
    let mut say = |applies: bool, key: &str, why: &str| {
        if applies && is_set(key) {
            add(&mut found, &check::CONFIG_KEY_WITHOUT_EFFECT, format_args!("{key} changes nothing: {why}"));
        }
    };
    say(
        config.danger_accept_unsigned && config.artifact_verify_keys.is_some(),
        "RustOta.DangerAcceptUnsigned",
        "a verification key is configured, and counts",
    );
    say(config.gates.ask_before.is_empty(), "RustOta.AskTimeoutSeconds", "RustOta.AskBefore names no gate");
    say(config.bootloader == Bootloader::UBoot, "RustOta.GrubEnvDir", "RustOta.Bootloader is \"uboot\"");
    say(config.bootloader == Bootloader::Grub, "RustOta.FwEnvConfig", "RustOta.Bootloader is \"grub\"");
    for key in ["ServerCertificate", "SkipVerify", "HttpsClient"] {
        say(only_plain, key, "no server is asked with https");
    }
    say(config.skip_verify && !only_plain, "ServerCertificate", "SkipVerify trusts everybody");
    for key in
        ["DBus.Enabled", "UpdateControlMapExpirationTimeSeconds", "UpdateControlMapBootExpirationTimeSeconds"]
    {
        say(!facts.serves_add_ons, key, "this build does not serve add-ons (feature dbus)");
    }
    if let PreferBuiltIn::These(types) = &config.prefer_built_in {
        for unknown in types.iter().filter(|name| ![SINGLE_FILE, DIRECTORY, SCRIPT].contains(&name.as_str()))
        {
            let why = format!("there is no built-in handler for {unknown}");
            say(true, "RustOta.PreferBuiltIn", &why);
        }
    }
    found
}
