//! Searches over what is known of devices, and filters that are kept.

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::inventory::describe;
use super::paging::{Page, direction};
use super::routes::{Route, made};
use super::seen::{Seen, tagged};
use super::{ApiError, Call, Reply, Shared, audit, reply};
use crate::domain::filter::{Filter, Term, TermError, attr, filter_query, inventory_scope};
use crate::domain::{id, limits};
use crate::work::query::{Attr, DeviceQuery, Scope, Test};
use crate::work::{Key, Kind, NotLoaded, Work};

/// Filters and sort criteria of one search.
const CRITERIA: usize = 50;
/// Longest name of a kept filter, and longest beginning of a value.
const NAME_CHARS: usize = limits::NAME_CHARS;

impl From<TermError> for ApiError {
    fn from(error: TermError) -> ApiError {
        ApiError::bad_request(&error.to_string())
    }
}

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/management/v2/inventory/filters/search", "Search devices")
        .takes(made::<Search>)
        .paged_by_body()
        .gives("[DeviceInventory]"),
    Route::get("/api/management/v2/inventory/filters/attributes", "What there is to search for")
        .gives("[AttributeName]"),
    Route::get("/api/management/v2/inventory/filters", "List kept filters")
        .paged()
        .gives_made(made::<Vec<Filter>>),
    Route::post("/api/management/v2/inventory/filters", "Keep a filter")
        .takes(made::<Filter>)
        .status(201)
        .fails(&[409]),
    Route::get("/api/management/v2/inventory/filters/{filter}", "One kept filter")
        .gives_made(made::<Filter>)
        .fails(&[404]),
    Route::put("/api/management/v2/inventory/filters/{filter}", "Change a kept filter")
        .takes(made::<Filter>)
        .fails(&[404, 409, 412]),
    Route::delete("/api/management/v2/inventory/filters/{filter}", "Remove a kept filter").fails(&[404]),
    Route::get("/api/management/v2/inventory/filters/{filter}/search", "List the devices of a kept filter")
        .paged()
        .gives("[DeviceInventory]")
        .fails(&[404]),
    Route::post("/api/management/v2/inventory/filters/{filter}/search", "The same")
        .paged()
        .gives("[DeviceInventory]")
        .fails(&[404]),
    Route::post(
        "/api/management/v2alpha1/inventory/identities/search",
        "Search devices by the beginning of a value",
    )
    .takes(made::<Prefix>)
    .paged_by_body()
    .gives("[DeviceInventory]"),
];

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "InventorySearch")]
struct Search {
    #[serde(default = "one")]
    page: usize,
    #[serde(default = "per_page")]
    per_page: usize,
    #[serde(default)]
    filters: Vec<Term>,
    #[serde(default)]
    sort: Vec<Sort>,
    #[serde(default)]
    attributes: Vec<Selected>,
    #[serde(default)]
    device_ids: Vec<String>,
    #[serde(default)]
    text: String,
}

fn one() -> usize {
    1
}

