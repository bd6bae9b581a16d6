//! Remembers requests, for tests that ask what a client has sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;

use server_core::surround::{Call, Reply};

/// Bytes of a body that are remembered.
const BODY_BYTES: usize = 64 * 1024;

/// One request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Headers with names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// The first 64 KiB of the body; nothing of an upload.
    pub body: Vec<u8>,
    /// The status of the answer, also when a fault has kept it from the client.
    pub status: u16,
    /// Bytes of the answer's body that were handed to the connection so far.
    pub response_bytes: u64,
}

/// Remembers requests. Clones remember the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    recorded: Arc<Mutex<Vec<Entry>>>,
}

type Entry = (RecordedRequest, Arc<AtomicU64>);

impl Recorder {
    /// Remembers a request, and counts the bytes of its answer as they go.
    pub(crate) fn record(&self, call: &Call, reply: Reply) -> Reply {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = call.headers.iter();
        let request = RecordedRequest {
            method: call.method.to_string(),
            path: call.path_and_query(),
            headers: headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
            body: call.body.iter().take(BODY_BYTES).copied().collect(),
            status: reply.status().as_u16(),
            response_bytes: 0,
        };
        let sent = Arc::new(AtomicU64::new(0));
        self.lock().push((request, sent.clone()));
        let (parts, body) = reply.into_parts();
        let size = hyper::body::Body::size_hint(&body).exact();
        let counted = body.map_frame(move |frame| {
            let bytes = frame.data_ref().map_or(0, |data| data.len());
            sent.fetch_add(bytes as u64, Ordering::Relaxed);
            frame
        });
        let mut reply = Reply::from_parts(parts, counted.boxed());
        // A counted body does not know its length any more; without this the answer would be chunked.
        if let Some(size) = size.filter(|_| !reply.status().is_informational()) {
            reply.headers_mut().entry("content-length").or_insert(size.into());
        }
        reply
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        let with_bytes = |(request, sent): &Entry| RecordedRequest {
            response_bytes: sent.load(Ordering::Relaxed),
            ..request.clone()
        };
        self.lock().iter().map(with_bytes).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
