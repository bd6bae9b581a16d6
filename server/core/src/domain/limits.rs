//! Limits on what comes from outside. Names and sizes follow the reference server, so that a client that works there
//! works here.

/// Any body but an artifact, of somebody with a token.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;
/// The body of a request for a token: an identity, written in JSON within JSON, and a key.
pub(crate) const AUTH_BODY_BYTES: usize = 32 * 1024;
/// Bodies of senders who are not known that are waited for at a time: each costs about 130 KiB while it comes.
pub(crate) const BODIES_AWAITED: usize = 1024;
/// Artifacts that come in at once: each costs a thread, and in S3 two parts of 8 MiB.
pub(crate) const UPLOADS_AT_ONCE: usize = 8;
/// The head of a request.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// Attributes in one report.
pub(crate) const ATTRIBUTES: usize = 100;
/// Attributes of one device, after all reports of what has changed.
pub(crate) const ATTRIBUTES_OF_A_DEVICE: usize = 500;
/// What people may say about one device.
pub(crate) const TAGS: usize = 20;
/// Names, values and descriptions of the attributes of one device.
pub(crate) const INVENTORY_BYTES: usize = 1024 * 1024;
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
/// Files that come from devices and go to them at once: each costs 80 KiB, and 1 MiB when its device breaks the protocol.
pub(crate) const FILES_AT_ONCE: usize = 64;
/// What is recorded of one terminal.
pub(crate) const RECORDING_BYTES: usize = 1024 * 1024;
/// Pieces of all recordings, of 32 KiB each and a little more where a shell prints single letters.
pub(crate) const RECORDED_PIECES: u64 = 8192;
/// The path of a file on a device.
pub(crate) const PATH_BYTES: usize = 4096;
/// Keys of one device. Each forced bootstrap adds one; after that the oldest that is not accepted goes.
pub(crate) const AUTH_SETS: usize = 100;
/// Devices that nobody has decided about: anybody can make those.
pub(crate) const UNDECIDED_DEVICES: usize = 200_000;
/// Identities and keys of all of them.
pub(crate) const UNDECIDED_BYTES: usize = 128 * 1024 * 1024;
/// Characters of a path, and of other words of a client, in the log.
pub(crate) const LOGGED_CHARS: usize = 200;
/// Requests without a token that the log names in one second. Of more it says how many.
pub(crate) const STRANGERS_LOGGED: u32 = 10;
