//! Files that hold the two copies of a document: the state record, and whatever else is kept as it is.
//!
//! A file that cannot be used any more is set aside ([`DAMAGED_NAME`] is that of the record) and a new one takes its place: what was
//! recorded is lost, and must not end the updates of the device with it. What a record means, and what is written into a
//! new one, the caller says.
//!
//! ```text
//!                 file     file.new          file.damaged
//!  found          bad
//!  1 write new    bad      new, durable
//!  2 set aside             new, durable      bad
//!  3 publish      new                        bad
//! ```
//! A power cut between two steps leaves a bad file, or none beside one that was set aside. Both begin again at 1.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use client_core::state_store::{StateError, StateStore, TwoCopyRecord};
use log::{error, warn};

use crate::atomic_file;
use crate::block_device::{Access, FileDevice};
use crate::regular_file;

/// Name of the file of the record in the datastore.
pub const FILE_NAME: &str = "rust-ota-state";
/// Name under which a record that cannot be used is kept. There is one at most.
pub const DAMAGED_NAME: &str = "rust-ota-state.damaged";

/// A file of two copies in the datastore.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub bytes: usize,
    /// What is in it.
    pub what: &'static str,
    /// What it means to lose it, in a sentence without an end.
    pub after_loss: &'static str,
}

/// The record: two copies of 64 KiB. Provides and the deployment in progress need about 1 KiB.
const RECORD: Place = Place {
    name: FILE_NAME,
    bytes: 128 * 1024,
    what: "the state record",
    after_loss: "Going on without knowing what is installed",
};

/// Everybody may read it: names of artifacts and deployments are no secret, and `show-artifact` is for every user.
const MODE: u32 = 0o644;

impl Place {
    /// Where a file is made.
    fn being_made(&self, datastore: &Path) -> PathBuf {
        datastore.join(format!("{}.new", self.name))
    }

    /// Where one that cannot be used is kept.
    fn damaged(&self, datastore: &Path) -> PathBuf {
        datastore.join(format!("{}.damaged", self.name))
    }
}

/// What the caller knows about documents.
pub trait Documents {
    /// The document of a device on which nothing was recorded yet.
    fn initial(&self) -> Vec<u8>;

    /// The document of a device whose record was lost.
    fn after_loss(&self, reason: &str) -> Vec<u8>;

    /// Whether `document` can be used.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, document: &[u8]) -> Result<(), String>;
}

/// Opens the record in `datastore`, making one where there is none and replacing one that cannot be used. Call it with
/// the datastore's lock held.
///
/// # Errors
/// When the datastore cannot be read or written.
pub fn open(datastore: &Path, documents: &dyn Documents) -> Result<TwoCopyRecord<FileDevice>, StateError> {
    open_at(&RECORD, datastore, documents)
}

/// The same for another file than that of the record.
///
/// # Errors
/// When the datastore cannot be read or written.
pub fn open_at(
    place: &Place,
    datastore: &Path,
    documents: &dyn Documents,
) -> Result<TwoCopyRecord<FileDevice>, StateError> {
    let path = datastore.join(place.name);
    let reason = match fs::symlink_metadata(&path) {
        Ok(_) => match open_usable(place, &path, documents)? {
            Ok(record) => return Ok(record),
            Err(reason) => reason,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let damaged = place.damaged(datastore);
            if fs::symlink_metadata(&damaged).is_err() {
                create(place, datastore, &documents.initial())?;
                publish(place, datastore)?;
                return open_file(&path, Access::Write);
            }
            format!("it is missing, and {} is there", damaged.display())
        }
        Err(error) => return Err(io_error("look at", &path, error)),
    };
    error!("{} {} is lost: {reason}. {}", place.what, path.display(), place.after_loss);
    create(place, datastore, &documents.after_loss(&reason))?;
    set_aside(place, datastore)?;
    publish(place, datastore)?;
    open_file(&path, Access::Write)
}

/// The document of the record in `datastore`, which is neither changed nor flushed; `None` where there is no record.
///
/// # Errors
/// When there is one that cannot be read.
pub fn read(datastore: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let path = datastore.join(FILE_NAME);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    open_file(&path, Access::Read)?.peek().map(Some)
}

