//! Makes the delta between two images: finds for every segment of the new one what of the old one it is most like, and codes the
//! difference. For hosts; a device needs none of this.
//!
//! It knows ext2 to ext4, to find the old version of a file by its path; everything else it finds by content. What it makes is
//! written by [`delta`], whose rules decide what a device will take.

#![forbid(unsafe_code)]

mod draft;
pub mod ext4;
mod files;
mod image;
mod make;
mod matching;
mod place;
mod plans;
mod survey;

pub use files::Found;
pub use image::Image;
pub use make::{MOST_JOBS, Made, MakeError, Options, make};

/// Bytes in a block of both images.
pub(crate) const BLOCK: usize = delta::BLOCK_BYTES as usize;
