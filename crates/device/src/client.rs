//! The client as one command after the other, for whoever has no loop of their own.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use client_core::artifact::{Reading, Supply};
use client_core::clock::Clock;
use client_core::deploy::gates::{Answer, Gate, Gatekeeper, Question};
use client_core::deploy::{self, DeployError, Device, NoReporter, Observer, Options, Policy, Summary};
use client_core::server::{Download, ServerError};
use linux::clock::LinuxClock;

use crate::compose::{ComposeError, OpenDevice, Setup};
use crate::gates::{Gates, SharedQuestion};

/// How often an installation begins again with what became another thing while it was transferred.
const BEGINNINGS: u32 = 3;

/// Why a command ended before the deployment could say anything.
pub enum ClientError {
    /// The configuration, the lock or the record.
    Compose(ComposeError),
    /// The deployment could not be begun or gone on with.
    Deploy(DeployError),
}

client_core::artifact::debug_as_displayed!(ClientError);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Compose(error) => error.fmt(f),
            ClientError::Deploy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<ComposeError> for ClientError {
    fn from(error: ComposeError) -> ClientError {
        ClientError::Compose(error)
    }
}

impl From<DeployError> for ClientError {
    fn from(error: DeployError) -> ClientError {
        ClientError::Deploy(error)
    }
}

/// Where an artifact comes from. Asked again when what it gave became another thing while it was read.
pub type OpenSource<'s> = dyn FnMut() -> io::Result<Supply> + 's;

/// The update client on this device. It has the device to itself while it lives.
pub struct Client<'s> {
    setup: &'s Setup,
    device: OpenDevice,
    gates: AskedAlso<'s>,
    reading: Reading,
    observer: &'s mut dyn Observer,
    /// No server is told what a person does.
    reporter: NoReporter,
}

impl<'s> Client<'s> {
    /// Takes the device; `observer` is told how things go.
    ///
    /// # Errors
    /// When another process has it, or the record cannot be opened.
    pub fn open(setup: &'s Setup, observer: &'s mut dyn Observer) -> Result<Client<'s>, ComposeError> {
        Client::open_with(setup, observer, Arc::new(LinuxClock::new()))
    }

    /// The same for whoever may want to stop: a request to stop that `clock` has ends the programs that run.
    ///
    /// # Errors
    /// When another process has the device, or the record cannot be opened.
    pub fn open_with(
        setup: &'s Setup,
        observer: &'s mut dyn Observer,
        clock: Arc<dyn Clock>,
    ) -> Result<Client<'s>, ComposeError> {
        let rules = setup.config.gates.clone().attended();
        let device = setup.open_device(&clock)?;
        let gates = AskedAlso { configured: Gates::new(rules, SharedQuestion::default(), clock), also: None };
        Ok(Client { setup, device, gates, reading: Reading::Ahead, observer, reporter: NoReporter })
    }

    /// Asks `gatekeeper` as well, first.
    #[must_use]
    pub fn asking(mut self, gatekeeper: &'s mut dyn Gatekeeper) -> Client<'s> {
        self.gates.also = Some(gatekeeper);
        self
    }

    /// Reads artifacts as `reading` says.
    #[must_use]
    pub fn reading(mut self, reading: Reading) -> Client<'s> {
        self.reading = reading;
        self
    }

    /// Installs the artifact that `open` gives. A source that cannot be opened is one that cannot be read: the deployment
    /// says that nothing was modified.
    ///
    /// # Errors
    /// When nothing could be begun.
    pub fn install(&mut self, open: &mut OpenSource<'_>, options: &Options) -> Result<Summary, ClientError> {
        let setup = self.setup;
        let reading = self.reading;
        let mut device = self.seams();
        setup.bootstrap(&mut device)?;
        let mut policy = setup.policy()?;
        policy.limits.reading = reading;
        for beginning in 1..BEGINNINGS {
            let summary = install(&mut device, open, &policy, options)?;
            match summary.error.as_ref().filter(|error| has_become_another(error)) {
                Some(error) => {
                    log::warn!("{error}; beginning again ({beginning} of {} times)", BEGINNINGS - 1);
                }
                None => return Ok(summary),
            }
        }
        install(&mut device, open, &policy, options)
    }

    /// Goes on with a deployment that was stopped or interrupted.
    ///
    /// # Errors
    /// When there is none, or it cannot be gone on with.
    pub fn resume(&mut self, options: &Options) -> Result<Summary, ClientError> {
        Ok(deploy::resume(&mut self.seams(), options)?)
    }

    /// Makes the running trial permanent.
    ///
    /// # Errors
    /// When there is none.
    pub fn commit(&mut self, options: &Options) -> Result<Summary, ClientError> {
        Ok(deploy::commit(&mut self.seams(), options)?)
    }

    /// Gives up what is not committed yet.
    ///
    /// # Errors
    /// When there is nothing to give up.
    pub fn roll_back(&mut self, options: &Options) -> Result<Summary, ClientError> {
        Ok(deploy::roll_back(&mut self.seams(), options)?)
    }

    /// Tries what the other slot holds.
    ///
    /// # Errors
    /// When that is not what was committed there.
    pub fn try_other_slot(&mut self, options: &Options) -> Result<Summary, ClientError> {
        Ok(deploy::try_other_slot(&mut self.seams(), options)?)
    }

    fn seams(&mut self) -> Device<'_> {
        self.device.seams(&mut *self.observer, &mut self.gates, &mut self.reporter)
    }
}

/// The gates of the configuration, and somebody who is asked before them.
struct AskedAlso<'s> {
    configured: Gates,
    also: Option<&'s mut dyn Gatekeeper>,
}

impl Gatekeeper for AskedAlso<'_> {
    fn watches(&self, gate: Gate) -> bool {
        self.also.as_ref().is_some_and(|also| also.watches(gate)) || self.configured.watches(gate)
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        match &mut self.also {
            Some(also) => also.ask(question).and_then(|| self.configured.ask(question)),
            None => self.configured.ask(question),
        }
    }
}

fn install(
    device: &mut Device<'_>,
    open: &mut OpenSource<'_>,
    policy: &Policy,
    options: &Options,
) -> Result<Summary, ClientError> {
    let supply = open().unwrap_or_else(|error| Broken(Some(error)).into());
    Ok(deploy::install(device, supply, policy, options)?)
}

/// Whether what was transferred became another thing in the middle, so that a new beginning may go better.
fn has_become_another(error: &DeployError) -> bool {
    error.is_not_as_before() || matches!(Download::cause(error), Some(ServerError::ContentChanged { .. }))
}

/// A source that could not be opened.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }
}
