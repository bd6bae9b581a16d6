//! What devices ask about updates, and what they report of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use artifact::text::printable;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Speaker;
use super::{ApiError, Call, Reply, Shared, deviceconfig, download, reply};
use crate::domain::filter::{Filter, filter_query};
use crate::domain::limits;
use crate::domain::rollout::{self, Candidate, Next, NextError, Request, Wait};
use crate::model::time::Timestamp;
use crate::model::{Budget, Deployment, FleetBudget, Status};
use crate::store::{Store, StoreError};
use crate::work::query::{Active, DeploymentQuery, DeviceView};
use crate::work::{Key, Kind, NotLoaded, Work};

/// For how long it holds how many devices load.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl From<NextError> for ApiError {
    fn from(error: NextError) -> ApiError {
        match error {
            NextError::NotLoaded => NotLoaded.into(),
            NextError::Unauthorized => ApiError::unauthorized("dev auth: unauthorized"),
            NextError::NoRandomness => ApiError::internal("no random numbers"),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NextRequest")]
pub(super) struct V2Request {
    device_provides: BTreeMap<String, Value>,
    #[serde(default)]
    update_control_map: bool,
}

/// What a device asks with, and whether it understands an update control map.
pub(super) struct Question {
    request: Request,
    update_control_map: bool,
}

pub(super) fn v2_request(call: &Call) -> Result<Question, ApiError> {
    let V2Request { device_provides, update_control_map } = call.json()?;
    Ok(Question { request: provides(device_provides)?, update_control_map })
}

pub(super) fn request(call: &Call) -> Result<Question, ApiError> {
    Ok(Question { request: provides(call.json()?)?, update_control_map: false })
}

/// What a device provides, as a flat map. Other things than strings are for newer servers.
fn provides(provides: BTreeMap<String, Value>) -> Result<Request, ApiError> {
    let texts = provides.into_iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    });
    checked(texts.collect(), true)
}

pub(super) fn query_request(call: &Call) -> Result<Question, ApiError> {
    let value = |name: &str| Some((name.to_owned(), call.query(name)?));
    let request = checked(["artifact_name", "device_type"].into_iter().filter_map(value).collect(), false)?;
    Ok(Question { request, update_control_map: false })
}

fn checked(provides: BTreeMap<String, String>, complete: bool) -> Result<Request, ApiError> {
    let too_long = |text: &String| text.chars().count() > limits::PROVIDES_CHARS;
    if provides.len() > limits::PROVIDES
        || provides.iter().any(|(key, value)| too_long(key) || too_long(value))
    {
        return Err(ApiError::bad_request("the device provides too much"));
    }
    let needed = |name: &str| {
        let value = provides.get(name).filter(|value| !value.is_empty()).cloned();
        value.ok_or_else(|| ApiError::bad_request(&format!("{name}: cannot be blank")))
    };
    let (artifact_name, device_type) = (needed("artifact_name")?, needed("device_type")?);
    Ok(Request { artifact_name, device_type, provides, complete })
}

/// What a report on a deployment reads.
fn keys(device: &str, deployment: &str) -> Vec<Key> {
    vec![
        Key::Device(device.to_owned()),
        Key::Deployment(deployment.to_owned()),
        Key::Record(deployment.to_owned(), device.to_owned()),
    ]
}

/// Deployments that may have something to do for a device, the oldest first. Of nearly all polls there is none.
async fn candidates(shared: &Shared, speaker: &Speaker) -> Result<Vec<Candidate>, ApiError> {
    let after = if speaker.active.is_some() { 0 } else { speaker.last_finished };
    let mut listed: Vec<_> = Vec::new();
    let mut view = None;
    for active in shared.service.catalogue.active() {
        let is_own = speaker.active.as_ref() == Some(&active.deployment.id);
        if active.deployment.sequence <= after || !(is_own || may_begin(&active.deployment, speaker.number)) {
            continue;
        }
        let is_listed = active.members.contains(speaker.number);
        if is_listed || is_wanted(shared, speaker, &active, &mut view).await? {
            listed.push(active);
        }
    }
    if let Some(own) = &speaker.active {
        // What it is at work on comes first.
        listed.sort_by_key(|active| active.deployment.id != *own);
    }
    let candidate = |active: std::sync::Arc<Active>| Candidate {
        deployment: active.deployment.id.clone(),
        artifacts: shared.service.catalogue.artifacts_named(&active.deployment.artifact_name),
    };
    Ok(listed.into_iter().map(candidate).collect())
}

/// Whether a device may begin with a deployment now, so that one that waits costs no transaction a poll. The rule decides
/// anew.
fn may_begin(deployment: &Deployment, number: u32) -> bool {
    let has_room = deployment.phases.is_empty() || deployment.open_phase(Timestamp::now(), number).is_some();
    deployment.held.is_none() && has_room
}

