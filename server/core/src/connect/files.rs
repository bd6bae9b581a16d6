//! Files of a device: the protocol that `mender-connect` speaks in the frames of a session.
//!
//! ```text
//! open     ->            <- accept {protocols}
//! stat     ->            <- file_info
//! get_file ->            <- file_chunk … file_chunk without a body, `ack` in between
//! put_file ->            <- ack 0, then file_chunk … -> and `ack` in between
//! close    ->
//! ```
//!
//! Either side sends at most a window ahead of what is acknowledged. What comes from a device is acknowledged when whoever
//! asked has taken it, so that a slow reader slows the device down and nothing is kept here but the window.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::frame::{self, Fields, Given, Message};
use super::{Closing, LineEnd, SessionEnd};

/// The protocol of sessions.
const CONTROL: u16 = 0xffff;
/// The protocol of files.
const FILES: u16 = 2;
/// Bytes of a chunk that is sent.
const CHUNK_BYTES: usize = 4096;
/// What is sent ahead of the last acknowledgement. The device acknowledges ten chunks at the latest.
const WINDOW_BYTES: u64 = 10 * CHUNK_BYTES as u64;
/// What a device sends ahead of the last acknowledgement: twenty chunks.
const AHEAD_BYTES: u64 = 20 * CHUNK_BYTES as u64;
/// Taken bytes that are acknowledged at the latest.
const ACK_BYTES: u64 = 10 * CHUNK_BYTES as u64;
/// The bits of a mode that say that it is no regular file, in the numbers of Go: folder, symbolic link, device, pipe, socket,
/// character device, and what is none of them.
const SPECIAL_MODE: u64 = 0x8f28_0000;
/// Pieces of an upload that are read before the device has taken those in front of them: that whoever sends it has left is seen
/// where its bytes end. A piece has at most what a connection reads at once, 64 KiB.
const AHEAD_PIECES: usize = 8;
/// Characters of what a device says about an error.
const REASON_CHARS: usize = 500;

/// Why a file did not come or go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransferError {
    /// The device does not do that.
    NotOffered,
    /// There is no such file.
    NoSuchFile {
        /// In the words of the device.
        reason: String,
    },
    /// It is no regular file.
    NotRegular,
    /// The device refuses.
    Refused {
        /// In its words.
        reason: String,
    },
    /// Nothing went on for too long.
    Silent,
    /// The session has ended.
    Closed(Closing),
    /// What the device says is against the protocol.
    Lies(&'static str),
    /// Whoever sent or took the file is gone.
    Left,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::NotOffered => f.write_str("the device offers no file transfer"),
            TransferError::NoSuchFile { reason } | TransferError::Refused { reason } => {
                write!(f, "the device says: {reason}")
            }
            TransferError::NotRegular => f.write_str("the path is not a regular file"),
            TransferError::Silent => f.write_str("the file transfer stood still for too long"),
            TransferError::Closed(reason) => write!(f, "the session with the device has ended: {reason}"),
            TransferError::Lies(what) => write!(f, "the device breaks the protocol of files: {what}"),
            TransferError::Left => f.write_str("whoever asked for the file transfer is gone"),
        }
    }
}

/// What a device says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mode: Option<u64>,
}

/// Where a file is to go, and whose it will be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mode: Option<u32>,
}

/// A piece of a file between its session and its request. Without the end it is not whole.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// That was all.
    End,
}

/// What comes of a file.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) info: FileInfo,
    pub(crate) pieces: mpsc::Receiver<Piece>,
}

/// Asks a device for a file. It goes on by itself until all of it is taken or nobody waits for it or takes it any more.
pub(crate) async fn download(
    end: SessionEnd,
    line: LineEnd,
    place: OwnedSemaphorePermit,
    path: String,
) -> Result<Download, TransferError> {
    let (mut heads, head) = oneshot::channel();
    tokio::spawn(async move {
        let _place = place;
        let mut talk = Talk::new(end, line);
        let begun = tokio::select! {
            begun = begin_download(&mut talk, &path) => begun,
            () = heads.closed() => Err(TransferError::Left),
        };
        match begun {
            Ok((info, arrived)) => {
                let (to, pieces) = mpsc::channel(1);
                if heads.send(Ok(Download { info, pieces })).is_ok() {
                    if let Err(error) = arrived.pass(&mut talk, &to).await {
                        talk.note(&error);
                    }
                    talk.close().await;
                    return;
                }
            }
            Err(error) => {
                talk.note(&error);
                let _ = heads.send(Err(error));
            }
        }
        talk.close().await;
    });
    head.await.unwrap_or(Err(TransferError::Closed(Closing::Gone)))
}

