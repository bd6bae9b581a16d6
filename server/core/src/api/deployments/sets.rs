//! Questions to the store that end in sets of devices: for a dry run, and for those that begin first.

use roaring::RoaringBitmap;
use serde_json::Value;

use super::super::{ApiError, Shared};
use crate::domain::filter;
use crate::domain::rollout::{self, Reported};
use crate::model::{AuthStatus, WantedCanaries};
use crate::work::query::{Attr, Bound, DeviceQuery, Scope, Test};

/// Who was heard of so many seconds ago or later is preferred.
const RECENT_SECONDS: u64 = 7 * 24 * 3600;

pub(super) fn reports(name: &str) -> Attr {
    Attr { scope: Some(Scope::Inventory), name: name.to_owned() }
}

/// The accepted devices for which something holds.
pub(super) async fn devices(shared: &Shared, attr: Attr, test: Test) -> Result<RoaringBitmap, ApiError> {
    let statuses = vec![AuthStatus::Accepted];
    let query = DeviceQuery { tests: vec![(attr, test)], statuses, ..DeviceQuery::default() };
    Ok(shared.service.store.device_numbers(&query).await?)
}

/// The first ids of a set.
pub(super) async fn ids(shared: &Shared, numbers: &[u32]) -> Result<Vec<String>, ApiError> {
    let ids = shared.service.store.device_ids(numbers).await?;
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// Asks the store for what has to be known.
pub(super) async fn reported(shared: &Shared, wanted: Reported) -> Result<Reported, ApiError> {
    let mut reported = Reported::default();
    for (key, values) in wanted.with.into_keys() {
        let test = Test::In(values.iter().cloned().map(Value::String).collect());
        let set = devices(shared, reports(&key), test).await?;
        reported.with.insert((key, values), set);
    }
    for key in wanted.any.into_keys() {
        let set = devices(shared, reports(&key), Test::Exists(true)).await?;
        reported.any.insert(key, set);
    }
    Ok(reported)
}

/// The attribute that a text such as `device_type` or `tags/region` names.
fn named(text: &str) -> Result<Attr, ApiError> {
    match text.split_once('/') {
        None => Ok(reports(text)),
        Some((scope, name)) => {
            let attr = filter::attr(scope, name);
            attr.map_err(|error| ApiError::bad_request(&format!("canaries: {text}: {error}")))
        }
    }
}

/// Which devices of `members` begin first.
pub(super) async fn canaries(
    shared: &Shared,
    members: &RoaringBitmap,
    wanted: &WantedCanaries,
) -> Result<Vec<u32>, ApiError> {
    let count = usize::try_from(wanted.count).unwrap_or(usize::MAX);
    let since = shared.service.now().0.saturating_sub(RECENT_SECONDS * 1000);
    let since = serde_json::json!(crate::model::time::Timestamp(since));
    let heard = Attr { scope: Some(Scope::System), name: "check_in_time".to_owned() };
    let recent = devices(shared, heard, Test::Order(Bound::From, since)).await?;
    let mut values = Vec::new();
    for name in &wanted.spread_by {
        values.push(of_each_value(shared, members, &named(name)?, count).await?);
    }
    let choice = tokio::task::spawn_blocking(move || rollout::spread(&values, &recent, count));
    choice.await.map_err(|_| ApiError::internal("no devices could be chosen to begin first"))
}

/// The members with each value of an attribute, and those without one: a device says a value, and the store which others have it.
/// So it takes as many questions as there are values, and no more than `most`.
async fn of_each_value(
    shared: &Shared,
    members: &RoaringBitmap,
    attr: &Attr,
    most: usize,
) -> Result<Vec<RoaringBitmap>, ApiError> {
    let mut left = members.clone();
    let mut sets = Vec::new();
    while let Some(number) = left.min() {
        if sets.len() >= most {
            break;
        }
        let id = ids(shared, &[number]).await?;
        let view = match id.first() {
            Some(id) => shared.service.store.view(id).await?,
            None => None,
        };
        // Of a list, its first value stands for it.
        let value = match view.and_then(|view| view.value(attr)) {
            Some(Value::Array(values)) => values.into_iter().next(),
            value => value,
        };
        let test = value.map_or(Test::Exists(false), Test::Equal);
        let mut set = devices(shared, attr.clone(), test).await? & &left;
        // Also one that was not accepted, or that has changed meanwhile.
        set.insert(number);
        left -= &set;
        sets.push(set);
    }
    Ok(sets)
}
