//! The record in two copies, on a medium that holds anything.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use client_core::state_store::{StateStore, TwoCopyRecord};
use client_core::storage::BlockDevice;

/// Two documents that were saved one after the other.
const SAVED: [&[u8]; 2] = [b"{\"version\":1}", b"{\"version\":1,\"installed\":{}}"];
const MEDIUM_BYTES: usize = 8192;

/// Any bytes as the medium; and damage of every kind to a medium with a good record, three bytes for each: where, and what is
/// turned over there. What is loaded then is what was saved, or there is an error.
pub(crate) fn two_copies(bytes: &[u8]) {
    check(bytes.to_vec(), |_| true);
    let mut medium = good();
    for damage in bytes.chunks_exact(3).take(64) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % medium.len();
        medium[at] ^= damage[2];
    }
    check(medium, |document| SAVED.contains(&document));
}

/// A medium with both documents.
fn good() -> Vec<u8> {
    let medium = Memory::of(vec![0; MEDIUM_BYTES]);
    let mut record = TwoCopyRecord::format_new(medium.clone(), SAVED[0]).expect("memory does not fail");
    record.save(SAVED[1]).expect("memory does not fail");
    medium.0.take()
}

/// What is loaded survives a save and a new start, and what cannot be loaded is an error.
fn check(medium: Vec<u8>, is_right: impl Fn(&[u8]) -> bool) {
    let Ok(mut record) = TwoCopyRecord::open(Memory::of(medium)) else { return };
    match record.load() {
        Err(error) => assert!(!error.to_string().is_empty(), "an error without words"),
        Ok(document) => {
            assert!(is_right(&document), "a document that nobody saved");
            assert!(document.len() <= record.capacity_bytes(), "longer than fits");
            record.save(b"{}").expect("memory does not fail");
            assert_eq!(record.load().expect("just saved"), b"{}");
        }
    }
}

/// Clones are the same medium.
#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn of(content: Vec<u8>) -> Memory {
        Memory(Rc::new(RefCell::new(content)))
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(length).filter(|end| *end <= self.0.borrow().len());
        Ok(start..end.ok_or(io::ErrorKind::InvalidInput)?)
    }
}

impl BlockDevice for Memory {
    fn len(&self) -> u64 {
        self.0.borrow().len() as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buf.len())?;
        buf.copy_from_slice(&self.0.borrow()[range]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = self.range(offset, data.len())?;
        self.0.borrow_mut()[range].copy_from_slice(data);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn name(&self) -> &str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(medium: Vec<u8>) -> Option<Vec<u8>> {
        TwoCopyRecord::open(Memory::of(medium)).unwrap().load().ok()
    }

    #[test]
    fn an_undamaged_medium_holds_the_last_document_and_one_good_copy_is_enough() {
        assert_eq!(loaded(good()).as_deref(), Some(SAVED[1]));
        for half in [0, MEDIUM_BYTES / 2] {
            let mut medium = good();
            medium[half] ^= 0xff;
            assert!(loaded(medium).is_some_and(|document| SAVED.contains(&&*document)));
        }
        let mut medium = good();
        (medium[0], medium[MEDIUM_BYTES / 2]) = (0xaa, 0xaa);
        assert_eq!(loaded(medium), None);
    }
}
