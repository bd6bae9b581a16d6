//! Lists in pages.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use super::{ApiError, Call, Reply, reply};
use crate::domain::limits;
use crate::work::query::DeviceQuery;
pub(super) use crate::work::query::Direction;

/// Criteria of one order.
const CRITERIA: usize = 50;

/// Which end of an order comes first.
pub(super) fn direction(text: &str) -> Result<Direction, ApiError> {
    match text {
        "" | "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        _ => Err(ApiError::bad_request("sort: the order is asc or desc")),
    }
}

/// `sort=name:asc,other:desc`, the most important first.
pub(super) fn sort(call: &Call) -> Result<Vec<(String, Direction)>, ApiError> {
    let wanted = call.queries("sort");
    let words = wanted.iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty());
    let criteria: Result<Vec<_>, ApiError> = words
        .map(|word| {
            let (name, direction) = word.rsplit_once(':').unwrap_or((word, ""));
            Ok((name.to_owned(), self::direction(direction)?))
        })
        .collect();
    criteria.and_then(|criteria| match criteria.len() {
        0..=CRITERIA => Ok(criteria),
        _ => Err(ApiError::bad_request("sort: too many criteria")),
    })
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) page: usize,
    pub(super) per_page: usize,
}

impl Page {
    pub(super) fn of(call: &Call) -> Result<Page, ApiError> {
        let number = |name: &str, default: usize| match call.query(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| ApiError::bad_request(&format!("{name} is not a number"))),
        };
        Page::new(number("page", 1)?, number("per_page", limits::PER_PAGE_DEFAULT)?)
    }

    pub(super) fn new(page: usize, per_page: usize) -> Result<Page, ApiError> {
        if page == 0 || per_page == 0 || per_page > limits::PER_PAGE {
            return Err(ApiError::bad_request("page begins at 1, per_page is between 1 and 500"));
        }
        Ok(Page { page, per_page })
    }

    /// How many entries come before it.
    pub(super) fn skip(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// This page of some devices.
    pub(super) fn of_devices(self, query: DeviceQuery) -> DeviceQuery {
        DeviceQuery { skip: self.skip() as u64, take: self.per_page as u64, ..query }
    }

    /// One page of `all`, each made into what is answered.
    pub(super) fn list<T, U: Serialize>(self, call: &Call, all: &[T], each: impl FnMut(&T) -> U) -> Reply {
        let shown: Vec<U> = all.iter().skip(self.skip()).take(self.per_page).map(each).collect();
        self.found(call, &shown, all.len() as u64)
    }

    /// A page that was cut already, of a list with `total` entries.
    pub(super) fn found<U: Serialize>(self, call: &Call, shown: &[U], total: u64) -> Reply {
        let mut answer = reply::json(StatusCode::OK, &shown);
        let more = (self.skip() as u64).saturating_add(shown.len() as u64) < total;
        let last = total.div_ceil(self.per_page as u64).max(1);
        let headers = answer.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&self.links(call, more, last)) {
            headers.insert("Link", value);
        }
        headers.insert("X-Total-Count", total.into());
        answer
    }

    fn links(self, call: &Call, more: bool, last: u64) -> String {
        let others: Vec<&str> = call
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("per_page="))
            .collect();
        let others = others.iter().map(|pair| format!("&{pair}")).collect::<String>();
        let link = |page: u64, rel: &str| {
            format!("<{}?page={page}&per_page={}{others}>; rel=\"{rel}\"", call.path, self.per_page)
        };
        let page = self.page as u64;
        let mut links = vec![link(1, "first")];
        if page > 1 {
            links.push(link(page - 1, "prev"));
        }
        if more {
            links.push(link(page.saturating_add(1), "next"));
        }
        links.push(link(last, "last"));
        links.join(", ")
    }
}
