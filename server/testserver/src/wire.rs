//! A connection whose answers can be cut, held up, slowed down, or replaced.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What is done to the bytes of the next answer.
#[derive(Default)]
pub(crate) enum WireFault {
    #[default]
    Nothing,
    /// Not one byte.
    Close,
    /// Close after that many bytes of the body.
    CutBody { left: u64 },
    /// Hold up after that many bytes of the body.
    StallBody { left: u64, pause: Option<Duration> },
    /// Hold up after that many bytes of the body while `is_held`.
    HoldBody { left: u64, is_held: Box<dyn Fn() -> bool + Send> },
    /// That many bytes in a second.
    Throttle { bytes_per_second: u64 },
    /// These bytes, and then close.
    Replace { bytes: Vec<u8> },
    /// Wait before the first byte.
    SlowHead { pause: Duration },
}

/// The fault of the answer that is being written. Clones are about the same connection.
#[derive(Clone, Default)]
pub(crate) struct CurrentFault {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: WireFault,
    /// How much of the empty line behind the head has gone out; `None` when the body has begun.
    head_end: Option<usize>,
}

impl CurrentFault {
    /// To be called before an answer is given: how much is written for it is counted from here.
    pub(crate) fn set(&self, fault: WireFault) {
        *self.lock() = State { fault, head_end: Some(0) };
    }

    /// Whether a fault is at work.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self.lock().fault, WireFault::Nothing)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do with a buffer.
enum Plan {
    Write(usize),
    Wait(Option<Duration>),
    Send(Vec<u8>),
    Close,
}

/// How often one that holds looks whether it has to.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const HEAD_END: &[u8] = b"\r\n\r\n";

impl State {
    fn plan(&mut self, buffer: &[u8]) -> Plan {
        if let WireFault::Nothing = self.fault {
            return Plan::Write(buffer.len());
        }
        let head = self.head_bytes(buffer);
        let allowed =
            |left: u64| head.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)).min(buffer.len());
        match &mut self.fault {
            WireFault::Nothing => Plan::Write(buffer.len()),
            WireFault::Close => Plan::Close,
            WireFault::CutBody { left } => match allowed(*left) {
                0 => Plan::Close,
                count => Plan::Write(count),
            },
            WireFault::StallBody { left, pause } => match allowed(*left) {
                0 => {
                    let pause = *pause;
                    if pause.is_some() {
                        self.fault = WireFault::Nothing;
                    }
                    Plan::Wait(pause)
                }
                count => Plan::Write(count),
            },
            WireFault::HoldBody { left, is_held } => match allowed(*left) {
                0 if is_held() => Plan::Wait(Some(LOOK_AGAIN)),
                0 => {
                    self.fault = WireFault::Nothing;
                    Plan::Write(buffer.len())
                }
                count => Plan::Write(count),
            },
            WireFault::Throttle { bytes_per_second } => {
                // Ten pieces in a second.
                let piece = usize::try_from(*bytes_per_second / 10).unwrap_or(usize::MAX).max(1);
                Plan::Write(piece.min(buffer.len()))
            }
            WireFault::Replace { bytes } => {
                let bytes = std::mem::take(bytes);
                if bytes.is_empty() { Plan::Close } else { Plan::Send(bytes) }
            }
            WireFault::SlowHead { pause } => {
                let pause = *pause;
                self.fault = WireFault::Nothing;
                Plan::Wait(Some(pause))
            }
        }
    }

    /// How many bytes at the start of `buffer` belong to the head.
    fn head_bytes(&self, buffer: &[u8]) -> usize {
        let Some(mut matched) = self.head_end else { return 0 };
        for (index, byte) in buffer.iter().enumerate() {
            matched = next_match(matched, *byte);
            if matched == HEAD_END.len() {
                return index + 1;
            }
        }
        buffer.len()
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if let WireFault::Nothing = self.fault {
            return;
        }
        let head = self.head_bytes(bytes);
        if let Some(matched) = self.head_end {
            let matched = bytes[..head].iter().fold(matched, |matched, byte| next_match(matched, *byte));
            self.head_end = (matched < HEAD_END.len()).then_some(matched);
        }
        let body = (bytes.len() - head) as u64;
        match &mut self.fault {
            WireFault::CutBody { left }
            | WireFault::StallBody { left, .. }
            | WireFault::HoldBody { left, .. } => *left = left.saturating_sub(body),
            WireFault::Nothing
            | WireFault::Close
            | WireFault::Throttle { .. }
            | WireFault::Replace { .. }
            | WireFault::SlowHead { .. } => {}
        }
    }
}

