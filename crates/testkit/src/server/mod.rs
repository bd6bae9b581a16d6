//! A Mender-compatible server in memory, as the client sees it through its [`Transport`]: written from the description of
//! the device API, without any code of the client.
//!
//! It is stricter than a real one: what no correct client would send (a token to the storage, a broken body, a status
//! after the final one) ends the test.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use client_core::server::{Request, Response, Transport, TransportError};

use crate::clock::VirtualClock;
use crate::storage::PowerCuts;
use crate::transport::Sent;

mod answers;
mod credentials;
mod request;

pub use credentials::{TEST_PUBLIC_KEY, TestCredentials};

use answers::link;
use credentials::verify_test_signature;

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
    /// What the offer says of the device types.
    labelled: Vec<String>,
    content: Arc<[u8]>,
    etag: Option<String>,
    /// Counts the links: only the newest one is good.
    link: u32,
    aborted: bool,
    /// Aborts itself at so many more reports of a status.
    aborts_at: Option<(&'static str, u32)>,
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
    /// Questions for a deployment that were answered with none.
    vain_questions: u32,
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
            vain_questions: 0,
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

    /// Whether what decides nothing later is recorded: requests, reports that are not final, remarks, logs, inventories,
    /// how many tokens were given. Enumerators that hash snapshots turn it off.
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
            labelled: vec![device_type.to_owned()],
            content: artifact.into(),
            etag: Some(format!("\"{id}-1\"")),
            link: 0,
            aborted: false,
            aborts_at: None,
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

    /// Offers the deployment as one for another device type than that of the device it is for.
    pub fn mislabel(&self, id: &str, device_type: &str) {
        self.change(id, |deployment| deployment.labelled = vec![device_type.to_owned()]);
    }

    /// Aborts a deployment.
    pub fn abort(&self, id: &str) {
        self.change(id, |deployment| deployment.aborted = true);
    }

    /// Aborts a deployment when a status is reported for the `nth` time from now, before that is answered.
    pub fn abort_at_report(&self, id: &str, status: &'static str, nth: u32) {
        self.change(id, |deployment| deployment.aborts_at = Some((status, nth)));
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

    /// Every final report that arrived, also those that were refused or repeated.
    pub fn final_reports(&self, id: &str) -> Vec<String> {
        self.reports(id).into_iter().filter(|status| FINALS.contains(&status.as_str())).collect()
    }

    /// Whether the deployment was aborted.
    pub fn is_aborted(&self, id: &str) -> bool {
        self.state().deployment(id).is_some_and(|deployment| deployment.aborted)
    }

    /// How often a device asked for a deployment and there was none.
    pub fn vain_questions(&self) -> u32 {
        self.state().vain_questions
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
        let place: String =
            format!("{} {} {}", sent.method, sent.path(), sent.text()).chars().take(120).collect();
        PowerCuts::here(&format!("before {place}"));
        let mut state = self.state();
        let reply = state.receive(sent, &*verify);
        drop(state);
        PowerCuts::here(&format!("after {place}"));
        let no_clock: Option<&VirtualClock> = None;
        reply.perform(no_clock)
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

#[cfg(test)]
mod tests {
    use client_core::deploy::DeploymentId;
    use client_core::storage::BlockDevice;
    use server_mender::{Api, DeploymentStatus, Settings};

    use super::*;
    use crate::enumerator::{After, Options, Scenario, explore};
    use crate::storage::{CrashWorld, SECTOR_LEN};

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
}
