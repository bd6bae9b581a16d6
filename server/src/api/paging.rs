//! Lists in pages.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use super::{ApiError, Call, Reply, reply};
use crate::domain::limits;

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

    fn skip(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// One page of `all`, each made into what is answered.
    pub(super) fn list<T, U: Serialize>(self, call: &Call, all: &[T], each: impl FnMut(&T) -> U) -> Reply {
        let shown: Vec<U> = all.iter().skip(self.skip()).take(self.per_page).map(each).collect();
        let mut answer = reply::json(StatusCode::OK, &shown);
        let more = self.skip() + shown.len() < all.len();
        let last = all.len().div_ceil(self.per_page).max(1);
        let headers = answer.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&self.links(call, more, last)) {
            headers.insert("Link", value);
        }
        headers.insert("X-Total-Count", all.len().into());
        answer
    }

    fn links(self, call: &Call, more: bool, last: usize) -> String {
        let others: Vec<&str> = call
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("per_page="))
            .collect();
        let others = others.iter().map(|pair| format!("&{pair}")).collect::<String>();
        let link = |page: usize, rel: &str| {
            format!("<{}?page={page}&per_page={}{others}>; rel=\"{rel}\"", call.path, self.per_page)
        };
        let mut links = vec![link(1, "first")];
        if self.page > 1 {
            links.push(link(self.page - 1, "prev"));
        }
        if more {
            links.push(link(self.page + 1, "next"));
        }
        links.push(link(last, "last"));
        links.join(", ")
    }
}
