//! Which handler takes a payload: the one rule for those that begin and for those that go on.

use std::path::PathBuf;

use super::recorded::{HandledBy, RecordedHandler};
use super::{
    Arriving, HandlerState, InstallError, MENDER_BINARY_DELTA, PayloadHandler, Progress, ROOTFS_DELTA,
    ROOTFS_IMAGE, RootfsImage, Step, WrittenImage, is_image,
};
use crate::boot::BootControl;
use crate::slot::{Slots, System};

/// The handlers of a device besides the one of root file system images.
pub trait Modules {
    /// What there is for `payload_type`.
    fn candidates(&self, payload_type: &str) -> Candidates;

    /// One of the [`candidates`](Modules::candidates) of `payload_type`.
    ///
    /// # Errors
    /// [`InstallError::UnknownPayloadType`] when it is not there, or not there any more.
    fn open<'m>(
        &'m mut self,
        payload_type: &str,
        by: HandledBy,
    ) -> Result<Box<dyn PayloadHandler + 'm>, InstallError>;
}

/// What a device has for one payload type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// A program of that name.
    pub update_module: UpdateModuleFile,
    /// A handler of this program.
    pub built_in: bool,
    /// The configuration lets the handler of this program go first.
    pub prefers_built_in: bool,
    /// The payload that is stored carries the mark of a version of this program that had no other way to say that its own
    /// handler began.
    pub marked_built_in: bool,
}

/// Whether there is an update module of some name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpdateModuleFile {
    /// Nothing has the name.
    #[default]
    Missing,
    /// A file has it that may not be run.
    NotExecutable(PathBuf),
    /// A program.
    Executable,
}

/// Who begins with a payload. An update module goes first, unless the configuration says otherwise.
fn first(payload_type: &str, found: &Candidates) -> Result<HandledBy, InstallError> {
    let payload_type = payload_type.to_owned();
    match (&found.update_module, found.built_in) {
        (UpdateModuleFile::Executable, true) if found.prefers_built_in => Ok(HandledBy::BuiltIn),
        (UpdateModuleFile::Executable, _) => Ok(HandledBy::UpdateModule),
        (UpdateModuleFile::Missing | UpdateModuleFile::NotExecutable(_), true) => Ok(HandledBy::BuiltIn),
        (UpdateModuleFile::Missing, false) => Err(InstallError::UnknownPayloadType { payload_type }),
        (UpdateModuleFile::NotExecutable(path), false) => {
            Err(InstallError::ModuleNotExecutable { payload_type, path: path.clone() })
        }
    }
}

/// Who goes on with what `began` began: that one, whatever is installed or configured meanwhile. Where a module is gone
/// that the new root file system did not bring along, the handler of this program stands in; it knows that it did not
/// begin, and what cannot be known then.
fn next(payload_type: &str, began: HandledBy, found: &Candidates) -> Result<HandledBy, InstallError> {
    match (began, &found.update_module, found.built_in) {
        (HandledBy::UpdateModule, UpdateModuleFile::Executable, _) => Ok(HandledBy::UpdateModule),
        (HandledBy::BuiltIn, _, true)
        | (HandledBy::UpdateModule, UpdateModuleFile::Missing | UpdateModuleFile::NotExecutable(_), true) => {
            Ok(HandledBy::BuiltIn)
        }
        (HandledBy::UpdateModule, UpdateModuleFile::NotExecutable(path), false) => {
            Err(InstallError::ModuleNotExecutable {
                payload_type: payload_type.to_owned(),
                path: path.clone(),
            })
        }
        (HandledBy::BuiltIn, _, false) | (HandledBy::UpdateModule, UpdateModuleFile::Missing, false) => {
            Err(InstallError::UnknownPayloadType { payload_type: payload_type.to_owned() })
        }
    }
}

/// All handlers of a device. One deployment has one payload: it is spent with the handler it gives.
pub struct Registry<'r> {
    /// For images: what boots next.
    pub boot: &'r mut dyn BootControl,
    /// For images: the two slots.
    pub slots: &'r mut dyn Slots,
    /// For images: which slot runs.
    pub system: &'r dyn System,
    /// The handlers of everything else.
    pub modules: &'r mut dyn Modules,
}

/// A handler, with what the record keeps of it.
type Chosen<'r> = (RecordedHandler, Box<dyn PayloadHandler + 'r>);

