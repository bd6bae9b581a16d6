//! The sequence of an update: which stage follows which, what survives a restart, and the one place that acts.
//!
//! [`stage`] decides (pure tables), [`run`] performs, [`record`] is what survives, [`gates`] hold it up. It
//! knows neither servers nor protocols: `server` and `agent` know it.

mod device;
pub mod gates;
mod id;
pub mod record;
pub mod report;
pub mod run;
pub mod scripts;
mod source;
pub mod stage;

pub use device::Device;
pub use id::{DeploymentId, NotAnId};
pub use report::{DeployError, NoReporter, Notice, Observer, Report, Reported, Reporter, Status, Summary};
pub use run::{
    Open, Options, Order, Policy, bootstrap, bootstrap_provides, carry_out, commit, install, load, resume,
    roll_back, take_over, try_other_slot,
};
pub use source::{SourceChanged, cause};
pub use stage::{Importance, Stage};
