//! Who is connected, and to whom: one WebSocket of each device, and those of the people who work on it. What travels
//! is in [`frame`], how it travels in [`socket`]. Of files the
//! server speaks itself, in [`files`].

pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod recording;
pub(crate) mod socket;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::domain::admission::is_valid;
use crate::domain::id::{self, NoRandomness};
use crate::domain::limits;
use crate::domain::people::permissions::Pass;
use crate::domain::token::Claims;
use crate::model::time::Timestamp;
use crate::store::{Committed, Watch};
use crate::work::Kind;

/// The protocol of shells.
const SHELL: u8 = 1;
/// The protocol of the client's own commands.
const CLIENT: u8 = 4;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The other side went, or the network did.
    Gone,
    /// What came is no frame.
    Frame(frame::FrameError),
    /// What came is no binary message.
    NotBinary,
    /// What came is no WebSocket.
    Protocol,
    /// A frame is larger than [`limits::FRAME_BYTES`].
    TooLarge,
    /// The other side does not read.
    Slow,
    /// Nothing came for too long, not even an answer to a ping.
    Silent,
    /// The device has connected again.
    Replaced,
    /// The device of the session is gone.
    DeviceGone,
    /// The device is not accepted any more, or not with this key.
    Refused,
    /// The token that the connection of a device began with has expired.
    Expired,
    /// The person has logged out, or the token is gone or has expired.
    Ended,
    /// The person's roles do not allow it any more.
    NotAllowed,
    /// The server stops.
    Stopping,
    /// All of a recording was sent.
    Played,
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closing::Gone => "the other side is gone",
            Closing::Frame(error) => return error.fmt(f),
            Closing::NotBinary => "a message is not binary",
            Closing::Protocol => "the other side does not speak WebSocket",
            Closing::TooLarge => "the frame is too large",
            Closing::Slow => "the other side does not read",
            Closing::Silent => "nothing came for too long",
            Closing::Replaced => "the device has connected again",
            Closing::DeviceGone => "the device is not connected any more",
            Closing::Refused => "the device is not accepted any more",
            Closing::Expired => "the token has expired",
            Closing::Ended => "the person's login or token has ended",
            Closing::NotAllowed => "the person's roles do not allow it any more",
            Closing::Stopping => "the server stops",
            Closing::Played => "the recording has ended",
        })
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Between two pings.
    pub(crate) ping: Duration,
    /// Without anything from the other side.
    pub(crate) silence: Duration,
    /// Until the other side has taken a frame.
    pub(crate) write: Duration,
}

/// The way to one connection. Its other end is a [`LineEnd`].
#[derive(Debug, Clone)]
struct Line {
    frames: mpsc::Sender<Vec<u8>>,
    closing: Arc<watch::Sender<Option<Closing>>>,
}

/// What arrives at one connection.
#[derive(Debug)]
pub(crate) struct LineEnd {
    pub(crate) frames: mpsc::Receiver<Vec<u8>>,
    pub(crate) closing: watch::Receiver<Option<Closing>>,
    /// Hears what is sent.
    pub(crate) recorder: Option<recording::Recorder>,
}

impl Line {
    fn new() -> (Line, LineEnd) {
        let (frames, incoming) = mpsc::channel(limits::FRAMES_UNDER_WAY);
        let (closing, closed) = watch::channel(None);
        let line = Line { frames, closing: Arc::new(closing) };
        (line, LineEnd { frames: incoming, closing: closed, recorder: None })
    }

    /// Sends a frame; who does not take it in time is closed.
    async fn send(&self, frame: Vec<u8>, timing: Timing) -> Result<(), Closing> {
        match self.frames.send_timeout(frame, timing.write).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Closing::Gone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.close(Closing::Slow);
                Err(Closing::Slow)
            }
        }
    }

    /// The first reason counts.
    fn close(&self, reason: Closing) {
        close(&self.closing, reason);
    }
}

fn close(closing: &watch::Sender<Option<Closing>>, reason: Closing) {
    closing.send_if_modified(|closing| {
        let first = closing.is_none();
        closing.get_or_insert(reason);
        first
    });
}

/// What a person has open, and what it was opened with: to be looked at again while it goes on.
#[derive(Clone)]
pub(crate) struct Guarded {
    pass: Arc<Pass>,
    closing: Arc<watch::Sender<Option<Closing>>>,
}

impl Guarded {
    /// What it goes on with.
    pub(crate) fn pass(&self) -> &Pass {
        &self.pass
    }

    /// Ends it.
    pub(crate) fn close(&self, reason: Closing) {
        close(&self.closing, reason);
    }
}

/// A device that is connected.
struct Connected {
    /// Which of all connections it is.
    number: u64,
    claims: Claims,
    line: Line,
    /// The ways to people.
    sessions: HashMap<String, Line>,
}

impl Connected {
    /// When its token expires.
    fn until(&self) -> Timestamp {
        Timestamp(self.claims.exp.saturating_mul(1000))
    }

