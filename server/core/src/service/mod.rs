//! What the server does, whoever asks: rules in transactions, questions to the store, and what every process has in memory.

mod catalogue;
pub(crate) mod lease;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

pub(crate) use catalogue::Catalogue;

use crate::domain::id;
use crate::domain::webhooks::{self, Integration, Scope};
use crate::metrics::Metrics;
use crate::model::time::Timestamp;
use crate::store::{Job, Store, StoreError, WriterFailed};
use crate::work::{Key, Kind, Work};

/// The service.
#[derive(Clone)]
pub(crate) struct Service {
    /// Where the fleet is kept.
    pub(crate) store: Arc<dyn Store>,
    /// What this process has in memory.
    pub(crate) catalogue: Arc<Catalogue>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// The name that this process has made for itself, for those that share the store.
    process: Arc<str>,
}

/// Why a rule has not changed anything.
#[derive(Debug)]
pub(crate) enum ChangeError<E> {
    /// The rule refuses it.
    Refused(E),
    /// It could not be stored.
    Failed(WriterFailed),
}

impl Service {
    /// Reads what has to be in memory.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn open(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Result<Service, StoreError> {
        let catalogue = Arc::new(Catalogue::default());
        let process = id::uuid().map_err(|_| StoreError::NoRandomness)?.into();
        // Before anything is read: what changes meanwhile comes as a change.
        store.watch(catalogue.clone());
        store.watch(metrics.clone());
        catalogue.read(&*store).await?;
        Ok(Service { store, catalogue, metrics, process })
    }

    /// Runs a rule and waits until what it has changed is durable. Also when it has changed nothing: what it saw may be of
    /// the same transaction. `keys` are what it will ask for, as far as that is known.
    ///
    /// # Errors
    /// It was refused, or could not be stored.
    pub(crate) async fn change<T, E>(
        &self,
        keys: Vec<Key>,
        mut rule: impl FnMut(&mut Work) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.store.check().map_err(ChangeError::Failed)?;
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let scopes = self.told();
        let run = move |work: &mut Work| {
            let answer = rule(work);
            if answer.is_ok() && !scopes.is_empty() {
                webhooks::tell(work, &scopes);
            }
            let keep = answer.is_ok();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            keep
        };
        let (done, stored) = oneshot::channel();
        let began = Instant::now();
        let waits = self.metrics.changes.enter();
        self.store.submit(Job { keys, run: Box::new(run), done });
        let stopped = || WriterFailed("the server stops".into());
        let stored = stored.await.unwrap_or_else(|_| Err(stopped()));
        drop(waits);
        self.metrics.changed(stored.is_ok(), began.elapsed());
        stored.map_err(ChangeError::Failed)?;
        let answer = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(answer) => answer.map_err(ChangeError::Refused),
            None => Err(ChangeError::Failed(stopped())),
        }
    }

    /// What webhooks are told about. Nothing is written for them where there are none.
    fn told(&self) -> Vec<Scope> {
        let all = self.catalogue.documents::<Integration>(Kind::Integration);
        all.into_iter().flat_map(|(_, integration)| integration.scopes).collect()
    }

    /// The name of this process.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
