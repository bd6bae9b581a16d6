//! Reading what the standard library reads too little of, or gives up too early on, with our errors.

use crate::error::ArtifactError;
use std::io::{self, Read};

/// Reads until `buffer` is full or the source has ended; returns the count.
pub(crate) fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArtifactError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_retrying(source, rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Reads once; a read that was interrupted is none.
pub(crate) fn read_retrying(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArtifactError> {
    loop {
        match source.read(buffer) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArtifactError::from_io(error)),
        }
    }
}