    fn close(&self, reason: Closing) {
        self.line.close(reason);
        self.sessions.values().for_each(|session| session.close(Closing::DeviceGone));
    }
}

/// A device that is connected, or was since the server started.
struct Known {
    updated: Timestamp,
    connected: Option<Connected>,
    /// Whether the device was decommissioned: it is forgotten with its connection.
    is_gone: bool,
}

#[derive(Default)]
struct State {
    stopping: bool,
    last_number: u64,
    devices: HashMap<String, Known>,
    guarded: Vec<Guarded>,
}

/// Why a person is not connected to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The device is not connected.
    NotConnected,
    /// There are [`limits::SESSIONS`] already.
    TooManySessions,
    /// There are [`limits::FILES_AT_ONCE`] already.
    TooManyFiles,
    /// The session would have no id.
    NoRandomness,
}

impl From<NoRandomness> for ConnectError {
    fn from(_: NoRandomness) -> ConnectError {
        ConnectError::NoRandomness
    }
}

/// Every connection.
pub(crate) struct Switchboard {
    state: Mutex<State>,
    /// Places for files that come and go.
    files: Arc<Semaphore>,
    /// Something has changed that the rights of people may depend on.
    changed: Notify,
    pub(crate) timing: Timing,
}

impl Switchboard {
    pub(crate) fn new(timing: Timing) -> Switchboard {
        Switchboard {
            state: Mutex::default(),
            files: Arc::new(Semaphore::new(limits::FILES_AT_ONCE)),
            changed: Notify::new(),
            timing,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device is connected, and since when or until when; `None` when it never was since the server
    /// started.
    pub(crate) fn status(&self, device: &str) -> Option<(bool, Timestamp)> {
        let state = self.state();
        state.devices.get(device).map(|known| (known.connected.is_some(), known.updated))
    }

    /// Connects a device. One that was connected before is closed: it has mostly not noticed yet that it is gone.
    pub(crate) fn connect(self: &Arc<Self>, claims: Claims) -> (DeviceEnd, LineEnd) {
        let (line, end) = Line::new();
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        if state.stopping {
            line.close(Closing::Stopping);
        }
        let device = claims.sub.clone();
        let connected = Connected { number, claims, line, sessions: HashMap::new() };
        let until = connected.until();
        let known = Known { updated: Timestamp::now(), connected: Some(connected), is_gone: false };
        let older = state.devices.insert(device.clone(), known).and_then(|known| known.connected);
        if let Some(older) = older {
            older.close(Closing::Replaced);
        }
        (DeviceEnd { board: self.clone(), device, number, until }, end)
    }

    /// Opens a session with a device, which goes on as long as `pass` holds.
    pub(crate) fn open(
        self: &Arc<Self>,
        device: &str,
        user: &str,
        pass: Pass,
    ) -> Result<(SessionEnd, LineEnd), ConnectError> {
        let session = id::uuid()?;
        let (line, end) = Line::new();
        let mut state = self.state();
        if state.stopping {
            return Err(ConnectError::NotConnected);
        }
        let connected = state.devices.get_mut(device).and_then(|known| known.connected.as_mut());
        let connected = connected.ok_or(ConnectError::NotConnected)?;
        if connected.sessions.len() >= limits::SESSIONS {
            return Err(ConnectError::TooManySessions);
        }
        let guarded = Guarded { pass: Arc::new(pass), closing: line.closing.clone() };
        connected.sessions.insert(session.clone(), line);
        let board = self.clone();
        let to_device = connected.line.clone();
        let (device, user, number) = (device.to_owned(), user.to_owned(), connected.number);
        state.guarded.push(guarded);
        Ok((SessionEnd { board, device, number, to_device, session, user }, end))
    }

    /// A line to a person, but to no device. It goes on as long as `pass` holds.
    fn guarded_line(&self, pass: Pass) -> (Line, LineEnd) {
        let (line, end) = Line::new();
        let guarded = Guarded { pass: Arc::new(pass), closing: line.closing.clone() };
        self.state().guarded.push(guarded);
        (line, end)
    }

    /// What people have open.
    pub(crate) fn guarded(&self) -> Vec<Guarded> {
        let mut state = self.state();
        // Where nobody listens any more it is over.
        state.guarded.retain(|guarded| !guarded.closing.is_closed());
        state.guarded.clone()
    }

    /// Waits until something has changed that the rights of people may depend on, if it has not since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A place for a file that comes or goes.
    pub(crate) fn place_for_file(&self) -> Result<OwnedSemaphorePermit, ConnectError> {
        self.files.clone().try_acquire_owned().map_err(|_| ConnectError::TooManyFiles)
    }

    /// Sends the client on the device a command.
    pub(crate) async fn command(&self, device: &str, kind: &str, user: &str) -> Result<(), ConnectError> {
        let line = {
            let state = self.state();
            let connected = state.devices.get(device).and_then(|known| known.connected.as_ref());
            connected.ok_or(ConnectError::NotConnected)?.line.clone()
        };
        let frame = frame::command(CLIENT, kind, "", user);
        line.send(frame, self.timing).await.map_err(|_| ConnectError::NotConnected)
    }

    /// Closes a device whose token `is_valid` does not know any more. A device that is not connected, and is not `there`,
    /// is forgotten. Whether somebody is at work on it.
    fn recheck(&self, device: &str, there: bool, is_valid: impl Fn(&Claims) -> bool) -> bool {
        let mut state = self.state();
        let Some(known) = state.devices.get_mut(device) else { return false };
        known.is_gone = !there;
        let has_sessions = known.connected.as_ref().is_some_and(|connected| !connected.sessions.is_empty());
        match &known.connected {
            Some(connected) if !is_valid(&connected.claims) => connected.close(Closing::Refused),
            None if !there => {
                state.devices.remove(device);
            }
            Some(_) | None => {}
        }
        has_sessions
    }

    /// Closes everything, and lets nobody in any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        for connected in state.devices.values().filter_map(|known| known.connected.as_ref()) {
            connected.line.close(Closing::Stopping);
            connected.sessions.values().for_each(|session| session.close(Closing::Stopping));
        }
    }
}