/// The record, or why it cannot be used and never will be.
fn open_usable(
    place: &Place,
    path: &Path,
    documents: &dyn Documents,
) -> Result<Result<TwoCopyRecord<FileDevice>, String>, StateError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => open_up(path, &metadata),
        Ok(metadata) => return Ok(Err(format!("it is {}", regular_file::name(metadata.file_type())))),
        // A link that leads nowhere: where there is nothing at all was asked before.
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_loop(&error) => {
            return Ok(Err("it is a symbolic link to nothing".to_owned()));
        }
        Err(error) => return Err(io_error("look at", path, error)),
    }
    let loaded = open_file(path, Access::Write).and_then(|mut record| Ok((record.load()?, record)));
    match loaded {
        Ok((document, record)) => match documents.check(&document) {
            Ok(()) if is_short(place, path)? => {
                warn!("{} {} was cut short; making it whole", place.what, path.display());
                let datastore = path.parent().unwrap_or(Path::new("."));
                create(place, datastore, &document)?;
                publish(place, datastore)?;
                open_file(path, Access::Write).map(Ok)
            }
            checked => Ok(checked.map(|()| record)),
        },
        Err(error @ (StateError::BothCopiesBad { .. } | StateError::DeviceTooSmall { .. })) => {
            Ok(Err(error.to_string()))
        }
        // The file system or this user's rights: another time it may be read.
        Err(error) => Err(error),
    }
}

/// A copy in front may be whole all the same. But with the file the room for documents shrank.
fn is_short(place: &Place, path: &Path) -> Result<bool, StateError> {
    let metadata = fs::metadata(path).map_err(|error| io_error("look at", path, error))?;
    Ok(metadata.len() < place.bytes as u64)
}

fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

fn open_file(path: &Path, access: Access) -> Result<TwoCopyRecord<FileDevice>, StateError> {
    TwoCopyRecord::open(FileDevice::open(path, access).map_err(|error| io_error("open", path, error))?)
}

/// Earlier versions made the file for its owner only.
fn open_up(path: &Path, metadata: &fs::Metadata) {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & MODE != MODE {
        if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(mode | MODE)) {
            log::debug!("{} stays closed to other users: {error}", path.display());
        }
    }
}

/// Both copies are there and valid before the file gets its name, so that a file with no valid copy always means
/// damage.
fn create(place: &Place, datastore: &Path, document: &[u8]) -> Result<(), StateError> {
    let path = place.being_made(datastore);
    let create_error = |error| io_error("create", &path, error);
    // The rest of an earlier attempt, or whatever else has the name.
    remove(&path).map_err(create_error)?;
    let file =
        fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(create_error)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(create_error)?;
    file.set_len(place.bytes as u64).map_err(create_error)?;
    drop(file);
    let device = FileDevice::open(&path, Access::Write).map_err(create_error)?;
    TwoCopyRecord::format_new(device, document).map(drop)
}

/// Keeps what cannot be used for whoever wants to know why, in place of what was kept before.
fn set_aside(place: &Place, datastore: &Path) -> Result<(), StateError> {
    let (path, damaged) = (datastore.join(place.name), place.damaged(datastore));
    if fs::symlink_metadata(&path).is_err() {
        return Ok(()); // Cut after this step.
    }
    remove(&damaged).map_err(|error| io_error("remove", &damaged, error))?;
    atomic_file::publish(&path, &damaged).map_err(|error| io_error("set aside", &path, error))?;
    warn!("what is left of {} is kept as {}", place.what, damaged.display());
    Ok(())
}

fn publish(place: &Place, datastore: &Path) -> Result<(), StateError> {
    let path = datastore.join(place.name);
    atomic_file::publish(&place.being_made(datastore), &path)
        .map_err(|error| io_error("create", &path, error))
}

