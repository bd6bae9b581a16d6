//! `io.mender.Authentication1`: the token of the device, and where to use it.

use std::sync::Arc;

use zbus::object_server::SignalEmitter;

use super::AddOns;

/// The name that is owned on the bus.
pub(super) const NAME: &str = "io.mender.AuthenticationManager";
/// The object.
pub(super) const PATH: &str = "/io/mender/AuthenticationManager";

/// What the object answers.
pub(super) struct Authentication {
    pub add_ons: Arc<AddOns>,
}

#[zbus::interface(name = "io.mender.Authentication1")]
impl Authentication {
    /// Both are empty when the device is not authorised.
    #[zbus(out_args("token", "server_url"))]
    fn get_jwt_token(&self) -> (String, String) {
        let access = self.add_ons.access();
        (access.token, access.address)
    }

    /// The signal tells what came of it.
    #[zbus(out_args("success"))]
    fn fetch_jwt_token(&self) -> bool {
        self.add_ons.ask_for_a_token();
        true
    }

    /// Something about the token may have changed.
    #[zbus(signal)]
    pub async fn jwt_token_state_change(
        emitter: &SignalEmitter<'_>,
        token: &str,
        server_url: &str,
    ) -> zbus::Result<()>;
}
