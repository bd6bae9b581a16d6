//! The folder in which deltas are made. Whoever has its lock is the one with the name in it, also after a new start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::child;
use crate::domain::id;

/// The file with the name, below the data folder's `deltas`.
const HOLDER: &str = "holder";

/// The folder, as long as this process has it.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    holder: String,
    /// Its lock goes with it.
    _lock: File,
}

impl Place {
    /// Takes the folder, and removes what was left in it.
    ///
    /// # Errors
    /// It cannot be used, or another process has it.
    pub(super) fn open(data: &Path) -> io::Result<Place> {
        // The program that makes deltas is started in another folder than this one was.
        let folder = std::path::absolute(data)?.join("deltas");
        make(&folder)?;
        let path = folder.join(HOLDER);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let mut holder = String::new();
        // Anything can be in it, but not much.
        (&mut file).take(100).read_to_string(&mut holder)?;
        if !id::is_uuid(&holder) {
            holder = id::uuid().map_err(|_| io::Error::other("the system has no random numbers"))?;
            file.set_len(0)?;
            file.write_all(holder.as_bytes())?;
            file.sync_all()?;
        }
        // A server that was killed has ended nothing.
        child::end_all(&folder);
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let is_work = entry.file_name().to_str().is_some_and(id::is_uuid) && entry.file_type()?.is_dir();
            if is_work {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Place { folder, holder, _lock: file })
    }

    /// Who works here.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    /// A folder for one delta.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn bench(&self) -> io::Result<Bench> {
        let name = id::uuid().map_err(|_| io::Error::other("the system has no random numbers"))?;
        let path = self.folder.join(name);
        make(&path)?;
        Ok(Bench(path))
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A folder that goes with everything in it when this is dropped.
#[derive(Debug)]
pub(super) struct Bench(PathBuf);

impl Bench {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Opens a file that the program has made, and says how large it is. What is no file is not waited for, and where a link leads is
    /// not looked at.
    ///
    /// # Errors
    /// It is not there, or something else.
    pub(super) fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.at(name))?;
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => Ok((file, metadata.len())),
            false => Err(io::Error::other("it is no regular file")),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{} could not be removed, and goes at the next start: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_process_whose_name_stays_and_whose_work_goes() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::open(data.path()).unwrap();
        let holder = place.holder().to_owned();
        assert!(Place::open(data.path()).is_err(), "it is taken");
        let bench = place.bench().unwrap();
        fs::write(bench.at("x"), "x").unwrap();
        let path = bench.path().to_owned();
        std::mem::forget(bench);
        let kept = place.bench().unwrap();
        fs::write(data.path().join("deltas/mine"), "somebody else's").unwrap();
        let gone = kept.path().to_owned();
        drop((kept, place));
        assert!(path.exists() && !gone.exists());
        let place = Place::open(data.path()).unwrap();
        assert_eq!(place.holder(), holder);
        assert!(!path.exists() && data.path().join("deltas/mine").exists());
        drop(place);
        fs::write(data.path().join("deltas/holder"), vec![b'x'; 1000]).unwrap();
        assert_ne!(Place::open(data.path()).unwrap().holder(), holder);
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nobody_waits_for_another_one() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::open(data.path()).unwrap();
        let bench = place.bench().unwrap();
        fs::write(bench.at("file"), "four").unwrap();
        assert_eq!(bench.open("file").unwrap().1, 4);
        // Nobody will ever write into it.
        assert!(std::process::Command::new("mkfifo").arg(bench.at("fifo")).status().unwrap().success());
        std::os::unix::fs::symlink(bench.at("file"), bench.at("link")).unwrap();
        fs::create_dir(bench.at("folder")).unwrap();
        for name in ["fifo", "link", "folder", "none"] {
            assert!(bench.open(name).is_err(), "{name}");
        }
        assert_eq!(bench.open("fifo").unwrap_err().to_string(), "it is no regular file");
    }

    #[test]
    fn what_a_server_that_was_killed_has_left_running_is_ended() {
        let data = tempfile::tempdir().unwrap();
        let bench = data.path().join("deltas/x");
        let mut left = std::process::Command::new("sleep").arg("1000").env("TMPDIR", &bench).spawn().unwrap();
        let mut other =
            std::process::Command::new("sleep").arg("1000").env("TMPDIR", data.path()).spawn().unwrap();
        drop(Place::open(data.path()).unwrap());
        assert!(!left.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "it is not one of ours");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
