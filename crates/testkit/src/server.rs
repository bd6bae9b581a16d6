//! A Mender-compatible server in memory, as the client sees it through its [`Transport`]: written from the description of
//! the device API, without any code of the client.
//!
//! It is stricter than a real one: what no correct client would send (a token to the storage, a broken body, a status
//! after the final one) ends the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use client_core::server::{Request, Response, Transport, TransportError};
use server_mender::{Credentials, CredentialsError};

use crate::clock::VirtualClock;
use crate::json::{Json, quoted};
use crate::storage::CrashWorld;
use crate::transport::{Reply, Sent};

/// Where the server is, unless a test says otherwise.
pub const SERVER: &str = "https://server.test";
/// Where artifacts are.
pub const STORAGE: &str = "https://storage.test";

const V1: &str = "/api/devices/v1/deployments/device/deployments/";
const FINALS: [&str; 3] = ["success", "failure", "already-installed"];

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A device asks to be let in.
    Auth,
    /// It asks for a deployment, in any variant.
    Next,
    /// It reports a status.
    Status,
    /// It uploads a log.
    Log,
    /// It sends its inventory.
    Inventory,
    /// It transfers an artifact.
    Artifact,
}

/// Which requests are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// Every one.
    Any,
    /// Those of one endpoint.
    Of(Endpoint),
    /// Reports of one status.
    Report(&'static str),
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Failure {
    /// There is no connection.
    NotReached,
    /// The connection breaks before the server has done anything, which the client cannot know.
    LostRequest,
    /// The connection breaks after the server has done what was asked.
    LostAnswer,
    /// The server answers with this status and does nothing.
    Status(u16),
    /// A gateway answers with this status in plain text, without the server.
    Plain(u16),
    /// As `Status`, with a `Retry-After` header of this text.
    RetryAfter(u16, String),
    /// A captive portal answers 200 with a web page.
    CaptivePortal,
    /// The body of the answer breaks after so many bytes.
    CutAfter(usize),
}

/// A deployment as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Deployment {
    id: String,
    artifact_name: String,
    device_types: Vec<String>,
    content: Arc<[u8]>,
    etag: Option<String>,
    /// Counts the links: only the newest one is good.
    link: u32,
    aborted: bool,
    /// What the device said of itself when the deployment began.
    first_question: Option<[Option<String>; 2]>,
    statuses: Vec<String>,
    substates: Vec<Option<String>>,
    reports: Vec<String>,
    logs: Vec<String>,
}

/// Everything a server remembers. Comparable and hashable, for enumerators.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    hosts: BTreeMap<String, bool>,
    accepting: bool,
    tenant: Option<String>,
    /// Those that are valid.
    tokens: Vec<String>,
    tokens_given: u32,
    v2: bool,
    v1_post: bool,
    inventory_put: bool,
    ranges: bool,
    deployments: Vec<Deployment>,
    inventory: Option<Vec<u8>>,
    inventories: u32,
    failures: VecDeque<(Matcher, Failure)>,
    lasting: Option<(Matcher, Failure)>,
    sent: Vec<Sent>,
    recording: bool,
}

/// Whether `signature` is one over `body` by the key whose public part is `public_key`.
pub type Verify = dyn Fn(&[u8], &[u8], &str) -> bool + Send + Sync;

/// The server. Clones are handles to the same one; [`snapshot`](ServerModel::snapshot) makes another.
#[derive(Clone)]
pub struct ServerModel {
    state: Arc<Mutex<Snapshot>>,
    verify: Arc<Verify>,
}

impl Default for ServerModel {
    fn default() -> ServerModel {
        ServerModel::new()
    }
}

impl ServerModel {
    /// A server at [`SERVER`] that accepts the device with [`TestCredentials`] and has nothing for it. It answers all
    /// variants of the question for a deployment.
    pub fn new() -> ServerModel {
        ServerModel::from_snapshot(Snapshot {
            hosts: BTreeMap::from([(SERVER.to_owned(), true), (STORAGE.to_owned(), true)]),
            accepting: true,
            tenant: None,
            tokens: Vec::new(),
            tokens_given: 0,
            v2: true,
            v1_post: true,
            inventory_put: true,
            ranges: true,
            deployments: Vec::new(),
            inventory: None,
            inventories: 0,
            failures: VecDeque::new(),
            lasting: None,
            sent: Vec::new(),
            recording: true,
        })
    }

