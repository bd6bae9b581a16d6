//! The calls of the device API, with the token, the choice of the server, and the variant each server speaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::{DeploymentId, REMARK_CHARS, Report};
use client_core::monitor::{Alert, Check};
use client_core::server::exchange::{self, Answer};
use client_core::server::{
    Attribute, Method, Offer, Poll, ReportAnswer, ServerError, Source, Transport, UpdateServer, url,
};
use sha2::{Digest, Sha256};

use crate::deployments::{self, DeploymentStatus, VARIANTS, Variant};
use crate::{Credentials, alerts, auth, inventory};

/// Calls in a row without an answer, after which the servers are asked anew to let the device in.
const SILENCE_MAX: u32 = 3;
/// How long the first server is left alone once another one had to be used.
const HOLD_DOWN: Duration = Duration::from_secs(60 * 60);
/// How often a 403 may lead to a new token. No Mender client asks for one then, although a gateway may answer 403 for
/// an expired token; a device that is forbidden something must not authenticate with every call.
const FORBIDDEN_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long it is remembered which variant of a question a server answers.
const VARIANT_KNOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// What does not change while the process runs.
#[derive(Clone, Default)]
pub struct Settings {
    /// `ServerURL` or `Servers`, in order.
    pub servers: Vec<String>,
    /// `TenantToken`; empty when there is none.
    pub tenant_token: String,
    /// `DeviceTier`.
    pub device_tier: Option<String>,
}

/// Without the tenant token, which is a secret.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("servers", &self.servers)
            .field("device_tier", &self.device_tier)
            .finish_non_exhaustive()
    }
}

/// What a server gave to this device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The address of the server, without a slash at its end.
    pub server: &'a str,
    /// The token. A secret: not for messages.
    pub token: &'a str,
}