impl<'r> Registry<'r> {
    /// The handler that begins with a payload of `payload_type`.
    ///
    /// # Errors
    /// [`InstallError::UnknownPayloadType`], [`InstallError::ModuleNotExecutable`], or what keeps it from being opened.
    pub fn begin(self, payload_type: &str) -> Result<Chosen<'r>, InstallError> {
        let by = first(payload_type, &self.candidates(payload_type))?;
        Ok((RecordedHandler::new(payload_type, by), self.open(payload_type, by)?))
    }

    /// The handler that goes on with what an earlier process began.
    ///
    /// # Errors
    /// What keeps it from being opened. Where there is none any more `MissingHandler` takes its place.
    pub fn reopen(
        self,
        payload_type: &str,
        recorded: &RecordedHandler,
    ) -> Result<Box<dyn PayloadHandler + 'r>, InstallError> {
        let found = self.candidates(payload_type);
        let marked = found.marked_built_in.then_some(HandledBy::BuiltIn);
        let began = recorded.began_by(payload_type).or(marked);
        let chosen = match began {
            Some(began) => next(payload_type, began, &found),
            // Nobody can tell any more: as if it began now.
            None => first(payload_type, &found),
        };
        let by = match chosen {
            Ok(by) => by,
            Err(error) => {
                log::error!("nothing can be done with the payload: {error}");
                return Ok(Box::new(MissingHandler { payload_type: payload_type.to_owned() }));
            }
        };
        let mut handler = self.open(payload_type, by)?;
        if began == Some(by) {
            handler.restore(recorded.state());
        } else if let Some(HandledBy::UpdateModule) = began {
            log::error!(
                "the update module for payload type {payload_type} is gone: what is built in goes on"
            );
        }
        Ok(handler)
    }

    /// The handler of an image that an earlier deployment wrote, once the image was read back and found to be that.
    ///
    /// # Errors
    /// As for [`RootfsImage::recognize`].
    pub(crate) fn recognize(
        self,
        image: WrittenImage,
        progress: &mut dyn Progress,
    ) -> Result<Chosen<'r>, InstallError> {
        let mut recorded = RecordedHandler::new(ROOTFS_IMAGE, HandledBy::BuiltIn);
        recorded.set(HandlerState::of(&image)?);
        let mut handler = RootfsImage::new(self.boot, self.slots, self.system)?;
        handler.recognize(image, progress)?;
        Ok((recorded, Box::new(handler)))
    }

    fn candidates(&self, payload_type: &str) -> Candidates {
        let mut found = self.modules.candidates(payload_type);
        found.built_in |= is_image(payload_type);
        found
    }

    fn open(self, payload_type: &str, by: HandledBy) -> Result<Box<dyn PayloadHandler + 'r>, InstallError> {
        match (payload_type, by) {
            (ROOTFS_IMAGE, HandledBy::BuiltIn) => {
                Ok(Box::new(RootfsImage::new(self.boot, self.slots, self.system)?))
            }
            (ROOTFS_DELTA, HandledBy::BuiltIn) => {
                Ok(Box::new(RootfsImage::of_delta(self.boot, self.slots, self.system)?))
            }
            (MENDER_BINARY_DELTA, HandledBy::BuiltIn) => {
                Ok(Box::new(RootfsImage::of_vcdiff(self.boot, self.slots, self.system)?))
            }
            (_, HandledBy::BuiltIn | HandledBy::UpdateModule) => self.modules.open(payload_type, by),
        }
    }
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
struct MissingHandler {
    payload_type: String,
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

    fn install(&mut self) -> Result<(), InstallError> {
        Err(self.unknown())
    }

    fn otherwise(&mut self, _: Step) -> Result<(), InstallError> {
        Err(self.unknown())
    }
}

/// No payload types but root file system images.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoModules;

impl Modules for NoModules {
    fn candidates(&self, _: &str) -> Candidates {
        Candidates::default()
    }

    fn open<'m>(
        &'m mut self,
        payload_type: &str,
        _: HandledBy,
    ) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        Err(InstallError::UnknownPayloadType { payload_type: payload_type.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT_IN: Option<HandledBy> = Some(HandledBy::BuiltIn);
    const MODULE: Option<HandledBy> = Some(HandledBy::UpdateModule);

    fn not_executable() -> UpdateModuleFile {
        UpdateModuleFile::NotExecutable(PathBuf::from("/m"))
    }

    /// Every combination of module and built-in handler: who begins without and with a preference for what is built in, and
    /// who goes on with what a built-in handler, and what a module began.
    #[test]
    fn the_handler_is_the_one_that_began_and_at_first_the_module() {
        let check = |update_module: UpdateModuleFile, built_in, expected: [Option<HandledBy>; 4]| {
            let found = |prefers_built_in| Candidates {
                update_module: update_module.clone(),
                built_in,
                prefers_built_in,
                marked_built_in: false,
            };
            let first = |prefers| first("t", &found(prefers)).ok();
            for prefers in [false, true] {
                let next = |began| next("t", began, &found(prefers)).ok();
                let chosen =
                    [first(false), first(true), next(HandledBy::BuiltIn), next(HandledBy::UpdateModule)];
                assert_eq!(chosen, expected, "{update_module:?} {built_in} {prefers}");
            }
        };
        check(UpdateModuleFile::Missing, false, [None, None, None, None]);
        check(UpdateModuleFile::Missing, true, [BUILT_IN, BUILT_IN, BUILT_IN, BUILT_IN]);
        check(not_executable(), false, [None, None, None, None]);
        check(not_executable(), true, [BUILT_IN, BUILT_IN, BUILT_IN, BUILT_IN]);
        check(UpdateModuleFile::Executable, false, [MODULE, MODULE, None, MODULE]);
        check(UpdateModuleFile::Executable, true, [MODULE, BUILT_IN, BUILT_IN, MODULE]);
    }

    #[test]
    fn a_module_that_may_not_be_run_is_named() {
        let found = Candidates { update_module: not_executable(), ..Candidates::default() };
        let check = |error: InstallError| assert!(error.to_string().contains("chmod +x /m"), "{error}");
        check(first("t", &found).unwrap_err());
        check(next("t", HandledBy::UpdateModule, &found).unwrap_err());
    }
}
