//! A server for tests.

use std::ops::Deref;
use std::sync::Arc;

use server_core::{Options, Running, Server, StartError};

use crate::around::Faults;
use crate::recorder::{RecordedRequest, Recorder};
use crate::rules::FaultsHandle;

/// A server that does what is on order, and remembers what it was asked.
#[derive(Debug)]
pub struct TestServer {
    running: Running,
    faults: FaultsHandle,
    recorder: Recorder,
}

impl TestServer {
    /// Starts a server. Its faults can be set here, and by `PUT /api/internal/v1/faults`.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(options: Options) -> Result<TestServer, StartError> {
        let (faults, recorder) = (FaultsHandle::default(), Recorder::default());
        let around = Faults::new(faults.clone()).recorded_by(recorder.clone());
        let running = Server::start_within(options, Arc::new(around))?;
        Ok(TestServer { running, faults, recorder })
    }

    /// Its faults.
    pub fn faults(&self) -> FaultsHandle {
        self.faults.clone()
    }

    /// Every request so far, in the order of the answers.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.recorder.requests()
    }

    /// Stops it: requests that are being answered get a few seconds, and everything is stored.
    pub fn stop(self) {
        self.running.stop();
    }
}

impl Deref for TestServer {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}
