//! Tells webhooks what has happened: each of them everything in its order, once it is stored. One of several processes does it.
//!
//! ```text
//! read the next events -> POST one -> store that it arrived (or was refused) -> the next one
//!                              \-> it did not arrive: store that it was tried, wait longer each time, the same again
//! ```
//!
//! Between the answer and what is stored the power may fail: then it is told again. Each event has an id for that.

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::sync::{oneshot, watch};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::client::agent_that_resolves;
use crate::domain::address::is_public;
use crate::domain::webhooks::{self, Delivered, Integration, Outcome, Scope, progress};
use crate::metrics::Metrics;
use crate::rounds::{INTERVAL, LONGEST, Rounds, wait_after};
use crate::service::{ChangeError, Service};
use crate::store::StoreError;
use crate::work::query::{EventQuery, Numbered};
use crate::work::{Key, Kind, Stream, Work};

/// Events that are in memory for one integration.
const PIECE: u64 = 50;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often events that wait are counted.
const COUNT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES: u64 = 16 * 1024;

/// How webhooks are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// Also at addresses that are not of the public network.
    pub(crate) private: bool,
    /// Authorities to trust in place of the system's.
    pub(crate) authorities: Option<PathBuf>,
}

/// Finds addresses, and leaves out those that are not public.
#[derive(Debug)]
struct Public;

/// Why an address is not asked.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its address is not one of the public network (--webhook-allow-private allows it)")
    }
}

impl std::error::Error for NotPublic {}

impl Resolver for Public {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let mut public = self.empty();
        let addresses: Vec<SocketAddr> = found.iter().copied().filter(|one| is_public(one.ip())).collect();
        if addresses.is_empty() {
            return Err(ureq::Error::Other(Box::new(NotPublic)));
        }
        addresses.into_iter().for_each(|address| public.push(address));
        Ok(public)
    }
}

fn agent(reach: &Reach) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // Whoever answers could otherwise send the server anywhere.
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .user_agent(concat!("rust-ota-server/", env!("CARGO_PKG_VERSION")))
        .build();
    let authorities = reach.authorities.as_deref();
    match reach.private {
        true => agent_that_resolves(authorities, config, DefaultResolver::default()),
        false => agent_that_resolves(authorities, config, Public),
    }
}

/// Tells, until `stop` says so.
pub(crate) async fn run(
    service: Service,
    reach: Reach,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut turn = service.turn("webhooks");
    let mut agent_made: Option<Agent> = None;
    let mut rounds = Rounds::new("a webhook");
    let mut counted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.changed() => break,
        }
        let integrations: Vec<(String, Integration)> = service.catalogue.documents(Kind::Integration);
        rounds.begin(|id, place| integrations.iter().any(|(known, now)| known == id && now.place() == place));
        if integrations.is_empty() {
            metrics.webhook_events_waiting.set(0);
            continue;
        }
        if !turn.is_own().await {
            // The process that tells them counts them.
            metrics.webhook_events_waiting.set(0);
            rounds.leave();
            continue;
        }
        if counted.is_none_or(|last| last.elapsed() >= COUNT) {
            match waiting(&service, &integrations).await {
                Ok(count) => metrics.webhook_events_waiting.set(count),
                Err(error) => log::warn!("how many events wait for webhooks: {error}"),
            }
            counted = Some(Instant::now());
        }
        let agent = agent_made.get_or_insert_with(|| agent(&reach));
        for (id, integration) in integrations {
            if !rounds.is_free(&id) {
                continue;
            }
            let (service, agent, metrics, own) =
                (service.clone(), agent.clone(), metrics.clone(), id.clone());
            let telling = async move { deliver(&service, &agent, &own, &metrics).await };
            rounds.tell(id, integration.place(), telling);
        }
    }
    rounds.end().await;
    turn.give_back().await;
}

/// What became of a piece.
enum Piece {
    /// Everything in it is done with, and there may be more.
    Full,
    /// It was the last.
    Last,
    /// The integration is to be let alone so long.
    Wait(Duration),
}

/// Tells one integration what there is. How long it is to be let alone, if something did not arrive.
async fn deliver(service: &Service, agent: &Agent, id: &str, metrics: &Metrics) -> Option<Duration> {
    loop {
        match deliver_piece(service, agent, id, metrics).await {
            Piece::Full => {}
            Piece::Last => return None,
            Piece::Wait(wait) => return Some(wait),
        }
    }
}

