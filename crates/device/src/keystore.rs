//! The key that proves who this device is: read from its file, and made once when there is none.
//!
//! A key that is there is never replaced without an order: losing it means that the server no longer knows the device.
//! So one that cannot be read or used is an error and never a reason to make a new one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use client_core::artifact::{KeyError, Sha256, Signer};
use linux::{atomic_file, regular_file};
use ring::rand::{SecureRandom, SystemRandom};

/// The file in the datastore.
const FILE_NAME: &str = "mender-agent.pem";
/// What a new key is called until it is complete.
const NEW_FILE_NAME: &str = "mender-agent.pem.new";
/// Longest key file; RSA with 4096 bits has 3,272 bytes.
const KEY_BYTES: u64 = 64 * 1024;
/// Longest passphrase file.
const PASSPHRASE_BYTES: u64 = 4096;

/// Where the key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In the datastore: made when it is missing.
    Datastore(PathBuf),
    /// `Security.AuthPrivateKey`: never made, never replaced.
    Static(PathBuf),
}

impl KeyPlace {
    /// `static_key` is `Security.AuthPrivateKey`.
    pub(crate) fn new(datastore: &Path, static_key: Option<&str>) -> KeyPlace {
        match static_key {
            Some(path) => KeyPlace::Static(path.into()),
            None => KeyPlace::Datastore(datastore.join(FILE_NAME)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            KeyPlace::Datastore(path) | KeyPlace::Static(path) => path,
        }
    }
}

/// Why there is no key.
pub enum KeyStoreError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file holds no key that can be used.
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A new key cannot be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The key is kept by a hardware module, which this program cannot use.
    Pkcs11 {
        /// What the configuration says.
        uri: String,
    },
    /// A static key is not replaced.
    Static {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase cannot be read.
    Passphrase {
        /// The file, or `-`.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The system has no randomness.
    NoRandomness,
}

client_core::artifact::debug_as_displayed!(KeyStoreError);

impl fmt::Display for KeyStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyStoreError::Read { path, source } => {
                write!(f, "cannot read the device key {}: {source}", path.display())
            }
            KeyStoreError::Key { path, error } => write!(
                f,
                "cannot use the device key {}: {error}; it is kept, `bootstrap --forcebootstrap` makes a new one",
                path.display()
            ),
            KeyStoreError::Write { path, source } => {
                write!(f, "cannot write the new device key {}: {source}", path.display())
            }
            KeyStoreError::Pkcs11 { uri } => {
                write!(f, "the device key {uri} is in a PKCS#11 module, which is not supported")
            }
            KeyStoreError::Static { path } => {
                write!(
                    f,
                    "Security.AuthPrivateKey ({}) is a static key and is never replaced",
                    path.display()
                )
            }
            KeyStoreError::Passphrase { path, source } => {
                write!(f, "cannot read the passphrase from {}: {source}", path.display())
            }
            KeyStoreError::NoRandomness => f.write_str("no randomness for a device key"),
        }
    }
}

impl std::error::Error for KeyStoreError {}

/// The first line of the file, or of standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_passphrase(path: &Path) -> Result<Vec<u8>, KeyStoreError> {
    let wrong = |source| KeyStoreError::Passphrase { path: path.to_owned(), source };
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path).map_err(wrong)?),
    };
    let mut content = Vec::new();
    source.take(PASSPHRASE_BYTES + 1).read_to_end(&mut content).map_err(wrong)?;
    if content.len() as u64 > PASSPHRASE_BYTES {
        return Err(wrong(io::Error::other("longer than 4 KiB")));
    }
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// The key at `place`. A datastore without one gets one, durably, before it is used. The caller holds the lock of the
/// datastore.
///
/// # Errors
/// When there is no key and none can be made, and when there is one that cannot be used.
pub(crate) fn load_or_create(place: &KeyPlace, passphrase: Option<&[u8]>) -> Result<Signer, KeyStoreError> {
    let path = place.path();
    if let Some(error) = pkcs11(path) {
        return Err(error);
    }
    match (read_key(path), place) {
        (Ok(pem), _) => {
            let signer = Signer::from_pem_with_passphrase(&pem, passphrase);
            signer.map_err(|error| KeyStoreError::Key { path: path.to_owned(), error })
        }
        (Err(error), KeyPlace::Datastore(path)) if error.kind() == io::ErrorKind::NotFound => {
            // A link that leads nowhere is a key that is away, on a medium that is not mounted perhaps.
            if fs::symlink_metadata(path).is_ok() {
                return Err(KeyStoreError::Read { path: path.clone(), source: error });
            }
            create(path, Existing::Keep)
        }
        (Err(source), _) => Err(KeyStoreError::Read { path: path.to_owned(), source }),
    }
}

