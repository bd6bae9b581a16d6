//! Sections that xdelta3 compressed with LZMA: three streams of xz, for data, instructions and addresses, each of which runs
//! through all windows and never ends.

use liblzma::stream::{Action, Status, Stream};

use crate::error::{Error, Fault};

/// One of the three.
pub(crate) struct Lzma {
    /// `None` before the first section.
    stream: Option<Stream>,
    dictionary_bytes: u64,
}

/// What the decoder needs beside the dictionary, rounded up.
const DECODER_BYTES: u64 = 128 << 10;
/// What is made before more memory is taken.
const STEP_BYTES: usize = 256 << 10;

impl Lzma {
    pub(crate) fn new(dictionary_bytes: u64) -> Lzma {
        Lzma { stream: None, dictionary_bytes }
    }

    /// The `bytes` that are compressed in `section`, to the end of `into`.
    pub(crate) fn open(
        &mut self,
        mut section: &[u8],
        bytes: usize,
        into: &mut Vec<u8>,
        damaged: impl Fn(Fault) -> Error,
    ) -> Result<(), Error> {
        let limit = self.dictionary_bytes;
        let failed = |error| {
            let too_large = error == liblzma::stream::Error::MemLimit;
            if too_large {
                Error::TooLarge { what: "a dictionary", limit }
            } else {
                damaged(Fault::Compression)
            }
        };
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream::new_stream_decoder(limit.saturating_add(DECODER_BYTES), 0).map_err(failed)?,
        };
        let stream = self.stream.insert(stream);
        let mut left = bytes;
        loop {
            let length = into.len();
            let step = left.min(STEP_BYTES);
            into.resize(length + step, 0);
            let (taken, made) = (stream.total_in(), stream.total_out());
            let status = stream.process(section, into.get_mut(length..).unwrap_or_default(), Action::Run);
            let status = status.map_err(failed)?;
            let (taken, made) = ((stream.total_in() - taken) as usize, (stream.total_out() - made) as usize);
            into.truncate(length + made);
            left = left.saturating_sub(made);
            section = section.get(taken..).unwrap_or_default();
            let stuck = taken == 0 && made == 0;
            // What is taken last makes nothing any more: the end of a piece of LZMA.
            if left == 0 && section.is_empty() {
                return Ok(());
            }
            if stuck || matches!(status, Status::StreamEnd) {
                return Err(damaged(Fault::Compression));
            }
        }
    }
}
