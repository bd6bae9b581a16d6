//! The built-in handler of the payload type `single-file`: one file, put into place as a whole.
//!
//! The payload is the one of the update module of that name: `dest_dir`, `filename`, `permissions` (not in old
//! artifacts), and the file itself.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::payload_files::{check_room, clean_up, destination, line, payload, roll_back};
use super::replacement::{self, Fresh, Replacement};
use super::{Files, FilesError, Kind, Node};
use crate::install::{Arriving, HandlerState, InstallError, PayloadHandler, PayloadProblem, Progress};

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
        if let Fresh::ToMake(fresh) = begun {
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
