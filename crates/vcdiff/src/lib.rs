//! Decodes VCDIFF (RFC 3284) with the extensions of xdelta3: checksums of windows, an application header, sections
//! compressed with LZMA or DJW.
//!
//! A [`Decoder`] takes a delta in order, asks for pieces of the old content by their place, and gives out the new content a
//! window at a time. It opens no file and writes nothing. It knows no code table but the default one, which is what xdelta3
//! writes, and not the compression FGK, which xdelta3 calls a demonstration.
//!
//! It believes nothing: every length meets a limit before memory is asked for, every address is inside of what there is, and
//! what does not fit exactly is refused by name. Whether the new content is the right one it cannot know: whoever calls has a
//! digest for that.

mod address;
mod bits;
mod decoder;
mod djw;
mod error;
mod instruction;
#[cfg(feature = "lzma")]
mod lzma;
#[cfg(test)]
mod tests;
mod window;

pub use decoder::{Contents, Decoder, Limits};
pub use error::{Error, Fault, Unsupported};
