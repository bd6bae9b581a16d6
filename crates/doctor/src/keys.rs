//! The keys: those that artifacts have to be signed with, and the device's own.

use std::path::Path;

use client_core::artifact::VerifyKeys;
use device::compose::Setup;
use device::keystore::{KeyStoreError, LookedAtKey, OpenedKey};
use linux::regular_file;

use crate::finding::{self as check, Finding, add};

/// Longest file with verification keys that is read, as the client does.
const VERIFY_KEY_BYTES: u64 = 1024 * 1024;

/// What the key files hold.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Each file with the kinds of its keys; `None` where none is configured.
    pub(crate) verify: Option<Vec<(String, Kinds)>>,
    pub(crate) accepts_unsigned: bool,
    /// `None` inside: one is made at the first start.
    pub(crate) device: Result<Option<LookedAtKey>, KeyProblem>,
    pub(crate) has_server: bool,
}

/// The kinds of the keys in a file, or why there are none.
type Kinds = Result<Vec<&'static str>, String>;

/// Why there is no device key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyProblem {
    /// This user may not look.
    Forbidden,
    /// Everything else.
    Other(String),
}

pub(crate) fn gather(setup: &Setup) -> Facts {
    let kinds = |path: &String| {
        let pem = regular_file::read(Path::new(path), VERIFY_KEY_BYTES).map_err(|error| error.to_string())?;
        let mut keys = VerifyKeys::default();
        keys.add_pem(path, &pem).map_err(|error| error.to_string())?;
        Ok(keys.kinds().map(|(_, kind)| kind).collect())
    };
    let paths = setup.config.artifact_verify_keys.as_ref();
    let device = setup.look_at_key().map_err(|error| {
        let is_forbidden = matches!(&error, KeyStoreError::Read { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied);
        if is_forbidden { KeyProblem::Forbidden } else { KeyProblem::Other(error.to_string()) }
    });
    Facts {
        verify: paths.map(|paths| paths.iter().map(|path| (path.clone(), kinds(path))).collect()),
        accepts_unsigned: setup.config.danger_accept_unsigned,
        device,
        has_server: !setup.config.servers.is_empty(),
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = verification(facts);
    found.push(match &facts.device {
        Ok(Some(LookedAtKey { opened: None, .. })) => check::DEVICE_KEY_ENCRYPTED
            .found(format_args!("the device key is encrypted, and no passphrase was given")),
        Ok(Some(LookedAtKey { opened: Some(OpenedKey { kind, .. }), mode })) if mode & 0o077 != 0 => {
            check::DEVICE_KEY_OPEN
                .found(format_args!("the device key ({kind}) is open to others (mode {mode:o})"))
        }
        Ok(Some(LookedAtKey { opened: Some(OpenedKey { kind, sha256 }), .. })) => {
            check::DEVICE_KEY.found(format_args!("device key: {kind}, SHA-256 {sha256}"))
        }
        Ok(None) if facts.has_server => check::DEVICE_KEY_TO_COME
            .found(format_args!("no device key yet: the first start of the daemon makes one")),
        // Nobody asks for one.
        Ok(None) | Err(KeyProblem::Forbidden) => return found,
        Err(KeyProblem::Other(error)) => check::DEVICE_KEY_UNUSABLE.found(format_args!("{error}")),
    });
    found
}

fn verification(facts: &Facts) -> Vec<Finding> {
    let Some(files) = &facts.verify else {
        return vec![if facts.accepts_unsigned {
            check::VERIFY_DANGER_UNSIGNED.found(format_args!(
                "RustOta.DangerAcceptUnsigned: artifacts are installed without a signature, anybody's too"
            ))
        } else {
            check::VERIFY_KEYS_NONE.found(format_args!("no verification key is configured"))
        }];
    };
    let usable: Vec<&'static str> =
        files.iter().filter_map(|(_, keys)| keys.as_ref().ok()).flatten().copied().collect();
    let problems = files.iter().filter_map(|(path, keys)| Some((path, keys.as_ref().err()?)));
    let problem =
        if usable.is_empty() { &check::VERIFY_KEYS_NONE_USABLE } else { &check::VERIFY_KEY_UNUSABLE };
    let mut found: Vec<Finding> = problems
        .map(|(path, error)| problem.found(format_args!("cannot use the verification key {path}: {error}")))
        .collect();
    if !usable.is_empty() {
        let what = if usable.len() == 1 { "key" } else { "keys, any of which counts" };
        add(
            &mut found,
            &check::VERIFY_KEYS,
            format_args!("{} verification {what}: {}", usable.len(), usable.join(", ")),
        );
    } else if found.is_empty() {
        add(&mut found, problem, format_args!("the list of verification keys is empty"));
    }
    found
}