    /// A server that remembers what that one remembered.
    pub fn from_snapshot(snapshot: Snapshot) -> ServerModel {
        ServerModel { state: Arc::new(Mutex::new(snapshot)), verify: Arc::new(verify_test_signature) }
    }

    /// What the server remembers now.
    pub fn snapshot(&self) -> Snapshot {
        self.state().clone()
    }

    /// Forgets what happened since `snapshot`.
    pub fn restore(&self, snapshot: Snapshot) {
        *self.state() = snapshot;
    }

    /// Another server that remembers the same.
    pub fn fork(&self) -> ServerModel {
        let state = Arc::new(Mutex::new(self.snapshot()));
        ServerModel { state, verify: Arc::clone(&self.verify) }
    }

    /// With another check of signatures.
    pub fn verifying(
        mut self,
        verify: impl Fn(&[u8], &[u8], &str) -> bool + Send + Sync + 'static,
    ) -> ServerModel {
        self.verify = Arc::new(verify);
        self
    }

    /// For production code.
    pub fn transport(&self) -> Box<dyn Transport> {
        Box::new(self.clone())
    }

    /// Another address of the same server.
    pub fn add_host(&self, url: &str) {
        self.state().hosts.insert(url.to_owned(), true);
    }

    /// Whether `url` can be reached.
    pub fn set_reachable(&self, url: &str, reachable: bool) {
        self.state().hosts.insert(url.to_owned(), reachable);
    }

    /// Whether the device is accepted.
    pub fn set_accepting(&self, accepting: bool) {
        self.state().accepting = accepting;
    }

    /// Demands this tenant token.
    pub fn set_tenant(&self, token: &str) {
        self.state().tenant = Some(token.to_owned());
    }

    /// Which of the newer variants of the question it answers; the oldest is always there.
    pub fn set_variants(&self, v2: bool, v1_post: bool) {
        let mut state = self.state();
        (state.v2, state.v1_post) = (v2, v1_post);
    }

    /// Whether the inventory may be PUT; otherwise only PATCH is allowed.
    pub fn set_inventory_put(&self, allowed: bool) {
        self.state().inventory_put = allowed;
    }

    /// Whether the storage honours `Range`.
    pub fn set_ranges(&self, honoured: bool) {
        self.state().ranges = honoured;
    }

    /// Whether requests are recorded. Enumerators that hash snapshots turn it off.
    pub fn set_recording(&self, recording: bool) {
        self.state().recording = recording;
    }

    /// Makes every token given so far invalid.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Orders `artifact` for `device_type`; it has a strong entity tag.
    pub fn deploy(&self, id: &str, artifact_name: &str, device_type: &str, artifact: &[u8]) {
        self.state().deployments.push(Deployment {
            id: id.to_owned(),
            artifact_name: artifact_name.to_owned(),
            device_types: vec![device_type.to_owned()],
            content: artifact.into(),
            etag: Some(format!("\"{id}-1\"")),
            link: 0,
            aborted: false,
            first_question: None,
            statuses: Vec::new(),
            substates: Vec::new(),
            reports: Vec::new(),
            logs: Vec::new(),
        });
    }

    /// Puts something else where the artifact is, with this entity tag.
    pub fn replace_artifact(&self, id: &str, artifact: &[u8], etag: Option<&str>) {
        self.change(id, |deployment| {
            deployment.content = artifact.into();
            deployment.etag = etag.map(str::to_owned);
        });
    }

    /// Aborts a deployment.
    pub fn abort(&self, id: &str) {
        self.change(id, |deployment| deployment.aborted = true);
    }

    /// Makes the links given so far invalid.
    pub fn expire_links(&self, id: &str) {
        self.change(id, |deployment| deployment.link += 1);
    }

