//! Mails about alerts and roll-outs that were stopped: to each receiver what there is to tell, in its order, once it is stored. One
//! of several processes does it.
//!
//! ```text
//! how much waits? -> a mail about the next event, or one about all -> store what the server said -> again
//!                                                                      \-> not sent: wait longer each time, the same again
//! ```
//!
//! Between the answer and what is stored the power may fail: then a mail is sent twice, with the same `Message-ID`.

mod letter;
pub(crate) mod smtp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::domain::mail::{self, About, MailSettings, News, Outcome, Posted, SETTINGS, Step, progress};
use crate::metrics::Metrics;
use crate::rounds::{INTERVAL, LONGEST, Rounds, wait_after};
use crate::service::{ChangeError, Service};
use crate::store::StoreError;
use crate::work::query::{EventQuery, Numbered};
use crate::work::{Key, Kind};
use letter::{Envelope, Summary};
use smtp::SmtpOptions;

/// Events of one kind that a summary names.
const NAMED: u64 = 10;

/// How mails are sent.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// Who takes them.
    pub(crate) smtp: SmtpOptions,
    /// What links begin with; without it there are none.
    pub(crate) public_url: Option<String>,
}

/// Sends, until `stop` says so.
pub(crate) async fn run(
    service: Service,
    post: Post,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut turn = service.turn("mail");
    let mut rounds = Rounds::new("a receiver of mails");
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.changed() => break,
        }
        let settings: MailSettings = service.catalogue.document(Kind::Settings, SETTINGS).unwrap_or_default();
        let receivers = settings.told();
        rounds.begin(|id, _| receivers.iter().any(|known| known == id));
        if receivers.is_empty() {
            continue;
        }
        if !turn.is_own().await {
            rounds.leave();
            continue;
        }
        for receiver in receivers {
            if !rounds.is_free(receiver) {
                continue;
            }
            let (service, post, metrics, own) =
                (service.clone(), post.clone(), metrics.clone(), receiver.clone());
            rounds.tell(receiver.clone(), String::new(), async move {
                next(&service, &post, &metrics, &own).await
            });
        }
    }
    rounds.end().await;
    turn.give_back().await;
}

/// Sends somebody the next mail. How long there is nothing to do for him then.
async fn next(service: &Service, post: &Post, metrics: &Metrics, receiver: &str) -> Option<Duration> {
    match prepared(service, post, receiver).await {
        Ok(Prepared::Letter(letter, about, tries)) => {
            let outcome = match letter {
                Ok(letter) => hand_over(&post.smtp, receiver, letter).await.0,
                // Of another version of this program: nothing behind it waits for that.
                Err(reason) => Outcome::Refused(reason),
            };
            match &outcome {
                Outcome::Sent => metrics.mails_sent.add(1),
                Outcome::Refused(reason) => {
                    metrics.mails_refused.add(1);
                    log::warn!("a mail to {receiver} was refused: {reason}");
                }
                Outcome::Failed(reason) => {
                    metrics.mails_failed.add(1);
                    log::warn!("a mail to {receiver} was not sent, and is tried again: {reason}");
                }
            }
            let wait = matches!(outcome, Outcome::Failed(_)).then(|| wait_after(tries));
            let (key, own) = (Key::Document(Kind::Progress, progress(receiver)), receiver.to_owned());
            let rule = move |work: &mut _| mail::posted(work, &own, about, &outcome);
            match service.change(vec![key], rule).await {
                Ok(_) => wait,
                Err(ChangeError::Refused(_)) => Some(INTERVAL),
                Err(ChangeError::Failed(reason)) => {
                    log::warn!("what became of a mail to {receiver} could not be stored: {}", reason.0);
                    Some(LONGEST)
                }
            }
        }
        Ok(Prepared::Nothing(wait)) => wait,
        Err(reason) => {
            log::warn!("mails to {receiver}: {reason}");
            Some(LONGEST)
        }
    }
}

/// What is sent next.
enum Prepared {
    /// A letter, or why there can be none; what it is about, and how often it was tried.
    Letter(Result<Vec<u8>, String>, About, u32),
    /// Nothing, for so long.
    Nothing(Option<Duration>),
}

