//! A UBI volume: replaced as a whole by an update. From its first moment to its last the volume is marked as being
//! updated, and has no content.
//!
//! The mark, and the new content in its place, are on the medium in this order, and may be lost from the newest on until
//! a sync. Atomic changes of single erase blocks are not here: nothing uses them.

use std::io;
use std::ops::Range;

use client_core::storage::Medium;

use super::faults::Fault;
use super::medium::{EBADF, Model, choose_progress, garble};
use super::world::{Limits, Trace};
use crate::choice::{Choices, Mixer};

#[derive(Clone)]
pub(super) struct Volume {
    len: usize,
    live: State,
    durable: State,
    pending: Vec<State>,
    update: Option<Update>,
}

/// What is in the volume; nothing while an update runs, or was interrupted.
type State = Option<Vec<u8>>;

/// How far an update is.
#[derive(Clone)]
struct Update {
    arrived: Vec<u8>,
    len: usize,
}

impl Volume {
    pub(super) fn new(content: Vec<u8>) -> Volume {
        let (len, state) = (content.len(), Some(content));
        Volume { len, live: state.clone(), durable: state, pending: Vec::new(), update: None }
    }

    fn take(&mut self, state: State) {
        self.live.clone_from(&state);
        self.pending.push(state);
    }
}

impl Model for Volume {
    fn medium(&self) -> Medium {
        Medium::UbiVolume
    }

    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, range: Range<usize>) -> io::Result<&[u8]> {
        match &self.live {
            Some(content) => Ok(&content[range]),
            None => Err(io::Error::from_raw_os_error(EBADF)),
        }
    }

    fn begin_replace(&mut self, len: usize) {
        self.take(None);
        self.update = Some(Update { arrived: Vec::new(), len });
    }

    fn write(&mut self, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let Some(update) = &mut self.update else {
            return refuse("a UBI volume is written only by replacing it");
        };
        if start != update.arrived.len() || start + data.len() > update.len {
            return refuse("an update goes from the first byte to the last");
        }
        match fate {
            // The update is never complete.
            Some(Fault::LostWrite) => return Ok(()),
            Some(Fault::CorruptWrite) => {
                let mut changed = data.to_vec();
                garble(&mut changed, start);
                update.arrived.extend(changed);
            }
            Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) | None => {
                update.arrived.extend(data);
            }
        }
        if update.arrived.len() == update.len {
            let mut content = self.update.take().unwrap().arrived;
            content.resize(self.len, 0xff);
            self.take(Some(content));
        }
        Ok(())
    }

    fn sync_refused(&self) -> Option<String> {
        let update = self.update.as_ref()?;
        Some(format!("the update of the volume is at {} of {} bytes", update.arrived.len(), update.len))
    }

    fn flush(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.live);
    }

    fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn decide(&mut self, name: &str, choices: &mut Choices, _: &Limits, trace: &mut Trace) {
        let pending = std::mem::take(&mut self.pending);
        let (happened, _) = choose_progress(choices, &vec![0; pending.len()]);
        trace.note(|| format!("  {name}: {happened} of {} steps happened", pending.len()));
        if let Some(newest) = happened.checked_sub(1) {
            self.durable.clone_from(&pending[newest]);
        }
        self.live.clone_from(&self.durable);
    }

    /// The process that made the update is gone, and nobody can go on with it.
    fn start(&mut self) {
        self.update = None;
    }

    fn live(&self) -> Vec<u8> {
        self.live.clone().unwrap_or_default()
    }

    fn durable(&self) -> Vec<u8> {
        self.durable.clone().unwrap_or_default()
    }

    fn hash(&self, hash: &mut Mixer) {
        hash.bytes(self.durable.as_deref().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_written_only_by_a_whole_update_from_front_to_back() {
        let mut volume = Volume::new(vec![1; 8]);
        assert!(volume.write(0, &[2; 8], None).is_err());
        volume.begin_replace(6);
        assert!(volume.write(2, &[2; 4], None).is_err());
        assert!(volume.write(0, &[2; 7], None).is_err());
        volume.write(0, &[2; 4], None).unwrap();
        assert_eq!(volume.read(0..8).unwrap_err().raw_os_error(), Some(EBADF));
        assert!(volume.sync_refused().is_some());
        volume.write(4, &[3; 2], None).unwrap();
        assert_eq!(volume.read(0..8).unwrap(), [2, 2, 2, 2, 3, 3, 0xff, 0xff]);
        assert!(volume.sync_refused().is_none());
    }

    #[test]
    fn a_cut_leaves_a_volume_old_interrupted_or_new_and_only_an_update_mends_it() {
        let (mut choices, mut seen) = (Choices::exhaustive(), Vec::new());
        loop {
            let mut volume = Volume::new(vec![1; 2]);
            volume.begin_replace(2);
            volume.write(0, &[2; 2], None).unwrap();
            volume.decide("volume", &mut choices, &Limits::default(), &mut Trace::default());
            volume.start();
            seen.push(volume.live());
            volume.begin_replace(2);
            volume.write(0, &[3; 2], None).unwrap();
            assert_eq!(volume.live(), [3; 2]);
            if !choices.advance() {
                break;
            }
        }
        assert_eq!(seen, [vec![1; 2], vec![], vec![2; 2]]);
    }

    #[test]
    fn an_update_of_an_earlier_start_cannot_be_gone_on_with() {
        let mut volume = Volume::new(vec![1; 4]);
        volume.begin_replace(4);
        volume.write(0, &[2; 2], None).unwrap();
        volume.decide("volume", &mut Choices::exhaustive(), &Limits::default(), &mut Trace::default());
        volume.start();
        assert!(volume.write(2, &[2; 2], None).is_err());
    }
}