async fn deliver_piece(service: &Service, agent: &Agent, id: &str, metrics: &Metrics) -> Piece {
    let known = match service.store.document(Kind::Progress, &progress(id)).await {
        Ok(known) => known.and_then(|known| serde_json::from_value::<Delivered>(known).ok()),
        Err(error) => {
            log::warn!("the webhook {id}: {error}");
            return Piece::Wait(LONGEST);
        }
    };
    let Some(known) = known else { return Piece::Last };
    let query = EventQuery { oldest_first: true, take: PIECE, uncounted: true, ..behind(&known) };
    let events = match service.store.events(&query).await {
        Ok(found) => found.items,
        Err(error) => {
            log::warn!("the webhook {id}: {error}");
            return Piece::Wait(LONGEST);
        }
    };
    let is_full = events.len() as u64 == PIECE;
    let mut tries = known.tries;
    let mut passed = None;
    for event in events {
        // A person may have changed it since the last one was told.
        let Some(integration) = service.catalogue.document::<Integration>(Kind::Integration, id) else {
            return Piece::Last;
        };
        if !integration.scopes.contains(&scope_of(&event)) {
            passed = Some((event.number, event.event.time));
            continue;
        }
        passed = None;
        let outcome = post(agent, &integration, &event).await;
        match (&outcome.error, outcome.is_final) {
            (None, _) => metrics.webhooks_told.add(1),
            (Some(_), true) => metrics.webhooks_refused.add(1),
            (Some(_), false) => metrics.webhooks_failed.add(1),
        }
        if let Some(error) = &outcome.error {
            log::warn!("the webhook {id} was not told of the event {}: {error}", event.number);
        }
        let (key, is_final) = (progress(id), outcome.is_final);
        let own = id.to_owned();
        let written = service.change(vec![Key::Document(Kind::Progress, key)], move |work| {
            webhooks::told(work, &own, &event, &outcome)
        });
        match written.await {
            Ok(true) => {}
            // It was taken away meanwhile.
            Ok(false) => return Piece::Last,
            Err(ChangeError::Refused(_)) => return Piece::Wait(INTERVAL),
            Err(ChangeError::Failed(reason)) => {
                log::warn!("what the webhook {id} was told could not be stored: {}", reason.0);
                return Piece::Wait(LONGEST);
            }
        }
        if !is_final {
            return Piece::Wait(wait_after(tries));
        }
        tries = 0;
    }
    let end = if is_full { Piece::Full } else { Piece::Last };
    // What is nothing to this one is not looked at again.
    let Some(passed) = passed else { return end };
    let (key, own) = (progress(id), id.to_owned());
    let rule = move |work: &mut Work| webhooks::pass_over(work, &own, passed);
    match service.change(vec![Key::Document(Kind::Progress, key)], rule).await {
        Ok(()) => end,
        Err(_) => Piece::Wait(INTERVAL),
    }
}

/// The events that come behind what is done with.
fn behind(known: &Delivered) -> EventQuery {
    EventQuery::behind(Stream::Webhook, known.number, known.time)
}

/// How many events the one that is furthest behind has not been told. One question, whatever their number: all go through the same
/// events.
async fn waiting(service: &Service, integrations: &[(String, Integration)]) -> Result<u64, StoreError> {
    let mut furthest: Option<Delivered> = None;
    for (id, _) in integrations {
        let known = service.store.document(Kind::Progress, &progress(id)).await?;
        let known = known.and_then(|known| serde_json::from_value::<Delivered>(known).ok());
        let is_first = |known: &Delivered| {
            furthest.as_ref().is_none_or(|first| (known.number, known.time) < (first.number, first.time))
        };
        furthest = known.filter(is_first).or(furthest);
    }
    match furthest {
        Some(known) => Ok(service.store.events(&behind(&known)).await?.total),
        None => Ok(0),
    }
}

fn scope_of(event: &Numbered) -> Scope {
    match event.event.data["type"].as_str() {
        Some("device-inventory-changed") => Scope::Inventory,
        Some(_) | None => Scope::Deviceauth,
    }
}

async fn post(agent: &Agent, integration: &Integration, event: &Numbered) -> Outcome {
    let body = webhooks::body_of(event).to_string();
    let (agent, url) = (agent.clone(), integration.url.clone());
    let secret = integration.secret.as_deref().and_then(webhooks::key);
    let sent = move || {
        let mut request = agent.post(&url).header("Content-Type", "application/json");
        if let Some(secret) = secret {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), body.as_bytes());
            let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request =
                request.header("X-Men-Algorithm", "MEN-HMAC-SHA256-Payload").header("X-Men-Signature", tag);
        }
        let mut answer = request.send(body)?;
        let status = answer.status().as_u16();
        // What it says does not matter, nor whether all of it came.
        let _ = answer.body_mut().as_reader().take(ANSWER_BYTES).read_to_end(&mut Vec::new());
        Ok::<_, ureq::Error>(status)
    };
    let unsent = |error: String| Outcome { status: None, error: Some(error), is_final: false };
    let (tell, told) = oneshot::channel();
    // A thread of its own: the server does not wait for it when it stops, as it would for one of its runtime.
    let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
        // Nobody hears of it when the server has stopped meanwhile.
        let _ = tell.send(sent());
    });
    match thread {
        Ok(_) => match told.await {
            Ok(Ok(status)) => of_status(status),
            Ok(Err(error)) => unsent(error.to_string()),
            Err(_) => unsent("the thread that sends it ended".to_owned()),
        },
        Err(error) => unsent(format!("no thread can be started: {error}")),
    }
}