/// Without the token, which is a secret.
impl std::fmt::Debug for Grant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Hears what the device may call itself: other programs of the device use the token too.
///
/// # Contract
/// Called in the middle of a call of the [`Api`], from whichever thread makes it: must neither wait nor call the
/// [`Api`].
pub trait TokenWatcher: Send {
    /// How an attempt to get a token ended, or that the token was refused. `None` when there is none any more.
    /// Called as well when nothing changed.
    fn held(&mut self, grant: Option<Grant<'_>>);
}

/// The device API of whichever server accepts this device.
pub struct Api {
    transport: Box<dyn Transport>,
    credentials: Box<dyn Credentials>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    servers: Vec<Server>,
    /// The server that is asked: the one that gave the token, or the last one that did.
    current: usize,
    token: Option<String>,
    /// The token before: a server may still say it back.
    old_token: Option<String>,
    /// Calls in a row that the current server did not answer.
    silence: u32,
    /// When the first server was left, or last tried in vain.
    away_since: Option<Duration>,
    /// When a 403 last led to a new token.
    forbidden_at: Option<Duration>,
    /// A deployment was offered and its end not reported: no time to change servers without need.
    deployment_open: bool,
    /// What the inventory was that this server accepted under this token.
    inventory: Option<[u8; 32]>,
    watcher: Option<Box<dyn TokenWatcher>>,
}

struct Server {
    url: String,
    /// The variant that it answers, and since when that is known.
    variant: Option<(Variant, Duration)>,
}

impl Api {
    /// Nothing is sent yet.
    pub fn new(
        transport: Box<dyn Transport>,
        credentials: Box<dyn Credentials>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Api {
        let configured = settings.servers.iter().filter(|server| !server.trim().is_empty());
        let servers = configured.map(|server| Server { url: url::server(server), variant: None }).collect();
        Api {
            transport,
            credentials,
            clock,
            settings,
            servers,
            current: 0,
            token: None,
            old_token: None,
            silence: 0,
            away_since: None,
            forbidden_at: None,
            deployment_open: false,
            inventory: None,
            watcher: None,
        }
    }

    /// Tells `watcher` of the token from now on.
    pub fn watch_token(&mut self, watcher: Box<dyn TokenWatcher>) {
        self.watcher = Some(watcher);
    }

    /// Gets a new token, whether or not there is one. The old one stays in use until a server answers.
    ///
    /// # Errors
    /// When no server accepts the device.
    pub fn renew_token(&mut self) -> Result<(), ServerError> {
        self.authenticate_any()
    }

    /// Gets a token if there is none, trying the servers in order. Every other call does this by itself.
    ///
    /// # Errors
    /// When no server accepts the device.
    pub fn authenticate(&mut self) -> Result<(), ServerError> {
        let lost = self.silence >= SILENCE_MAX && self.servers.len() > 1;
        if self.token.is_some() && !lost {
            return Ok(());
        }
        self.authenticate_any()
    }

    /// The token, for a local proxy that adds it to what it forwards. A secret: not for messages.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Asks for a deployment. `provides` is everything the device provides, `device_type` and `artifact_name` among it.
    ///
    /// # Errors
    /// When there is no valid answer.
    pub fn next_deployment(
        &mut self,
        provides: &BTreeMap<String, String>,
    ) -> Result<Option<Offer>, ServerError> {
        self.return_to_first();
        let answer = self.ask_variants(provides)?;
        let offer = match answer.status {
            204 => None,
            200 => Some(deployments::offer(&answer)?),
            _ => return Err(answer.into_error()),
        };
        self.deployment_open = offer.is_some();
        Ok(offer)
    }

    /// Reports a status of deployment `id`; one attempt. `substate` is a remark for people; servers take 200 characters
    /// of it (docs/spec/server-protocol.md, "Reporting"), and what is longer is cut.
    ///
    /// # Errors
    /// When the report may not have arrived and may be repeated.
    pub fn report_status(
        &mut self,
        id: &DeploymentId,
        status: DeploymentStatus,
        substate: Option<&str>,
    ) -> Result<ReportAnswer, ServerError> {
        let mut body = serde_json::json!({ "status": status.name() });
        if let Some(text) = substate {
            let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
            body["substate"] = printable.take(REMARK_CHARS).collect::<String>().into();
        }
        let body = body.to_string();
        let answer =
            self.call(Method::Put, &deployments::report_path(id.as_str(), "status"), Some(body.as_bytes()))?;
        let answer = report_answer(answer, status.name())?;
        if status.is_final() {
            self.deployment_open = false;
        }
        Ok(answer)
    }

    /// Asks in the variant that this server is known to answer, or finds out which one that is.
    fn ask_variants(&mut self, provides: &BTreeMap<String, String>) -> Result<Answer, ServerError> {
        self.authenticate()?;
        let now = self.clock.now();
        let known = self.servers.get(self.current).and_then(|server| server.variant);
        let known = known.filter(|(_, since)| now.saturating_sub(*since) < VARIANT_KNOWN);
        let first = known.map(|(variant, _)| variant);
        let others = VARIANTS.into_iter().filter(|variant| Some(*variant) != first);
        let mut last = None;
        for variant in first.into_iter().chain(others) {
            let (method, path, body) = deployments::question(variant, provides);
            let answer = self.call(method, &path, body.as_deref())?;
            // A server that knows the path for other methods only may say 405.
            if matches!(answer.status, 404 | 405) {
                last = Some(answer);
                continue;
            }
            if matches!(answer.status, 200 | 204) && first != Some(variant) {
                self.remember_variant(variant, now);
            }
            return Ok(answer);
        }
        last.ok_or(ServerError::NoServer)
    }

    fn remember_variant(&mut self, variant: Variant, now: Duration) {
        if let Some(server) = self.servers.get_mut(self.current) {
            server.variant = Some((variant, now));
        }
    }

    /// Makes a call with a token. One that is refused is replaced once, and the call repeated once.
    fn call(&mut self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ServerError> {
        self.authenticate()?;
        let answer = self.attempt(method, path, body)?;
        match answer.status {
            401 => {
                log::info!("{} does not accept the token (any more)", answer.url);
                self.forget_token();
            }
            403 if self.may_ask_for_permission() => {
                log::info!("{} is forbidden: trying with a new token", answer.url);
            }
            _ => return Ok(answer),
        }
        self.authenticate_any()?;
        let answer = self.attempt(method, path, body)?;
        if answer.status == 401 {
            self.forget_token();
            self.tell_watcher();
            return Err(ServerError::Unauthorized { message: answer.message().to_owned() });
        }
        Ok(answer)
    }

    fn tell_watcher(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let server = self.servers.get(self.current);
        watcher.held(match (server, &self.token) {
            (Some(server), Some(token)) => Some(Grant { server: &server.url, token }),
            (Some(_) | None, Some(_) | None) => None,
        });
    }

    fn may_ask_for_permission(&mut self) -> bool {
        let now = self.clock.now();
        let may = self.forbidden_at.is_none_or(|at| now.saturating_sub(at) >= FORBIDDEN_EVERY);
        if may {
            self.forbidden_at = Some(now);
        }
        may
    }

    fn attempt(&mut self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ServerError> {
        let (Some(token), Some(server)) = (&self.token, self.servers.get(self.current)) else {
            return Err(ServerError::NoServer);
        };
        let mut headers = vec![
            ("authorization", format!("Bearer {token}")),
            ("accept", "application/json".to_owned()),
            ("accept-encoding", "identity".to_owned()),
        ];
        if body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        let target = format!("{}{path}", server.url);
        let result = exchange::exchange(&mut *self.transport, &*self.clock, method, &target, &headers, body);
        let silent = result.as_ref().err().is_some_and(ServerError::is_silence);
        self.silence = if silent { self.silence.saturating_add(1) } else { 0 };
        result.map(|answer| self.without_secrets(answer)).map_err(|error| self.error_without_secrets(error))
    }

    /// Asks one server after the other to let the device in.
    fn authenticate_any(&mut self) -> Result<(), ServerError> {
        let done = self.try_servers();
        self.tell_watcher();
        done
    }

    fn try_servers(&mut self) -> Result<(), ServerError> {
        // The last good server first, also when it has been silent: perhaps nothing could be reached.
        let count = self.servers.len();
        let mut order: Vec<usize> = (0..count).map(|step| (self.current + step) % count).collect();
        if self.may_return() {
            order.retain(|index| *index != 0);
            order.insert(0, 0);
        }
        let mut last = ServerError::NoServer;
        for index in order {
            match self.authenticate_at(index) {
                Ok(()) => return Ok(()),
                // The other servers could not help.
                Err(error @ (ServerError::Stopped | ServerError::Credentials { .. })) => return Err(error),
                Err(error) => {
                    log::debug!("{error}");
                    last = error;
                }
            }
        }
        // Only a definite refusal ends what was granted; while nobody can be asked the old token may still be good.
        if matches!(last, ServerError::Unauthorized { .. }) {
            self.forget_token();
        }
        Err(last)
    }

    fn authenticate_at(&mut self, index: usize) -> Result<(), ServerError> {
        let (body, headers) = auth::request(&mut *self.credentials, &self.settings)?;
        let Some(server) = self.servers.get(index) else { return Err(ServerError::NoServer) };
        let target = format!("{}{}", server.url, auth::PATH);
        if index == 0 {
            self.away_since = Some(self.clock.now());
        }
        let result = exchange::exchange(
            &mut *self.transport,
            &*self.clock,
            Method::Post,
            &target,
            &headers,
            Some(&body),
        );
        let answer = self.without_secrets(result.map_err(|error| self.error_without_secrets(error))?);
        match answer.status {
            200 => {}
            401 => return Err(ServerError::Unauthorized { message: answer.message().to_owned() }),
            _ => return Err(answer.into_error()),
        }
        let token = auth::token(&answer.body).map_err(|reason| answer.malformed(reason))?;
        if index == self.current {
            log::info!("accepted by {}", answer.url);
        } else {
            log::info!("going on with another server: {}", answer.url);
        }
        self.forget_token();
        self.token = Some(token);
        self.current = index;
        self.silence = 0;
        if index == 0 {
            self.away_since = None;
        }
        Ok(())
    }

    /// Whether the first server has been left alone for long enough.
    fn may_return(&self) -> bool {
        let rested = |since: Duration| self.clock.now().saturating_sub(since) >= HOLD_DOWN;
        self.current != 0 && self.away_since.is_none_or(rested)
    }

    /// Tries the first server again when it is time. What is in use stays in use if that fails.
    fn return_to_first(&mut self) {
        if self.token.is_none() || self.deployment_open || !self.may_return() {
            return;
        }
        match self.authenticate_at(0) {
            Ok(()) => self.tell_watcher(),
            Err(error) => log::debug!("the first server is still not there: {error}"),
        }
    }

    /// Keeps secrets out of what may be shown: a server can say them back.
    fn without_secrets(&self, mut answer: Answer) -> Answer {
        answer.show_without(|text| self.hide(text));
        answer
    }

    fn error_without_secrets(&self, error: ServerError) -> ServerError {
        error.shown_without(|text| self.hide(text))
    }

    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let tenant = Some(self.settings.tenant_token.as_str());
        let secrets = [self.token.as_deref(), self.old_token.as_deref(), tenant];
        for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "[secret]");
        }
        text
    }
}

impl UpdateServer for Api {
    /// A Mender server has no wish about when it is asked.
    fn next(&mut self, provides: &BTreeMap<String, String>) -> Result<Poll, ServerError> {
        Ok(Poll { offer: self.next_deployment(provides)?, ask_again_in: None })
    }