fn next_match(matched: usize, byte: u8) -> usize {
    match byte {
        _ if HEAD_END.get(matched) == Some(&byte) => matched + 1,
        b'\r' => 1,
        _ => 0,
    }
}

/// A stream that does what its [`CurrentFault`] says.
pub(crate) struct FaultyStream<S> {
    stream: S,
    current: CurrentFault,
    waiting: Option<Pin<Box<Sleep>>>,
    /// A pause without an end.
    for_ever: bool,
}

impl<S> FaultyStream<S> {
    pub(crate) fn new(stream: S, current: CurrentFault) -> FaultyStream<S> {
        FaultyStream { stream, current, waiting: None, for_ever: false }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed by a fault")
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultyStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.for_ever {
                return Poll::Pending;
            }
            if let Some(waiting) = &mut self.waiting {
                match waiting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.waiting = None,
                }
            }
            let current = self.current.clone();
            let plan = current.lock().plan(buffer);
            match plan {
                Plan::Write(count) => {
                    let part = &buffer[..count];
                    let written = match Pin::new(&mut self.stream).poll_write(cx, part) {
                        Poll::Ready(Ok(written)) => written,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    };
                    let mut state = current.lock();
                    state.wrote(&part[..written]);
                    if let WireFault::Throttle { bytes_per_second } = state.fault {
                        let seconds = written as f64 / bytes_per_second.max(1) as f64;
                        let until = Instant::now() + Duration::from_secs_f64(seconds);
                        self.waiting = Some(Box::pin(tokio::time::sleep_until(until)));
                    }
                    return Poll::Ready(Ok(written));
                }
                Plan::Wait(Some(pause)) => self.waiting = Some(Box::pin(tokio::time::sleep(pause))),
                Plan::Wait(None) => self.for_ever = true,
                Plan::Send(mut bytes) => match Pin::new(&mut self.stream).poll_write(cx, &bytes) {
                    Poll::Ready(Ok(written)) => {
                        bytes.drain(..written);
                        current.lock().fault = WireFault::Replace { bytes };
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        current.lock().fault = WireFault::Replace { bytes };
                        return Poll::Pending;
                    }
                },
                Plan::Close => return Poll::Ready(Err(closed())),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::{CurrentFault, Plan, WireFault};

    /// How much of `buffers` may go out when the body is cut behind `left` bytes.
    fn check(left: u64, buffers: &[&[u8]], sent: usize) {
        let current = CurrentFault::default();
        current.set(WireFault::CutBody { left });
        let mut state = current.lock();
        let mut count = 0;
        for buffer in buffers {
            let mut rest = *buffer;
            while let (false, Plan::Write(allowed)) = (rest.is_empty(), state.plan(rest)) {
                state.wrote(&rest[..allowed]);
                rest = &rest[allowed..];
                count += allowed;
            }
        }
        assert_eq!(count, sent);
    }

    #[test]
    fn bytes_of_the_body_are_counted_behind_the_head() {
        check(3, &[b"HTTP/1.1 200 OK\r\n\r\nabcdef"], 22);
        check(3, &[b"HTTP\r\n", b"\r", b"\nab", b"cdef"], 11);
        check(9, &[b"H\r\n\r\r\n\r\nabc"], 11);
    }
}
