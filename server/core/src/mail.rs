//! Mails about alerts and roll-outs that were stopped: to each receiver what there is to tell, in its order, once it is stored. One
//! of several processes does it.
//!
//! ```text
//! how much waits? -> a mail about the next event, or one about all -> store what the server said -> again
//!                                                                      \-> not sent: wait longer each time, the same again
//! ```
//!
//! Between the answer and what is stored the power may fail, and a server may take a mail without saying so in time: then it is
//! sent twice, with the same `Message-ID`.

mod letter;
pub(crate) mod smtp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

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
        if receivers.is_empty() {
            continue;
        }
        if !turn.is_own().await {
            rounds.leave();
            continue;
        }
        let places = places(&service, receivers).await;
        rounds.begin(|id, place| is_there(&places, id, place));
        for (receiver, place) in places {
            if !rounds.is_free(&receiver) {
                continue;
            }
            let (service, post, metrics, own) =
                (service.clone(), post.clone(), metrics.clone(), receiver.clone());
            rounds.tell(receiver, place.unwrap_or_default(), async move {
                next(&service, &post, &metrics, &own).await
            });
        }
    }
    rounds.end().await;
    turn.give_back().await;
}

/// Where each receiver is. It stays while a mail to him is tried again, and is another when he was taken out, or mails were switched
/// off, however short that was: then he does not wait. `None` while it cannot be read.
async fn places(service: &Service, receivers: &[String]) -> Vec<(String, Option<String>)> {
    let mut places = Vec::new();
    for receiver in receivers {
        let place = match service.store.document(Kind::Progress, &progress(receiver)).await {
            Ok(known) => {
                let known: Option<Posted> = known.and_then(|known| serde_json::from_value(known).ok());
                Some(known.map(|known| format!("{} {}", known.number, known.time)).unwrap_or_default())
            }
            Err(error) => {
                log::debug!("where {receiver} is with mails: {error}");
                None
            }
        };
        places.push((receiver.clone(), place));
    }
    places
}

/// Whether a receiver still is where he was. Where he is may not be known.
fn is_there(places: &[(String, Option<String>)], receiver: &str, place: &str) -> bool {
    let now = places.iter().find(|(known, _)| known == receiver);
    now.is_some_and(|(_, now)| now.as_ref().is_none_or(|now| now == place))
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
    match mail::address(receiver) {
        Ok(to) => smtp.send(&to, &letter).await,
        Err(reason) => (Outcome::Refused(reason.clone()), reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::mail::{keys, set};
    use crate::store::sqlite;
    use crate::work::Work;

    async fn switch(service: &Service, receivers: &[&str], after: u64) {
        let receivers = receivers.iter().map(|one| (*one).to_owned()).collect();
        let before = service.catalogue.document(Kind::Settings, SETTINGS).unwrap_or_default();
        let wanted = MailSettings { enabled: true, receivers };
        let keys = keys(&before, &wanted);
        service.change(keys, move |work: &mut Work| set(work, &wanted, after)).await.unwrap();
    }

    #[tokio::test]
    async fn who_is_put_in_again_does_not_wait_for_what_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(folder.path()).unwrap();
        let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
        let (mut rounds, receivers) = (Rounds::new("a receiver"), ["a@b.example".to_owned()]);
        switch(&service, &["a@b.example"], 3).await;
        let (receiver, place) = places(&service, &receivers).await.remove(0);
        rounds.tell(receiver, place.unwrap(), async { Some(LONGEST) });
        // It has ended when this is gone on with.
        tokio::task::yield_now().await;
        let mut is_free = async || {
            let places = places(&service, &receivers).await;
            rounds.begin(|id, place| is_there(&places, id, place));
            rounds.is_free("a@b.example")
        };
        assert!(!is_free().await);
        let about = About { number: 4, time: service.now(), is_summary: false };
        let failed = move |work: &mut Work| {
            mail::posted(work, "a@b.example", about, &Outcome::Failed("down".to_owned()))
        };
        let key = Key::Document(Kind::Progress, progress("a@b.example"));
        service.change(vec![key], failed).await.unwrap();
        assert!(!is_free().await, "he waits before the next try");
        switch(&service, &[], 3).await;
        switch(&service, &["a@b.example"], 5).await;
        assert!(is_free().await);
        assert!(is_there(&[("a@b.example".to_owned(), None)], "a@b.example", "x"), "it is not known");
        service.store.stop().await;
    }
}
