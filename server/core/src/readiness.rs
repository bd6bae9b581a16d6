//! Whether the server can do what it is asked, and what keeps it from that. It is found out by trying, at most once a second
//! however many ask.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

use crate::blobs::Blobs;
use crate::service::Service;
use crate::store::WriterFailed;
use crate::work::Kind;

/// For how long what was found out holds.
const HOLDS: Duration = Duration::from_secs(1);
/// What has not answered after this long does not work.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What.
    pub(crate) part: &'static str,
    /// Why.
    pub(crate) reason: String,
}

/// What was found out last.
#[derive(Debug)]
pub(crate) struct Readiness {
    stopping: watch::Receiver<bool>,
    last: Mutex<Option<(Instant, Vec<Trouble>)>>,
}

impl Readiness {
    /// Nothing is known yet. `stopping` says when the server is to end.
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Readiness {
        Readiness { stopping, last: Mutex::new(None) }
    }

    /// Everything that does not work; nothing when the server is ready. What every process has in memory was read before it
    /// listened.
    pub(crate) async fn troubles(&self, service: &Service, blobs: &dyn Blobs) -> Vec<Trouble> {
        if *self.stopping.borrow() {
            return vec![Trouble { part: "server", reason: "it stops".to_owned() }];
        }
        // Who asks meanwhile waits, and has the same answer.
        let mut last = self.last.lock().await;
        match &*last {
            Some((when, troubles)) if when.elapsed() < HOLDS => return troubles.clone(),
            Some(_) | None => {}
        }
        let (read, kept) = tokio::join!(
            answers(PATIENCE, service.store.document(Kind::Secret, "no such secret")),
            answers(PATIENCE, blobs.probe()),
        );
        let written = service.store.check().map_err(|WriterFailed(reason)| reason.to_string());
        let parts = [
            ("store", read.map_err(|reason| format!("it cannot be read: {reason}"))),
            ("store", written.map_err(|reason| format!("it cannot be written: {reason}"))),
            ("artifacts", kept),
        ];
        let trouble = |(part, result): (_, Result<(), String>)| Some(Trouble { part, reason: result.err()? });
        let troubles: Vec<_> = parts.into_iter().filter_map(trouble).collect();
        for Trouble { part, reason } in &troubles {
            log::warn!("not ready: {part}: {reason}");
        }
        *last = Some((Instant::now(), troubles.clone()));
        troubles
    }
}

async fn answers<T, E: Display>(
    patience: Duration,
    question: impl Future<Output = Result<T, E>>,
) -> Result<(), String> {
    match tokio::time::timeout(patience, question).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("there was no answer within {} seconds", patience.as_secs())),
    }
}
