//! The sequence of an update: which stage follows which, what survives a restart, and the one place that acts.
//!
//! ```text
//!  commands ─► plan (decides: which stage)  ─► run (acts: gate, report, record, scripts) ─► deeds (what a stage does)
//!                 │ facts (one table)              │ keep (the record)                         │
//!                 └ ending (decides: how it ended) ┘ record (what survives)  gates (who holds it up)
//! ```
//!
//! `plan`, `facts` and `ending` are pure. This module knows neither servers nor protocols: `server` and `agent` know it.

mod bill;
mod bootstrap;
mod cause;
mod commands;
mod deeds;
mod device;
mod ending;
mod error;
mod facts;
pub mod gates;
mod id;
mod keep;
mod notice;
mod plan;
pub mod record;
mod report;
mod run;
pub mod scripts;
mod source;
mod standing;
mod summary;

pub use bootstrap::{bootstrap, bootstrap_provides};
pub use commands::{
    Open, Options, Ordered, Policy, commit, deploy, install, load, resume, roll_back, take_over,
    try_other_slot,
};
pub use device::Device;
pub use error::{DeployError, PolicyError};
pub use facts::{Importance, Stage};
pub use id::{DeploymentId, NotAnId};
pub use notice::{Notice, Observer};
pub use report::{NoReporter, Report, Reported, Reporter};
pub use run::REMARK_CHARS;
pub use source::{SourceChanged, cause};
pub use standing::{Standing, standing};
pub use summary::{Held, Status, Summary};
