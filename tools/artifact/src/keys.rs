//! Key files.

use crate::failure::Failure;
use artifact::{Signer, Trust, VerifyKeys};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// No key file comes near this.
const KEY_FILE_BYTES: u64 = 1 << 20;

/// The key to sign with.
pub(crate) fn signer(path: &Path) -> Result<Signer, Failure> {
    Signer::from_pem(&read(path)?).map_err(|error| Failure::key(path, error))
}

/// Trust in these keys.
pub(crate) fn trust(paths: &[PathBuf]) -> Result<Trust, Failure> {
    let mut keys = VerifyKeys::new();
    for path in paths {
        keys.add_pem(&path.display().to_string(), &read(path)?).map_err(|error| Failure::key(path, error))?;
    }
    Ok(Trust::Keys(keys))
}

/// Whether this option of `mender-artifact` names a key that is not in a file.
pub(crate) fn is_elsewhere(option: &str) -> bool {
    let known =
        ["gcp-kms-key", "vault-transit-key", "key-pkcs11", "keyfactor-signserver-worker", "azure-key"];
    known.contains(&option)
}

/// Says that keys are read from files, and what to do with others.
pub(crate) fn elsewhere(option: &str) -> Failure {
    Failure::usage(format!(
        "--{option}: only keys in files are supported; sign the member \"manifest\" with the tool of the key, and add the \
         signature as \"manifest.sig\" (docs/host-tool.md)"
    ))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| Failure::io(format_args!("read the key {}", path.display()), error))?;
    Ok(bytes)
}

/// 32 bytes of the system's randomness.
pub(crate) fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::io("read /dev/urandom", error))?;
    Ok(bytes)
}