    /// Addresses are signed and expire: the same question brings a new one.
    fn refresh(
        &mut self,
        id: &DeploymentId,
        provides: &BTreeMap<String, String>,
    ) -> Result<Option<Source>, ServerError> {
        let offer = self.next_deployment(provides)?;
        Ok(offer.filter(|offer| offer.id == *id).map(|offer| offer.source))
    }

    fn report(
        &mut self,
        id: &DeploymentId,
        report: Report,
        remark: Option<&str>,
    ) -> Result<ReportAnswer, ServerError> {
        self.report_status(id, DeploymentStatus::of(report), remark)
    }

    fn upload_log(&mut self, id: &DeploymentId, messages: &[u8]) -> Result<ReportAnswer, ServerError> {
        let Some(body) = deployments::log_body(messages) else { return Ok(ReportAnswer::Accepted) };
        let answer = self.call(Method::Put, &deployments::report_path(id.as_str(), "log"), Some(&body))?;
        report_answer(answer, "log")
    }

    /// Unless it equals the last one that this server accepted under this token.
    fn send_inventory(&mut self, attributes: &[Attribute]) -> Result<(), ServerError> {
        let body = inventory::body(attributes);
        let digest: [u8; 32] = Sha256::digest(&body).into();
        self.authenticate()?;
        if self.inventory == Some(digest) {
            log::debug!("the inventory has not changed since it was sent");
            return Ok(());
        }
        let mut answer = self.call(Method::Put, inventory::PATH, Some(&body))?;
        if answer.status == 405 {
            answer = self.call(Method::Patch, inventory::PATH, Some(&body))?;
        }
        match answer.status {
            200 | 204 => {
                answer.unless_web_page()?;
                self.inventory = Some(digest);
                Ok(())
            }
            _ => Err(answer.into_error()),
        }
    }

