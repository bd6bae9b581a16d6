//! What a call fails with: a code that never changes, and a text for people. One function for each error of the client says
//! which code it is.

use std::error::Error;
use std::ffi::c_int;
use std::{fmt, io};

use client_core::artifact::ArtifactError;
use client_core::deploy::{self, DeployError};
use client_core::install::InstallError;
use device::client::ClientError;
use device::compose::ComposeError;
use linux::lock::LockError;
use service::ServiceError;
use service::status::StatusError;

use crate::codes::*;

/// Why a call was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: c_int,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: c_int, text: impl fmt::Display) -> Failure {
        Failure { code, text: text.to_string() }
    }
}

/// What a source of bytes ends with when the program wants to stop.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped on request of the program")
    }
}

impl Error for Stopped {}

/// What a source of bytes ends with when the program's own callback fails.
#[derive(Debug)]
pub(crate) enum CallbackFailed {
    /// It said so.
    Said(isize),
    /// It claims to have written more than there is room for.
    TooMuch {
        /// What it claims.
        claimed: usize,
        /// What there is room for.
        room: usize,
    },
}

impl fmt::Display for CallbackFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallbackFailed::Said(number) => write!(f, "the read callback failed with {number}"),
            CallbackFailed::TooMuch { claimed, room } => {
                write!(f, "the read callback claims {claimed} bytes where there is room for {room}")
            }
        }
    }
}

impl Error for CallbackFailed {}

impl From<ComposeError> for Failure {
    fn from(error: ComposeError) -> Failure {
        let code = match &error {
            ComposeError::Lock(LockError::Held { .. }) => ROTA_E_LOCKED,
            ComposeError::Config(_) | ComposeError::Key { .. } | ComposeError::LogLevel(_) => ROTA_E_CONFIG,
            ComposeError::Lock(_)
            | ComposeError::State(_)
            | ComposeError::Record(_)
            | ComposeError::Io { .. } => ROTA_E_DEVICE,
        };
        Failure::new(code, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Compose(error) => error.into(),
            ClientError::Deploy(error) => (&error).into(),
        }
    }
}

impl From<&DeployError> for Failure {
    fn from(error: &DeployError) -> Failure {
        let code = if deploy::cause::<Stopped>(error).is_some() { ROTA_E_STOPPED } else { of_deploy(error) };
        Failure::new(code, error)
    }
}

fn of_deploy(error: &DeployError) -> c_int {
    match error {
        DeployError::NothingInProgress => ROTA_E_NOTHING,
        DeployError::AlreadyInProgress
        | DeployError::CannotCommitHere
        | DeployError::CannotRollBackHere
        | DeployError::NotRestarted
        | DeployError::RecordLost => ROTA_E_IN_PROGRESS,
        DeployError::Policy(_) => ROTA_E_CONFIG,
        DeployError::Source(_) | DeployError::NothingArrives => ROTA_E_SOURCE,
        DeployError::Install(error) => of_install(error),
        DeployError::Depends(_) | DeployError::NotABootstrapArtifact { .. } => ROTA_E_DEPENDS,
        DeployError::Refused { .. } => ROTA_E_REFUSED,
        DeployError::Unreachable | DeployError::Aborted => ROTA_E_SERVER,
        DeployError::Slot(_)
        | DeployError::Record(_)
        | DeployError::RecordTooSmall { .. }
        | DeployError::Contradiction { .. }
        | DeployError::OtherSlotChanged { .. }
        | DeployError::OtherSlotUnknown { .. } => ROTA_E_DEVICE,
        DeployError::FellBack
        | DeployError::Interrupted
        | DeployError::Loop
        | DeployError::TooManyReboots { .. }
        | DeployError::CutShort { .. }
        | DeployError::Script(_)
        // Also what later releases may know.
        | _ => ROTA_E_FAILED,
    }
}

fn of_install(error: &InstallError) -> c_int {
    match error {
        InstallError::Artifact(ArtifactError::Source { .. }) => ROTA_E_SOURCE,
        InstallError::Artifact(_) | InstallError::FileCount { .. } | InstallError::EmptyImage => {
            ROTA_E_ARTIFACT
        }
        InstallError::Boot(_)
        | InstallError::Slot(_)
        | InstallError::SlotTooSmall { .. }
        | InstallError::ReadBack { .. }
        | InstallError::NotKept { .. }
        | InstallError::Storage { .. } => ROTA_E_DEVICE,
        InstallError::NothingWritten
        | InstallError::NoHandler
        | InstallError::NotOnTrial { .. }
        | InstallError::NotBack { .. }
        | InstallError::StateTooLarge { .. }
        | InstallError::BadState { .. }
        | InstallError::StateNotKept { .. }
        | InstallError::Handler { .. }
        | InstallError::UnknownPayloadType { .. }
        | InstallError::ModuleNotExecutable { .. }
        | InstallError::Files(_)
        | InstallError::Payload(_)
        // Also what later releases may know.
        | _ => ROTA_E_FAILED,
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        let code = match &error {
            ServiceError::Compose(_) => None,
            ServiceError::NoServer | ServiceError::Key(_) => Some(ROTA_E_CONFIG),
            ServiceError::PidFile(LockError::Held { .. }) => Some(ROTA_E_LOCKED),
            ServiceError::PidFile(_) => Some(ROTA_E_DEVICE),
            ServiceError::Http(_) | ServiceError::Refused(_) => Some(ROTA_E_SERVER),
        };
        match (code, error) {
            (None, ServiceError::Compose(error)) => error.into(),
            (code, error) => Failure::new(code.unwrap_or(ROTA_E_DEVICE), error),
        }
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Failure {
        Failure::new(ROTA_E_NO_DAEMON, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(ROTA_E_SOURCE, error)
    }
}
