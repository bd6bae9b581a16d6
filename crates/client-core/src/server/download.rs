//! An artifact as a reader that survives a bad network: nothing is transferred twice.
//!
//! When the connection breaks or stalls, the next request asks for the rest, and the bytes go on where they stopped. What
//! an answer means is decided by [`range`]; this file acts. Where nothing shows that a rest is of the same thing, all of
//! it is asked for again, and its beginning is compared with what was handed on. [`Download::into_places`] reads the same
//! content from any place on, with one connection, one budget and one patience for all readers. Whether the bytes are the right ones is
//! not decided here but by the signature and the digests of the artifact.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::exchange::{REDIRECTS_MAX, no_answer};
use super::range::{self, Content, Judgement};
use super::{
    Method, Offer, Purpose, ReportAnswer, Request, Response, ServerError, Source, Transport, UpdateServer,
    retry_after, url,
};
use crate::artifact::Places;
use crate::clock::{Clock, Paused, between};
use crate::deploy::{self, DeploymentId, Report, SourceChanged};

/// New links in a row that bring no byte.
const LINKS_MAX: u32 = 3;
/// How often the beginning may be transferred again for want of anything that shows that the rest is of the same thing.
const WHOLES_MAX: u32 = 10;

/// How patient a download is.
#[derive(Debug, Clone)]
pub struct DownloadSettings {
    /// Attempts in a row without a byte, after which the download is given up (`RetryDownloadCount`).
    pub attempts_max: u32,
    /// Longest wait between two attempts (`RetryPollIntervalSeconds`).
    pub longest_wait: Duration,
    /// First wait; doubled with each attempt without progress.
    pub first_wait: Duration,
    /// How long the first byte may take, all attempts together; `None` for as long as any other. Somebody may be
    /// waiting who has mistyped the address.
    pub begin_within: Option<Duration>,
    /// Least bytes per second over `rate_window`; below it the connection counts as stalled.
    pub least_bytes_per_second: u64,
    /// Over which time the rate is measured.
    pub rate_window: Duration,
    /// How often the server is asked whether the deployment was aborted; `None` for never.
    pub abort_check_every: Option<Duration>,
    /// Bytes of bodies that the transfer may cost, those that come twice counted twice; `None` for any number. A request
    /// that is known to exceed it is not begun: the first one is for a part where [`begin_with`](Self::begin_with) says so.
    pub budget_bytes: Option<u64>,
    /// How many bytes the first request asks for, where what is wanted behind them is known later; `None` for all.
    pub begin_with: Option<u64>,
}

impl Default for DownloadSettings {
    /// The defaults of the configuration, and what it does not configure.
    fn default() -> DownloadSettings {
        DownloadSettings {
            attempts_max: 10,
            longest_wait: Duration::from_secs(300),
            first_wait: Duration::from_secs(1),
            begin_within: None,
            least_bytes_per_second: 64,
            rate_window: Duration::from_secs(60),
            abort_check_every: None,
            budget_bytes: None,
            begin_with: None,
        }
    }
}

/// What a transfer cost. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct DownloadStatistics {
    // Not atomics: some 32-bit devices have none of 64 bits.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    received: u64,
    discarded: u64,
    connections: u64,
    resumes: u64,
}

impl DownloadStatistics {
    /// Bytes of bodies that came over the network.
    pub fn received(&self) -> u64 {
        self.counts().received
    }

    /// Those of them that were here already: bytes bought twice.
    pub fn discarded(&self) -> u64 {
        self.counts().discarded
    }

    /// Requests that were answered.
    pub fn connections(&self) -> u64 {
        self.counts().connections
    }

