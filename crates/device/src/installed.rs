//! What is installed: read without a lock, and set from a bootstrap artifact on a device that is new.

use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

use client_core::artifact::{Limits, Reading};
use client_core::clock::Clock;
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::{self, DeployError, Device, NoReporter, Notice, Observer};
use client_core::install::Progress;
use client_core::state_store::StateError;
use linux::clock::LinuxClock;
use linux::regular_file;

use crate::client::ClientError;
use crate::compose::{ComposeError, Setup};

impl Setup {
    /// What is installed, for somebody who only looks: reads and writes nothing, so that every user may ask, in the middle
    /// of an update and on a data partition that cannot be written any more. A record that is lost says so in the log.
    ///
    /// # Errors
    /// When this user may not look, or the data partition is not there.
    pub fn installed(&self) -> Result<Record, ComposeError> {
        self.check_that_the_datastore_leads_somewhere()?;
        let mut record = match self.read_record() {
            Ok(record) => record.unwrap_or_default(),
            Err(error) if is_forbidden(&error) => return Err(error),
            Err(error) => {
                log::error!("the record is lost: {error}");
                Record::after_loss(&error.to_string())
            }
        };
        if record.installed.artifact_name.is_none() {
            self.foresee_bootstrap(&mut record);
        }
        Ok(record)
    }

    /// What the next process that works on the device will make of the bootstrap artifact.
    fn foresee_bootstrap(&self, record: &mut Record) {
        let path = self.bootstrap_path();
        let Ok(file) = regular_file::open_for_reading(&path) else { return };
        let limits = bootstrap_limits();
        if let Err(error) = deploy::bootstrap_provides(&self.system(), record, Box::new(file), &limits) {
            log::warn!("{} says nothing: {error}", path.display());
        }
    }

    /// Gives a device that has no artifact name one.
    ///
    /// # Errors
    /// When the device cannot be opened, or the bootstrap artifact is refused; there is a name then all the same.
    pub fn give_a_name(&self) -> Result<(), ClientError> {
        let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
        let mut device = self.open_device(&clock)?;
        Ok(self.bootstrap(&mut device.seams(&mut Nobody, &mut AlwaysOpen, &mut NoReporter))?)
    }

    /// Gives a device that has no artifact name one, and removes the bootstrap artifact in any case.
    pub(crate) fn bootstrap(&self, device: &mut Device<'_>) -> Result<(), DeployError> {
        let path = self.bootstrap_path();
        let source = match regular_file::open_for_reading(&path) {
            Ok(file) => Some(Box::new(file) as Box<dyn Read + Send>),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    log::warn!("cannot open {}: {error}", path.display());
                }
                None
            }
        };
        let found = source.is_some();
        let result = deploy::bootstrap(device, source, &bootstrap_limits());
        if found {
            if let Err(error) = fs::remove_file(&path) {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
        result
    }
}

/// A bootstrap artifact has no payload that would be worth a thread.
fn bootstrap_limits() -> Limits {
    let mut limits = Limits::default();
    limits.reading = Reading::InTurn;
    limits
}

fn is_forbidden(error: &ComposeError) -> bool {
    matches!(error, ComposeError::State(StateError::Io { source, .. })
        if source.kind() == io::ErrorKind::PermissionDenied)
}

/// A bootstrap artifact has nothing that takes its time.
struct Nobody;

impl Progress for Nobody {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}

impl Observer for Nobody {
    fn notice(&mut self, _: Notice) {}
}
