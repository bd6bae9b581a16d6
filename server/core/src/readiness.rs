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

/// What other processes change is known after a second. Whoever has not read it for so long gives answers that are wrong: to
/// people who have logged out elsewhere, for one.
const BEHIND: Duration = Duration::from_secs(5);

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
        let behind = service.store.behind();
        let followed = match behind < BEHIND {
            true => Ok(()),
            false => {
                Err(format!("what other processes change was not read for {} seconds", behind.as_secs()))
            }
        };
        let parts = [
            ("store", read.map_err(|reason| format!("it cannot be read: {reason}"))),
            ("store", written.map_err(|reason| format!("it cannot be written: {reason}"))),
            ("store", followed),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blobs::folder::Folder;
    use crate::metrics::Metrics;
    use crate::store::postgres::{self, testing};
    use crate::work::Key;

    async fn put(service: &Service, id: &'static str, value: u32) {
        let rule = move |work: &mut crate::work::Work| {
            let before = work.document::<u32>(Kind::Role, id)?;
            work.put_document(Kind::Role, id, Some(&value)).map(|()| before)
        };
        service.change(vec![Key::Document(Kind::Role, id.to_owned())], rule).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_damaged_record_is_left_out_and_who_does_not_hear_of_others_is_not_ready() {
        let Some(url) = testing::database() else { return };
        let open = async || {
            let store = postgres::open(testing::target(&url), postgres::Sharing::Servers).await.unwrap();
            Service::open(store, Arc::new(Metrics::default())).await.unwrap()
        };
        let (one, two) = (open().await, open().await);
        let known = async |id: &str, value: u32| {
            while two.catalogue.document::<u32>(Kind::Role, id) != Some(value) {
                // No event says when it was heard of.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        put(&one, "a", 1).await;
        known("a", 1).await;
        // A row of the feed that is nothing, and one that names a record that is nothing.
        testing::run(
            &url,
            "INSERT INTO document (kind, id, data) VALUES ('role', 'bad', '{'), ('role', 'good', '7')",
        )
        .await;
        for data in ["{", r#"{"documents":[["role","bad"],["role","good"]]}"#] {
            let row = format!(
                "WITH next AS (UPDATE number SET n = n + 1 WHERE name = 'feed' RETURNING n)
                 INSERT INTO feed (num, process, data) SELECT n, 'x', '{data}' FROM next"
            );
            testing::run(&url, &row).await;
        }
        known("good", 7).await;
        put(&one, "a", 2).await;
        known("a", 2).await;

        let folder = tempfile::tempdir().unwrap();
        let blobs = Folder::open(folder.path()).unwrap();
        let (_stop, stopping) = watch::channel(false);
        let readiness = Readiness::new(stopping);
        assert_eq!(readiness.troubles(&two, &blobs).await, []);
        testing::run(&url, "ALTER TABLE feed RENAME TO away").await;
        let behind = loop {
            let troubles = readiness.troubles(&two, &blobs).await;
            if let Some(trouble) = troubles.into_iter().next() {
                break trouble;
            }
            // No event says when readiness has changed.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(behind.part, "store");
        assert!(behind.reason.starts_with("what other processes change was not read for"), "{behind:?}");
        testing::run(&url, "ALTER TABLE away RENAME TO feed").await;
        while !readiness.troubles(&two, &blobs).await.is_empty() {
            // No event says when readiness has changed.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        put(&one, "a", 3).await;
        known("a", 3).await;
        assert_eq!(two.catalogue.document::<u32>(Kind::Role, "bad"), None);
        one.store.stop().await;
        two.store.stop().await;
    }
}
