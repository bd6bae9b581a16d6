//! Raw flash, as its driver shows it: whole erase blocks become ones, and writing turns ones into zeros.
//!
//! The steps are on the medium in the order in which they were taken, and may be lost from the newest on until a sync:
//! a driver that returns when the flash is done, as those of Linux do, loses nothing then, so this is stricter. A write
//! reads the blocks it touches, erases each and programs it whole; a power cut after the erase loses what else was in the
//! block.
//!
//! # What stops half-way
//! - An erase: one half of the block is erased and the other is not, or every byte has some of its bits erased, or holds
//!   anything.
//! - Programming, which goes from front to back: so many words are there, the next one in part of its bits or not at all,
//!   the rest is erased. The word of NAND flash is a page.
//!
//! A page of NAND flash whose checksum is wrong is read all the same: Linux hands out what it holds.
//!
//! Not here: bad blocks, bits that read differently from one time to the next, a cut that changes one byte of a block and
//! no other.

use std::io;
use std::ops::Range;

use client_core::storage::Medium;

use super::disk::Tear;
use super::faults::Fault;
use super::medium::{Model, choose_progress, garble};
use super::world::{Limits, Trace};
use crate::choice::{Choices, Mixer};

/// What kind of flash it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashKind {
    /// A byte can be written more than once, as long as bits are only cleared.
    Nor,
    /// A page is written once after each erase.
    Nand,
}

/// The sizes of a flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashGeometry {
    /// What kind of flash it is.
    pub kind: FlashKind,
    /// Bytes that are erased together.
    pub erase_bytes: usize,
    /// Bytes that are programmed together: a word of NOR flash, a page of NAND flash.
    pub write_bytes: usize,
}

impl FlashGeometry {
    /// NOR flash with erase blocks of this size, programmed in words of four bytes.
    pub const fn nor(erase_bytes: usize) -> FlashGeometry {
        FlashGeometry { kind: FlashKind::Nor, erase_bytes, write_bytes: 4 }
    }

    /// NAND flash with erase blocks of this size and pages of 512 bytes.
    pub const fn nand(erase_bytes: usize) -> FlashGeometry {
        FlashGeometry { kind: FlashKind::Nand, erase_bytes, write_bytes: 512 }
    }

    fn block(self, index: usize) -> Range<usize> {
        index * self.erase_bytes..(index + 1) * self.erase_bytes
    }
}

/// Most words of a program at each of which it is stopped; of more than that these are taken: the first two, the one in
/// the middle and the last.
const STOPS: usize = 16;

#[derive(Clone)]
pub(super) struct Flash {
    geometry: FlashGeometry,
    live: Cells,
    durable: Cells,
    pending: Vec<Step>,
}

/// What the flash holds.
#[derive(Clone)]
struct Cells(Vec<u8>);

/// What a driver can have done.
#[derive(Clone, Debug)]
enum Step {
    Erase { block: usize },
    Program { start: usize, data: Vec<u8> },
}

/// How a step stops half-way.
#[derive(Clone, Copy, Debug)]
enum Stop {
    FirstHalfErased,
    SecondHalfErased,
    SomeBitsErased,
    /// Every byte holds anything.
    Garbled,
    /// So many words are there.
    After(usize),
    /// And of the next one some bits.
    Within(usize),
}

/// Bits that are done when a byte is done in part.
const SOME_BITS: u8 = 0b1010_0110;

impl Cells {
    /// Ones become zeros, and never the other way round.
    fn program(&mut self, start: usize, data: &[u8]) {
        for (cell, new) in self.0[start..].iter_mut().zip(data) {
            *cell &= new;
        }
    }

    fn take(&mut self, geometry: FlashGeometry, step: &Step) {
        match step {
            Step::Erase { block } => self.0[geometry.block(*block)].fill(0xff),
            Step::Program { start, data } => self.program(*start, data),
        }
    }

    /// Takes a step up to where it stops.
    fn begin(&mut self, geometry: FlashGeometry, step: &Step, stop: Stop) {
        match step {
            Step::Erase { block } => self.begin_erase(geometry, geometry.block(*block), stop),
            Step::Program { start, data } => self.begin_program(geometry, *start, data, stop),
        }
    }

    fn begin_erase(&mut self, geometry: FlashGeometry, range: Range<usize>, stop: Stop) {
        let middle = range.start + geometry.erase_bytes / 2;
        match stop {
            Stop::FirstHalfErased => self.0[range.start..middle].fill(0xff),
            Stop::SecondHalfErased => self.0[middle..range.end].fill(0xff),
            Stop::SomeBitsErased => self.0[range].iter_mut().for_each(|byte| *byte |= SOME_BITS),
            Stop::Garbled => garble(&mut self.0[range.clone()], range.start),
            Stop::After(_) | Stop::Within(_) => unreachable!("an erase has no words"),
        }
    }

