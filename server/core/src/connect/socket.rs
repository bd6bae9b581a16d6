//! One WebSocket, from its first frame to its last.

use std::fmt;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::recording::Playback;
use super::{Closing, DeviceEnd, LineEnd, SessionEnd, Timing};
use crate::domain::limits;
use crate::model::time::Timestamp;

/// How long the other side may take to hear why it is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is read from a connection at once. Most wait for years and say nothing.
const READ_BYTES: usize = 4096;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whose WebSocket it is.
pub(crate) enum End {
    /// That of a device.
    Device(DeviceEnd),
    /// That of a person.
    Session(SessionEnd),
    /// That of a person who sees a recording.
    Playback(Playback),
}

impl End {
    async fn take(&self, frame: Bytes) -> Result<(), Closing> {
        match self {
            End::Device(device) => device.take(frame.into()).await,
            End::Session(session) => session.take(&frame).await,
            // There is nobody to whom it could go.
            End::Playback(_) => Ok(()),
        }
    }

    /// Until the token of a device ends.
    async fn expired(&self) -> Closing {
        match self {
            End::Device(device) => {
                let left = device.until.0.saturating_sub(Timestamp::now().0);
                tokio::time::sleep(Duration::from_millis(left)).await;
                Closing::Expired
            }
            // Those of people are looked at from outside.
            End::Session(_) | End::Playback(_) => std::future::pending().await,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Device(device) => write!(f, "device {}", device.device),
            End::Session(session) => {
                write!(f, "session {} with device {}", session.session, session.device)
            }
            End::Playback(playback) => write!(f, "the recording of session {}", playback.session()),
        }
    }
}

/// Carries frames until one side ends it.
pub(crate) async fn run(upgraded: Upgraded, end: End, line: LineEnd, timing: Timing) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * limits::FRAME_BYTES)
        .max_message_size(Some(limits::FRAME_BYTES))
        .max_frame_size(Some(limits::FRAME_BYTES));
    let stream = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, mut stream) = socket.split();
    let reason = tokio::select! {
        reason = read(&mut stream, &end, timing.silence) => reason,
        reason = write(&mut sink, line, timing) => reason,
        reason = end.expired() => reason,
    };
    log::info!("{end} ends: {reason}");
    if let End::Session(session) = &end {
        session.stop_shell().await;
    }
    // From here on nobody is told that it is connected.
    drop(end);
    if let Ok(socket) = sink.reunite(stream) {
        // Whoever does not hear it any more is gone.
        let _ = timeout(LAST_WORDS, say_goodbye(socket, reason)).await;
    }
}

/// Takes frames until there is a reason to take no more.
async fn read(stream: &mut SplitStream<Socket>, end: &End, silence: Duration) -> Closing {
    loop {
        let frame = match timeout(silence, stream.next()).await {
            Err(_) => return Closing::Silent,
            Ok(None) => return Closing::Gone,
            Ok(Some(Err(error))) => return reason(&error),
            Ok(Some(Ok(Message::Binary(frame)))) => frame,
            Ok(Some(Ok(Message::Text(_)))) => return Closing::NotBinary,
            Ok(Some(Ok(Message::Close(_)))) => return Closing::Gone,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => continue,
        };
        if let Err(reason) = end.take(frame).await {
            return reason;
        }
    }
}

/// Sends what comes from the other end, and pings, until there is a reason to stop.
async fn write(sink: &mut SplitSink<Socket, Message>, mut line: LineEnd, timing: Timing) -> Closing {
    let mut ping = tokio::time::interval(timing.ping);
    ping.tick().await;
    loop {
        let message = tokio::select! {
            biased;
            closing = line.closing.wait_for(Option::is_some) => {
                return closing.ok().and_then(|reason| *reason).unwrap_or(Closing::Gone);
            }
            frame = line.frames.recv() => match frame {
                Some(frame) => {
                    if let Some(recorder) = &mut line.recorder {
                        recorder.hear(&frame);
                    }
                    Message::Binary(frame.into())
                }
                None => return Closing::Gone,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(timing.write, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return reason(&error),
            Err(_) => return Closing::Slow,
        }
    }
}

fn reason(error: &Error) -> Closing {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Closing::TooLarge,
        Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_) | Error::AttackAttempt => Closing::Protocol,
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => Closing::Gone,
    }
}

/// Says why, and reads on until the other side has closed: a connection that is closed with something unread is reset,
/// and the reason is lost.
async fn say_goodbye(mut socket: Socket, reason: Closing) -> Result<(), Error> {
    let code = match reason {
        Closing::Gone => None,
        Closing::Frame(_) | Closing::Protocol => Some(CloseCode::Protocol),
        Closing::NotBinary => Some(CloseCode::Unsupported),
        Closing::TooLarge => Some(CloseCode::Size),
        Closing::Slow
        | Closing::Silent
        | Closing::Refused
        | Closing::Expired
        | Closing::Ended
        | Closing::NotAllowed => Some(CloseCode::Policy),
        Closing::Replaced | Closing::Played => Some(CloseCode::Normal),
        Closing::DeviceGone | Closing::Stopping => Some(CloseCode::Away),
    };
    let frame = code.map(|code| CloseFrame { code, reason: reason.to_string().into() });
    let said = socket.close(frame).await;
    let stream = socket.get_mut();
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    said
}