fn per_page() -> usize {
    limits::PER_PAGE_DEFAULT
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SortBy")]
struct Sort {
    #[serde(default = "inventory_scope")]
    scope: String,
    attribute: String,
    #[serde(default)]
    order: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SelectedAttribute")]
struct Selected {
    #[serde(default = "inventory_scope")]
    scope: String,
    attribute: String,
}

/// `POST filters/search`.
pub(super) async fn search(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let search: Search = call.json()?;
    let page = Page::new(search.page, search.per_page)?;
    if search.filters.len() > CRITERIA || search.sort.len() > CRITERIA {
        return Err(too_many());
    }
    let tests: Result<Vec<_>, TermError> = search.filters.into_iter().map(Term::parse).collect();
    let sort: Result<Vec<_>, ApiError> = search
        .sort
        .iter()
        .map(|Sort { scope, attribute, order }| Ok((attr(scope, attribute)?, direction(order)?)))
        .collect();
    let query = DeviceQuery {
        tests: tests?,
        sort: sort?,
        ids: search.device_ids,
        text: search.text,
        ..DeviceQuery::default()
    };
    answer(shared, call, page, query, search.attributes).await
}

fn too_many() -> ApiError {
    ApiError::bad_request("too many criteria")
}

/// The devices that are found, with the attributes that were selected; all of them when none was.
async fn answer(
    shared: &Shared,
    call: &Call,
    page: Page,
    query: DeviceQuery,
    selected: Vec<Selected>,
) -> Result<Reply, ApiError> {
    if selected.len() > limits::PER_PAGE {
        return Err(too_many());
    }
    let selected: Result<Vec<Attr>, TermError> =
        selected.iter().map(|one| attr(&one.scope, &one.attribute)).collect();
    let selected = selected?;
    let is_selected = |attribute: &Value| {
        let is = |one: &Attr| {
            attribute["scope"] == one.scope.map_or("", Scope::name) && attribute["name"] == one.name.as_str()
        };
        selected.is_empty() || selected.iter().any(is)
    };
    let found = shared.devices(page.of_devices(query)).await?;
    let described = found.items.iter().map(|view| {
        let mut described = describe(view);
        if let Some(attributes) = described.get_mut("attributes").and_then(Value::as_array_mut) {
            attributes.retain(|attribute| is_selected(attribute));
            // As they were sent: when that was is in the list of devices.
            for attribute in attributes.iter_mut().filter_map(Value::as_object_mut) {
                attribute.remove("timestamp");
            }
        }
        described
    });
    Ok(page.found(call, &described.collect::<Vec<_>>(), found.total))
}

/// `GET filters/attributes`: what there is to search for.
pub(super) async fn attributes(shared: &Shared) -> Result<Reply, ApiError> {
    let known = shared.service.store.attributes().await?;
    let described = known
        .iter()
        .map(|(scope, name, count)| json!({ "scope": scope.name(), "name": name, "count": count }));
    Ok(reply::json(StatusCode::OK, &described.collect::<Vec<_>>()))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PrefixSearch")]
struct Prefix {
    scope: String,
    name: String,
    value_prefix: String,
    #[serde(default)]
    attributes: Vec<Selected>,
    #[serde(default = "one")]
    page: usize,
    #[serde(default = "per_page")]
    per_page: usize,
}

/// `POST identities/search`: devices whose identity or tag begins so.
pub(super) async fn identities(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let wanted: Prefix = call.json()?;
    let page = Page::new(wanted.page, wanted.per_page)?;
    if !matches!(wanted.scope.as_str(), "identity" | "tags") {
        return Err(ApiError::bad_request("scope is identity or tags"));
    }
    if wanted.name.is_empty() || wanted.value_prefix.is_empty() {
        return Err(ApiError::bad_request("name and value_prefix cannot be blank"));
    }
    if wanted.value_prefix.chars().count() > limits::PROVIDES_CHARS {
        return Err(ApiError::bad_request("value_prefix is too long"));
    }
    let test = (attr(&wanted.scope, &wanted.name)?, Test::Begins(wanted.value_prefix));
    let query = DeviceQuery { tests: vec![test], ..DeviceQuery::default() };
    answer(shared, call, page, query, wanted.attributes).await
}

/// Filters that are kept.
pub(super) async fn kept(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::GET) => {
            let page = Page::of(call)?;
            let all = shared.service.catalogue.documents::<Filter>(Kind::Filter);
            Ok(page.list(call, &all, |(_, filter)| filter.clone()))
        }
        ([], &Method::POST) => {
            let filter = checked(shared, call, id::uuid()?)?;
            let id = filter.id.clone();
            audit::about(&id);
            keep(shared, filter, Kept::New).await?;
            Ok(reply::created(&format!("/api/management/v2/inventory/filters/{id}")))
        }
        ([id], &Method::GET) => {
            let filter = one_of(shared, id)?;
            Ok(tagged(reply::json(StatusCode::OK, &filter), &filter))
        }
        ([id], &Method::PUT) => {
            one_of(shared, id)?;
            let filter = checked(shared, call, (*id).to_owned())?;
            keep(shared, filter, Kept::InPlace(Seen::of(call))).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id], &Method::DELETE) => {
            let id = (*id).to_owned();
            let keys = vec![Key::Document(Kind::Filter, id.clone())];
            let rule = move |work: &mut Work| {
                let known: Option<Filter> = work.document(Kind::Filter, &id)?;
                free_name(work, &known.ok_or_else(ApiError::not_found)?)?;
                Ok::<_, ApiError>(work.put_document::<Filter>(Kind::Filter, &id, None)?)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id, "search"], &Method::GET | &Method::POST) => {
            let query = filter_query(&one_of(shared, id)?)?;
            answer(shared, call, Page::of(call)?, query, Vec::new()).await
        }
        _ => Err(ApiError::no_route()),
    }
}