/// Closes devices that may not speak any more, and says when the rights of people may have changed, here or at another process.
impl Watch for Switchboard {
    fn committed(&self, committed: &Committed) {
        let is_of_people = |kind: Kind| matches!(kind, Kind::User | Kind::Session | Kind::Token | Kind::Role);
        let mut has_changed = committed.documents.iter().any(|(kind, ..)| is_of_people(*kind));
        for (id, device) in &committed.devices {
            let device = device.as_ref();
            // Another group of a device may be another one's.
            has_changed |= self.recheck(id, device.is_some(), |claims| {
                device.is_some_and(|device| is_valid(device, claims))
            });
        }
        if has_changed {
            self.changed.notify_one();
        }
    }
}

/// A device's side of its connection. It is disconnected when this is dropped.
pub(crate) struct DeviceEnd {
    board: Arc<Switchboard>,
    device: String,
    number: u64,
    until: Timestamp,
}

impl DeviceEnd {
    /// A frame from the device goes to its session.
    async fn take(&self, frame: Vec<u8>) -> Result<(), Closing> {
        let session = frame::session_of(&frame).map_err(Closing::Frame)?;
        let line = {
            let state = self.board.state();
            let connected = state.devices.get(&self.device).and_then(|known| known.connected.as_ref());
            let connected = connected.filter(|connected| connected.number == self.number);
            connected.and_then(|connected| connected.sessions.get(session).cloned())
        };
        match line {
            // That a person does not read is not the fault of the device: the session is closed, and it goes on.
            Some(line) => line.send(frame, self.board.timing).await.or(Ok(())),
            None => {
                log::debug!("device {} sent a frame for no session", self.device);
                Ok(())
            }
        }
    }
}

impl Drop for DeviceEnd {
    fn drop(&mut self) {
        let mut state = self.board.state();
        let Some(known) = state.devices.get_mut(&self.device) else { return };
        if known.connected.as_ref().is_some_and(|connected| connected.number == self.number) {
            if let Some(connected) = known.connected.take() {
                connected.close(Closing::Gone);
            }
            known.updated = Timestamp::now();
            if known.is_gone {
                state.devices.remove(&self.device);
            }
        }
    }
}

/// A person's side of a session. It is closed when this is dropped.
pub(crate) struct SessionEnd {
    board: Arc<Switchboard>,
    device: String,
    number: u64,
    to_device: Line,
    session: String,
    user: String,
}

impl SessionEnd {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.session
    }

    /// A frame from the person goes to the device.
    async fn take(&self, frame: &[u8]) -> Result<(), Closing> {
        let frame = frame::addressed(frame, &self.session, &self.user).map_err(Closing::Frame)?;
        self.to_device.send(frame, self.board.timing).await.map_err(|_| Closing::DeviceGone)
    }

    /// Has the device end its shell.
    async fn stop_shell(&self) {
        let frame = frame::command(SHELL, "stop", &self.session, &self.user);
        if self.to_device.send(frame, self.board.timing).await.is_err() {
            log::debug!("device {} is gone before session {}", self.device, self.session);
        }
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        let mut state = self.board.state();
        let connected = state.devices.get_mut(&self.device).and_then(|known| known.connected.as_mut());
        if let Some(connected) = connected.filter(|connected| connected.number == self.number) {
            connected.sessions.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_decommissioned_while_it_is_connected_is_forgotten() {
        const LONG: Duration = Duration::from_secs(30);
        let board = Arc::new(Switchboard::new(Timing { ping: LONG, silence: LONG, write: LONG }));
        let (_, claims) = crate::domain::rollout::tests_fleet();
        let device = claims.sub.clone();
        for (is_there, is_known) in [(true, true), (false, false)] {
            let (end, _line) = board.connect(claims.clone());
            board.recheck(&device, is_there, |_| is_there);
            assert!(board.status(&device).is_some());
            drop(end);
            assert_eq!(board.status(&device).is_some(), is_known);
        }
    }
}