/// Removes whatever has this name; links are not followed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => atomic_file::remove_directory(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { doing, device: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    const NEW_NAME: &str = "rust-ota-state.new";
    const FILE_BYTES: usize = RECORD.bytes;

    /// What happens to the file of a record.
    type Damage = fn(&Path);

    struct Texts;

    impl Documents for Texts {
        fn initial(&self) -> Vec<u8> {
            b"initial".to_vec()
        }
        fn after_loss(&self, reason: &str) -> Vec<u8> {
            format!("lost: {reason}").into_bytes()
        }
        fn check(&self, document: &[u8]) -> Result<(), String> {
            if document == b"nonsense" { Err("it is nonsense".into()) } else { Ok(()) }
        }
    }

    struct Store(tempfile::TempDir);

    impl Store {
        fn new() -> Store {
            let store = Store(tempfile::tempdir().unwrap());
            store.save(b"saved");
            store
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn save(&self, document: &[u8]) {
            open(self.0.path(), &Texts).unwrap().save(document).unwrap();
        }

        fn load(&self) -> String {
            String::from_utf8(open(self.0.path(), &Texts).unwrap().load().unwrap()).unwrap()
        }

        /// The record is lost for `reason`, once, what was there is kept, and the next document is saved.
        fn check_lost(&self, reason: &str) {
            let text = self.load();
            assert!(text.starts_with("lost: ") && text.contains(reason), "{text:?} without {reason:?}");
            assert!(fs::symlink_metadata(self.path(DAMAGED_NAME)).is_ok());
            assert!(fs::symlink_metadata(self.path(NEW_NAME)).is_err());
            self.save(b"next");
            assert_eq!(self.load(), "next");
        }
    }

    fn clear(path: &Path) {
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_used_is_set_aside_and_a_new_one_says_why() {
        let damages: [(&str, Damage); 10] = [
            ("needs 8192 bytes", |path| fs::write(path, b"").unwrap()),
            ("no valid copy", |path| fs::write(path, [0; FILE_BYTES]).unwrap()),
            ("needs 8192 bytes", |path| fs::write(path, [0; 4096]).unwrap()),
            ("no valid copy", |path| fs::write(path, vec![0xff; 3 * FILE_BYTES]).unwrap()),
            ("it is a directory", |path| {
                clear(path);
                fs::create_dir_all(path.join("with/more")).unwrap();
            }),
            ("it is a FIFO", |path| {
                clear(path);
                assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
            ("a symbolic link to nothing", |path| {
                clear(path);
                symlink("nowhere", path).unwrap();
            }),
            ("a symbolic link to nothing", |path| {
                clear(path);
                symlink(FILE_NAME, path).unwrap();
            }),
            ("it is a character device", |path| {
                clear(path);
                symlink("/dev/zero", path).unwrap();
            }),
            ("it is nonsense", |path| {
                let device = FileDevice::open(path, Access::Write).unwrap();
                TwoCopyRecord::format_new(device, b"nonsense").unwrap();
            }),
        ];
        for (reason, damage) in damages {
            let store = Store::new();
            damage(&store.path(FILE_NAME));
            store.check_lost(reason);
            // One is kept: the last, whatever kind it and the one before are.
            for (again, damage) in damages {
                damage(&store.path(FILE_NAME));
                store.check_lost(again);
            }
            assert_eq!(fs::read_dir(store.0.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn one_bad_copy_is_no_loss() {
        for half in [0, FILE_BYTES / 2] {
            let store = Store::new();
            let mut bytes = fs::read(store.path(FILE_NAME)).unwrap();
            bytes[half..half + FILE_BYTES / 2].fill(0);
            fs::write(store.path(FILE_NAME), bytes).unwrap();
            assert!(["saved", "initial"].contains(&store.load().as_str()));
            assert!(!store.path(DAMAGED_NAME).exists());
        }
    }

    #[test]
    fn a_record_that_was_cut_behind_its_newer_copy_is_made_whole_again() {
        let store = Store::new();
        let file = fs::OpenOptions::new().write(true).open(store.path(FILE_NAME)).unwrap();
        file.set_len(9000).unwrap();
        assert_eq!(store.load(), "saved");
        assert_eq!(fs::metadata(store.path(FILE_NAME)).unwrap().len(), FILE_BYTES as u64);
        store.save(&[b'x'; 60_000]);
        assert!(!store.path(DAMAGED_NAME).exists());
    }

    /// Every state that a cut between two steps, or in the middle of writing the new file, can leave.
    #[test]
    fn a_replacement_that_was_cut_anywhere_is_made_again() {
        let whole = {
            let store = Store::new();
            fs::read(store.path(FILE_NAME)).unwrap()
        };
        for new in [None, Some(&whole[..0]), Some(&whole[..5000]), Some(&whole[..])] {
            for (bad_there, set_aside) in [(true, false), (true, true), (false, true)] {
                let store = Store::new();
                clear(&store.path(FILE_NAME));
                if let Some(content) = new {
                    fs::write(store.path(NEW_NAME), content).unwrap();
                }
                for (there, name) in [(bad_there, FILE_NAME), (set_aside, DAMAGED_NAME)] {
                    if there {
                        fs::write(store.path(name), b"bad").unwrap();
                    }
                }
                store.check_lost(if bad_there { "needs 8192 bytes" } else { "it is missing" });
            }
        }
    }

    #[test]
    fn a_link_to_a_sound_record_is_followed() {
        let store = Store::new();
        fs::rename(store.path(FILE_NAME), store.path("elsewhere")).unwrap();
        symlink("elsewhere", store.path(FILE_NAME)).unwrap();
        assert_eq!(store.load(), "saved");
        assert!(!store.path(DAMAGED_NAME).exists());
    }

    #[test]
    fn reading_changes_nothing_and_invents_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        assert!(read(&folder.path().join("missing")).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let store = Store::new();
        assert_eq!(read(store.0.path()).unwrap().unwrap(), b"saved");
        fs::write(store.path(FILE_NAME), b"bad").unwrap();
        assert!(matches!(read(store.0.path()), Err(StateError::DeviceTooSmall { .. })));
        assert_eq!(fs::read(store.path(FILE_NAME)).unwrap(), b"bad");
        assert_eq!(fs::read_dir(store.0.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_user_may_read_the_record_also_one_of_an_earlier_version() {
        let store = Store::new();
        let mode = || fs::metadata(store.path(FILE_NAME)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        fs::set_permissions(store.path(FILE_NAME), fs::Permissions::from_mode(0o600)).unwrap();
        store.load();
        assert_eq!(mode(), 0o644);
    }
}