/// Whether the filter of a dynamic deployment holds for a device that it does not list yet.
async fn is_wanted(
    shared: &Shared,
    speaker: &Speaker,
    active: &Active,
    view: &mut Option<DeviceView>,
) -> Result<bool, ApiError> {
    let Some(filter) = &active.deployment.filter else { return Ok(false) };
    if view.is_none() {
        *view = Some(shared.view(&speaker.claims.sub).await?);
    }
    Ok(view.as_ref().is_some_and(|view| is_in(filter, view)))
}

/// Whether the filter of a dynamic deployment holds for a device. One that this server cannot read holds for none.
pub(super) fn is_in(filter: &Value, view: &DeviceView) -> bool {
    let query = Filter::deserialize(filter).ok().and_then(|filter| filter_query(&filter).ok());
    query.is_some_and(|query| view.is_wanted(&query))
}

pub(super) async fn next(
    shared: &Shared,
    call: &Call,
    speaker: &Speaker,
    question: &Question,
) -> Result<Reply, ApiError> {
    let mut candidates = candidates(shared, speaker).await?;
    let fleet = if candidates.is_empty() { None } else { fleet(shared).await? };
    if let Some(fleet) = &fleet {
        // Who waits for the others costs no transaction. The rule decides anew.
        candidates.retain(|candidate| {
            speaker.active.as_ref() == Some(&candidate.deployment)
                || !fleet.is_in_the_way(candidate, &question.request)
        });
    }
    // Nearly every poll ends here, without a transaction.
    if candidates.is_empty() {
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let mut answer = ask(shared, speaker, &candidates, question, fleet.as_ref()).await?;
    if let Next::Make(wanted) = answer {
        deviceconfig::make(shared, wanted).await?;
        answer = ask(shared, speaker, &candidates, question, fleet.as_ref()).await?;
    }
    match answer {
        // It has just been made, so this is a deployment that another change has put in its place: next time.
        Next::Make(_) | Next::Nothing => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Next::Conflict => Err(ApiError::conflict("the device is not what it was when the deployment began")),
        Next::Offer { deployment, artifact } => {
            let link = download::link(shared, call, &artifact).await;
            let mut answer = json!({
                "id": deployment.id,
                "artifact": {
                    "id": artifact.id,
                    "artifact_name": artifact.name,
                    "source": { "uri": link.uri, "expire": link.expire },
                    "device_types_compatible": artifact.device_types,
                },
            });
            if question.update_control_map {
                if let Some(map) = control_map_of(&deployment) {
                    answer["update_control_map"] = map;
                }
            }
            Ok(reply::json(StatusCode::OK, &answer))
        }
    }
}

/// What all devices together may load, as this process knows it; `None` where they may load what they like.
pub(super) struct Fleet {
    budget: FleetBudget,
    /// Devices that load now.
    pub(super) loading: u64,
    /// The deployments whose devices are counted: those of software that have not ended.
    active: Vec<String>,
}

pub(super) async fn fleet(shared: &Shared) -> Result<Option<Fleet>, ApiError> {
    let Some(budget) = shared.service.catalogue.document::<FleetBudget>(Kind::Budget, rollout::FLEET) else {
        return Ok(None);
    };
    let mut active = shared.service.catalogue.active();
    active.retain(|active| active.deployment.configuration.is_none());
    let ids: Vec<String> = active.iter().map(|active| active.deployment.id.clone()).collect();
    // Without an id, the store would be asked for all.
    let loading = match shared.service.store.is_shared() && !ids.is_empty() {
        true => shared.loading.read(&*shared.service.store, &ids).await?,
        false => active.iter().map(|active| active.deployment.loading()).sum(),
    };
    Ok(Some(Fleet { budget, loading, active: ids }))
}

/// How many devices load now, of a fleet that other processes serve as well: their counters are no news, so they are read, at most
/// once a second however many ask.
#[derive(Debug, Default)]
pub(crate) struct Loading(tokio::sync::Mutex<Option<(Instant, u64)>>);

impl Loading {
    async fn read(&self, store: &dyn Store, deployments: &[String]) -> Result<u64, StoreError> {
        // Who asks meanwhile waits, and has the same answer.
        let mut last = self.0.lock().await;
        if let Some((_, loading)) = last.filter(|(when, _)| when.elapsed() < READ_AGAIN) {
            return Ok(loading);
        }
        let query = DeploymentQuery {
            ids: deployments.to_vec(),
            take: deployments.len() as u64,
            ..DeploymentQuery::default()
        };
        let found = store.deployments(&query).await?.items;
        let open = found.iter().filter(|deployment| deployment.finished.is_none());
        let loading = open.map(Deployment::loading).sum();
        *last = Some((Instant::now(), loading));
        Ok(loading)
    }
}

impl Fleet {
    /// What people have set.
    pub(super) fn budget(&self) -> Budget {
        self.budget.budget
    }

    /// What a device that has not begun would wait for.
    pub(super) fn wait(&self, bytes: u64) -> Option<Wait> {
        rollout::fleet_budget(&self.budget, self.loading, true, bytes, Timestamp::now())
    }

    fn is_in_the_way(&self, candidate: &Candidate, request: &Request) -> bool {
        let chosen = rollout::choose(&candidate.artifacts, request);
        // Who has it already only has to hear of it: the rule knows.
        let chosen = chosen.filter(|artifact| artifact.name != request.artifact_name);
        chosen.is_some_and(|artifact| self.wait(artifact.size).is_some())
    }

    /// As people see it.
    pub(super) fn describe(&self) -> Value {
        let mut described = json!(self.budget.budget);
        described["spent_bytes"] = json!(rollout::fleet_spent(&self.budget, Timestamp::now()));
        described["loading"] = json!(self.loading);
        described
    }
}

async fn ask(
    shared: &Shared,
    speaker: &Speaker,
    candidates: &[Candidate],
    question: &Question,
    fleet: Option<&Fleet>,
) -> Result<Next, ApiError> {
    let claims = speaker.claims.clone();
    let mut keys = vec![Key::Device(claims.sub.clone())];
    if let Some(first) = candidates.first() {
        keys.push(Key::Deployment(first.deployment.clone()));
        keys.push(Key::Record(first.deployment.clone(), claims.sub.clone()));
    }
    let (candidates, request) = (candidates.to_vec(), question.request.clone());
    let active = fleet.map(|fleet| fleet.active.clone());
    let rule = move |work: &mut Work| rollout::next(work, &claims, &candidates, &request, active.as_deref());
    shared.change(keys, rule).await
}

/// The map of a deployment, with the id that devices know it by.
fn control_map_of(deployment: &Deployment) -> Option<Value> {
    let mut map = deployment.update_control_map.clone()?;
    map["id"] = json!(deployment.id);
    Some(map)
}

/// The update control map of a deployment that the device is at work on.
pub(super) async fn control_map(shared: &Shared, speaker: &Speaker, id: &str) -> Result<Reply, ApiError> {
    let store = &shared.service.store;
    store.record(id, &speaker.claims.sub).await?.ok_or_else(ApiError::not_found)?;
    let deployment = store.deployment(id).await?.ok_or_else(ApiError::not_found)?;
    match control_map_of(&deployment) {
        Some(map) => Ok(reply::json(StatusCode::OK, &json!({ "update_control_map": map }))),
        None => Ok(reply::empty(StatusCode::NO_CONTENT)),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct StatusReport {
    status: String,
    #[serde(default)]
    substate: Option<String>,
}

pub(super) async fn status(
    shared: &Shared,
    call: &Call,
    speaker: &Speaker,
    deployment: &str,
) -> Result<Reply, ApiError> {
    let report: StatusReport = call.json()?;
    let status = Status::parse(&report.status).filter(|status| status.is_for_devices());
    let status = status.ok_or_else(|| ApiError::bad_request("not a status that a device may report"))?;
    let substate = report.substate.filter(|text| !text.is_empty());
    if substate.as_ref().is_some_and(|text| text.chars().count() > limits::SUBSTATE_CHARS) {
        return Err(ApiError::bad_request("the substate is too long"));
    }
    let claims = speaker.claims.clone();
    let keys = keys(&claims.sub, deployment);
    let id = deployment.to_owned();
    let rule = move |work: &mut _| rollout::report_status(work, &claims, &id, status, substate.as_deref());
    shared.change(keys, rule).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct LogReport {
    messages: Vec<Message>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LogMessage")]
struct Message {
    timestamp: String,
    level: String,
    message: String,
}

pub(super) async fn log(
    shared: &Shared,
    call: &Call,
    speaker: &Speaker,
    deployment: &str,
) -> Result<Reply, ApiError> {
    let report: LogReport = call.json()?;
    let wrong = |message: &Message| {
        Timestamp::parse(&message.timestamp).is_none()
            || message.level.is_empty()
            || message.message.is_empty()
    };
    if report.messages.is_empty() || report.messages.iter().any(wrong) {
        return Err(ApiError::bad_request("each message needs a timestamp, a level and a text"));
    }
    // One line each, whatever a message has in it: it must not look like two, and must do nothing to a terminal.
    let line = |message: &Message| {
        let (level, text) = (printable(&message.level), printable(message.message.trim_end()));
        format!("{} {level}: {text}\n", message.timestamp)
    };
    let text: String = report.messages.iter().map(line).collect();
    let claims = speaker.claims.clone();
    let keys = keys(&claims.sub, deployment);
    let deployment = deployment.to_owned();
    shared.change(keys, move |work| rollout::report_log(work, &claims, &deployment, &text)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
