//! Which handler takes a payload.

use super::{Arriving, InstallError, PayloadHandler, Progress, Step, WrittenImage};

/// Handlers of payload types besides the root file system image of this crate.
pub trait Modules {
    /// Whether [`open`](Modules::open) has a handler of `payload_type` that goes before the one of this crate.
    fn replaces(&self, payload_type: &str) -> bool;

    /// The handler of `payload_type`.
    ///
    /// # Errors
    /// [`InstallError::UnknownPayloadType`] when there is none.
    fn open<'m>(&'m mut self, payload_type: &str) -> Result<Box<dyn PayloadHandler + 'm>, InstallError>;
}

/// Payload types of which the built-in handler goes before an update module of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PreferBuiltIn {
    /// None: an update module that is installed wins.
    #[default]
    None,
    /// These.
    These(Vec<String>),
    /// All that there are.
    All,
}

impl PreferBuiltIn {
    /// Whether the built-in handler of `payload_type` goes first.
    pub fn includes(&self, payload_type: &str) -> bool {
        match self {
            PreferBuiltIn::None => false,
            PreferBuiltIn::These(types) => types.iter().any(|listed| listed == payload_type),
            PreferBuiltIn::All => true,
        }
    }
}

/// In place of a handler that was there when the deployment began and is gone: an update of the root file system did
/// not bring it along. Nothing can be done with the payload, and the deployment must come to its end all the same.
#[derive(Debug)]
pub struct MissingHandler {
    /// The payload type nobody handles.
    pub payload_type: String,
}

impl MissingHandler {
    fn unknown(&self) -> InstallError {
        InstallError::UnknownPayloadType { payload_type: self.payload_type.clone() }
    }
}

impl PayloadHandler for MissingHandler {
    fn download(&mut self, _: &mut Arriving<'_>, _: &mut dyn Progress) -> Result<(), InstallError> {
        Err(self.unknown())
    }

    fn image(&self) -> Option<WrittenImage> {
        None
    }

    fn restore(&mut self, _: Option<WrittenImage>) {}

    fn install(&mut self) -> Result<(), InstallError> {
        Err(self.unknown())
    }

    fn otherwise(&mut self, _: Step) -> Result<(), InstallError> {
        Err(self.unknown())
    }
}

/// No payload types but the built-in one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoModules;

impl Modules for NoModules {
    fn replaces(&self, _: &str) -> bool {
        false
    }

    fn open<'m>(&'m mut self, payload_type: &str) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        Err(InstallError::UnknownPayloadType { payload_type: payload_type.to_owned() })
    }
}
