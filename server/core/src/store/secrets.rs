//! Keys and tokens: made at the first start, readable by their owner only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::sync::oneshot;

use super::{Job, Store, StoreError, WriterFailed, tighten};
use crate::domain::id;
use crate::domain::link::LinkKey;
use crate::domain::token::TokenKey;
use crate::work::{Kind, NotLoaded, Work};

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

    /// Opens or makes the secrets of a data folder.
    pub(crate) fn open(folder: &Path) -> Result<Secrets, StoreError> {
        Kept::in_folder(folder)?.secrets()
    }

    /// Opens or makes the secrets that all processes on one store share. What the folder has already is what a store begins
    /// with; the token of the person who runs the server is written to the folder.
    pub(crate) async fn open_shared(store: &dyn Store, folder: &Path) -> Result<Secrets, StoreError> {
        let kept = match Kept::in_store(store).await? {
            Some(kept) => kept,
            None => Kept::in_folder(folder)?.share(store).await?,
        };
        let secrets = kept.secrets()?;
        let path = folder.join(MANAGEMENT_TOKEN);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| StoreError::Io { doing: "making", path: folder.to_owned(), source })?;
        if read(&path).ok().as_ref() != Some(&kept.management_token) {
            write(&path, &kept.management_token).map_err(|source| StoreError::Io {
                doing: "writing",
                path,
                source,
            })?;
        }
        Ok(secrets)
    }
}

/// The secrets as they are kept.
pub(crate) struct Kept {
    token_key: Vec<u8>,
    link_key: Vec<u8>,
    management_token: Vec<u8>,
}

impl Kept {
    /// Those of a folder, if it has any.
    pub(crate) fn found_in(folder: &Path) -> Result<Option<Kept>, StoreError> {
        Secrets::found(folder).map(|_| Kept::in_folder(folder)).transpose()
    }

    /// Those of a store, if it has all.
    pub(crate) async fn in_store(store: &dyn Store) -> Result<Option<Kept>, StoreError> {
        let mut kept = store.documents(Kind::Secret).await?.into_iter().collect::<BTreeMap<_, _>>();
        let mut take = |name: &str| -> Result<Option<Vec<u8>>, StoreError> {
            let Some(value) = kept.remove(name) else { return Ok(None) };
            let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            Ok(Some(bytes.ok_or_else(|| StoreError::Damaged { what: format!("the secret {name}") })?))
        };
        Ok(match (take(TOKEN_KEY)?, take(LINK_KEY)?, take(MANAGEMENT_TOKEN)?) {
            (Some(token_key), Some(link_key), Some(management_token)) => {
                Some(Kept { token_key, link_key, management_token })
            }
            _ => None,
        })
    }

    /// Puts them into a store. Those that another process has put there first stay, and are what comes back.
    pub(crate) async fn share(self, store: &dyn Store) -> Result<Kept, StoreError> {
        let mine = [
            (TOKEN_KEY, STANDARD.encode(&self.token_key)),
            (LINK_KEY, STANDARD.encode(&self.link_key)),
            (MANAGEMENT_TOKEN, STANDARD.encode(&self.management_token)),
        ];
        let run = move |work: &mut Work| {
            let mut put = || {
                for (name, value) in &mine {
                    if work.document::<String>(Kind::Secret, name)?.is_none() {
                        work.put_document(Kind::Secret, name, Some(value))?;
                    }
                }
                Ok::<(), NotLoaded>(())
            };
            put().is_ok()
        };
        let failed = |reason: String| StoreError::Database { place: "the fleet".to_owned(), reason };
        let (done, stored) = oneshot::channel();
        store.submit(Job { keys: Vec::new(), run: Box::new(run), done });
        let stored = stored.await.unwrap_or_else(|_| Err(WriterFailed("it has stopped".into())));
        stored.map_err(|WriterFailed(reason)| failed(reason.to_string()))?;
        Kept::in_store(store).await?.ok_or_else(|| failed("it has not kept the secrets".to_owned()))
    }

    /// Writes them to a folder.
    pub(crate) fn write_to(&self, folder: &Path) -> Result<(), StoreError> {
        let secrets = folder.join("secrets");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets);
        made.map_err(|source| StoreError::Io { doing: "making", path: secrets, source })?;
        for (name, bytes) in [
            (TOKEN_KEY, &self.token_key),
            (LINK_KEY, &self.link_key),
            (MANAGEMENT_TOKEN, &self.management_token),
        ] {
            let path = folder.join(name);
            write(&path, bytes).map_err(|source| StoreError::Io { doing: "writing", path, source })?;
        }
        Ok(())
    }

    fn in_folder(folder: &Path) -> Result<Kept, StoreError> {
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
        let link_key = read_or_make(&folder.join(LINK_KEY), || {
            Ok(id::random::<32>().map_err(|_| StoreError::NoRandomness)?.to_vec())
        })?;
        let management_token = read_or_make(&folder.join(MANAGEMENT_TOKEN), || {
            let token = id::hex(&id::random::<32>().map_err(|_| StoreError::NoRandomness)?);
            Ok(format!("{token}\n").into_bytes())
        })?;
        let kept = Kept { token_key: key, link_key, management_token };
        // What is damaged is named by its file.
        if let Err(StoreError::Damaged { what }) = kept.secrets() {
            return Err(StoreError::Damaged { what: folder.join(what).display().to_string() });
        }
        Ok(kept)
    }

    fn secrets(&self) -> Result<Secrets, StoreError> {
        let damaged = |name: &str| StoreError::Damaged { what: name.to_owned() };
        let tokens = TokenKey::from_pkcs8(&self.token_key).ok_or_else(|| damaged(TOKEN_KEY))?;
        if self.link_key.len() != 32 {
            return Err(damaged(LINK_KEY));
        }
        let token = String::from_utf8(self.management_token.clone()).unwrap_or_default().trim().to_owned();
        // Whoever replaces the file by a short word has opened the server to everybody.
        if token.len() < 16 {
            return Err(damaged(MANAGEMENT_TOKEN));
        }
        Ok(Secrets { tokens, links: LinkKey::new(&self.link_key), management_token: token })
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