    /// How often the transfer went on in the middle.
    pub fn resumes(&self) -> u64 {
        self.counts().resumes
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An artifact being transferred.
pub struct Download {
    transport: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    settings: DownloadSettings,
    deployment: Option<Deployment>,
    source: Source,
    /// The transfer began encrypted, and stays so.
    encrypted: bool,
    /// The address is another one than that from which `content` comes.
    new_link: bool,
    content: Content,
    /// The next byte that is handed on.
    offset: u64,
    /// Where the reader of now ends.
    end: Option<u64>,
    /// What was handed on is not all that is before `offset`.
    jumped: bool,
    /// The next request is none that a broken connection makes necessary.
    planned: bool,
    /// The server gave the part that was asked for first.
    gives_parts: bool,
    /// It answered the question for a part with nothing of use: everything is asked for.
    plainly: bool,
    /// Which reader this is, and which was opened last.
    turn: usize,
    turns: Arc<AtomicUsize>,
    /// Their digest, where no validator and no length would show that a rest is of the same thing.
    prefix: Option<Sha256>,
    /// Parts show nothing here: everything is asked for.
    whole: bool,
    /// How often that was done.
    wholes: u32,
    /// When it began.
    begun: Duration,
    answer: Option<Answering>,
    /// Why the last connection ended, if it was not by itself.
    stalled: Option<Stall>,
    /// Attempts in a row without a byte.
    fruitless: u32,
    /// Waits in a row without progress.
    waits: u32,
    /// New links in a row without progress.
    links: u32,
    statistics: Arc<DownloadStatistics>,
    cancel_token: CancelToken,
}

/// Ends a download from another thread: nothing more is asked for.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Ends it at the next step it takes.
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The order of the server that is being followed.
struct Deployment {
    server: Arc<Mutex<dyn UpdateServer>>,
    id: DeploymentId,
    provides: BTreeMap<String, String>,
    /// When the server was last asked whether it stands by it.
    asked_at: Duration,
}

/// The body that is being read.
struct Answering {
    body: Box<dyn Read + Send>,
    /// Bytes at its beginning that are here already.
    skip: u64,
    /// The digest of what was skipped so far, where that has to be what is here.
    compared: Option<Sha256>,
    /// Bytes left in it, where that is known.
    left: Option<u64>,
    /// No more than a part was asked for: its end is no end of the connection.
    bounded: bool,
    /// It is everything, whatever was asked for.
    whole: bool,
    /// New bytes that it brought.
    came: u64,
    /// Time spent reading, and what came in it: reset with each window. Only time in which bytes were waited for
    /// counts, not the time in which the reader was busy with them.
    spent: Duration,
    in_window: u64,
}

/// Why nothing comes.
enum Trouble {
    /// It may pass.
    Stall(Stall),
    /// It will not.
    Over(ServerError),
}

struct Stall {
    reason: String,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
    /// Bytes came, but too slowly to count as progress.
    slow: bool,
}

impl Stall {
    fn of(reason: impl Into<String>) -> Stall {
        Stall { reason: reason.into(), retry_after: None, slow: false }
    }
}

impl From<ServerError> for Trouble {
    fn from(error: ServerError) -> Trouble {
        Trouble::Over(error)
    }
}

impl Download {
    /// Of an address that somebody gave: there is no server to ask for a new one.
    ///
    /// # Errors
    /// When the first request is refused, or the attempts are used up.
    pub fn open(
        url: &str,
        transport: Box<dyn Transport>,
        clock: Arc<dyn Clock>,
        settings: DownloadSettings,
    ) -> Result<Download, ServerError> {
        Download::begin(Source::public(url), None, transport, clock, settings)
    }

    /// Of a deployment: on an expired link (401, 403, 404, 410) `server` is asked again with `provides`, and the transfer
    /// goes on at the same byte if it is the same deployment and the same content; an abort by the server ends it.
    ///
    /// `server` is locked only while it is asked: do not hold it while reading.
    ///
    /// # Errors
    /// When the first request is refused, or the attempts are used up.
    pub fn of_offer(
        offer: &Offer,
        provides: &BTreeMap<String, String>,
        server: Arc<Mutex<dyn UpdateServer>>,
        transport: Box<dyn Transport>,
        clock: Arc<dyn Clock>,
        settings: DownloadSettings,
    ) -> Result<Download, ServerError> {
        let asked_at = clock.now();
        let deployment = Deployment { server, id: offer.id.clone(), provides: provides.clone(), asked_at };
        Download::begin(offer.source.clone(), Some(deployment), transport, clock, settings)
    }

    fn begin(
        source: Source,
        deployment: Option<Deployment>,
        transport: Box<dyn Transport>,
        clock: Arc<dyn Clock>,
        settings: DownloadSettings,
    ) -> Result<Download, ServerError> {
        let Some(parts) = url::parts(source.url()) else {
            let shown = url::shown(source.url()).escape_debug().to_string();
            return Err(ServerError::Address { url: shown, reason: url::problem(source.url()) });
        };
        let mut download = Download {
            encrypted: parts.https,
            source,
            transport,
            clock,
            settings,
            deployment,
            new_link: false,
            content: Content::default(),
            offset: 0,
            end: None,
            jumped: false,
            planned: false,
            gives_parts: false,
            plainly: false,
            turn: 0,
            turns: Arc::default(),
            prefix: None,
            whole: false,
            wholes: 0,
            begun: Duration::ZERO,
            answer: None,
            stalled: None,
            fruitless: 0,
            waits: 0,
            links: 0,
            statistics: Arc::default(),
            cancel_token: CancelToken::default(),
        };
        download.end = download.settings.begin_with;
        download.begun = download.clock.now();
        // Where only a part is asked for first, its end decides: what is here already need not be transferred.
        let known = download.source.size_bytes().filter(|_| download.end.is_none());
        download.check_budget(known.unwrap_or(0))?;
        while download.answer.is_none() {
            download.step()?;
        }
        download.end = None;
        Ok(download)
    }

    /// The same bytes, from any of them on.
    pub fn into_places(self) -> Box<dyn Places> {
        let (turns, statistics) = (Arc::clone(&self.turns), self.statistics());
        Box::new(DownloadPlaces { download: Arc::new(Mutex::new(self)), turns, statistics })
    }

    /// Goes on at `offset`, up to `end`, for the reader of that `turn`.
    fn go_to(&mut self, offset: u64, end: Option<u64>, turn: usize) {
        (self.turn, self.end) = (turn, end);
        let before = std::mem::replace(&mut self.offset, offset);
        if offset == before {
            return;
        }
        self.jumped = true;
        // Nothing is known of what lies between.
        self.prefix = None;
        match (&mut self.answer, offset.checked_sub(before)) {
            // Whoever gives everything where a part was asked for would do so again, from the beginning.
            (Some(answer), Some(between)) if answer.whole && answer.compared.is_none() => {
                answer.skip = answer.skip.saturating_add(between);
            }
            (Some(_) | None, _) => (self.answer, self.planned) = (None, true),
        }
    }

    /// How every line of the log about it begins, where a server ordered it.
    fn label(&self) -> String {
        self.deployment.as_ref().map_or_else(String::new, |of| format!("deployment {}: ", of.id))
    }

    /// The error of this reader inside `error`, at some depth.
    pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ServerError> {
        deploy::cause(error)
    }

    /// Length of the whole, where it is known.
    pub fn total(&self) -> Option<u64> {
        self.content.total
    }

    /// What the transfer costs; goes on counting after the download was handed on.
    pub fn statistics(&self) -> Arc<DownloadStatistics> {
        Arc::clone(&self.statistics)
    }

    /// What ends this download when nobody wants the rest any more.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.cancel_token.clone()
    }

    /// The address in use, for messages.
    fn shown(&self) -> String {
        url::shown(self.source.url())
    }

    /// Gets a connection, or waits before the next attempt.
    fn step(&mut self) -> Result<(), ServerError> {
        if let Some(stall) = self.stalled.take() {
            return self.wait(stall);
        }
        self.ask_whether_aborted()?;
        match self.connect() {
            Ok(()) => Ok(()),
            Err(Trouble::Stall(stall)) => self.wait(stall),
            Err(Trouble::Over(error)) => Err(error),
        }
    }

    /// Asks for what is missing, through redirects and new links.
    fn connect(&mut self) -> Result<(), Trouble> {
        let mut target = self.source.url().to_owned();
        let mut redirects = 0;
        loop {
            let response = self.send(&target)?;
            self.statistics.counts().connections += 1;
            let begins = self.offset == 0 && !self.jumped;
            let judgement = if begins {
                range::begin(&response, self.asks_for_a_part())
            } else {
                range::go_on(&response, self.offset, &self.content, self.new_link)
            };
            match judgement {
                Judgement::Body { skip, length, content } => {
                    let is_part = !begins || response.status == 206 && self.end.is_some();
                    let more = if is_part { length.or(content.total) } else { content.total.or(length) };
                    self.check_budget(more.unwrap_or(0)).map_err(Trouble::Over)?;
                    if begins {
                        self.gives_parts = response.status == 206;
                    }
                    self.take_body(response, skip, None, length, content);
                    return Ok(());
                }
                Judgement::Unproven { .. } if response.status == 206 && !self.whole => {
                    self.whole = true;
                    let label = self.label();
                    log::info!(
                        "{label}a part shows nothing: asking for everything, to compare its beginning"
                    );
                }
                Judgement::Unproven { skip, length, content } => {
                    self.check_that_it_can_be_compared(&target, skip)?;
                    self.check_budget(length.unwrap_or(skip)).map_err(Trouble::Over)?;
                    self.take_body(response, skip, Some(Sha256::new()), length, content);
                    return Ok(());
                }
                Judgement::Complete => {
                    self.content.total = Some(self.offset);
                    return Ok(());
                }
                Judgement::NoPart => {
                    log::debug!("{}no use in asking for a part: asking for everything", self.label());
                    self.plainly = true;
                }
                Judgement::Elsewhere => {
                    target = self.redirected(&response, &target, redirects)?;
                    redirects += 1;
                }
                Judgement::Expired => {
                    target = self.new_address(&response, &target)?;
                    redirects = 0;
                }
                // It has the part, and does not give it.
                Judgement::TryAgain(reason) if response.status == 416 && !self.whole => {
                    log::info!("{}{reason}: asking for everything", self.label());
                    self.whole = true;
                }
                Judgement::TryAgain(reason) => return Err(self.try_again(&response, reason)),
                Judgement::Changed(reason) => return Err(changed(&target, reason)),
                Judgement::Refused => return Err(Trouble::Over(refused(&response, &target))),
                Judgement::Unusable(reason) => {
                    let url = url::shown(&target);
                    return Err(Trouble::Over(ServerError::Malformed { url, reason }));
                }
            }
        }
    }

    /// What comes from its beginning, and may be something else, is compared: where its beginning is known, and not without
    /// end.
    fn check_that_it_can_be_compared(&mut self, target: &str, skip: u64) -> Result<(), Trouble> {
        const NOTHING: &str = "nothing shows that it is still the same";
        if self.prefix.is_none() || skip != self.offset {
            return Err(changed(target, NOTHING.to_owned()));
        }
        self.wholes += 1;
        if self.wholes > WHOLES_MAX {
            let reason = format!("it was begun anew {WHOLES_MAX} times, and {NOTHING}");
            return Err(changed(target, reason));
        }
        Ok(())
    }

    fn try_again(&self, response: &Response, reason: String) -> Trouble {
        let text = response.header("retry-after");
        let text = text.filter(|_| matches!(response.status, 429 | 503));
        let retry_after = text.and_then(|text| retry_after::parse(text, self.clock.wall()));
        Trouble::Stall(Stall { reason, retry_after, slow: false })
    }

    fn send(&mut self, target: &str) -> Result<Response, Trouble> {
        if self.clock.stop_requested() {
            return Err(Trouble::Over(ServerError::Stopped));
        }
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if self.asks_for_a_part() {
            let last = self.end.map_or_else(String::new, |end| end.saturating_sub(1).to_string());
            headers.push(("range", format!("bytes={}-{last}", self.offset)));
            if let Some(validator) = self.content.if_range().filter(|_| self.offset > 0 || self.jumped) {
                headers.push(("if-range", validator.to_owned()));
            }
        }
        headers.extend_from_slice(self.source.headers_for(target));
        let request =
            Request { method: Method::Get, url: target, headers, body: None, purpose: Purpose::Download };
        self.transport.send(&request).map_err(|error| {
            let may_pass = error.may_pass;
            let error = no_answer(&*self.clock, target, error);
            if may_pass && matches!(error, ServerError::Transport { .. }) {
                Trouble::Stall(Stall::of(error.to_string()))
            } else {
                Trouble::Over(error)
            }
        })
    }

    fn asks_for_a_part(&self) -> bool {
        !self.whole && (self.offset > 0 || self.end.is_some() && !self.plainly)
    }

    fn take_body(
        &mut self,
        response: Response,
        skip: u64,
        compared: Option<Sha256>,
        length: Option<u64>,
        content: Content,
    ) {
        let bounded = response.status == 206 && self.end.is_some();
        let whole = response.status == 200;
        if self.offset == 0 {
            let shows_itself = content.etag.is_some() || content.total.is_some();
            self.prefix = (!shows_itself && !self.jumped).then(Sha256::new);
        } else if std::mem::take(&mut self.planned) {
            log::debug!("{}asked for what begins at byte {}", self.label(), self.offset);
        } else {
            self.statistics.counts().resumes += 1;
            let skipping = if skip > 0 { format!(", skipping {skip} bytes") } else { String::new() };
            match content.total {
                Some(total) => log::info!(
                    "{}transfer goes on at byte {} of {total}{skipping}",
                    self.label(),
                    self.offset
                ),
                None => log::info!("{}transfer goes on at byte {}{skipping}", self.label(), self.offset),
            }
        }
        // What was learned now may show the same of a part.
        self.whole = self.whole && content.etag.is_none() && content.total.is_none();
        self.content = content;
        self.new_link = false;
        self.answer = Some(Answering {
            body: response.body,
            skip,
            compared,
            left: length,
            bounded,
            whole,
            came: 0,
            spent: Duration::ZERO,
            in_window: 0,
        });
    }

    /// Where a redirect leads. What is secret goes to the origin of the source alone, so any host will do.
    fn redirected(&self, response: &Response, from: &str, redirects: usize) -> Result<String, Trouble> {
        let wrong = |message: &str| {
            Trouble::Over(ServerError::Status {
                url: url::shown(from),
                status: response.status,
                message: message.to_owned(),
                retry_after: None,
            })
        };
        if redirects >= REDIRECTS_MAX {
            return Err(wrong("too many redirects"));
        }
        let location = response.header("location").and_then(|location| url::resolve(from, location));
        let location = location.ok_or_else(|| wrong("redirected to nowhere"))?;
        if is_encrypted(from) && !is_encrypted(&location) {
            return Err(wrong("redirected from https to http"));
        }
        Ok(location)
    }

    /// The address that the server has now for what is being transferred, in place of one that is refused.
    fn new_address(&mut self, response: &Response, refused_at: &str) -> Result<String, Trouble> {
        let refused = refused(response, refused_at);
        let Some(deployment) = &mut self.deployment else { return Err(Trouble::Over(refused)) };
        if self.links >= LINKS_MAX {
            return Err(Trouble::Over(refused));
        }
        self.links += 1;
        let mut server = deployment.server.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match server.refresh(&deployment.id, &deployment.provides) {
            Ok(Some(source)) => source,
            Ok(None) => {
                return Err(Trouble::Over(ServerError::Aborted { id: deployment.id.to_string() }));
            }
            Err(ServerError::Stopped) => return Err(Trouble::Over(ServerError::Stopped)),
            Err(error) => {
                // No answer is not a new link.
                self.links -= 1;
                let reason = format!("{refused}; no new address: {error}");
                let retry_after = error.retry_after();
                return Err(Trouble::Stall(Stall { reason, retry_after, slow: false }));
            }
        };
        drop(server);
        if self.encrypted && !is_encrypted(source.url()) {
            let reason = "a new address that is not encrypted".to_owned();
            return Err(Trouble::Over(ServerError::Malformed { url: url::shown(refused_at), reason }));
        }
        if source == self.source {
            return Err(Trouble::Stall(Stall::of(refused.to_string())));
        }
        log::info!(
            "{}the address of the artifact is good no more ({}): got a new one",
            self.label(),
            response.status
        );
        self.new_link = true;
        let target = source.url().to_owned();
        self.source = source;
        Ok(target)
    }

    /// Waits before the next attempt, or gives up.
    fn wait(&mut self, stall: Stall) -> Result<(), ServerError> {
        let Stall { reason, retry_after, slow } = stall;
        let came = self.answer.take().map_or(0, |answer| answer.came);
        if came > 0 && !slow {
            self.made_progress();
        } else {
            self.fruitless = self.fruitless.saturating_add(1);
        }
        if self.clock.stop_requested() {
            return Err(ServerError::Stopped);
        }
        if self.fruitless >= self.settings.attempts_max.max(1) {
            return Err(self.gave_up(reason));
        }
        let doubled = 1_u32.checked_shl(self.waits).unwrap_or(u32::MAX);
        self.waits = self.waits.saturating_add(1);
        let wait = self.settings.first_wait.saturating_mul(doubled).min(self.settings.longest_wait);
        let mut wait = between(&*self.clock, wait / 2, wait);
        if let Some(asked) = retry_after {
            wait = wait.max(between(&*self.clock, asked, asked + asked / 10));
        }
        let nothing_came = self.statistics.received() == 0;
        let within = self.settings.begin_within.filter(|_| nothing_came);
        if within
            .is_some_and(|within| self.clock.now().saturating_sub(self.begun).saturating_add(wait) > within)
        {
            return Err(self.gave_up(reason));
        }
        match nothing_came {
            true => log::warn!("{}{reason}; next attempt in {wait:.0?}", self.label()),
            false => {
                log::warn!(
                    "{}transfer interrupted at byte {}: {reason}; next attempt in {wait:.0?}",
                    self.label(),
                    self.offset
                );
            }
        }
        match self.clock.pause(wait) {
            Paused::Elapsed => Ok(()),
            Paused::Stopped => Err(ServerError::Stopped),
        }
    }

    fn gave_up(&self, reason: String) -> ServerError {
        ServerError::GaveUp { url: self.shown(), attempts: self.fruitless, reason }
    }

    fn made_progress(&mut self) {
        self.fruitless = 0;
        self.waits = 0;
        self.links = 0;
    }

    /// Asks the server, if it is time, whether it stands by the deployment.
    fn ask_whether_aborted(&mut self) -> Result<(), ServerError> {
        let (Some(deployment), Some(every)) = (&mut self.deployment, self.settings.abort_check_every) else {
            return Ok(());
        };
        let now = self.clock.now();
        if now.saturating_sub(deployment.asked_at) < every {
            return Ok(());
        }
        deployment.asked_at = now;
        let mut server = deployment.server.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at with the conversation in hand: whoever cancels reports the end only after this.
        if self.cancel_token.is_cancelled() {
            return Err(ServerError::Stopped);
        }
        match server.report(&deployment.id, Report::Downloading, None) {
            Ok(ReportAnswer::Aborted) => Err(ServerError::Aborted { id: deployment.id.to_string() }),
            Ok(ReportAnswer::Accepted | ReportAnswer::Refused) => Ok(()),
            Err(ServerError::Stopped) => Err(ServerError::Stopped),
            // The transfer may well go on while the server cannot be asked.
            Err(error) => {
                log::debug!("deployment {}: cannot ask whether it was aborted: {error}", deployment.id);
                Ok(())
            }
        }
    }

    /// Reads from the connection that there is. `None`: nothing for the caller yet.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ServerError> {
        let affordable = self.affordable()?;
        let Some(answer) = &mut self.answer else { return Ok(None) };
        let wanted = if answer.skip > 0 {
            answer.skip
        } else {
            let until = self.content.total.unwrap_or(u64::MAX).min(self.end.unwrap_or(u64::MAX));
            until.saturating_sub(self.offset)
        };
        if answer.bounded && answer.left == Some(0) {
            self.end_part();
            return Ok(None);
        }
        let wanted = wanted.min(answer.left.unwrap_or(u64::MAX)).min(affordable);
        let room = usize::try_from(wanted).unwrap_or(usize::MAX).min(buffer.len());
        let before = self.clock.now();
        let count = match answer.body.read(&mut buffer[..room]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => {
                self.stalled = Some(Stall::of(error.to_string()));
                return Ok(None);
            }
        };
        if count == 0 {
            return Ok(self.answer_ended());
        }
        answer.spent = answer.spent.saturating_add(self.clock.now().saturating_sub(before));
        let is_new = answer.skip == 0;
        self.count(count as u64, is_new);
        if is_new {
            self.take_new(&buffer[..count])?;
        } else {
            self.take_known(&buffer[..count])?;
        }
        self.check_rate();
        Ok(is_new.then_some(count))
    }