    fn begin_program(&mut self, geometry: FlashGeometry, start: usize, data: &[u8], stop: Stop) {
        let word = geometry.write_bytes;
        let end_of = |words: usize| data.len().min(words * word);
        match stop {
            Stop::After(words) => self.program(start, &data[..end_of(words)]),
            Stop::Within(words) => {
                let part = end_of(words)..end_of(words + 1);
                let in_part: Vec<u8> = data[part.clone()].iter().map(|byte| byte | SOME_BITS).collect();
                self.program(start, &data[..part.start]);
                self.program(start + part.start, &in_part);
            }
            Stop::FirstHalfErased | Stop::SecondHalfErased | Stop::SomeBitsErased | Stop::Garbled => {
                unreachable!("programming erases nothing")
            }
        }
    }
}

impl Flash {
    /// # Panics
    /// When the content is not whole blocks, or a block is not whole words.
    pub(super) fn new(geometry: FlashGeometry, content: Vec<u8>) -> Flash {
        assert!(content.len() % geometry.erase_bytes == 0, "flash has whole blocks");
        assert!(geometry.erase_bytes % geometry.write_bytes == 0, "a block has whole words");
        let cells = Cells(content);
        Flash { geometry, live: cells.clone(), durable: cells, pending: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        self.live.take(self.geometry, &step);
        self.pending.push(step);
    }

    /// The part of a write that lies in one block: what else is there is read, and all of it written again.
    fn rewrite(&mut self, block: usize, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()> {
        let range = self.geometry.block(block);
        let mut content = vec![0; range.len()];
        if data.len() < range.len() {
            content.copy_from_slice(self.read(range.clone())?);
        }
        content[start - range.start..][..data.len()].copy_from_slice(data);
        self.take(Step::Erase { block });
        match fate {
            Some(Fault::LostWrite) => return Ok(()),
            Some(Fault::CorruptWrite) => garble(&mut content[..self.geometry.write_bytes], block),
            Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) | None => {}
        }
        self.take(Step::Program { start: range.start, data: content });
        Ok(())
    }

    /// In which ways a step may stop half-way.
    fn stops(&self, step: &Step, tears: &[Tear]) -> Vec<Stop> {
        if tears.is_empty() {
            return Vec::new();
        }
        match step {
            Step::Erase { .. } => {
                let mut stops = vec![Stop::FirstHalfErased, Stop::SecondHalfErased, Stop::SomeBitsErased];
                stops.extend(tears.contains(&Tear::Garbage).then_some(Stop::Garbled));
                stops
            }
            Step::Program { data, .. } => {
                let words = data.len().div_ceil(self.geometry.write_bytes);
                let mut at: Vec<usize> = (0..words).collect();
                if words > STOPS {
                    at.retain(|word| [0, 1, words / 2, words - 1].contains(word));
                }
                // Before the first word is the moment before the step.
                let whole = at.iter().filter(|word| **word > 0).map(|word| Stop::After(*word));
                whole.chain(at.iter().map(|word| Stop::Within(*word))).collect()
            }
        }
    }
}

impl Model for Flash {
    fn medium(&self) -> Medium {
        match self.geometry.kind {
            FlashKind::Nor => Medium::NorFlash,
            FlashKind::Nand => Medium::NandFlash,
        }
    }

    fn len(&self) -> usize {
        self.live.0.len()
    }

    fn read(&self, range: Range<usize>) -> io::Result<&[u8]> {
        Ok(&self.live.0[range])
    }

