//! Artifacts by place: a source that can be asked for its bytes from any of them on, and what is read from it when.
//!
//! Head first: the header and the start of the payload come out of a piece of 64 KiB, read in turn. Nothing more is asked
//! for before somebody wants the payload's bytes; then the rest is, from where the head ended, and read ahead. Whoever wants
//! to jump has the choice until then, and nothing was transferred in vain.

use crate::limits::Reading;
use crate::read_ahead::{self, Buffered};
use crate::{ArtifactError, read::read_full};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is asked for first: the headers of nearly all artifacts, and the beginning of the payload.
pub const HEAD_BYTES: u64 = 64 * 1024;

/// Less than this is not worth a flush of a slot and of the record.
const NOTE_EVERY_BYTES: u64 = 256 * 1024;

/// Where an artifact comes from, by place.
///
/// # Contract
/// The content does not change between two readers, or the later one fails. The reader before the last one need not deliver
/// anything more, and one that is dropped costs no more than was asked of it.
pub trait Places: Send {
    /// A reader from `offset` to `end` (exclusive; `None` for all there is).
    ///
    /// # Errors
    /// When that cannot be had. An error may also come with the first read.
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>>;

    /// Whether going on elsewhere works without transferring what lies between; known after the first bytes.
    fn can_jump(&self) -> bool;

    /// Length of the whole, where it is known.
    fn total_bytes(&self) -> Option<u64>;

    /// How many bytes were transferred so far; `None` where reading costs nothing.
    fn received_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether so many bytes more may be transferred. Asked before the first of them.
    ///
    /// # Errors
    /// When they may not.
    fn check_affordable(&self, _more_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// How many bytes have to come before it is worth noting how far it is; `None` where reading costs nothing, as from a
    /// file of this device.
    fn note_every(&self) -> Option<u64> {
        Some(NOTE_EVERY_BYTES)
    }
}

/// An artifact's bytes, whatever they come from.
pub enum Supply {
    /// Once, from the first to the last.
    Stream(Box<dyn Read + Send>),
    /// From any place on.
    Places(Box<dyn Places>),
}

impl<R: Read + Send + 'static> From<R> for Supply {
    fn from(reader: R) -> Supply {
        Supply::Stream(Box::new(reader))
    }
}

/// The places that all readers of one artifact share.
#[derive(Clone)]
pub(crate) struct Origin {
    shared: Arc<Shared>,
    reading: Reading,
}

struct Shared {
    turns: Mutex<Turns>,
    /// Somebody wants the payload as it comes: what follows is asked for and read ahead.
    decided: AtomicBool,
}

struct Turns {
    places: Box<dyn Places>,
    /// Which reader was opened last.
    turn: u64,
}

impl Origin {
    pub(crate) fn new(places: Box<dyn Places>, reading: Reading) -> Origin {
        let turns = Mutex::new(Turns { places, turn: 0 });
        Origin { shared: Arc::new(Shared { turns, decided: AtomicBool::new(false) }), reading }
    }

    /// The bytes from `position` on.
    pub(crate) fn reader_at(&self, position: u64) -> Placed {
        Placed { origin: self.clone(), position, buffer: Vec::new(), used: 0, piece: Piece::None }
    }

    /// From here on everything is wanted.
    pub(crate) fn decide(&self) {
        self.shared.decided.store(true, Ordering::Release);
    }

    fn is_decided(&self) -> bool {
        self.shared.decided.load(Ordering::Acquire)
    }

    pub(crate) fn can_jump(&self) -> bool {
        self.turns().places.can_jump()
    }

    pub(crate) fn received_bytes(&self) -> Option<u64> {
        self.turns().places.received_bytes()
    }

    pub(crate) fn note_every(&self) -> Option<u64> {
        self.turns().places.note_every()
    }

    pub(crate) fn open_at(&self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        Ok(self.open_turn(offset, end)?.1)
    }

    fn open_turn(&self, offset: u64, end: Option<u64>) -> io::Result<(u64, Box<dyn Read + Send>)> {
        let mut turns = self.turns();
        turns.turn += 1;
        let reader = turns.places.open_at(offset, end)?;
        Ok((turns.turn, reader))
    }

    fn is_last(&self, turn: u64) -> bool {
        self.turns().turn == turn
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `decoder` gives, read ahead as soon as the payload is wanted.
    pub(crate) fn late<R: Read + Send + 'static>(&self, decoder: R) -> Late<R> {
        Late {
            origin: self.clone(),
            state: Decoding::InTurn(BufReader::with_capacity(IN_TURN_BYTES, decoder)),
        }
    }
}

/// What is taken of a decoder at a time while only the head of the payload's archive is wanted.
const IN_TURN_BYTES: usize = 4096;