    /// How many bytes the budget still allows.
    fn affordable(&self) -> Result<u64, ServerError> {
        match self.settings.budget_bytes {
            // A length that was not known before may turn out to be too much.
            Some(budget) if !self.is_complete() => {
                self.check_budget(1)?;
                Ok(budget.saturating_sub(self.statistics.received()))
            }
            Some(_) | None => Ok(u64::MAX),
        }
    }

    /// The part that was asked for is here. The end of its body is taken as well, so that the connection can be used again.
    fn end_part(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            if !matches!(answer.body.read(&mut [0]), Ok(0)) {
                log::debug!("{}more came than the part that was asked for", self.label());
            }
            if answer.came > 0 {
                self.made_progress();
            }
        }
        self.planned = true;
    }

    /// The end of an answer: without a length it is the end of the whole.
    fn answer_ended(&mut self) -> Option<usize> {
        let is_whole = self.answer.as_ref().is_some_and(|answer| {
            answer.skip == 0 && self.content.total.is_none() && answer.left.unwrap_or(0) == 0
        });
        if is_whole {
            self.content.total = Some(self.offset);
            return Some(0);
        }
        self.stalled = Some(Stall::of("the connection ended too early"));
        None
    }

    fn count(&mut self, bytes: u64, is_new: bool) {
        if let Some(answer) = &mut self.answer {
            answer.in_window += bytes;
            answer.left = answer.left.map(|left| left.saturating_sub(bytes));
        }
        let mut counts = self.statistics.counts();
        counts.received += bytes;
        if !is_new {
            counts.discarded += bytes;
        }
    }

    /// Bytes that the caller does not have yet.
    fn take_new(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        if self.offset == 0 && self.content.web_page && bytes.trim_ascii_start().starts_with(b"<") {
            let reason = "a web page instead of an artifact (a captive portal?)".to_owned();
            return Err(ServerError::Malformed { url: self.shown(), reason });
        }
        if let Some(prefix) = &mut self.prefix {
            prefix.update(bytes);
        }
        self.offset += bytes.len() as u64;
        if let Some(answer) = &mut self.answer {
            answer.came += bytes.len() as u64;
        }
        Ok(())
    }

    /// Bytes that the caller has: skipped, and compared where nothing else shows that they are the same.
    fn take_known(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        let Some(answer) = &mut self.answer else { return Ok(()) };
        answer.skip = answer.skip.saturating_sub(bytes.len() as u64);
        let Some(compared) = &mut answer.compared else { return Ok(()) };
        compared.update(bytes);
        let digest = |hash: &Sha256| hash.clone().finalize();
        if answer.skip == 0 && self.prefix.as_ref().map(digest) != Some(digest(compared)) {
            let reason = "it begins with other bytes".to_owned();
            return Err(ServerError::ContentChanged(SourceChanged { url: self.shown(), reason }));
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.content.total == Some(self.offset)
    }

    /// Fails where `more` bytes besides those that came exceed the budget.
    fn check_budget(&self, more: u64) -> Result<(), ServerError> {
        let received_bytes = self.statistics.received();
        match self.settings.budget_bytes {
            Some(budget_bytes) if received_bytes.saturating_add(more) > budget_bytes => {
                let url = self.shown();
                Err(ServerError::OverBudget { url, budget_bytes, received_bytes, wanted_bytes: more })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Ends a connection on which bytes trickle: it may hold a device for ever.
    fn check_rate(&mut self) {
        let Some(answer) = &mut self.answer else { return };
        if answer.spent < self.settings.rate_window {
            return;
        }
        let least = u128::from(self.settings.least_bytes_per_second) * answer.spent.as_millis() / 1000;
        if u128::from(answer.in_window) < least {
            let reason = format!("only {} bytes in {:.0?}", answer.in_window, answer.spent);
            self.stalled = Some(Stall { reason, retry_after: None, slow: true });
            return;
        }
        answer.spent = Duration::ZERO;
        answer.in_window = 0;
        if answer.came > 0 {
            self.made_progress();
        }
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, ServerError> {
        loop {
            if self.is_complete() || self.end.is_some_and(|end| self.offset >= end) {
                return Ok(0);
            }
            // Somebody reads elsewhere now, or nobody reads any more.
            if self.turns.load(Ordering::Acquire) != self.turn {
                return Err(ServerError::Stopped);
            }
            if self.clock.stop_requested() || self.cancel_token.is_cancelled() {
                return Err(ServerError::Stopped);
            }
            if self.answer.is_none() || self.stalled.is_some() {
                self.step()?;
                continue;
            }
            self.ask_whether_aborted()?;
            if let Some(count) = self.receive(buffer)? {
                return Ok(count);
            }
        }
    }
}

/// Fails with a [`ServerError`] inside an [`io::Error`]; [`Download::cause`] finds it again.
impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_on(buffer).map_err(io::Error::other)
    }
}

/// A download that is read from any place on: readers of the same content, one after the other.
struct DownloadPlaces {
    download: Arc<Mutex<Download>>,
    turns: Arc<AtomicUsize>,
    /// Besides the download, which is held by whoever waits for bytes.
    statistics: Arc<DownloadStatistics>,
}

impl Places for DownloadPlaces {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        // Said first: whoever reads has the download in its hands, and lets go of it with the next bytes.
        let turn = self.turns.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        lock(&self.download).go_to(offset, end, turn);
        Ok(Box::new(Turn { download: Arc::clone(&self.download), turn }))
    }

    fn can_jump(&self) -> bool {
        let download = lock(&self.download);
        download.gives_parts && download.content.total.is_some()
    }

    fn total_bytes(&self) -> Option<u64> {
        lock(&self.download).total()
    }

    fn received_bytes(&self) -> Option<u64> {
        Some(self.statistics.received())
    }

    fn check_affordable(&self, more_bytes: u64) -> io::Result<()> {
        lock(&self.download).check_budget(more_bytes).map_err(io::Error::other)
    }
}

/// Nobody reads any more: a thread that reads ahead ends.
impl Drop for DownloadPlaces {
    fn drop(&mut self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
    }
}

/// One reader.
struct Turn {
    download: Arc<Mutex<Download>>,
    turn: usize,
}

impl Read for Turn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut download = lock(&self.download);
        if download.turn != self.turn {
            return Err(io::Error::other(ServerError::Stopped));
        }
        download.read(buffer)
    }
}

fn lock(download: &Mutex<Download>) -> MutexGuard<'_, Download> {
    download.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_encrypted(url: &str) -> bool {
    url::parts(url).is_some_and(|parts| parts.https)
}

/// What `target` offers is no longer what was being read.
fn changed(target: &str, reason: String) -> Trouble {
    Trouble::Over(ServerError::ContentChanged(SourceChanged { url: url::shown(target), reason }))
}

fn refused(response: &Response, target: &str) -> ServerError {
    ServerError::Status {
        url: url::shown(target),
        status: response.status,
        message: "the artifact was refused".to_owned(),
        retry_after: None,
    }
}