    fn send_checks(&mut self, checks: &[Check]) -> Result<ReportAnswer, ServerError> {
        // What has nothing to tell does not carry the words for it.
        if !cfg!(any(feature = "monitor", test)) {
            return Ok(ReportAnswer::Refused);
        }
        let answer = self.call(Method::Put, alerts::CHECKS_PATH, Some(&alerts::checks_body(checks)))?;
        report_answer(answer, "the list of checks")
    }

    fn send_alerts(&mut self, sent: &[Alert]) -> Result<ReportAnswer, ServerError> {
        // What has nothing to tell does not carry the words for it.
        if !cfg!(any(feature = "monitor", test)) {
            return Ok(ReportAnswer::Refused);
        }
        let answer = self.call(Method::Post, alerts::ALERTS_PATH, Some(&alerts::alerts_body(sent)))?;
        report_answer(answer, "alerts")
    }

    fn forget_sent_inventory(&mut self) {
        self.inventory = None;
    }

    fn forget_token(&mut self) {
        self.old_token = self.token.take().or(self.old_token.take());
        self.inventory = None;
    }

    fn is_authorized(&self) -> bool {
        self.token.is_some()
    }

    fn server(&self) -> Option<&str> {
        self.servers.get(self.current).map(|server| server.url.as_str())
    }
}

/// What the answer to a report or an upload of `what` means.
fn report_answer(answer: Answer, what: &str) -> Result<ReportAnswer, ServerError> {
    match answer.status {
        200 | 204 => answer.unless_web_page().map(|_| ReportAnswer::Accepted),
        409 => answer.unless_web_page().map(|_| ReportAnswer::Aborted),
        // A gateway without its service says 404 too, in plain text. Only the service explains itself.
        404 if !answer.explains_itself() => Err(answer.into_error()),
        400 | 404 | 413 => {
            let answer = answer.unless_web_page()?;
            log::warn!("{} refuses {what} ({}): {}", answer.url, answer.status, answer.message());
            Ok(ReportAnswer::Refused)
        }
        _ => Err(answer.into_error()),
    }
}