    /// The address of the artifact that is good now.
    pub fn link(&self, id: &str) -> String {
        link(self.state().deployment(id).unwrap_or_else(|| panic!("no deployment {id}")))
    }

    /// What happens to the next request that matches, once; of several that match the oldest is taken.
    pub fn fail_next(&self, matcher: Matcher, failure: Failure) {
        self.state().failures.push_back((matcher, failure));
    }

    /// What happens to every request that matches, until [`heal`](ServerModel::heal).
    pub fn fail_always(&self, matcher: Matcher, failure: Failure) {
        self.state().lasting = Some((matcher, failure));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.lasting = None;
    }

    /// The history of a deployment as the server has it: repeating a status adds nothing.
    pub fn statuses(&self, id: &str) -> Vec<String> {
        self.state().deployment(id).map_or(Vec::new(), |deployment| deployment.statuses.clone())
    }

    /// The final statuses in the history: one at most, if all is well.
    pub fn finals(&self, id: &str) -> Vec<String> {
        self.statuses(id).into_iter().filter(|status| FINALS.contains(&status.as_str())).collect()
    }

    /// Every report that arrived, also those that were refused or repeated.
    pub fn reports(&self, id: &str) -> Vec<String> {
        self.state().deployment(id).map_or(Vec::new(), |deployment| deployment.reports.clone())
    }

    /// The remark that came with each of [`reports`](ServerModel::reports).
    pub fn substates(&self, id: &str) -> Vec<Option<String>> {
        self.state().deployment(id).map_or(Vec::new(), |deployment| deployment.substates.clone())
    }

    /// The logs that were uploaded.
    pub fn logs(&self, id: &str) -> Vec<String> {
        self.state().deployment(id).map_or(Vec::new(), |deployment| deployment.logs.clone())
    }

    /// The body of the last inventory.
    pub fn inventory(&self) -> Option<String> {
        self.state().inventory.as_ref().map(|body| String::from_utf8_lossy(body).into_owned())
    }

    /// How many inventories came.
    pub fn inventories(&self) -> u32 {
        self.state().inventories
    }

    /// How many tokens were given.
    pub fn tokens_given(&self) -> u32 {
        self.state().tokens_given
    }

    /// Everything that was sent here, and forgets it.
    pub fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.state().sent)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Deployment)) {
        let mut state = self.state();
        let found = state.deployments.iter_mut().find(|deployment| deployment.id == id);
        change(found.unwrap_or_else(|| panic!("no deployment {id}")));
    }

    fn state(&self) -> MutexGuard<'_, Snapshot> {
        // A test that failed inside leaves nothing half done that another test could see.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Transport for ServerModel {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        let sent = Sent::of(request);
        let verify = Arc::clone(&self.verify);
        cut_here("before", &sent);
        let mut state = self.state();
        let reply = state.receive(sent.clone(), &*verify);
        drop(state);
        cut_here("after", &sent);
        let no_clock: Option<&VirtualClock> = None;
        reply.perform(no_clock)
    }
}

thread_local! {
    /// The machine that makes the requests of this thread.
    static MACHINE: RefCell<Option<CrashWorld>> = const { RefCell::new(None) };
}

/// While it lives, every request of this thread to a [`ServerModel`] is a place to lose power: before the server did
/// anything, and after it did everything and before the client knows.
#[must_use = "the places to lose power end with it"]
pub struct PowerCuts(());

impl PowerCuts {
    /// Of this machine.
    pub fn of(world: &CrashWorld) -> PowerCuts {
        MACHINE.set(Some(world.clone()));
        PowerCuts(())
    }
}

impl Drop for PowerCuts {
    fn drop(&mut self) {
        MACHINE.set(None);
    }
}

fn cut_here(when: &str, sent: &Sent) {
    let machine = MACHINE.with_borrow(Clone::clone);
    if let Some(world) = machine {
        let body: String = sent.text().chars().take(80).collect();
        world.crash_point(&format!("{when} {} {} {body}", sent.method, sent.path()));
    }
}