async fn prepared(service: &Service, post: &Post, receiver: &str) -> Result<Prepared, String> {
    let failed = |error: StoreError| error.to_string();
    let known = service.store.document(Kind::Progress, &progress(receiver)).await.map_err(failed)?;
    let known: Option<Posted> = known.and_then(|known| serde_json::from_value(known).ok());
    let Some(known) = known else { return Ok(Prepared::Nothing(None)) };
    // Whether there are more than have a mail each is all that has to be known.
    let first =
        EventQuery { oldest_first: true, take: mail::SINGLE + 1, uncounted: true, ..mail::behind(&known) };
    let found = service.store.events(&first).await.map_err(failed)?;
    let to = mail::address(receiver)?;
    let envelope = Envelope { from: post.smtp.from(), to: &to, public_url: post.public_url.as_deref() };
    let about =
        |event: &Numbered, is_summary| About { number: event.number, time: event.event.time, is_summary };
    match mail::step(&known, found.items.len() as u64, service.now()) {
        Step::Rest => Ok(Prepared::Nothing(None)),
        Step::Wait(seconds) => Ok(Prepared::Nothing(Some(Duration::from_secs(seconds)))),
        Step::Single => {
            let Some(event) = found.items.first() else { return Ok(Prepared::Nothing(None)) };
            let letter = news(event).and_then(|news| envelope.of_one(&mail::name(event), &news));
            Ok(Prepared::Letter(letter, about(event, false), known.tries))
        }
        Step::Summary => {
            let last = EventQuery { take: 1, ..mail::behind(&known) };
            let last = service.store.events(&last).await.map_err(failed)?;
            let Some(event) = last.items.first() else { return Ok(Prepared::Nothing(None)) };
            let summary = summary(service, &known, last.total, event).await.map_err(failed)?;
            let letter = envelope.of_many(&mail::name(event), &summary);
            Ok(Prepared::Letter(letter, about(event, true), known.tries))
        }
    }
}

fn news(event: &Numbered) -> Result<News, String> {
    serde_json::from_value(event.event.data.clone())
        .map_err(|error| format!("event {}: {error}", event.number))
}

/// All that waits up to an event. The store counts it by what it is: a million events are not read.
async fn summary(
    service: &Service,
    known: &Posted,
    all: u64,
    last: &Numbered,
) -> Result<Summary, StoreError> {
    let mut summary = Summary { all, ..Summary::default() };
    for (key, count) in [(mail::STOPPED, &mut summary.stopped), (mail::CRITICAL, &mut summary.critical)] {
        let (keys, before) = (vec![key.to_owned()], Some(last.event.time));
        let query = EventQuery { keys, take: NAMED, before, ..mail::behind(known) };
        let found = service.store.events(&query).await?;
        *count = found.total;
        summary.newest.extend(found.items.iter().filter_map(|event| news(event).ok()));
    }
    Ok(summary)
}

/// Tries whether a mail arrives. What the server said, and whether it took it.
pub(crate) async fn test(post: &Post, service: &Service, receiver: &str) -> Result<(bool, String), String> {
    let to = mail::address(receiver)?;
    let envelope = Envelope { from: post.smtp.from(), to: &to, public_url: None };
    let letter = envelope.of_test(&letter::test_name(service.now()))?;
    let (outcome, said) = hand_over(&post.smtp, receiver, letter).await;
    Ok((outcome == Outcome::Sent, said))
}

async fn hand_over(smtp: &SmtpOptions, receiver: &str, letter: Vec<u8>) -> (Outcome, String) {
    let failed = |reason: String| (Outcome::Failed(reason.clone()), reason);
    let to = match mail::address(receiver) {
        Ok(to) => to,
        Err(reason) => return (Outcome::Refused(reason.clone()), reason),
    };
    let smtp = smtp.clone();
    let (tell, told) = oneshot::channel();
    // A thread of its own: the server does not wait for it when it stops, as it would for one of its runtime.
    let thread = std::thread::Builder::new().name("mail".to_owned()).spawn(move || {
        // Nobody hears of it when the server has stopped meanwhile.
        let _ = tell.send(smtp.send(&to, &letter));
    });
    match thread {
        Ok(_) => told.await.unwrap_or_else(|_| failed("the thread that sends it ended".to_owned())),
        Err(error) => failed(format!("no thread can be started: {error}")),
    }
}
