//! What a deployment would do, before it is made. Devices are counted by what they have in common, so a million of them take
//! some questions to the store and some sets of up to 125 kB each. What devices have reported stands for what they will say.

use hyper::StatusCode;
use roaring::RoaringBitmap;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::{ApiError, Call, Reply, Shared, reply};
use super::{create, sets};
use crate::domain::rollout::{self, CreateError, Reported};
use crate::work::query::Test;

/// Artifacts of one name: each has sets of its own.
const ARTIFACTS: usize = 200;
/// Devices that are named of each kind.
const EXAMPLES: usize = 10;
/// Deployments that are named.
const OTHERS: usize = 100;

/// One at a time is worked out, so that what is in memory for it is bounded.
static TURN: Semaphore = Semaphore::const_new(1);

pub(super) async fn dry_run(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let _turn = TURN.acquire().await.map_err(|_| ApiError::internal("the server stops"))?;
    let create::Prepared { mut new, refused } = create::prepare(shared, call, None).await?;
    if let Some(filter) = &new.filter {
        new.members = create::filtered(shared, filter).await?;
    }
    let artifacts = shared.service.catalogue.artifacts_named(&new.artifact_name);
    if artifacts.len() > ARTIFACTS {
        return Err(ApiError::unprocessable("more than 200 artifacts have that name"));
    }
    if let (true, Some(refused)) = (new.members.is_empty() && new.filter.is_none(), refused.first()) {
        return Err(refused.clone().into());
    }
    let phases = rollout::check(&new)?;
    let equal = create::equal(shared, &new);
    let device_count = new.members.len().min(new.max_devices.unwrap_or(u64::MAX));
    let reported = sets::reported(shared, Reported::wanted(&artifacts)).await?;
    let members = &new.members;
    // Who is let in beforehand has reported nothing.
    let known = reported.any.get(rollout::DEVICE_TYPE).cloned().unwrap_or_default();
    let silent = members - &known;
    let installed = match new.force_installation {
        true => RoaringBitmap::new(),
        false => {
            let test = Test::Equal(json!(new.artifact_name));
            sets::devices(shared, sets::reports("artifact_name"), test).await? & members & &known
        }
    };
    let asking = (members & &known) - &installed;
    let shares = tokio::task::spawn_blocking(move || rollout::shares(&artifacts, &reported, &asking));
    let shares = shares.await.map_err(|_| ApiError::internal("the devices could not be counted"))?;
    let mut given = Vec::new();
    let (mut devices, mut bytes) = (0_u64, 0_u64);
    for (artifact, set) in &shares.given {
        let own = artifact.size.saturating_mul(set.len());
        (devices, bytes) = (devices + set.len(), bytes.saturating_add(own));
        let mut described = described(shared, set).await?;
        described["id"] = json!(artifact.id);
        described["kind"] = json!(if artifact.depends.is_empty() { "full" } else { "delta" });
        described["device_types_compatible"] = json!(artifact.device_types);
        described["size"] = json!(artifact.size);
        described["bytes"] = json!(own);
        given.push(described);
    }
    let mut without = Vec::new();
    for (code, set) in [
        ("already-installed", &installed),
        ("not-reported", &silent),
        ("wrong-type", &shares.other_type),
        ("no-artifact-fits", &shares.unfit),
    ] {
        if !set.is_empty() {
            let mut described = described(shared, set).await?;
            described["code"] = json!(code);
            without.push(described);
        }
    }
    without.extend(of_refused(&refused));
    let sizes: Vec<_> = phases.iter().map(|phase| phase.size).collect();
    let counts = rollout::phase_counts(&sizes, device_count);
    let phases: Vec<Value> = phases
        .iter()
        .zip(counts)
        .map(|(phase, count)| match phase.start {
            None => json!({ "device_count": count }),
            Some(start) => json!({ "device_count": count, "start_ts": start }),
        })
        .collect();
    let mut answer = json!({
        "device_count": device_count,
        "devices": devices,
        "bytes": bytes,
        "saved_bytes": shares.saved,
        "artifacts": given,
        "without": without,
        "other_deployments": others(shared, members).await?,
        "phases": phases,
    });
    if let Some(equal) = equal {
        answer["equal_deployment"] = json!(equal);
    }
    if let Some(canaries) = &new.canaries {
        answer["canaries"] = json!(sets::ids(shared, &canaries.devices).await?);
    }
    Ok(reply::json(StatusCode::OK, &answer))
}

/// How many there are, and the first of them.
async fn described(shared: &Shared, set: &RoaringBitmap) -> Result<Value, ApiError> {
    let first: Vec<u32> = set.iter().take(EXAMPLES).collect();
    Ok(json!({ "devices": set.len(), "examples": sets::ids(shared, &first).await? }))
}

/// Devices that are named and for which a deployment would not be made.
fn of_refused(refused: &[CreateError]) -> Vec<Value> {
    let (mut unknown, mut kept_out) = (Vec::new(), Vec::new());
    for error in refused {
        if let CreateError::UnknownDevice(id) = error {
            unknown.push(id);
        }
        if let CreateError::NotAccepted(id) = error {
            kept_out.push(id);
        }
    }
    let of = |code: &str, ids: &[&String]| {
        let examples: Vec<&&String> = ids.iter().take(EXAMPLES).collect();
        (!ids.is_empty()).then(|| json!({ "code": code, "devices": ids.len(), "examples": examples }))
    };
    [of("unknown", &unknown), of("not-accepted", &kept_out)].into_iter().flatten().collect()
}

/// Active deployments that list some of the devices: these finish the older ones first.
async fn others(shared: &Shared, members: &RoaringBitmap) -> Result<Vec<Value>, ApiError> {
    let mut others = Vec::new();
    for active in shared.service.catalogue.active() {
        let both = &*active.members & members;
        if both.is_empty() {
            continue;
        }
        if others.len() >= OTHERS {
            break;
        }
        let mut described = described(shared, &both).await?;
        described["id"] = json!(active.deployment.id);
        described["name"] = json!(active.deployment.name);
        described["finished"] = json!(active.deployment.finished_records());
        others.push(described);
    }
    Ok(others)
}
