//! The id of a request: in each line of the log that belongs to it, in its answer, and in the text of an error.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderMap;

use crate::domain::id;

/// The header of answers.
pub(crate) const HEADER: &str = "X-MEN-RequestID";
/// Headers of requests in which somebody in front of the server has given it one.
const GIVEN: [&str; 2] = [HEADER, "X-Request-ID"];
/// Characters of one that is taken.
const MOST: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// Runs `answer` as what is done for the request with this id.
pub(crate) async fn within<T>(id: String, answer: impl Future<Output = T>) -> T {
    CURRENT.scope(id, answer).await
}

/// The id of the request that is being answered.
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(String::clone).ok()
}

/// The id that somebody in front of the server has given a request, or a new one.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let given = GIVEN.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    match given.filter(|text| is_well_formed(text)) {
        Some(text) => text.to_owned(),
        None => new(),
    }
}

/// Nothing that means something to a log, a shell or a page.
fn is_well_formed(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MOST).contains(&text.len()) && text.bytes().all(plain)
}

/// A new one, in the form of a UUID. It is no secret and only has to be another one than all others, so the system is asked
/// for random numbers once and not for each request.
fn new() -> String {
    static START: OnceLock<[u64; 2]> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let [high, low] = *START.get_or_init(|| {
        let bytes = id::random::<16>().unwrap_or_default();
        let number = u128::from_le_bytes(bytes);
        [(number >> 64) as u64, number as u64]
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.wrapping_add(count).to_be_bytes());
    id::custom_uuid(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_header(name: &'static str, value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn an_id_that_was_given_is_kept_when_it_is_harmless() {
        for name in ["x-men-requestid", "x-request-id"] {
            assert_eq!(of_header(name, "Abc-1_2.3"), "Abc-1_2.3");
            for other in ["", "a b", "a\"b", "a/b", &"x".repeat(65)] {
                let id = of_header(name, other);
                assert!(id::has_uuid_form(&id), "{other:?}: {id}");
            }
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }

    #[test]
    fn what_is_done_for_a_request_knows_its_id() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(current(), None);
        let seen = runtime.block_on(within("a".to_owned(), async { current() }));
        assert_eq!((seen.as_deref(), current()), (Some("a"), None));
    }
}
