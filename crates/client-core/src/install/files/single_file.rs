//! The built-in handler of the payload type `single-file`: one file, put into place as a whole.
//!
//! The payload is the one of the update module of that name: `dest_dir`, `filename`, `permissions` (not in old
//! artifacts), and the file itself.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::replacement::{self, Begun, Replacement};
use super::{Files, FilesError, Kind, Node};
use crate::install::{Arriving, HandlerState, InstallError, PayloadHandler, PayloadProblem, Progress};

/// Longest line of a payload file that says one thing: a path.
const LINE_BYTES: u64 = 4096;
/// Permissions where the payload does not say any.
const DEFAULT_MODE: u32 = 0o600;

/// Installs one file.
pub struct SingleFile<F> {
    files: F,
    /// Not a module that is gone.
    began: bool,
}

/// What the payload asks for.
struct Plan {
    source: PathBuf,
    destination: String,
    mode: u32,
}

impl<F: Files> SingleFile<F> {
    /// With the files of the device.
    pub fn new(files: F) -> SingleFile<F> {
        SingleFile { files, began: false }
    }

    /// Reads what the payload asks for and looks whether it can be done. Changes nothing.
    fn plan(&mut self) -> Result<Plan, InstallError> {
        let files = &mut self.files;
        let directory = destination(files)?;
        let name = line(files, "filename")?;
        let special = ["dest_dir", "filename", "permissions"].contains(&name.as_str());
        if special || Path::new(&name).file_name().is_none_or(|plain| plain != name.as_str()) {
            let expected = "the plain name of the file that is installed";
            return Err(PayloadProblem::Malformed { name: "filename", expected }.into());
        }
        let source = payload(files, &name);
        if files.look(&source)?.is_none() {
            return Err(PayloadProblem::MissingFile { name }.into());
        }
        let mode = match files.look(&payload(files, "permissions"))? {
            None => DEFAULT_MODE,
            Some(_) => {
                let text = line(files, "permissions")?;
                let digits = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
                let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| digits && *mode <= 0o7777);
                let expected = "permissions in octal digits";
                mode.ok_or(PayloadProblem::Malformed { name: "permissions", expected })?
            }
        };
        let path = Path::new(&directory).join(&name);
        if let Some(found) = files.look(&path)? {
            if found.kind == Kind::Directory {
                return Err(PayloadProblem::Occupied { path, found: "a directory" }.into());
            }
            if files.mounted_in(&path)?.is_some() {
                return Err(PayloadProblem::MountPoint { path }.into());
            }
        }
        replacement::missing_parent(files, &path)?;
        Ok(Plan { source, destination: path.display().to_string(), mode })
    }
}

impl<F: Files> PayloadHandler for SingleFile<F> {
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.began = true;
        self.files.store(arriving, progress)?;
        let plan = self.plan()?;
        let mut bytes = 0;
        let mut source = self.files.open(&plan.source)?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes += count as u64,
                Err(error) => {
                    return Err(FilesError { doing: "read", path: plan.source, source: error }.into());
                }
            }
        }
        check_room(&mut self.files, Path::new(&plan.destination), bytes)
    }

    fn restore(&mut self, _: HandlerState) {
        self.began = true;
    }

    fn install(&mut self) -> Result<(), InstallError> {
        let Plan { source, destination, mode } = self.plan()?;
        let (mut replacement, begun) = Replacement::begin(&mut self.files, &destination)?;
        if let Begun::Prepare(fresh) = begun {
            let files = replacement.files();
            let mut content = files.open(&source)?;
            files.create(&fresh, Node::File(&mut content), None)?;
            files.set_mode(&fresh, mode)?;
            replacement.sync_fresh()?; // the content before the name that leads to it
        }
        replacement.put_file()
    }

    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        Ok(true)
    }

    fn roll_back(&mut self) -> Result<(), InstallError> {
        roll_back(&mut self.files, self.began)
    }

    fn clean_up(&mut self) -> Result<(), InstallError> {
        clean_up(&mut self.files)
    }
}

/// Puts back what was there before. `began`: a handler of this program began with the payload.
pub(super) fn roll_back(files: &mut dyn Files, began: bool) -> Result<(), InstallError> {
    match (Replacement::take_up(files)?, began) {
        (Some(mut replacement), _) => replacement.go_back(),
        // An update module that is gone has done who knows what with this payload.
        (None, false) => Err(PayloadProblem::NotOurs.into()),
        (None, true) => Ok(()),
    }
}

/// Removes everything but what was installed.
pub(super) fn clean_up(files: &mut dyn Files) -> Result<(), InstallError> {
    if let Some(mut replacement) = Replacement::take_up(files)? {
        replacement.clean_up()?; // before the journal that knows the names
    }
    files.remove_payload()
}

/// Where a payload file lies.
pub(super) fn payload(files: &dyn Files, name: &str) -> PathBuf {
    files.tree().join("files").join(name)
}

/// What a payload file of one line says, as a shell reads it: without newlines at its end.
fn line(files: &mut dyn Files, name: &'static str) -> Result<String, InstallError> {
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
