//! Which of several processes does what only one of them is to do: retention, deliveries, deltas, what runs on a timer.
//!
//! Whoever does something has a document in the store with its name, and counts it up every [`RENEWED`]. Another process
//! takes it over when it has seen the same count for [`TERM`], by its own clock that only runs forward: clocks of different
//! machines are never compared, and one that is set changes nothing. A process that could not count up in time has lost its
//! turn before anybody else can take it. In a data folder there is only one process, which always has the turn.
//!
//! It is no lock: a process that was stopped in the middle of something (a machine that was suspended with its clocks) goes on
//! with it for a moment when it wakes up. So what is done has to be right when it is done twice, as a rule over
//! [`Work`](crate::work::Work) is that looks first at what is there.
//!
//! ```text
//! let mut turn = service.turn("retention");
//! loop {
//!     wait for the timer, or stop
//!     turn.alone(pass(..)).await;      // None: another process does it, or took over in the middle
//! }
//! turn.give_back().await;              // another one need not wait
//! ```

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ChangeError, Service};
use crate::model::time::awake;
use crate::store::WriterFailed;
use crate::work::{Key, Kind, NotLoaded, Work};

/// A turn that was not renewed for so long is anybody's.
const TERM: Duration = Duration::from_secs(30);
/// How often it is renewed, and asked for by those who wait.
const RENEWED: Duration = Duration::from_secs(10);
/// How long it is one's own after it was renewed: less than others wait.
const OWN: Duration = Duration::from_secs(20);

/// Who has a turn: the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// The process, by a name that it has made for itself at its start.
    process: String,
    /// Counted up each time.
    count: u64,
}

/// Why a process does not have the turn.
#[derive(Debug, PartialEq, Eq)]
enum NotOurs {
    /// Something has to be loaded first.
    NotLoaded,
    /// Another one has it.
    Held(Held),
}

impl From<NotLoaded> for NotOurs {
    fn from(_: NotLoaded) -> NotOurs {
        NotOurs::NotLoaded
    }
}

/// Takes a turn, or renews it. `ended` is what may be replaced.
fn take(work: &mut Work, name: &str, own: &Held, ended: Option<&Held>) -> Result<(), NotOurs> {
    match work.document::<Held>(Kind::Lease, name)? {
        Some(held) if held.process != own.process && Some(&held) != ended => Err(NotOurs::Held(held)),
        Some(_) | None => Ok(work.put_document(Kind::Lease, name, Some(own))?),
    }
}

/// Gives a turn back, if it is still this process's.
fn give(work: &mut Work, name: &str, process: &str) -> Result<(), NotOurs> {
    match work.document::<Held>(Kind::Lease, name)? {
        Some(held) if held.process == process => Ok(work.put_document::<Held>(Kind::Lease, name, None)?),
        Some(_) | None => Ok(()),
    }
}

/// What a process knows of one turn. Times are those of [`awake`].
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// How often it has asked.
    count: u64,
    /// When it has asked for the last time.
    asked: Option<Duration>,
    /// Until when the turn is its own.
    own_until: Option<Duration>,
    /// Who else has it, and since when it looks like that.
    other: Option<(Held, Duration)>,
}

impl Known {
    fn is_own(&self, now: Duration) -> bool {
        self.own_until.is_some_and(|until| now < until)
    }

    fn is_due(&self, now: Duration) -> bool {
        self.asked.is_none_or(|asked| now.saturating_sub(asked) >= RENEWED)
            || self.own_until.is_some_and(|until| now >= until)
    }

    /// What the process writes, and what it may replace.
    fn ask(&mut self, process: &str, now: Duration) -> (Held, Option<Held>) {
        self.asked = Some(now);
        self.count += 1;
        let ended = self.other.as_ref().filter(|(_, since)| now.saturating_sub(*since) >= TERM);
        (Held { process: process.to_owned(), count: self.count }, ended.map(|(held, _)| held.clone()))
    }

