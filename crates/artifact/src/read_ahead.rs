//! Reads ahead in a thread of its own, so that the slowest of network, decoder and disk sets the pace and not their
//! sum.
//!
//! Memory is four blocks of 256 KiB whatever the source delivers: the buffers travel in a ring, filled by the thread
//! and handed back by the reader. Errors arrive in order, behind the bytes that were read before them. Nothing waits
//! for the thread: dropping the reader lets it run into a closed channel and end on its own.

use crate::limits::Reading;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes in one block: large enough that a hand-over costs nothing per byte, small enough for four of them.
const BLOCK_BYTES: usize = 256 * 1024;
/// One being filled, one being read, two between them.
const BLOCKS: usize = 4;

/// What is read in blocks, whatever it comes from and whoever fills them.
pub(crate) type Buffered = Box<dyn BufRead + Send>;

/// `source` in blocks, filled as `reading` says.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn buffered<R: Read + Send + 'static>(source: R, reading: Reading) -> io::Result<Buffered> {
    Ok(match reading {
        Reading::Ahead => Box::new(ReadAhead::new(source)?),
        Reading::InTurn => Box::new(in_turn(source)),
    })
}

/// Blocks of the same size, filled by whoever uses them.
pub(crate) fn in_turn<R: Read>(source: R) -> BufReader<Persistent<R>> {
    BufReader::with_capacity(BLOCK_BYTES, Persistent(source))
}

/// Reads again where a signal came in between, as the thread does.
pub(crate) struct Persistent<R>(R);

impl<R: Read> Read for Persistent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// A reader that a thread fills ahead of its use.
pub(crate) struct ReadAhead {
    filled: Receiver<Message>,
    empty: Sender<Vec<u8>>,
    block: Vec<u8>,
    length: usize,
    position: usize,
    end: Option<End>,
}

enum Message {
    Block(Vec<u8>, usize),
    End,
    Failed(io::Error),
}

#[derive(Clone, Copy)]
enum End {
    Clean,
    Failed,
}

impl ReadAhead {
    /// Starts to read `source`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn new<R: Read + Send + 'static>(source: R) -> io::Result<ReadAhead> {
        let (to_reader, filled) = sync_channel(BLOCKS);
        let (empty, from_reader) = channel();
        for _ in 0..BLOCKS {
            // The receiver is alive in this function; a buffer grows when it is first filled.
            let _ = empty.send(Vec::new());
        }
        std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || fill(source, &to_reader, &from_reader))?;
        Ok(ReadAhead { filled, empty, block: Vec::new(), length: 0, position: 0, end: None })
    }

    fn next_block(&mut self) -> io::Result<()> {
        match self.end {
            Some(End::Clean) => return Ok(()),
            Some(End::Failed) => return Err(io::Error::other("read after a failed read")),
            None => {}
        }
        let used = std::mem::take(&mut self.block);
        (self.length, self.position) = (0, 0);
        if !used.is_empty() {
            // Fails only when the thread has ended, and then it needs no buffer.
            let _ = self.empty.send(used);
        }
        match self.filled.recv() {
            Ok(Message::Block(block, length)) => {
                (self.block, self.length) = (block, length);
                Ok(())
            }
            Ok(Message::End) => {
                self.end = Some(End::Clean);
                Ok(())
            }
            Ok(Message::Failed(error)) => {
                self.end = Some(End::Failed);
                Err(error)
            }
            Err(_) => {
                // Only a panic of the source ends the thread without a message. It must not look like the end.
                self.end = Some(End::Failed);
                Err(io::Error::other("the reading thread ended without a result"))
            }
        }
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.length {
            self.next_block()?;
        }
        Ok(self.block.get(self.position..self.length).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = self.length.min(self.position.saturating_add(count));
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The thread. It ends with the source, with its first error, or when the reader is gone.
fn fill(mut source: impl Read, filled: &SyncSender<Message>, empty: &Receiver<Vec<u8>>) {
    while let Ok(mut block) = empty.recv() {
        block.resize(BLOCK_BYTES, 0);
        let mut length = 0;
        let end = loop {
            let Some(rest) = block.get_mut(length..).filter(|rest| !rest.is_empty()) else { break None };
            match source.read(rest) {
                Ok(0) => break Some(Message::End),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Message::Failed(error)),
            }
        };
        if length > 0 && filled.send(Message::Block(block, length)).is_err() {
            return;
        }
        if let Some(end) = end {
            // Fails only when the reader is gone.
            let _ = filled.send(end);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Reads everything ahead of an error at `fails_at`, or to the end.
    struct Scripted {
        position: usize,
        length: usize,
        fails: bool,
        step: usize,
    }

    impl Read for Scripted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.position == self.length && self.fails {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let count = self.step.min(buffer.len()).min(self.length - self.position);
            for (at, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = ((self.position + at) % 251) as u8;
            }
            self.position += count;
            Ok(count)
        }
    }

    fn check(length: usize, step: usize, fails: bool) {
        let mut reader = ReadAhead::new(Scripted { position: 0, length, fails, step }).unwrap();
        let mut got = Vec::new();
        let result = reader.read_to_end(&mut got);
        assert_eq!(got.len(), length);
        assert!(got.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        match fails {
            true => {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
                assert!(reader.read(&mut [0]).is_err(), "an error must not turn into an end");
            }
            false => assert_eq!(reader.read(&mut [0]).unwrap(), 0),
        }
    }

    #[test]
    fn bytes_and_errors_arrive_in_order_for_every_block_boundary() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 6 * BLOCK_BYTES + 7] {
            for step in [1000, BLOCK_BYTES, usize::MAX] {
                check(length, step, false);
                check(length, step, true);
            }
        }
    }

    #[test]
    fn dropping_it_neither_blocks_nor_leaves_the_thread_reading() {
        struct Endless {
            _alive: mpsc::Sender<()>,
        }
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        let (alive, watch) = mpsc::channel();
        drop(ReadAhead::new(Endless { _alive: alive }).unwrap());
        // The sender is dropped together with the source, which is when the thread has ended.
        assert!(watch.recv().is_err());
    }

    #[test]
    fn it_never_reads_more_ahead_than_its_ring() {
        struct Counting(std::sync::Arc<std::sync::atomic::AtomicUsize>, mpsc::Sender<()>);
        impl Read for Counting {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let before = self.0.fetch_add(buffer.len(), std::sync::atomic::Ordering::SeqCst);
                if before + buffer.len() == BLOCKS * BLOCK_BYTES {
                    self.1.send(()).unwrap();
                }
                Ok(buffer.len())
            }
        }
        let count = std::sync::Arc::default();
        let (full, wait) = mpsc::channel();
        let reader = ReadAhead::new(Counting(std::sync::Arc::clone(&count), full)).unwrap();
        wait.recv().unwrap();
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), BLOCKS * BLOCK_BYTES);
        drop(reader);
    }

    #[test]
    fn a_panicking_source_is_an_error_and_not_an_end() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                std::panic::resume_unwind(Box::new(()))
            }
        }
        assert!(ReadAhead::new(Panics).unwrap().read(&mut [0]).is_err());
    }
}