fn one_of(shared: &Shared, id: &str) -> Result<Filter, ApiError> {
    shared.service.catalogue.document(Kind::Filter, id).ok_or_else(ApiError::not_found)
}

/// The filter in the body. Names are for people, who could not tell two with one name from each other.
fn checked(shared: &Shared, call: &Call, id: String) -> Result<Filter, ApiError> {
    let filter = Filter { id, ..call.json()? };
    let chars = filter.name.chars().count();
    if chars == 0 || chars > NAME_CHARS {
        return Err(ApiError::bad_request("the filter has no name or one that is too long"));
    }
    if filter.terms.is_empty() || filter.terms.len() > CRITERIA {
        return Err(ApiError::bad_request("the filter has no terms or too many"));
    }
    filter_query(&filter)?;
    let others = shared.service.catalogue.documents::<Filter>(Kind::Filter);
    if others.iter().any(|(_, other)| other.name == filter.name && other.id != filter.id) {
        return Err(ApiError::conflict("a filter has that name"));
    }
    Ok(filter)
}

/// How a filter is kept.
#[derive(Debug, Clone)]
enum Kept {
    New,
    /// In place of the one with its id, which somebody may change or take away at this moment.
    InPlace(Seen),
}

/// Where it says whose a name is: two that are kept in one moment cannot both have it.
fn name_key(filter: &Filter) -> String {
    format!("filter/{}", filter.name)
}

/// The name that a filter has had is free again.
fn free_name(work: &mut Work, filter: &Filter) -> Result<(), NotLoaded> {
    let name = name_key(filter);
    let holder: Option<String> = work.document(Kind::Order, &name)?;
    if holder.as_ref() == Some(&filter.id) {
        work.put_document::<String>(Kind::Order, &name, None)?;
    }
    Ok(())
}

async fn keep(shared: &Shared, filter: Filter, how: Kept) -> Result<(), ApiError> {
    let name = name_key(&filter);
    let keys = vec![Key::Document(Kind::Filter, filter.id.clone()), Key::Document(Kind::Order, name.clone())];
    let rule = move |work: &mut Work| {
        let holder: Option<String> = work.document(Kind::Order, &name)?;
        if let Some(holder) = holder.filter(|holder| *holder != filter.id) {
            let other: Option<Filter> = work.document(Kind::Filter, &holder)?;
            if other.is_some_and(|other| other.name == filter.name) {
                return Err(ApiError::conflict("a filter has that name"));
            }
        }
        let known: Option<Filter> = work.document(Kind::Filter, &filter.id)?;
        if let Kept::InPlace(seen) = &how {
            let known = known.ok_or_else(ApiError::not_found)?;
            seen.is(&known)?;
            if known.name != filter.name {
                free_name(work, &known)?;
            }
        }
        work.put_document(Kind::Order, &name, Some(&filter.id))?;
        Ok(work.put_document(Kind::Filter, &filter.id, Some(&filter))?)
    };
    shared.change(keys, rule).await
}