/// The outermost reader of an artifact by place.
pub(crate) struct Placed {
    origin: Origin,
    position: u64,
    buffer: Vec<u8>,
    used: usize,
    piece: Piece,
}

enum Piece {
    None,
    /// Up to `end`, while nobody has decided.
    Head {
        reader: Box<dyn Read + Send>,
        turn: u64,
        end: u64,
    },
    /// All that follows.
    Rest(Buffered),
    Ended,
}

impl Placed {
    /// Makes sure that there is something to give, or that it has ended.
    fn refill(&mut self) -> io::Result<()> {
        loop {
            match &mut self.piece {
                Piece::Rest(_) | Piece::Ended => return Ok(()),
                // What was asked for is still read here, whoever has decided meanwhile.
                Piece::Head { reader, turn, end } if self.origin.is_last(*turn) => {
                    let most = usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX);
                    self.buffer.resize(most, 0);
                    self.used = 0;
                    let count = read_full(reader, &mut self.buffer).map_err(ArtifactError::into_io)?;
                    self.buffer.truncate(count);
                    if count > 0 {
                        return Ok(());
                    }
                    self.piece = if self.position < *end { Piece::Ended } else { Piece::None };
                }
                Piece::Head { .. } => self.piece = Piece::None,
                Piece::None if self.origin.is_decided() => {
                    let rest = self.origin.open_at(self.position, None)?;
                    self.buffer = Vec::new();
                    self.used = 0;
                    self.piece = Piece::Rest(read_ahead::buffered(rest, self.origin.reading)?);
                }
                Piece::None => {
                    let end = self.position.saturating_mul(2).max(HEAD_BYTES);
                    let (turn, reader) = self.origin.open_turn(self.position, Some(end))?;
                    self.piece = Piece::Head { reader, turn, end };
                }
            }
        }
    }
}

impl BufRead for Placed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used >= self.buffer.len() {
            self.refill()?;
        }
        match &mut self.piece {
            Piece::Rest(rest) => rest.fill_buf(),
            Piece::None | Piece::Head { .. } | Piece::Ended => {
                Ok(self.buffer.get(self.used..).unwrap_or_default())
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
        match &mut self.piece {
            Piece::Rest(rest) => rest.consume(count),
            Piece::None | Piece::Head { .. } | Piece::Ended => self.used += count,
        }
    }
}

impl Read for Placed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// A decoder that gets a thread of its own only when somebody wants the payload.
pub(crate) struct Late<R> {
    origin: Origin,
    state: Decoding<R>,
}

enum Decoding<R> {
    InTurn(BufReader<R>),
    Ahead(Buffered),
    Failed,
}

impl<R: Read + Send + 'static> BufRead for Late<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.origin.is_decided() && matches!(self.state, Decoding::InTurn(_)) {
            if let Decoding::InTurn(decoder) = std::mem::replace(&mut self.state, Decoding::Failed) {
                self.state = Decoding::Ahead(read_ahead::buffered(decoder, self.origin.reading)?);
            }
        }
        match &mut self.state {
            Decoding::InTurn(decoder) => decoder.fill_buf(),
            Decoding::Ahead(decoder) => decoder.fill_buf(),
            Decoding::Failed => Err(ArtifactError::AfterFailure.into_io()),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.state {
            Decoding::InTurn(decoder) => decoder.consume(count),
            Decoding::Ahead(decoder) => decoder.consume(count),
            Decoding::Failed => {}
        }
    }
}

impl<R: Read + Send + 'static> Read for Late<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The data member as it is stored, by place: for a payload of which only some parts are wanted.
///
/// Nothing read from it was compared with a checksum. A reader opened here ends the one before, that of the payload file
/// included where its bytes were asked for already.
#[derive(Clone)]
pub struct Member {
    origin: Origin,
    at: u64,
    length: u64,
}

impl Member {
    pub(crate) fn new(origin: &Origin, at: u64, length: u64) -> Member {
        Member { origin: origin.clone(), at, length }
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty)] // An empty one is no archive, and nobody has asked.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether so many bytes more may be transferred: for whoever has a plan of several requests.
    ///
    /// # Errors
    /// When they may not.
    pub fn check_affordable(&self, more_bytes: u64) -> io::Result<()> {
        self.origin.turns().places.check_affordable(more_bytes)
    }

    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// When it ends before, or cannot be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.open_at(offset, end)?.read_exact(buffer)
    }

    /// A reader from `offset` to `end` (exclusive).
    ///
    /// # Errors
    /// When the member ends before, or cannot be read.
    pub fn open_at(&self, offset: u64, end: u64) -> io::Result<Box<dyn Read + Send>> {
        if offset > end || end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.origin.open_at(self.at + offset, Some(self.at + end))
    }
}
