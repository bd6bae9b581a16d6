//! Keys and tokens: made at the first start, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use super::{StoreError, tighten};
use crate::domain::id;
use crate::domain::link::LinkKey;
use crate::domain::token::TokenKey;

/// Keys and tokens.
pub(crate) struct Secrets {
    /// Signs tokens.
    pub(crate) tokens: TokenKey,
    /// Signs links.
    pub(crate) links: LinkKey,
    /// Opens the management API.
    pub(crate) management_token: String,
}

/// The names of the secrets, in the data folder.
const TOKEN_KEY: &str = "secrets/token-key.pk8";
const LINK_KEY: &str = "secrets/link-key";
const MANAGEMENT_TOKEN: &str = "management-token";

impl Secrets {
    /// A secret that is there.
    pub(super) fn found(folder: &Path) -> Option<PathBuf> {
        let paths = [TOKEN_KEY, LINK_KEY, MANAGEMENT_TOKEN].map(|name| folder.join(name));
        paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok())
    }

    pub(crate) fn open(folder: &Path) -> Result<Secrets, StoreError> {
        let secrets = folder.join("secrets");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&secrets)
            .map_err(|source| StoreError::Io { doing: "making", path: secrets.clone(), source })?;
        tighten(&secrets)?;
        let key_path = folder.join(TOKEN_KEY);
        let key = read_or_make(&key_path, || {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
            Ok(key.map_err(|_| StoreError::NoRandomness)?.as_ref().to_vec())
        })?;
        let damaged = |path: &Path| StoreError::Damaged { what: path.display().to_string() };
        let tokens = TokenKey::from_pkcs8(&key).ok_or_else(|| damaged(&key_path))?;

        let link_path = folder.join(LINK_KEY);
        let link_key = read_or_make(&link_path, || {
            Ok(id::random::<32>().map_err(|_| StoreError::NoRandomness)?.to_vec())
        })?;
        if link_key.len() != 32 {
            return Err(damaged(&link_path));
        }

        let token_path = folder.join(MANAGEMENT_TOKEN);
        let token = read_or_make(&token_path, || {
            let token = id::hex(&id::random::<32>().map_err(|_| StoreError::NoRandomness)?);
            Ok(format!("{token}\n").into_bytes())
        })?;
        let token = String::from_utf8(token).unwrap_or_default().trim().to_owned();
        // Whoever replaces the file by a short word has opened the server to everybody.
        if token.len() < 16 {
            return Err(damaged(&token_path));
        }
        Ok(Secrets { tokens, links: LinkKey::new(&link_key), management_token: token })
    }
}

/// A secret that exists and cannot be read is an error, never a reason to make a new one: all devices would have to
/// authenticate again.
fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let error = |doing| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    match read(path) {
        Ok(bytes) => {
            tighten(path)?;
            Ok(bytes)
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let bytes = make()?;
            write(path, &bytes).map_err(error("writing"))?;
            Ok(bytes)
        }
        Err(source) => Err(error("reading")(source)),
    }
}

/// No secret is larger. One that waits or never ends, a FIFO or a device, would be a server that never starts.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    const SECRET_BYTES: u64 = 4096;
    let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason);
    // Asked before it is opened: opening a FIFO waits already.
    if !fs::metadata(path)?.is_file() {
        return Err(wrong("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES {
        return Err(wrong("longer than 4 KiB"));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // What a start that was cut has left may have any mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