/// Until the device has begun to send.
async fn begin_download(talk: &mut Talk, path: &str) -> Result<(FileInfo, Arrived), TransferError> {
    talk.open().await?;
    let info = talk.stat(path).await?;
    if info.mode.is_some_and(|mode| mode & SPECIAL_MODE != 0) {
        return Err(TransferError::NotRegular);
    }
    talk.send(FILES, "get_file", None, &frame::map(&[("path", Given::Text(path))])).await?;
    let mut arrived = Arrived { least: info.size.unwrap_or_default(), ..Arrived::default() };
    while !arrived.is_begun() {
        let frame = talk.receive().await?;
        arrived.take(talk, &frame).await?;
    }
    Ok((info, arrived))
}

/// What has come of a file, and what of it was taken.
#[derive(Default)]
struct Arrived {
    /// What the device has said of its size. More may come: a log grows, and the files of the kernel are said to be empty.
    least: u64,
    waiting: VecDeque<Bytes>,
    received: u64,
    taken: u64,
    acknowledged: u64,
    is_whole: bool,
}

impl Arrived {
    fn is_begun(&self) -> bool {
        self.is_whole || self.received > 0
    }

    async fn take(&mut self, talk: &mut Talk, frame: &[u8]) -> Result<(), TransferError> {
        let Some(message) = talk.for_files(frame).await? else { return Ok(()) };
        if message.kind != "file_chunk" {
            return Err(TransferError::Lies("a message that is no part of the file came"));
        }
        if self.is_whole {
            return Err(TransferError::Lies("the file goes on behind its end"));
        }
        if message.offset.unwrap_or_default() != self.received {
            return Err(TransferError::Lies("a part of the file has the wrong offset"));
        }
        self.received += message.body.len() as u64;
        if self.received - self.acknowledged > AHEAD_BYTES {
            return Err(TransferError::Lies("more is sent than was acknowledged"));
        }
        match message.body.is_empty() {
            true if self.received < self.least => {
                return Err(TransferError::Lies("the file ends before its size"));
            }
            true => self.is_whole = true,
            false => self.waiting.push_back(Bytes::copy_from_slice(message.body)),
        }
        Ok(())
    }

    /// Gives everything to whoever takes it.
    async fn pass(mut self, talk: &mut Talk, to: &mpsc::Sender<Piece>) -> Result<(), TransferError> {
        let patience = talk.patience;
        loop {
            let next = match self.waiting.front() {
                None if self.is_whole => break,
                next => next.map(Bytes::len),
            };
            tokio::select! {
                place = to.reserve(), if next.is_some() => {
                    let place = place.map_err(|_| TransferError::Left)?;
                    let Some(bytes) = self.waiting.pop_front() else { continue };
                    self.taken += bytes.len() as u64;
                    place.send(Piece::Bytes(bytes));
                    if self.taken - self.acknowledged >= ACK_BYTES || (self.is_whole && self.waiting.is_empty()) {
                        self.acknowledged = self.taken;
                        talk.send(FILES, "ack", Some(self.acknowledged), &[]).await?;
                    }
                }
                frame = talk.receive(), if !self.is_whole => {
                    let frame = frame?;
                    self.take(talk, &frame).await?;
                }
                () = to.closed() => return Err(TransferError::Left),
                () = tokio::time::sleep(patience), if self.is_whole => return Err(TransferError::Silent),
            }
        }
        if self.acknowledged < self.taken {
            talk.send(FILES, "ack", Some(self.taken), &[]).await?;
        }
        to.send(Piece::End).await.map_err(|_| TransferError::Left)
    }
}

/// A file on its way to a device.
pub(crate) struct Upload {
    to: mpsc::Sender<Piece>,
    done: JoinHandle<Result<(), TransferError>>,
    /// Goes with whoever waits for the end of it.
    _waiting: oneshot::Sender<()>,
}