/// A server as a fact of an enumeration, which clones and hashes its facts: a clone is another server that remembers
/// the same, where a clone of [`ServerModel`] is the same server. Turn [recording](ServerModel::set_recording) off, or
/// no two states are equal.
#[derive(Default)]
pub struct ServerFacts(pub ServerModel);

impl Clone for ServerFacts {
    fn clone(&self) -> ServerFacts {
        ServerFacts(self.0.fork())
    }
}

impl Hash for ServerFacts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.state().hash(state);
    }
}

fn link(deployment: &Deployment) -> String {
    format!("{STORAGE}/{}.mender?signature={}", deployment.id, deployment.link)
}

fn said(status: u16, message: &str) -> Reply {
    Reply::new(status, format!("{{\"error\":{},\"request_id\":\"0\"}}", quoted(message)))
        .header("content-type", "application/json")
}

impl Snapshot {
    fn deployment(&self, id: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.id == id)
    }

    fn receive(&mut self, sent: Sent, verify: &Verify) -> Reply {
        if self.recording {
            self.sent.push(sent.clone());
        }
        let host = sent.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let reachable = self.hosts.get(&host).copied().unwrap_or(false);
        let Some(endpoint) = endpoint(&sent).filter(|_| reachable) else {
            return if reachable { said(404, "no such page") } else { Reply::no_answer("no route to host") };
        };
        if endpoint != Endpoint::Artifact {
            assert!(!sent.is_download, "an API call with the deadlines of a download");
            assert!(host != STORAGE, "an API call to the storage");
        }
        let lost = || Reply::no_answer("connection reset");
        match self.failure(endpoint, &sent) {
            None => self.perform(endpoint, &sent, verify),
            Some(Failure::NotReached) => Reply::no_answer("connection refused"),
            Some(Failure::LostRequest) => lost(),
            Some(Failure::LostAnswer) => {
                self.perform(endpoint, &sent, verify);
                lost()
            }
            Some(Failure::Status(status)) => said(status, "as the test wanted"),
            Some(Failure::Plain(status)) => Reply::new(status, "no such page"),
            Some(Failure::RetryAfter(status, text)) => said(status, "later").header("retry-after", text),
            Some(Failure::CaptivePortal) => {
                Reply::new(200, "<!DOCTYPE html><title>Pay</title>").header("content-type", "text/html")
            }
            Some(Failure::CutAfter(count)) => self.perform(endpoint, &sent, verify).breaking_after(count),
        }
    }

    fn failure(&mut self, endpoint: Endpoint, sent: &Sent) -> Option<Failure> {
        let matches = |matcher: &Matcher| match matcher {
            Matcher::Any => true,
            Matcher::Of(wanted) => *wanted == endpoint,
            Matcher::Report(status) => {
                endpoint == Endpoint::Status && sent.text().contains(&format!("\"{status}\""))
            }
        };
        let waiting = self.failures.iter().position(|(matcher, _)| matches(matcher));
        if let Some((_, failure)) = waiting.and_then(|at| self.failures.remove(at)) {
            return Some(failure);
        }
        self.lasting.as_ref().filter(|(matcher, _)| matches(matcher)).map(|(_, failure)| failure.clone())
    }

    fn perform(&mut self, endpoint: Endpoint, sent: &Sent, verify: &Verify) -> Reply {
        match endpoint {
            Endpoint::Auth => return self.auth(sent, verify),
            Endpoint::Artifact => return self.artifact(sent),
            Endpoint::Next | Endpoint::Status | Endpoint::Log | Endpoint::Inventory => {}
        }
        let token = sent.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| self.tokens.iter().any(|valid| valid == token)) {
            return said(401, "Unauthorized");
        }
        if sent.body.is_some() {
            assert_eq!(sent.header("content-type"), Some("application/json"));
        }
        match endpoint {
            Endpoint::Next => self.next(sent),
            Endpoint::Status => self.status(sent),
            Endpoint::Log => self.log(sent),
            Endpoint::Inventory => self.take_inventory(sent),
            Endpoint::Auth | Endpoint::Artifact => unreachable!("answered above"),
        }
    }

    fn auth(&mut self, sent: &Sent, verify: &Verify) -> Reply {
        let body = sent.body.as_deref().unwrap_or_default();
        let Ok(request) = Json::parse(body) else { return said(400, "malformed body") };
        let (id, key) = (request.get("id_data"), request.get("pubkey"));
        let (Some(id), Some(key)) = (id.and_then(Json::text), key.and_then(Json::text)) else {
            return said(400, "id_data or pubkey is missing");
        };
        let identity = Json::parse(id.as_bytes()).expect("the identity is JSON");
        let keys = identity.keys();
        assert!(!keys.is_empty() && keys.is_sorted(), "the identity has sorted keys: {id}");
        assert!(key.starts_with("-----BEGIN PUBLIC KEY-----\n") && key.ends_with("-----\n"), "{key}");
        let signature = sent.header("x-men-signature").and_then(unbase64);
        let Some(signature) = signature else { return said(400, "missing request signature header") };
        if !verify(body, &signature, key) {
            return said(401, "signature verification failed");
        }
        let tenant = request.get("tenant_token").map(|token| token.text().unwrap_or_default());
        assert!(tenant != Some(""), "an empty tenant token is left out");
        if !self.accepting || self.tenant.as_deref().is_some_and(|wanted| tenant != Some(wanted)) {
            return said(401, "dev auth: unauthorized");
        }
        self.tokens_given += 1;
        let token = format!("tok{}.e30.c2lnbmF0dXJl", self.tokens_given);
        self.tokens.push(token.clone());
        Reply::new(200, token).header("content-type", "application/jwt")
    }

    fn next(&mut self, sent: &Sent) -> Reply {
        let v2 = sent.path().starts_with("/api/devices/v2/");
        let answered = match (v2, sent.method) {
            (true, "POST") => self.v2,
            (false, "POST") => self.v1_post,
            (false, "GET") => true,
            _ => return said(405, "method not allowed"),
        };
        if !answered {
            return said(404, "no such page");
        }
        let named = |name: &str| match sent.method {
            "GET" => query(&sent.url, name),
            _ => {
                let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
                let provides = if v2 { body.get("device_provides").cloned()? } else { body };
                assert!(provides.keys().is_sorted(), "provides are sorted");
                Some(provides.get(name)?.text()?.to_owned())
            }
        };
        let question = [named("artifact_name"), named("device_type")];
        let [Some(artifact_name), Some(device_type)] = &question else {
            return said(400, "artifact_name or device_type is missing");
        };
        let waiting = |deployment: &&mut Deployment| {
            let finished = deployment.statuses.iter().any(|status| FINALS.contains(&status.as_str()));
            !finished && !deployment.aborted && deployment.device_types.contains(device_type)
        };
        let Some(deployment) = self.deployments.iter_mut().find(waiting) else { return Reply::new(204, "") };
        match &deployment.first_question {
            None if deployment.artifact_name == *artifact_name => {
                deployment.statuses.push("already-installed".to_owned());
                return Reply::new(204, "");
            }
            None => deployment.first_question = Some(question.clone()),
            Some(first) if *first != question => {
                deployment.statuses.push("failure".to_owned());
                return said(409, "the device is not what it was when the deployment began");
            }
            Some(_) => {}
        }
        let types: Vec<String> = deployment.device_types.iter().map(|name| quoted(name)).collect();
        let body = format!(
            "{{\"id\":{},\"artifact\":{{\"id\":\"a0\",\"artifact_name\":{},\"source\":{{\"uri\":{},\
             \"expire\":\"2026-11-23T19:02:37Z\"}},\"device_types_compatible\":[{}]}}}}\n",
            quoted(&deployment.id),
            quoted(&deployment.artifact_name),
            quoted(&link(deployment)),
            types.join(",")
        );
        Reply::new(200, body).header("content-type", "application/json")
    }

    fn reported(&mut self, sent: &Sent) -> Option<&mut Deployment> {
        let id = sent.path().strip_prefix(V1)?.split('/').next()?.to_owned();
        self.deployments.iter_mut().find(|deployment| deployment.id == id)
    }

    fn status(&mut self, sent: &Sent) -> Reply {
        let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
        let status = body.get("status").and_then(Json::text).unwrap_or_default().to_owned();
        let substate = body.get("substate").and_then(Json::text).map(str::to_owned);
        let known = [
            "downloading",
            "installing",
            "rebooting",
            "pause_before_installing",
            "pause_before_rebooting",
            "pause_before_committing",
            "success",
            "failure",
            "already-installed",
        ];
        if !known.contains(&status.as_str()) {
            return said(400, "unknown status");
        }
        let Some(deployment) = self.reported(sent) else { return said(404, "no such deployment") };
        deployment.reports.push(status.clone());
        deployment.substates.push(substate);
        if deployment.aborted {
            return said(409, "deployment aborted");
        }
        if deployment.statuses.last() != Some(&status) {
            let over = deployment.statuses.iter().find(|status| FINALS.contains(&status.as_str()));
            assert!(over.is_none(), "{status} was reported after {over:?}");
            deployment.statuses.push(status);
        }
        Reply::new(204, "")
    }

    fn log(&mut self, sent: &Sent) -> Reply {
        let bytes = sent.body.as_deref().unwrap_or_default();
        if bytes.len() > 1024 * 1024 {
            return said(413, "too large");
        }
        let body = Json::parse(bytes).expect("a body of JSON");
        let messages = body.get("messages").and_then(Json::list).unwrap_or_default();
        let text = |message: &Json, name: &str| message.get(name)?.text().map(str::to_owned);
        let complete = |message: &Json| {
            ["timestamp", "level", "message"]
                .iter()
                .all(|name| text(message, name).is_some_and(|text| !text.is_empty()))
        };
        if messages.is_empty() || !messages.iter().all(complete) {
            return said(400, "a log needs messages, and they need timestamp, level and message");
        }
        let log = sent.text();
        let Some(deployment) = self.reported(sent) else { return said(404, "no such deployment") };
        deployment.logs.push(log);
        Reply::new(204, "")
    }

    fn take_inventory(&mut self, sent: &Sent) -> Reply {
        let allowed = match sent.method {
            "PUT" => self.inventory_put,
            "PATCH" => true,
            _ => false,
        };
        if !allowed {
            return said(405, "method not allowed");
        }
        let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
        let attributes = body.list().expect("a list of attributes");
        let names: Vec<&str> = attributes
            .iter()
            .map(|attribute| attribute.get("name").and_then(Json::text).expect("a name"))
            .collect();
        assert!(names.is_sorted(), "attributes are sorted");
        self.inventory.clone_from(&sent.body);
        self.inventories += 1;
        Reply::new(200, "")
    }

    fn artifact(&mut self, sent: &Sent) -> Reply {
        assert!(sent.header("authorization").is_none(), "a token was sent to the storage");
        assert!(sent.is_download, "a download with the deadlines of an API call");
        assert_eq!(sent.header("accept-encoding"), Some("identity"));
        let id = sent.path().trim_start_matches('/').trim_end_matches(".mender");
        let Some(deployment) = self.deployment(id) else { return said(404, "no such artifact") };
        if sent.url != link(deployment) {
            return Reply::new(403, "<Error><Code>AccessDenied</Code></Error>");
        }
        let content = &deployment.content;
        let tagged = |reply: Reply| match &deployment.etag {
            Some(etag) => reply.header("etag", etag.clone()).header("accept-ranges", "bytes"),
            None => reply.header("accept-ranges", "bytes"),
        };
        let range = sent.header("range").filter(|_| self.ranges);
        let current = sent.header("if-range").is_none_or(|tag| Some(tag) == deployment.etag.as_deref());
        let Some(range) = range.filter(|_| current) else { return tagged(Reply::new(200, content).sized()) };
        let (start, end) =
            range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).expect("a range of bytes");
        let start: usize = start.parse().expect("the beginning of a range");
        let last = content.len().saturating_sub(1);
        let end = if end.is_empty() { last } else { end.parse::<usize>().expect("its end").min(last) };
        if start >= content.len() {
            return Reply::new(416, "").header("content-range", format!("bytes */{}", content.len()));
        }
        let part = Reply::new(206, &content[start..=end]).sized();
        tagged(part.header("content-range", format!("bytes {start}-{end}/{}", content.len())))
    }
}