/// A receiver that refuses what it was told will refuse it again; one that has trouble, or too much to do, may be better later.
fn of_status(status: u16) -> Outcome {
    let error = format!("it answered {status}");
    match status {
        200..=299 => Outcome { status: Some(status), error: None, is_final: true },
        408 | 425 | 429 | 500.. => Outcome { status: Some(status), error: Some(error), is_final: false },
        _ => Outcome { status: Some(status), error: Some(error), is_final: true },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::sync::mpsc;

    use serde_json::json;

    use super::*;
    use crate::model::time::Timestamp;
    use crate::store::sqlite;
    use crate::work::{Event, Write};

    /// A receiver that takes everything: each time it is asked, it says so and waits until it is told to answer.
    fn receiver() -> (String, mpsc::Receiver<mpsc::Sender<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (asked, told) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let (answer, answered) = mpsc::channel();
                if asked.send(answer).is_err() {
                    return;
                }
                let _ = answered.recv();
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
        (url, told)
    }

    async fn put(service: &Service, id: &str, integration: Integration) {
        let id = id.to_owned();
        let rule = move |work: &mut Work| {
            let before: Option<Integration> = work.document(Kind::Integration, &id)?;
            work.put_document(Kind::Integration, &id, Some(&integration))?;
            let _: Option<Delivered> = work.document(Kind::Progress, &progress(&id))?;
            if before.is_none() {
                work.put_document(Kind::Progress, &progress(&id), Some(&Delivered::default()))?;
            }
            Ok::<(), crate::work::NotLoaded>(())
        };
        service.change(Vec::new(), rule).await.unwrap();
    }

    fn at(url: &str) -> Integration {
        let scopes = vec![Scope::Deviceauth];
        Integration {
            url: url.to_owned(),
            secret: None,
            description: String::new(),
            scopes,
            created: Timestamp(1),
        }
    }

    /// A service with an integration `x` at an address, and so many events.
    async fn told_of(folder: &std::path::Path, url: &str, events: u64) -> Service {
        let store = sqlite::open(folder).unwrap();
        let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
        put(&service, "x", at(url)).await;
        let rule = move |work: &mut Work| {
            for number in 0..events {
                let data = json!({ "type": "device-provisioned", "data": {} });
                let (key, time) = (number.to_string(), Timestamp(1000));
                work.write(Write::Event(Event { stream: Stream::Webhook, key, time, data }));
            }
            Ok::<(), crate::work::NotLoaded>(())
        };
        service.change(Vec::new(), rule).await.unwrap();
        service
    }

    fn here() -> Agent {
        agent(&Reach { private: true, authorities: None })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_waits_is_told_as_fast_as_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = receiver();
        let service = told_of(folder.path(), &url, 3 * PIECE + 1).await;
        let answering =
            std::thread::spawn(move || asked.iter().inspect(|answer| answer.send(()).unwrap()).count());
        // No moment passes between the pieces but that of the answers.
        let metrics = Metrics::default();
        assert_eq!(deliver(&service, &here(), "x", &metrics).await, None);
        assert_eq!(metrics.webhooks_told.value(), 3 * PIECE + 1);
        assert_eq!(waiting(&service, &service.catalogue.documents(Kind::Integration)).await.unwrap(), 0);
        service.store.stop().await;
        drop(answering);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_after_an_address_was_changed_goes_to_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let ((old, old_asked), (new, new_asked)) = (receiver(), receiver());
        let service = told_of(folder.path(), &old, 3).await;
        let own = service.clone();
        let told = tokio::spawn(async move { deliver(&own, &here(), "x", &Metrics::default()).await });
        let next = |asked: mpsc::Receiver<mpsc::Sender<()>>| {
            tokio::task::spawn_blocking(move || (asked.recv().unwrap(), asked))
        };
        let (first, old_asked) = next(old_asked).await.unwrap();
        put(&service, "x", at(&new)).await;
        first.send(()).unwrap();
        let (second, new_asked) = next(new_asked).await.unwrap();
        second.send(()).unwrap();
        let (third, _new_asked) = next(new_asked).await.unwrap();
        third.send(()).unwrap();
        assert_eq!(told.await.unwrap(), None);
        assert!(old_asked.try_recv().is_err());
        service.store.stop().await;
    }

    #[test]
    fn who_mends_an_address_or_a_secret_does_not_wait() {
        let old = at("http://a");
        assert_eq!(old.place(), Integration { description: "other".to_owned(), ..old.clone() }.place());
        assert_ne!(old.place(), at("http://b").place());
        assert_ne!(old.place(), Integration { secret: Some("00".to_owned()), ..old.clone() }.place());
    }

    #[test]
    fn what_a_receiver_refuses_is_not_told_again() {
        let outcome = |status| (of_status(status).error.is_none(), of_status(status).is_final);
        assert_eq!(outcome(204), (true, true));
        for status in [301, 400, 404, 410] {
            assert_eq!(outcome(status), (false, true), "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert_eq!(outcome(status), (false, false), "{status}");
        }
    }
}