/// A device key, as somebody sees it who only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAtKey {
    /// What it is; `None` where it is encrypted and there is no passphrase.
    pub opened: Option<OpenedKey>,
    /// The rights to its file.
    pub mode: u32,
}

/// What somebody sees of a device key who can open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedKey {
    /// Its kind, for messages.
    pub kind: &'static str,
    /// The SHA-256 of its public part, which the server says of it as well.
    pub sha256: Sha256,
}

/// The key at `place` as it is; `None` where one is made at the first start. Changes nothing.
///
/// # Errors
/// When there is one that cannot be used, or none and it is not to be made.
pub(crate) fn look(
    place: &KeyPlace,
    passphrase: Option<&[u8]>,
) -> Result<Option<LookedAtKey>, KeyStoreError> {
    let path = place.path();
    if let Some(error) = pkcs11(path) {
        return Err(error);
    }
    let read = regular_file::read(path, KEY_BYTES).and_then(|pem| Ok((pem, fs::metadata(path)?)));
    let (pem, metadata) = match (read, place) {
        (Ok(found), _) => found,
        (Err(error), KeyPlace::Datastore(path))
            if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            return Ok(None);
        }
        (Err(source), _) => return Err(KeyStoreError::Read { path: path.to_owned(), source }),
    };
    let mode = metadata.permissions().mode() & 0o777;
    match Signer::from_pem_with_passphrase(&pem, passphrase) {
        Ok(signer) => {
            let opened = OpenedKey { kind: signer.kind(), sha256: signer.public_sha256() };
            Ok(Some(LookedAtKey { opened: Some(opened), mode }))
        }
        Err(KeyError::Encrypted) => Ok(Some(LookedAtKey { opened: None, mode })),
        Err(error) => Err(KeyStoreError::Key { path: path.to_owned(), error }),
    }
}

/// Why no device key can come from the static `path`, as far as that shows without a passphrase. What this process may not
/// look at is for another one to judge.
pub(crate) fn static_key_problem(path: &Path) -> Option<KeyStoreError> {
    if let Some(error) = pkcs11(path) {
        return Some(error);
    }
    match regular_file::open_for_reading(path) {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(source) => Some(KeyStoreError::Read { path: path.to_owned(), source }),
    }
}

fn pkcs11(path: &Path) -> Option<KeyStoreError> {
    let uri = path.to_str().filter(|text| text.starts_with("pkcs11:"))?;
    Some(KeyStoreError::Pkcs11 { uri: uri.to_owned() })
}

/// A new key in place of whatever is there. The server will not know the device by it until it is accepted again.
///
/// # Errors
/// When the key is static, and when it cannot be written; the old one is there then.
pub fn force_new(place: &KeyPlace) -> Result<Signer, KeyStoreError> {
    match place {
        KeyPlace::Static(path) => Err(KeyStoreError::Static { path: path.clone() }),
        KeyPlace::Datastore(path) => create(path, Existing::Replace),
    }
}

/// What becomes of a file that has the name of the key already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

fn create(path: &Path, existing: Existing) -> Result<Signer, KeyStoreError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| KeyStoreError::NoRandomness)?;
    let pair = Signer::generate_ed25519(&seed);
    let write = || {
        let new = path.with_file_name(NEW_FILE_NAME);
        // From an attempt that lost power.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        atomic_file::write_new(&new, pair.private.as_bytes(), 0o600)?;
        if existing == Existing::Keep && fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // The content is durable before the name leads to it.
        atomic_file::publish(&new, path)
    };
    write().map_err(|source| KeyStoreError::Write { path: path.to_owned(), source })?;
    log::info!("made a new device key, {}", path.display());
    Signer::from_pem(pair.private.as_bytes())
        .map_err(|error| KeyStoreError::Key { path: path.to_owned(), error })
}

fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = regular_file::open_for_reading(path)?;
    repair_mode(path, &file)?;
    let mut pem = Vec::new();
    Read::by_ref(&mut file).take(KEY_BYTES + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > KEY_BYTES {
        return Err(io::Error::other("larger than 64 KiB"));
    }
    Ok(pem)
}

