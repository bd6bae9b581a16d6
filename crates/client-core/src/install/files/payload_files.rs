//! What the handlers of a file and of a tree share: how a payload says where it goes, and the steps behind putting it there.
//!
//! Neither has anything to commit: the new thing is in place, and what is kept of the old one goes with the cleaning up, so
//! that a power cut before leads back.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::replacement::Replacement;
use super::{Files, FilesError};
use crate::install::{InstallError, PayloadProblem};

/// Longest line of a payload file that says one thing: a path.
const LINE_BYTES: u64 = 4096;

/// Puts back what was there before. `began`: a handler of this program began with the payload.
pub(super) fn roll_back(files: &mut dyn Files, began: bool) -> Result<(), InstallError> {
    match (Replacement::reopen(files)?, began) {
        (Some(mut replacement), _) => replacement.go_back(),
        // An update module that is gone has done who knows what with this payload.
        (None, false) => Err(PayloadProblem::NotOurs.into()),
        (None, true) => Ok(()),
    }
}

/// Removes everything but what was installed.
pub(super) fn clean_up(files: &mut dyn Files) -> Result<(), InstallError> {
    if let Some(mut replacement) = Replacement::reopen(files)? {
        replacement.clean_up()?; // before the journal that knows the names
    }
    files.remove_payload()
}

/// Where a payload file lies.
pub(super) fn payload(files: &dyn Files, name: &str) -> PathBuf {
    files.tree().join("files").join(name)
}

/// What a payload file of one line says, as a shell reads it: without newlines at its end.
pub(super) fn line(files: &mut dyn Files, name: &'static str) -> Result<String, InstallError> {
    let path = payload(files, name);
    if files.look(&path)?.is_none() {
        return Err(PayloadProblem::MissingFile { name: name.to_owned() }.into());
    }
    let mut text = String::new();
    let read = files.open(&path)?.take(LINE_BYTES).read_to_string(&mut text);
    let line = text.trim_end_matches('\n');
    let length = match read {
        Ok(length) => length as u64,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => LINE_BYTES,
        Err(source) => return Err(FilesError { doing: "read", path, source }.into()),
    };
    if length == LINE_BYTES || line.is_empty() || line.contains(['\n', '\0']) {
        return Err(PayloadProblem::Malformed { name, expected: "one line of text" }.into());
    }
    Ok(line.to_owned())
}

/// The directory that the payload names: absolute, without `.`, `..` and doubled slashes.
pub(super) fn destination(files: &mut dyn Files) -> Result<String, InstallError> {
    let path = line(files, "dest_dir")?;
    let plain = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>();
    if !path.starts_with('/') || plain.contains(&"..") {
        return Err(PayloadProblem::Destination { path }.into());
    }
    Ok(format!("/{}", plain.join("/")))
}

/// Refuses what does not fit where it goes.
pub(super) fn check_room(
    files: &mut dyn Files,
    destination: &Path,
    need_bytes: u64,
) -> Result<(), InstallError> {
    for path in destination.ancestors().skip(1) {
        if !files.is_directory(path)? {
            continue;
        }
        return match files.free_bytes(path)? {
            Some(have_bytes) if have_bytes < need_bytes => {
                let path = destination.to_owned();
                Err(PayloadProblem::NoRoom { path, need_bytes, have_bytes }.into())
            }
            Some(_) | None => Ok(()),
        };
    }
    Ok(())
}