    /// It was written. It counts from when it was asked for: others have not seen it before.
    fn taken(&mut self) {
        self.own_until = self.asked.map(|asked| asked + OWN);
        self.other = None;
    }

    /// Another one was found at this time.
    fn found(&mut self, held: Held, now: Duration) {
        self.own_until = None;
        match &self.other {
            Some((known, _)) if *known == held => {}
            Some(_) | None => self.other = Some((held, now)),
        }
    }
}

/// One thing that one process does at a time.
pub(crate) struct Turn {
    service: Service,
    name: &'static str,
    known: Known,
    clock: fn() -> Duration,
}

impl Service {
    /// The turn of what is called `name`.
    pub(crate) fn turn(&self, name: &'static str) -> Turn {
        Turn { service: self.clone(), name, known: Known::default(), clock: awake }
    }
}

impl Turn {
    /// Whether it is this process that does it. Asks the store when that is due, so it may be called as often as one likes;
    /// a store that does not answer is no reason to go on for longer than the turn lasts.
    pub(crate) async fn is_own(&mut self) -> bool {
        if !self.service.store.is_shared() {
            return true;
        }
        let now = (self.clock)();
        if self.known.is_due(now) {
            let had = self.known.own_until.is_some();
            let (own, ended) = self.known.ask(&self.service.process, now);
            let name = self.name;
            let key = vec![Key::Document(Kind::Lease, name.to_owned())];
            let rule = move |work: &mut Work| take(work, name, &own, ended.as_ref());
            match self.service.change(key, rule).await {
                Ok(()) => {
                    self.known.taken();
                    if !had {
                        log::info!("{name}: this process does it from now on");
                    }
                }
                Err(ChangeError::Refused(NotOurs::Held(held))) => {
                    if had {
                        log::warn!("{name}: another process has taken it over");
                    }
                    self.known.found(held, (self.clock)());
                }
                Err(ChangeError::Refused(NotOurs::NotLoaded)) => {}
                Err(ChangeError::Failed(WriterFailed(reason))) => {
                    log::debug!("{name}: whose turn it is: {reason}");
                }
            }
        }
        self.known.is_own((self.clock)())
    }

