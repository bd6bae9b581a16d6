//! `io.mender.Update1`: a say for other programs in when an update goes on.

use std::sync::Arc;

use super::AddOns;

/// The name that is owned on the bus.
pub(super) const NAME: &str = "io.mender.UpdateManager";
/// The object.
pub(super) const PATH: &str = "/io/mender/UpdateManager";

/// What the object answers.
pub(super) struct Update {
    pub add_ons: Arc<AddOns>,
}

/// What a caller is told when a method fails. The reason is in the log, for whoever may read that.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "io.mender")]
pub(super) enum MethodError {
    /// Something of the bus itself.
    #[zbus(error)]
    Bus(zbus::Error),
    /// Anything else.
    Failed(String),
}

#[zbus::interface(name = "io.mender.Update1")]
impl Update {
    /// Says after how many seconds the map should be sent again.
    #[zbus(out_args("refresh_timeout_seconds"))]
    fn set_update_control_map(&self, update_control_map: &str) -> Result<i32, MethodError> {
        match self.add_ons.take_control_map(update_control_map) {
            Ok(refresh) => Ok(i32::try_from(refresh.as_secs()).unwrap_or(i32::MAX)),
            Err(error) => {
                log::warn!("D-Bus: {error}");
                Err(MethodError::Failed(
                    "Method returned error, see the log of the daemon for more details".into(),
                ))
            }
        }
    }
}