fn endpoint(sent: &Sent) -> Option<Endpoint> {
    let path = sent.path();
    if sent.url.starts_with(STORAGE) {
        return Some(Endpoint::Artifact);
    }
    match (sent.method, path) {
        ("POST", "/api/devices/v1/authentication/auth_requests") => Some(Endpoint::Auth),
        ("PUT" | "PATCH", "/api/devices/v1/inventory/device/attributes") => Some(Endpoint::Inventory),
        (_, "/api/devices/v2/deployments/device/deployments/next") => Some(Endpoint::Next),
        _ => match path.strip_prefix(V1)?.split_once('/') {
            None if path.ends_with("/next") => Some(Endpoint::Next),
            Some((_, "status")) if sent.method == "PUT" => Some(Endpoint::Status),
            Some((_, "log")) if sent.method == "PUT" => Some(Endpoint::Log),
            Some(_) | None => None,
        },
    }
}

/// A parameter of the query, decoded.
fn query(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        assert!(byte != b'+', "a space is %20");
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Standard base64 with padding.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if text.is_empty() || text.len() % 4 != 0 {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits.bytes() {
        let value = LETTERS.iter().position(|letter| *letter == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (text.len() - digits.len() < 3).then_some(bytes)
}

/// The device of the tests. Its signatures can be checked by [`ServerModel`] alone and protect nothing.
#[derive(Debug, Clone)]
pub struct TestCredentials {
    /// What it says it is.
    pub id_data: Result<String, String>,
}

impl Default for TestCredentials {
    fn default() -> TestCredentials {
        TestCredentials { id_data: Ok("{\"mac\":\"02:00:00:00:00:01\"}".to_owned()) }
    }
}

/// The public key of [`TestCredentials`].
pub const TEST_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";

impl Credentials for TestCredentials {
    fn id_data(&mut self) -> Result<String, CredentialsError> {
        self.id_data.clone().map_err(|reason| CredentialsError::Identity { reason })
    }

    fn public_key_pem(&self) -> String {
        TEST_PUBLIC_KEY.to_owned()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CredentialsError> {
        Ok(test_signature(message))
    }
}

/// FNV-1a, as a stand-in for a signature.
fn test_signature(message: &[u8]) -> Vec<u8> {
    let hash = message.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    hash.to_be_bytes().to_vec()
}

fn verify_test_signature(body: &[u8], signature: &[u8], key: &str) -> bool {
    key == TEST_PUBLIC_KEY && signature == test_signature(body)
}

#[cfg(test)]
mod tests {
    use client_core::deploy::DeploymentId;
    use client_core::storage::BlockDevice;
    use server_mender::{Api, DeploymentStatus, Settings};

    use super::*;
    use crate::enumerator::{After, Options, Scenario, explore};
    use crate::storage::SECTOR_LEN;

    fn api(model: &ServerModel) -> Api {
        let settings = Settings { servers: vec![SERVER.to_owned()], ..Settings::default() };
        let credentials = Box::new(TestCredentials::default());
        Api::new(model.transport(), credentials, VirtualClock::new(1).shared(), settings)
    }

    fn d1() -> DeploymentId {
        DeploymentId::remembered("d1")
    }

    fn provides() -> BTreeMap<String, String> {
        let pairs = [("artifact_name", "release-1"), ("device_type", "testbox")];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A device that reports its result, and then notes that it did. After a cut it reports `again`.
    fn scenario(again: DeploymentStatus) -> Scenario<ServerFacts> {
        let step = |world: &CrashWorld, facts: &mut ServerFacts, status| {
            let _cuts = PowerCuts::of(world);
            let mut disk = world.open("disk");
            let mut noted = [0];
            disk.read_at(0, &mut noted).map_err(|error| error.to_string())?;
            if noted == [0] {
                api(&facts.0).report_status(&d1(), status, None).map_err(|error| error.to_string())?;
                disk.write_at(0, &[1; SECTOR_LEN]).map_err(|error| error.to_string())?;
                disk.sync().map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        };
        Scenario::new(|world| {
            world.add_device("disk", vec![0; SECTOR_LEN]);
            let model = ServerModel::new();
            model.set_recording(false);
            model.deploy("d1", "release-2", "testbox", b"x");
            ServerFacts(model)
        })
        .run(move |world, facts| step(world, facts, DeploymentStatus::Success))
        .recover(move |world, facts| {
            step(world, facts, again)?;
            let finals = facts.0.finals("d1");
            if finals == [again.name()] || finals == ["success"] {
                Ok(After::Settled)
            } else {
                Err(format!("{finals:?}"))
            }
        })
        .fold_equal_states()
    }

    #[test]
    fn a_report_that_power_cuts_repeat_is_one_report_and_a_contradiction_is_found() {
        let mut options = Options::cuts(2);
        options.limits.tears.clear();
        explore(&scenario(DeploymentStatus::Success), &options).assert_holds();
        explore(&scenario(DeploymentStatus::Failure), &options).assert_violates("reported after");
    }

    #[test]
    fn a_question_that_changes_during_a_deployment_fails_it() {
        let model = ServerModel::new();
        model.deploy("d1", "release-2", "testbox", b"x");
        let mut api = api(&model);
        assert!(api.next_deployment(&provides()).unwrap().is_some());
        let mut changed = provides();
        changed.insert("artifact_name".into(), "release-0".into());
        assert!(api.next_deployment(&changed).is_err());
        assert_eq!(model.finals("d1"), ["failure"]);
    }

    #[test]
    fn what_is_installed_already_is_not_ordered() {
        let model = ServerModel::new();
        model.deploy("d1", "release-1", "testbox", b"x");
        model.deploy("d2", "release-2", "otherbox", b"x");
        assert_eq!(api(&model).next_deployment(&provides()).unwrap(), None);
        assert_eq!(model.finals("d1"), ["already-installed"]);
        assert_eq!(model.statuses("d2"), [""; 0]);
    }

    #[test]
    fn a_lost_answer_was_performed_and_a_lost_request_was_not() {
        let model = ServerModel::new();
        model.deploy("d1", "release-2", "testbox", b"x");
        let mut api = api(&model);
        api.authenticate().unwrap();
        model.fail_next(Matcher::Report("downloading"), Failure::LostRequest);
        model.fail_next(Matcher::Report("downloading"), Failure::LostAnswer);
        for expected in [0, 1] {
            assert!(api.report_status(&d1(), DeploymentStatus::Downloading, None).is_err());
            assert_eq!(model.reports("d1").len(), expected);
        }
        api.report_status(&d1(), DeploymentStatus::Downloading, None).unwrap();
        assert_eq!((model.statuses("d1"), model.reports("d1").len()), (vec!["downloading".to_owned()], 2));
    }

    #[test]
    fn a_restored_server_has_forgotten_and_a_fork_goes_its_own_way() {
        let model = ServerModel::new();
        model.deploy("d1", "release-2", "testbox", b"x");
        let before = model.snapshot();
        let fork = model.fork();
        api(&model).report_status(&d1(), DeploymentStatus::Downloading, None).unwrap();
        assert_eq!((model.statuses("d1").len(), fork.statuses("d1").len()), (1, 0));
        model.restore(before.clone());
        assert!(model.snapshot() == before);
    }

    #[test]
    fn base64_is_read_with_its_padding_only() {
        assert_eq!(unbase64("YWJj"), Some(b"abc".to_vec()));
        assert_eq!(unbase64("YWI="), Some(b"ab".to_vec()));
        assert_eq!(unbase64("YQ=="), Some(b"a".to_vec()));
        for text in ["", "YQ", "YQ=", "Y===", "YW-j", "YQ==\n"] {
            assert_eq!(unbase64(text), None, "{text}");
        }
    }
}