    /// Does something if it is this process that does it, and renews the turn meanwhile. `None` when another process does it,
    /// or the turn was lost: then what is done is dropped in the middle.
    pub(crate) async fn alone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        if !self.is_own().await {
            return None;
        }
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep(RENEWED) => if !self.is_own().await {
                    return None;
                },
            }
        }
    }

    /// Gives the turn back, so that another process need not wait until it is over.
    pub(crate) async fn give_back(self) {
        if !self.service.store.is_shared() || self.known.own_until.is_none() {
            return;
        }
        let (name, process) = (self.name, self.service.process.clone());
        let rule = move |work: &mut Work| give(work, name, &process);
        if self.service.change(vec![Key::Document(Kind::Lease, name.to_owned())], rule).await.is_err() {
            log::debug!("{name}: the turn could not be given back, and ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::metrics::Metrics;
    use crate::model::time::Timestamp;
    use crate::store::postgres;
    use crate::work::{Loaded, testing};

    const NAME: &str = "sweep";

    fn second(number: u64) -> Duration {
        Duration::from_secs(1000 + number)
    }

    /// A process asks at this time, and is answered at once. Whether it has the turn.
    fn ask(work: &mut Work, known: &mut Known, process: &str, at: u64) -> bool {
        let (own, ended) = known.ask(process, second(at));
        match testing::run(work, |_| false, |work| take(work, NAME, &own, ended.as_ref())) {
            Ok(()) => known.taken(),
            Err(NotOurs::Held(held)) => known.found(held, second(at)),
            Err(NotOurs::NotLoaded) => panic!("it is loaded"),
        }
        known.is_own(second(at))
    }

    fn empty() -> Work {
        let mut work = Work::new(Timestamp(1));
        work.load(Loaded::Document(Kind::Lease, NAME.to_owned(), None));
        work
    }

    #[test]
    fn one_process_has_the_turn_for_as_long_as_it_renews_it() {
        let (mut work, mut one, mut two) = (empty(), Known::default(), Known::default());
        for at in (0..200).step_by(10) {
            assert!(ask(&mut work, &mut one, "one", at));
            assert!(!ask(&mut work, &mut two, "two", at + 5));
        }
        // Nobody has ever two of them, however late the first one notices.
        assert!(one.is_own(second(190 + 19)) && !one.is_own(second(190 + 20)));
        for at in [195, 205, 215, 224] {
            assert!(!ask(&mut work, &mut two, "two", at), "{at}");
        }
        assert!(ask(&mut work, &mut two, "two", 225));
        assert!(!ask(&mut work, &mut one, "one", 226));
    }

    #[test]
    fn a_turn_that_is_given_back_is_taken_at_once_and_that_of_another_is_left() {
        let (mut work, mut one, mut two) = (empty(), Known::default(), Known::default());
        assert!(ask(&mut work, &mut one, "one", 0));
        testing::run(&mut work, |_| false, |work| give(work, NAME, "two")).unwrap();
        assert!(!ask(&mut work, &mut two, "two", 1));
        testing::run(&mut work, |_| false, |work| give(work, NAME, "one")).unwrap();
        assert!(ask(&mut work, &mut two, "two", 2));
    }

    #[test]
    fn who_asks_seldom_keeps_the_turn_against_another_that_asks_seldom() {
        // Each asks once an hour, before what it does: the first one goes on doing it, until it does not ask any more.
        let (mut work, mut one, mut two) = (empty(), Known::default(), Known::default());
        for hour in 0..4 {
            assert!(ask(&mut work, &mut one, "one", hour * 3600));
            assert!(!ask(&mut work, &mut two, "two", hour * 3600 + 60));
        }
        assert!(ask(&mut work, &mut two, "two", 4 * 3600 + 60));
    }

    /// Seconds of the clock of the test with two services.
    static CLOCK: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn over_one_database_a_process_takes_over_what_another_does_no_more() {
        let Some(url) = postgres::test_url() else { return };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let open = || async {
                let target = postgres::Target::parse(&url, None, None).unwrap();
                let store = postgres::open(target, postgres::Sharing::Servers).await.unwrap();
                Service::open(store, Arc::new(Metrics::default())).await.unwrap()
            };
            let (one, two) = (open().await, open().await);
            let turn = |service: &Service| Turn {
                clock: || second(CLOCK.load(Ordering::Relaxed)),
                ..service.turn(NAME)
            };
            let (mut first, mut second) = (turn(&one), turn(&two));
            assert_eq!(first.alone(async { 1 }).await, Some(1));
            assert_eq!(second.alone(async { 2 }).await, None);
            // The first one has died. Its turn is over for itself before it is for the others.
            CLOCK.store(29, Ordering::Relaxed);
            assert_eq!(second.alone(async { 2 }).await, None);
            CLOCK.store(40, Ordering::Relaxed);
            assert_eq!(second.alone(async { 2 }).await, Some(2));
            assert_eq!(first.alone(async { 1 }).await, None);
            second.give_back().await;
            CLOCK.store(50, Ordering::Relaxed);
            assert_eq!(first.alone(async { 1 }).await, Some(1));
            one.store.stop().await;
            two.store.stop().await;
        });
    }

    #[test]
    fn what_is_in_a_data_folder_needs_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = crate::store::sqlite::open(folder.path()).unwrap();
            let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
            let mut turn = service.turn(NAME);
            assert_eq!(turn.alone(async { 1 }).await, Some(1));
            turn.give_back().await;
            assert_eq!(service.store.document(Kind::Lease, NAME).await.unwrap(), None);
            service.store.stop().await;
        });
    }
}
