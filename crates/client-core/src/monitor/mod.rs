//! Watches the device, and keeps what the server has to hear of it until the server took it.
//!
//! What is to be watched comes from the configuration ([`Rules`]), facts come through the seam [`Looker`], and the [`Watch`]
//! makes alerts of them, which it keeps in a [`StateStore`](crate::state_store::StateStore). It sends nothing itself, and it
//! does not know when the device is busy: the agent asks it to look, and takes the alerts from it.
//!
//! ```text
//!  look ─► finding ─► level changed? ─► alert, stored ─► sent by the agent ─► taken: removed
//! ```

mod alert;
mod book;
mod judgement;
mod looker;
mod pattern;
mod rules;
mod scan;
mod watch;

pub use alert::{Alert, Excerpt, Level, Line};
pub use book::{BOOK_BYTES, Book, CheckState, FOREIGN_BYTES, Position};
pub use looker::{Looker, Unseen};
pub use pattern::Pattern;
pub use rules::{
    Around, CHECKS_MAX, Check, LINES_MAX, LogSource, MOST_MAX, NAME_CHARS, Rules, TEXT_CHARS, Watched,
};
pub use scan::{MATCHED_BYTES, Scan};
pub use watch::Watch;
