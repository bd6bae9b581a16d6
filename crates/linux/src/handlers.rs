//! The handlers of this device: update modules, and the payload types that need none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::install::{
    BUILT_IN, DIRECTORY, DirectoryTree, InstallError, Modules, PayloadHandler, PreferBuiltIn, SINGLE_FILE,
    SingleFile,
};

use crate::files::LinuxFiles;
use crate::payload_tree::Tree;
use crate::script_payload::{SCRIPT, Scripts};
use crate::update_module::UpdateModule;

/// Where modules of this version lie, under the data directory.
const MODULES: &str = "modules/v3";

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
    pub clock: Option<Arc<dyn Clock>>,
}

/// The update modules of this device.
pub struct UpdateModules {
    settings: ModuleSettings,
}

impl UpdateModules {
    /// The modules that `settings` lead to.
    pub fn new(settings: ModuleSettings) -> UpdateModules {
        UpdateModules { settings }
    }

    fn place(&self, payload_type: &str) -> PathBuf {
        self.settings.data_directory.join(MODULES).join(payload_type)
    }

    /// The executable for `payload_type`, where there is one. A payload type is one plain path component.
    fn find(&self, payload_type: &str) -> Option<PathBuf> {
        let module = self.place(payload_type);
        let is_executable = fs::metadata(&module)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        // The module is started in its file tree: a relative path would lead elsewhere there.
        is_executable.then(|| std::path::absolute(&module).unwrap_or(module))
    }
}

impl Modules for UpdateModules {
    fn replaces(&self, payload_type: &str) -> bool {
        !self.settings.prefer_built_in.includes(payload_type) && self.find(payload_type).is_some()
    }

    fn open<'m>(&'m mut self, payload_type: &str) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        let ModuleSettings { datastore, timeout, clock, prefer_built_in, .. } = &self.settings;
        let built_ins = BuiltIns { tree: Tree::at(datastore), timeout: *timeout, clock: clock.as_ref() };
        let module = match (self.find(payload_type), built_ins.open(payload_type)) {
            (Some(module), None) => module,
            // A deployment is never taken up by another handler than the one that began it.
            (Some(module), Some(_)) if !prefer_built_in.includes(payload_type) && !built_ins.began() => {
                module
            }
            (_, Some(built_in)) => {
                log::info!("payload type {payload_type}: built in");
                return Ok(built_in);
            }
            (None, None) => {
                let payload_type = payload_type.to_owned();
                let path = self.place(&payload_type);
                return Err(match path.is_file() {
                    true => InstallError::ModuleNotExecutable { payload_type, path },
                    false => InstallError::UnknownPayloadType { payload_type },
                });
            }
        };
        log::info!("payload type {payload_type}: update module {}", module.display());
        Ok(Box::new(UpdateModule {
            name: payload_type.to_owned(),
            module,
            tree: Tree::at(&self.settings.datastore),
            timeout: self.settings.timeout,
            clock: self.settings.clock.clone(),
        }))
    }
}

/// The handlers of this program.
pub struct BuiltIns<'s> {
    /// Where the payload lies.
    pub tree: Tree,
    /// How long the programs of one payload may take together.
    pub timeout: Duration,
    /// Says when the process is asked to stop.
    pub clock: Option<&'s Arc<dyn Clock>>,
}

impl BuiltIns<'_> {
    /// Whether one of them began with the payload that is there. It goes on then, whatever is installed meanwhile.
    pub fn began(&self) -> bool {
        self.tree.path("tmp").join(BUILT_IN).exists()
    }

    /// The handler of `payload_type`, if it is one of these.
    pub fn open<'m>(&self, payload_type: &str) -> Option<Box<dyn PayloadHandler + 'm>> {
        let files = || LinuxFiles::new(self.tree.clone());
        match payload_type {
            SINGLE_FILE => Some(Box::new(SingleFile::new(files()))),
            DIRECTORY => Some(Box::new(DirectoryTree::new(files()))),
            SCRIPT => Some(Box::new(Scripts {
                tree: self.tree.clone(),
                timeout: self.timeout,
                clock: self.clock.cloned(),
            })),
            _ => None,
        }
    }
}