impl Upload {
    /// Begins it. When it is dropped before its end, the device keeps nothing of it.
    pub(crate) fn begin(
        end: SessionEnd,
        line: LineEnd,
        place: OwnedSemaphorePermit,
        target: Target,
    ) -> Upload {
        let (to, mut pieces) = mpsc::channel(AHEAD_PIECES);
        let (waiting, left) = oneshot::channel::<()>();
        let done = tokio::spawn(async move {
            let _place = place;
            let mut talk = Talk::new(end, line);
            let done = tokio::select! {
                done = upload(&mut talk, &target, &mut pieces) => done,
                // Nothing is ever sent there.
                _ = left => Err(TransferError::Left),
            };
            if let Err(error) = &done {
                talk.note(error);
            }
            talk.close().await;
            done
        });
        Upload { to, done, _waiting: waiting }
    }

    /// Sends what comes next. `false`: it has failed, and [`Upload::finish`] knows why.
    pub(crate) async fn write(&self, bytes: Bytes) -> bool {
        self.to.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// Waits until the device has all of it.
    pub(crate) async fn finish(self) -> Result<(), TransferError> {
        // When it has failed nobody takes this.
        let _ = self.to.send(Piece::End).await;
        self.done.await.unwrap_or(Err(TransferError::Closed(Closing::Gone)))
    }
}

async fn upload(
    talk: &mut Talk,
    target: &Target,
    pieces: &mut mpsc::Receiver<Piece>,
) -> Result<(), TransferError> {
    talk.open().await?;
    let mut fields = vec![("path", Given::Text(&target.path))];
    for (name, value) in [("uid", target.uid), ("gid", target.gid), ("mode", target.mode)] {
        fields.extend(value.map(|value| (name, Given::Number(value.into()))));
    }
    talk.send(FILES, "put_file", None, &frame::map(&fields)).await?;
    let (mut sent, mut acknowledged) = (0, 0);
    // The device says when it is ready.
    talk.acknowledgement(&mut acknowledged, sent).await?;
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            // While nothing comes from the person the device may still say that it has no more room.
            frame = talk.receive() => {
                let frame = frame?;
                talk.acknowledged_by(&frame, &mut acknowledged, sent).await?;
                continue;
            }
        };
        match piece {
            None => return Err(TransferError::Left),
            Some(Piece::End) => break,
            Some(Piece::Bytes(bytes)) => {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    while sent - acknowledged >= WINDOW_BYTES {
                        talk.acknowledgement(&mut acknowledged, sent).await?;
                    }
                    talk.send(FILES, "file_chunk", Some(sent), chunk).await?;
                    sent += chunk.len() as u64;
                }
            }
        }
    }
    talk.send(FILES, "file_chunk", Some(sent), &[]).await?;
    // The end is acknowledged with the whole length, and what is before it with less.
    while !talk.acknowledgement(&mut acknowledged, sent).await? || acknowledged < sent {}
    // The device acknowledges the end before it puts the file into its place. An acknowledgement from here is a mistake that it
    // answers when the file is there, and what it then says about the file shows whether it is.
    talk.send(FILES, "ack", Some(sent), &[]).await?;
    if talk.stat(&target.path).await?.size.is_some_and(|size| size != sent) {
        return Err(TransferError::Lies("the file has another length than what was sent"));
    }
    Ok(())
}

/// A session in which this server is the person.
struct Talk {
    end: SessionEnd,
    line: LineEnd,
    patience: Duration,
    is_open: bool,
}

impl Talk {
    fn new(end: SessionEnd, line: LineEnd) -> Talk {
        let patience = end.board.timing.silence;
        Talk { end, line, patience, is_open: false }
    }

    fn note(&self, error: &TransferError) {
        log::info!("session {} with device {}: {error}", self.end.session, self.end.device);
    }

    async fn send(
        &self,
        proto: u16,
        kind: &str,
        offset: Option<u64>,
        body: &[u8],
    ) -> Result<(), TransferError> {
        let frame = frame::written(proto, kind, &self.end.session, &self.end.user, offset, body);
        let sent = self.end.to_device.send(frame, self.end.board.timing).await;
        sent.map_err(|_| TransferError::Closed(Closing::DeviceGone))
    }

