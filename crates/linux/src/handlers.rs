//! The handlers of this device: update modules, and the payload types that need none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::install::{
    Candidates, DIRECTORY, DirectoryTree, HandledBy, InstallError, Modules, PayloadHandler, PreferBuiltIn,
    SINGLE_FILE, SingleFile, UpdateModuleFile,
};

use crate::files::LinuxFiles;
use crate::payload_tree::Tree;
use crate::script_payload::{SCRIPT, Scripts};
use crate::update_module::UpdateModule;

/// Where modules of this version lie, under the data directory.
pub const MODULES: &str = "modules/v3";
/// In the tree of a payload with which a handler of files or trees began when the record did not say who it was.
const BUILT_IN_MARK: &str = "tmp/built-in";

/// Where modules are, and how they are called.
#[derive(Clone)]
pub struct ModuleSettings {
    /// `/usr/share/mender`, or what stands for it.
    pub data_directory: PathBuf,
    /// Where the file tree lies.
    pub datastore: PathBuf,
    /// Time of one call.
    pub timeout: Duration,
    /// Payload types of which the built-in handler goes first.
    pub prefer_built_in: PreferBuiltIn,
    /// Says when the process is asked to stop, which ends the call that is running.
    pub clock: Arc<dyn Clock>,
}

/// The handlers of this device.
pub struct UpdateModules {
    settings: ModuleSettings,
}

impl UpdateModules {
    /// The handlers that `settings` lead to.
    pub fn new(settings: ModuleSettings) -> UpdateModules {
        UpdateModules { settings }
    }

    /// Where the update module for `payload_type` lies. A payload type is one plain path component.
    fn place(&self, payload_type: &str) -> PathBuf {
        self.settings.data_directory.join(MODULES).join(payload_type)
    }

    fn tree(&self) -> Tree {
        Tree::at(&self.settings.datastore)
    }

    fn update_module(&self, payload_type: &str) -> UpdateModule {
        // The module is started in its file tree: a relative path would lead elsewhere there.
        let place = self.place(payload_type);
        UpdateModule {
            name: payload_type.to_owned(),
            module: std::path::absolute(&place).unwrap_or(place),
            tree: self.tree(),
            timeout: self.settings.timeout,
            clock: Arc::clone(&self.settings.clock),
        }
    }

    fn built_in(&self, payload_type: &str) -> Option<Box<dyn PayloadHandler>> {
        let files = || LinuxFiles::new(self.tree());
        match payload_type {
            SINGLE_FILE => Some(Box::new(SingleFile::new(files()))),
            DIRECTORY => Some(Box::new(DirectoryTree::new(files()))),
            SCRIPT => Some(Box::new(Scripts {
                tree: self.tree(),
                timeout: self.settings.timeout,
                clock: Arc::clone(&self.settings.clock),
            })),
            _ => None,
        }
    }
}

impl Modules for UpdateModules {
    fn candidates(&self, payload_type: &str) -> Candidates {
        let place = self.place(payload_type);
        let update_module = match fs::metadata(&place) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                UpdateModuleFile::Executable
            }
            Ok(found) if found.is_file() => UpdateModuleFile::NotExecutable(place),
            Ok(_) | Err(_) => UpdateModuleFile::Missing,
        };
        Candidates {
            update_module,
            built_in: self.built_in(payload_type).is_some(),
            prefers_built_in: self.settings.prefer_built_in.includes(payload_type),
            marked_built_in: self.tree().path(BUILT_IN_MARK).exists(),
        }
    }

    fn open<'m>(
        &'m mut self,
        payload_type: &str,
        by: HandledBy,
    ) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        match by {
            HandledBy::UpdateModule => {
                let module = self.update_module(payload_type);
                log::info!("payload type {payload_type}: update module {}", module.module.display());
                Ok(Box::new(module))
            }
            HandledBy::BuiltIn => {
                let unknown = InstallError::UnknownPayloadType { payload_type: payload_type.to_owned() };
                let handler = self.built_in(payload_type).ok_or(unknown)?;
                log::info!("payload type {payload_type}: built in");
                Ok(handler)
            }
        }
    }
}
