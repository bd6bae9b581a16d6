//! Limits on what comes from outside. Names and sizes follow the reference server, so that a client that works there
//! works here.

/// Any body but an artifact.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;
/// The head of a request.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// Attributes in one report.
pub(crate) const ATTRIBUTES: usize = 100;
/// The name of an attribute, in characters.
pub(crate) const ATTRIBUTE_NAME_CHARS: usize = 1024;
/// The name of a deployment, an artifact or a group.
pub(crate) const NAME_CHARS: usize = 256;
/// One value that a device provides.
pub(crate) const PROVIDES_CHARS: usize = 4096;
/// Different values that a device provides.
pub(crate) const PROVIDES: usize = 1000;
/// What a device may add to a status.
pub(crate) const SUBSTATE_CHARS: usize = 200;
/// Entries of one page.
pub(crate) const PER_PAGE: usize = 500;
/// Entries of one page when nothing is asked for.
pub(crate) const PER_PAGE_DEFAULT: usize = 20;
/// One message of a WebSocket. `mender-connect` itself sends and takes 8 KiB.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;
/// Frames that wait for one WebSocket. More of them wait at their sender.
pub(crate) const FRAMES_UNDER_WAY: usize = 16;
/// People at work on one device.
pub(crate) const SESSIONS: usize = 16;
/// Keys of one device. Each forced bootstrap adds one; a device with more is not one device.
pub(crate) const AUTH_SETS: usize = 100;
/// Devices that nobody has decided about: anybody can make those.
pub(crate) const UNDECIDED_DEVICES: usize = 200_000;
