//! The sequence of an update: which stage follows which, what survives a restart, and the one place that acts.
//!
//! [`stage`] decides (pure tables), [`run`] performs, [`record`] is what survives, [`gates`] hold it up. Nothing in this crate imports
//! this module.

mod device;
pub mod gates;
pub mod record;
pub mod report;
pub mod run;
pub mod scripts;
pub mod stage;

pub use device::Device;
pub use report::{DeployError, NoReporter, Notice, Observer, Report, Reported, Reporter, Status, Summary};
pub use run::{
    Open, Options, Order, Policy, bootstrap, bootstrap_provides, carry_out, commit, install, load, resume,
    roll_back, take_over, try_other_slot,
};
pub use stage::{Importance, Stage};