    fn write(&mut self, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()> {
        let (mut at, mut rest, mut fate) = (start, data, fate);
        while !rest.is_empty() {
            let block = at / self.geometry.erase_bytes;
            let (part, after) = rest.split_at(rest.len().min(self.geometry.block(block).end - at));
            self.rewrite(block, at, part, fate.take())?;
            (at, rest) = (at + part.len(), after);
        }
        Ok(())
    }

    fn clear_bits(&mut self, start: usize, value: u8, fate: Option<Fault>) -> io::Result<()> {
        match (self.geometry.kind, fate) {
            (FlashKind::Nand, _) => self.write(start, &[value], fate),
            (FlashKind::Nor, Some(Fault::LostWrite | Fault::CorruptWrite)) => Ok(()),
            (FlashKind::Nor, Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) | None) => {
                self.take(Step::Program { start, data: vec![value] });
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        self.pending.clear();
        self.durable = self.live.clone();
    }

    fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn decide(&mut self, name: &str, choices: &mut Choices, limits: &Limits, trace: &mut Trace) {
        let pending = std::mem::take(&mut self.pending);
        let mut stops: Vec<_> = pending.iter().map(|step| self.stops(step, &limits.tears)).collect();
        if stops.iter().map(Vec::len).sum::<usize>() > limits.images {
            stops.iter_mut().rev().skip(1).for_each(Vec::clear);
        }
        let ways: Vec<usize> = stops.iter().map(Vec::len).collect();
        let (happened, stopped) = choose_progress(choices, &ways);
        for step in &pending[..happened] {
            self.durable.take(self.geometry, step);
        }
        let stop = stopped.map(|way| stops[happened][way]);
        if let Some(stop) = stop {
            self.durable.begin(self.geometry, &pending[happened], stop);
        }
        trace.note(|| format!("  {name}: {happened} of {} steps happened, then {stop:?}", pending.len()));
        self.live = self.durable.clone();
    }

    fn live(&self) -> Vec<u8> {
        self.live.0.clone()
    }

    fn durable(&self) -> Vec<u8> {
        self.durable.0.clone()
    }

    fn hash(&self, hash: &mut Mixer) {
        hash.bytes(&self.durable.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BLOCK: usize = 64;

    fn nor() -> Flash {
        Flash::new(FlashGeometry::nor(BLOCK), vec![0x11; 2 * BLOCK])
    }

    /// Everything that a cut may leave after `act`.
    fn left(flash: &Flash, act: impl Fn(&mut Flash)) -> Vec<Flash> {
        let (mut choices, mut all) = (Choices::exhaustive(), Vec::new());
        loop {
            let mut flash = flash.clone();
            act(&mut flash);
            flash.decide("flash", &mut choices, &Limits::default(), &mut Trace::default());
            all.push(flash);
            if !choices.advance() {
                return all;
            }
        }
    }

    #[test]
    fn a_write_erases_its_block_keeps_the_rest_of_it_and_leaves_the_others_alone() {
        let mut flash = nor();
        flash.write(4, &[0x22; 4], None).unwrap();
        let mut expected = vec![0x11; 2 * BLOCK];
        expected[4..8].fill(0x22);
        assert_eq!(flash.live(), expected);
        assert_eq!(flash.durable(), [0x11; 2 * BLOCK]);
        flash.flush();
        assert_eq!(flash.durable(), expected);
    }

    #[test]
    fn bits_are_cleared_without_an_erase_and_never_set() {
        let mut flash = nor();
        flash.clear_bits(3, 0xfe, None).unwrap();
        assert_eq!(flash.live()[..4], [0x11, 0x11, 0x11, 0x10]);
    }

    #[test]
    fn a_cut_in_a_write_leaves_the_block_old_half_erased_erased_half_written_or_new() {
        let all = left(&nor(), |flash| flash.write(0, &[0x22; BLOCK], None).unwrap());
        let images: BTreeSet<Vec<u8>> = all.iter().map(|flash| flash.live()[..BLOCK].to_vec()).collect();
        let halves = |first: u8, second: u8| [[first; BLOCK / 2], [second; BLOCK / 2]].concat();
        for expected in [
            halves(0x11, 0x11),
            halves(0xff, 0x11),
            halves(0x11, 0xff),
            halves(0x11 | SOME_BITS, 0x11 | SOME_BITS),
            halves(0xff, 0xff),
            halves(0x22, 0xff),
            halves(0x22, 0x22),
        ] {
            assert!(images.contains(&expected), "{expected:x?}");
        }
        let torn_word = |image: &Vec<u8>| image[..8] == [0x22, 0x22, 0x22, 0x22, 0xa6, 0xa6, 0xa6, 0xa6];
        assert!(images.iter().any(torn_word), "{images:x?}");
        assert!(all.iter().all(|flash| flash.live()[BLOCK..] == [0x11; BLOCK]), "another block changed");
    }

    #[test]
    fn steps_are_lost_from_the_newest_on() {
        let all = left(&nor(), |flash| {
            flash.write(0, &[0x22; BLOCK], None).unwrap();
            flash.clear_bits(BLOCK, 0, None).unwrap();
        });
        for flash in all.iter().filter(|flash| flash.live()[BLOCK] == 0) {
            assert_eq!(flash.live()[..BLOCK], [0x22; BLOCK]);
        }
        assert!(
            all.iter().any(|flash| flash.live()[..BLOCK] == [0x22; BLOCK] && flash.live()[BLOCK] == 0x11)
        );
    }

    #[test]
    fn what_was_synced_is_not_lost() {
        let all = left(&nor(), |flash| {
            flash.write(0, &[0x22; BLOCK], None).unwrap();
            flash.flush();
            flash.write(BLOCK, &[0x22; BLOCK], None).unwrap();
        });
        assert!(all.iter().all(|flash| flash.live()[..BLOCK] == [0x22; BLOCK]));
    }
}