    /// The next frame. What came before the end of the session is still given. May be dropped while it waits.
    async fn receive(&mut self) -> Result<Vec<u8>, TransferError> {
        tokio::select! {
            biased;
            frame = self.line.frames.recv() => frame.ok_or(TransferError::Closed(Closing::Gone)),
            closing = self.line.closing.wait_for(Option::is_some) => {
                let reason = closing.ok().and_then(|reason| *reason).unwrap_or(Closing::Gone);
                Err(TransferError::Closed(reason))
            }
            () = tokio::time::sleep(self.patience) => Err(TransferError::Silent),
        }
    }

    /// The message of a frame, if it is about files; what is about the session is dealt with.
    async fn for_files<'a>(&self, frame: &'a [u8]) -> Result<Option<Message<'a>>, TransferError> {
        let message = frame::message(frame).map_err(|error| TransferError::Closed(Closing::Frame(error)))?;
        if message.proto == u64::from(FILES) {
            return match message.kind {
                "error" => Err(refusal(&message)),
                _ => Ok(Some(message)),
            };
        }
        if message.proto == u64::from(CONTROL) {
            match message.kind {
                "ping" => self.send(CONTROL, "pong", None, &[]).await?,
                "close" => return Err(TransferError::Closed(Closing::DeviceGone)),
                "error" if self.is_open => return Err(refusal(&message)),
                "error" => return Err(TransferError::NotOffered),
                "accept" => return Ok(Some(message)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Asks what the device offers.
    async fn open(&mut self) -> Result<(), TransferError> {
        let body = frame::map(&[("versions", Given::Numbers(&[1]))]);
        self.send(CONTROL, "open", None, &body).await?;
        loop {
            let frame = self.receive().await?;
            let Some(message) = self.for_files(&frame).await? else { continue };
            let offered = Fields::of(message.body).ok().and_then(|fields| fields.numbers("protocols"));
            self.is_open = true;
            return match message.kind {
                "accept" if offered.is_some_and(|all| all.contains(&u64::from(FILES))) => Ok(()),
                "accept" => Err(TransferError::NotOffered),
                _ => Err(TransferError::Lies("a message about files came before the session was open")),
            };
        }
    }

    /// Asks about a file.
    async fn stat(&mut self, path: &str) -> Result<FileInfo, TransferError> {
        self.send(FILES, "stat", None, &frame::map(&[("path", Given::Text(path))])).await?;
        loop {
            let frame = self.receive().await?;
            let message = match self.for_files(&frame).await {
                // It is the answer to an acknowledgement that nobody waits for.
                Err(TransferError::Refused { .. }) if is_about_ack(&frame) => continue,
                message => message?,
            };
            let Some(message) = message.filter(|message| message.kind == "file_info") else { continue };
            let fields = Fields::of(message.body)
                .map_err(|_| TransferError::Lies("what it says about the file cannot be read"))?;
            let number = |name| fields.number(name);
            return Ok(FileInfo {
                size: number("size"),
                uid: number("uid"),
                gid: number("gid"),
                mode: number("mode"),
            });
        }
    }

    /// Waits for the next acknowledgement, or for whatever else comes. Whether it was one.
    async fn acknowledgement(&mut self, acknowledged: &mut u64, sent: u64) -> Result<bool, TransferError> {
        loop {
            let frame = self.receive().await?;
            if self.acknowledged_by(&frame, acknowledged, sent).await? {
                return Ok(true);
            }
        }
    }

    /// What a frame acknowledges. Whether it does.
    async fn acknowledged_by(
        &self,
        frame: &[u8],
        acknowledged: &mut u64,
        sent: u64,
    ) -> Result<bool, TransferError> {
        let Some(message) = self.for_files(frame).await? else { return Ok(false) };
        if message.kind != "ack" {
            return Err(TransferError::Lies("a message that acknowledges nothing came"));
        }
        let offset = message.offset.unwrap_or_default();
        if offset > sent {
            return Err(TransferError::Lies("more is acknowledged than was sent"));
        }
        *acknowledged = offset.max(*acknowledged);
        Ok(true)
    }

    /// Tells the device that nothing more comes: what is not whole it throws away.
    async fn close(self) {
        if self.send(CONTROL, "close", None, &[]).await.is_err() {
            log::debug!("device {} is gone before session {}", self.end.device, self.end.session);
        }
    }
}

/// What a device says with an error.
fn refusal(message: &Message<'_>) -> TransferError {
    let fields = Fields::of(message.body).ok();
    let said = fields.as_ref().and_then(|fields| fields.text("err").or_else(|| fields.text("error")));
    let reason: String = said.unwrap_or("no reason").chars().take(REASON_CHARS).collect();
    let about = fields.as_ref().and_then(|fields| fields.text("msgtype")).unwrap_or_default();
    match reason.contains("no such file or directory") && matches!(about, "stat" | "get_file") {
        true => TransferError::NoSuchFile { reason },
        false => TransferError::Refused { reason },
    }
}

/// Whether it is an error about an acknowledgement.
fn is_about_ack(frame: &[u8]) -> bool {
    let fields = frame::message(frame).ok().and_then(|message| Fields::of(message.body).ok());
    fields.is_some_and(|fields| fields.text("msgtype") == Some("ack"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::{DeviceEnd, Switchboard, Timing};
    use crate::domain::people::permissions::{Pass, need};
    use std::sync::Arc;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn board() -> (Arc<Switchboard>, DeviceEnd, LineEnd) {
        let timing = Timing { ping: PATIENCE, silence: PATIENCE, write: PATIENCE };
        let board = Arc::new(Switchboard::new(timing));
        let (_, claims) = crate::domain::rollout::tests_fleet();
        let (end, line) = board.connect(claims);
        (board, end, line)
    }

    /// The next message to the device: its kind, and its offset.
    async fn next(line: &mut LineEnd, session: &mut String) -> (String, Option<u64>) {
        let frame = line.frames.recv().await.unwrap();
        frame::session_of(&frame).unwrap().clone_into(session);
        let message = frame::message(&frame).unwrap();
        (message.kind.to_owned(), message.offset)
    }

    #[test]
    fn what_nobody_takes_is_not_acknowledged_and_more_than_the_window_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (board, device, mut line) = board();
            let need = need("GET", &["deviceconnect", "devices", "1", "download"]);
            let (end, own) = board.open("1", "ada", Pass { token: String::new(), need }).unwrap();
            let place = board.place_for_file().unwrap();
            let asked = tokio::spawn(download(end, own, place, "/a".to_owned()));
            let mut session = String::new();
            let say = async |session: &str, proto, kind: &str, offset, body: &[u8]| {
                device.take(frame::written(proto, kind, session, "", offset, body)).await.unwrap();
            };
            assert_eq!(next(&mut line, &mut session).await.0, "open");
            let offer = frame::map(&[("protocols", Given::Numbers(&[2]))]);
            say(&session, CONTROL, "accept", None, &offer).await;
            assert_eq!(next(&mut line, &mut session).await.0, "stat");
            say(&session, FILES, "file_info", None, &frame::map(&[("size", Given::Number(1 << 20))])).await;
            assert_eq!(next(&mut line, &mut session).await.0, "get_file");
            let chunk = [7; CHUNK_BYTES];
            for number in 0..20 {
                say(&session, FILES, "file_chunk", Some(number * CHUNK_BYTES as u64), &chunk).await;
            }
            let mut download = asked.await.unwrap().unwrap();
            // Half of it is taken, and that is acknowledged. One piece waits for its taker and counts as taken.
            for _ in 0..9 {
                assert!(matches!(download.pieces.recv().await, Some(Piece::Bytes(_))));
            }
            assert_eq!(next(&mut line, &mut session).await, ("ack".to_owned(), Some(ACK_BYTES)));
            for number in 20..31 {
                say(&session, FILES, "file_chunk", Some(number * CHUNK_BYTES as u64), &chunk).await;
            }
            assert_eq!(next(&mut line, &mut session).await.0, "close");
            while let Some(piece) = download.pieces.recv().await {
                assert!(matches!(piece, Piece::Bytes(_)), "it looks whole");
            }
        });
    }
}