/// Takes the key from everybody but its owner.
fn repair_mode(path: &Path, file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    log::warn!("the device key {} was open to others (mode {:o})", path.display(), mode & 0o777);
    if let Err(error) = file.set_permissions(fs::Permissions::from_mode(0o600)) {
        log::warn!("and it stays so: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        place: KeyPlace,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let place = KeyPlace::new(directory.path(), None);
            Fixture { directory, place }
        }

        fn with_key(pem: &[u8]) -> Fixture {
            let fixture = Fixture::new();
            fs::write(fixture.place.path(), pem).unwrap();
            fixture
        }

        fn load(&self) -> Result<Signer, String> {
            load_or_create(&self.place, None).map_err(|error| error.to_string())
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        fn mode(&self) -> u32 {
            fs::metadata(self.place.path()).unwrap().permissions().mode() & 0o777
        }

        /// Runs `openssl`; `None`, with a line that says so, where it is not installed.
        fn openssl(&self, arguments: &str) -> Option<bool> {
            let words = arguments.split(' ').filter(|word| !word.is_empty());
            let done = Command::new("openssl").args(words).current_dir(self.directory.path()).output();
            match done {
                Ok(output) => Some(output.status.success()),
                Err(error) => {
                    println!("skipped: openssl cannot be run: {error}");
                    None
                }
            }
        }

        /// Reads `key.pem` and lets openssl check its public key and a signature. `verify` are the options that do.
        fn check_signature(&self, verify: &str, passphrase: Option<&[u8]>) {
            let place = KeyPlace::Static(self.path("key.pem").into());
            let signer = load_or_create(&place, passphrase).unwrap();
            fs::write(self.path("public.pem"), signer.public_pem()).unwrap();
            fs::write(self.path("message"), b"message").unwrap();
            fs::write(self.path("signature"), signer.sign_message(b"message").unwrap()).unwrap();
            assert_eq!(self.openssl(verify), Some(true), "{verify}");
            let pass = if passphrase.is_some() { "-passin pass:secret" } else { "" };
            self.openssl(&format!("pkey -in key.pem {pass} -pubout -out expected.pem"));
            let expected = fs::read_to_string(self.path("expected.pem")).unwrap();
            assert_eq!(signer.public_pem(), expected);
            self.openssl(&format!("pkey -in key.pem {pass} -pubout -outform DER -out expected.der"));
            let der = fs::read(self.path("expected.der")).unwrap();
            assert_eq!(signer.public_sha256(), Sha256::of(&der));
        }
    }

    const DIGEST: &str = "dgst -sha256 -verify public.pem -signature signature message";
    const PURE: &str = "pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile signature -in message";

    #[test]
    fn the_first_start_makes_a_private_key_and_later_ones_keep_it() {
        let fixture = Fixture::new();
        let first = fixture.load().unwrap();
        let pem = fs::read_to_string(fixture.place.path()).unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{pem}");
        assert_eq!((first.kind(), fixture.mode()), ("Ed25519", 0o600));
        assert_eq!(fixture.load().unwrap().public_pem(), first.public_pem());
        assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
        assert!(first.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
    }

    #[test]
    fn a_new_key_is_one_for_openssl_too() {
        let fixture = Fixture::new();
        fixture.load().unwrap();
        fs::copy(fixture.place.path(), fixture.path("key.pem")).unwrap();
        if fixture.openssl("version").is_some() {
            fixture.check_signature(PURE, None);
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_kept() {
        for content in ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let fixture = Fixture::with_key(content.as_bytes());
            let error = fixture.load().unwrap_err();
            assert!(error.contains("cannot use the device key") && error.contains("it is kept"), "{error}");
            assert_eq!(fs::read_to_string(fixture.place.path()).unwrap(), content);
        }
        let fixture = Fixture::with_key(&vec![b'x'; KEY_BYTES as usize + 1]);
        assert!(fixture.load().unwrap_err().contains("larger than 64 KiB"));
        let fixture = Fixture::new();
        fs::create_dir(fixture.place.path()).unwrap();
        assert!(fixture.load().unwrap_err().contains("cannot read the device key"));
        let fixture = Fixture::new();
        std::os::unix::fs::symlink("nowhere", fixture.place.path()).unwrap();
        assert!(fixture.load().unwrap_err().contains("cannot read the device key"));
        assert!(fs::symlink_metadata(fixture.place.path()).unwrap().is_symlink());
    }

    #[test]
    fn an_interrupted_first_start_is_made_up_for() {
        let fixture = Fixture::new();
        fs::write(fixture.directory.path().join(NEW_FILE_NAME), "half a k").unwrap();
        fixture.load().unwrap();
        assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_cannot_be_written_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let place = KeyPlace::new(&directory.path().join("missing"), None);
        let error = load_or_create(&place, None).unwrap_err().to_string();
        assert!(error.contains("cannot write the new device key") && error.contains(FILE_NAME), "{error}");
        // Every write to this device says that it is full.
        let full = KeyPlace::Datastore("/dev/full/mender-agent.pem".into());
        assert!(load_or_create(&full, None).is_err());
    }

    #[test]
    fn force_makes_another_key_but_not_of_a_static_one() {
        let fixture = Fixture::new();
        let old = fixture.load().unwrap().public_pem();
        let new = force_new(&fixture.place).unwrap().public_pem();
        assert_ne!(old, new);
        assert_eq!(fixture.load().unwrap().public_pem(), new);
        let path = fixture.path(FILE_NAME);
        let place = KeyPlace::new(Path::new("elsewhere"), Some(&path));
        assert_eq!(load_or_create(&place, None).unwrap().public_pem(), new);
        assert!(force_new(&place).unwrap_err().to_string().contains("static key"));
        let missing = KeyPlace::new(Path::new("elsewhere"), Some(&fixture.path("missing")));
        assert!(load_or_create(&missing, None).is_err());
        assert!(!fixture.directory.path().join("missing").exists());
        let module = KeyPlace::new(Path::new("elsewhere"), Some("pkcs11:object=x"));
        assert!(matches!(load_or_create(&module, None), Err(KeyStoreError::Pkcs11 { .. })));
    }

    #[test]
    fn a_key_that_is_open_to_others_is_closed() {
        let fixture = Fixture::new();
        fixture.load().unwrap();
        fs::set_permissions(fixture.place.path(), fs::Permissions::from_mode(0o644)).unwrap();
        fixture.load().unwrap();
        assert_eq!(fixture.mode(), 0o600);
    }

    #[test]
    fn every_format_that_openssl_writes_is_read() {
        let fixture = Fixture::new();
        if fixture.openssl("version").is_none() {
            return;
        }
        let check = |make: &str, verify: &str| {
            assert_eq!(fixture.openssl(make), Some(true), "{make}");
            fixture.check_signature(verify, None);
        };
        // What the Mender client 3.4 writes, and the sizes around it.
        check("genrsa -traditional -out key.pem 3072", DIGEST);
        check("genrsa -out key.pem 2048", DIGEST);
        check("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out key.pem", DIGEST);
        check("genpkey -algorithm ed25519 -out key.pem", PURE);
        check("ecparam -name prime256v1 -genkey -out key.pem", DIGEST);
        check("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem", DIGEST);
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let fixture = Fixture::new();
        if fixture.openssl("genrsa -out plain.pem 2048").is_none() {
            return;
        }
        for options in [
            "-v2 aes-256-cbc",
            "-v2 aes-192-cbc",
            "-v2 aes-128-cbc -v2prf hmacWithSHA1 -iter 10000",
            "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        ] {
            let make = format!("pkcs8 -topk8 {options} -in plain.pem -passout pass:secret -out key.pem");
            assert_eq!(fixture.openssl(&make), Some(true), "{make}");
            fixture.check_signature(DIGEST, Some(b"secret"));
            let place = KeyPlace::Static(fixture.path("key.pem").into());
            let error = |passphrase| load_or_create(&place, passphrase).unwrap_err().to_string();
            assert!(error(Some(b"wrong")).contains("the passphrase does not open"));
            assert!(error(Some(b"")).contains("the passphrase does not open"));
            assert!(error(None).contains("there is no passphrase"));
        }
        let refused = |make: &str, expected: &str| {
            assert_eq!(fixture.openssl(make), Some(true), "{make}");
            let place = KeyPlace::Static(fixture.path("key.pem").into());
            let error = load_or_create(&place, Some(b"secret")).unwrap_err().to_string();
            assert!(error.contains(expected), "{make}: {error}");
        };
        let pkcs8 = "pkcs8 -topk8 -in plain.pem -passout pass:secret -out key.pem";
        refused(&format!("{pkcs8} -scrypt"), "scrypt");
        refused(&format!("{pkcs8} -v2 des3"), "another cipher");
        refused("rsa -traditional -aes256 -in plain.pem -passout pass:secret -out key.pem", "-topk8");
        refused("ecparam -name secp384r1 -genkey -noout -out key.pem", "other than P-256");
        refused("genrsa -out key.pem 1024", "RSA");
    }

    #[test]
    fn a_passphrase_is_the_first_line() {
        let fixture = Fixture::new();
        let check = |content: &str, expected: &[u8]| {
            fs::write(fixture.path("passphrase"), content).unwrap();
            assert_eq!(read_passphrase(Path::new(&fixture.path("passphrase"))).unwrap(), expected);
        };
        check("secret\n", b"secret");
        check(" with blanks \r\nmore\n", b" with blanks ");
        check("", b"");
        let error = read_passphrase(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the passphrase from /nonexistent: "), "{error}");
    }
}
