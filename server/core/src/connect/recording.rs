//! Terminals that are recorded: what a shell prints, in pieces, as events of the session. What a person types is not
//! recorded; a shell prints it, but for passwords.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Closing, Line, LineEnd, SHELL, Switchboard, Timing, frame};
use crate::domain::limits;
use crate::domain::people::permissions::Pass;
use crate::model::time::Timestamp;
use crate::service::Service;
use crate::store::{Store, StoreError};
use crate::work::query::EventQuery;
use crate::work::{Event, NotLoaded, Stream, Work, Write};

/// Bytes of a piece: what a server that is killed loses of each session.
const PIECE_BYTES: usize = 32 * 1024;
/// Texts of a piece: a shell may print one letter at a time.
const PIECE_TEXTS: usize = 1024;
/// Pieces that wait for the store: a whole recording, as long as its texts are not a few letters each.
const PIECES: usize = limits::RECORDING_BYTES / PIECE_BYTES + 8;
/// Pieces of a recording that are read at a time.
const READ_AT_ONCE: u64 = 4;

/// What is printed, and after how many milliseconds of the session.
type Texts = Vec<(u64, Vec<u8>)>;

/// Records one session.
#[derive(Debug)]
pub(crate) struct Recorder {
    pieces: mpsc::Sender<Texts>,
    texts: Texts,
    waiting: usize,
    recorded: usize,
    began: Instant,
    is_over: bool,
}

impl Recorder {
    /// Begins to record a session with a device. It ends when it is dropped.
    pub(crate) fn begin(service: Service, session: String, device: String) -> Recorder {
        let (pieces, read) = mpsc::channel(PIECES);
        tokio::spawn(store_pieces(service, session, device, read));
        Recorder { pieces, texts: Vec::new(), waiting: 0, recorded: 0, began: Instant::now(), is_over: false }
    }

    /// Looks at a frame from the device.
    pub(crate) fn hear(&mut self, frame: &[u8]) {
        if self.is_over {
            return;
        }
        let Ok(message) = frame::message(frame) else { return };
        if message.proto != u64::from(SHELL) || message.kind != "shell" || message.body.is_empty() {
            return;
        }
        let left = limits::RECORDING_BYTES - self.recorded;
        let text = message.body.get(..left).unwrap_or(message.body);
        self.recorded += text.len();
        self.waiting += text.len();
        self.is_over = self.recorded >= limits::RECORDING_BYTES;
        let after = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.texts.push((after, text.to_vec()));
        if self.waiting >= PIECE_BYTES || self.texts.len() >= PIECE_TEXTS || self.is_over {
            self.pass();
        }
    }

    fn pass(&mut self) {
        let texts = std::mem::take(&mut self.texts);
        self.waiting = 0;
        if !texts.is_empty() && self.pieces.try_send(texts).is_err() {
            log::warn!("a terminal prints more than can be stored: it is recorded no further");
            self.is_over = true;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.pass();
    }
}

async fn store_pieces(service: Service, session: String, device: String, mut pieces: mpsc::Receiver<Texts>) {
    while let Some(texts) = pieces.recv().await {
        let texts: Vec<Value> =
            texts.iter().map(|(after, text)| json!([after, STANDARD.encode(text)])).collect();
        let data = json!({ "device": device, "texts": texts });
        let key = session.clone();
        let rule = move |work: &mut Work| {
            let event =
                Event { stream: Stream::Recording, key: key.clone(), time: work.now(), data: data.clone() };
            work.write(Write::Event(event));
            Ok::<(), NotLoaded>(())
        };
        if service.change(Vec::new(), rule).await.is_err() {
            log::warn!("session {session} is recorded no further: it could not be stored");
            return;
        }
        if let Err(error) = make_room(&*service.store).await {
            log::warn!("old recordings could not be taken away: {error}");
        }
    }
}

fn query(session: Option<&str>, above: Option<u64>) -> EventQuery {
    EventQuery {
        keys: session.into_iter().map(str::to_owned).collect(),
        above,
        oldest_first: true,
        take: READ_AT_ONCE,
        ..EventQuery::of(Stream::Recording)
    }
}

/// Takes the oldest pieces away when there are too many.
async fn make_room(store: &dyn Store) -> Result<(), StoreError> {
    let most = limits::RECORDED_PIECES;
    let total = store.events(&EventQuery { take: 1, ..query(None, None) }).await?.total;
    if total > most {
        store.forget_events(Stream::Recording, Timestamp(u64::MAX >> 1), total - most).await?;
    }
    Ok(())
}

/// The device of a recorded session; `None` when there is no recording.
pub(crate) async fn device_of(store: &dyn Store, session: &str) -> Result<Option<String>, StoreError> {
    let found = store.events(&EventQuery { take: 1, ..query(Some(session), None) }).await?;
    let data = found.items.into_iter().next().map(|one| one.event.data);
    Ok(data.and_then(|data| data.get("device")?.as_str().map(str::to_owned)))
}

/// A recording on its way to whoever sees it.
pub(crate) struct Playback {
    session: String,
}

impl Playback {
    /// Begins to play a recording, with `pause` behind each text. It goes on as long as `pass` holds.
    pub(crate) fn begin(
        board: &Switchboard,
        store: Arc<dyn Store>,
        session: &str,
        pass: Pass,
        pause: Duration,
    ) -> (Playback, LineEnd) {
        let (line, end) = board.guarded_line(pass);
        let timing = board.timing;
        let own = session.to_owned();
        tokio::spawn(async move {
            let closing = match play(&*store, &own, &line, pause, timing).await {
                Ok(closing) => closing,
                Err(error) => {
                    log::warn!("the recording of session {own} could not be read: {error}");
                    Closing::Gone
                }
            };
            // What waits is sent before the end.
            let _ = line.frames.reserve_many(limits::FRAMES_UNDER_WAY).await;
            line.close(closing);
        });
        (Playback { session: session.to_owned() }, end)
    }

    /// Whose recording it is.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }
}

async fn play(
    store: &dyn Store,
    session: &str,
    line: &Line,
    pause: Duration,
    timing: Timing,
) -> Result<Closing, StoreError> {
    let mut above = None;
    loop {
        let found = store.events(&query(Some(session), above)).await?;
        let Some(last) = found.items.last() else { return Ok(Closing::Played) };
        above = Some(last.number);
        for one in &found.items {
            let texts = one.event.data.get("texts").and_then(Value::as_array).into_iter().flatten();
            for text in texts.filter_map(|text| text.get(1)?.as_str()) {
                let Ok(body) = STANDARD.decode(text) else { continue };
                let frame = frame::written(SHELL.into(), "shell", session, "", None, &body);
                if let Err(closing) = line.send(frame, timing).await {
                    return Ok(closing);
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> (Recorder, mpsc::Receiver<Texts>) {
        let (pieces, read) = mpsc::channel(1000);
        let began = Instant::now();
        (Recorder { pieces, texts: Vec::new(), waiting: 0, recorded: 0, began, is_over: false }, read)
    }

    fn recorded(read: &mut mpsc::Receiver<Texts>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Ok(texts) = read.try_recv() {
            assert!(texts.len() <= PIECE_TEXTS);
            all.extend(texts.into_iter().map(|(_, text)| text));
        }
        all
    }

    #[test]
    fn only_what_a_shell_prints_is_recorded() {
        let (mut recorder, mut read) = recorder();
        let bytes = b"secret";
        for (proto, kind) in [(2, "file_chunk"), (3, "forward"), (1, "new"), (1, "stop"), (0xffff, "ping")] {
            recorder.hear(&frame::written(proto, kind, "s", "", None, bytes));
        }
        recorder.hear(b"garbage");
        recorder.hear(&frame::written(1, "shell", "s", "", None, b"printed"));
        drop(recorder);
        assert_eq!(recorded(&mut read), [b"printed"]);
    }

    #[test]
    fn a_recording_is_no_longer_than_its_limit() {
        let (mut recorder, mut read) = recorder();
        // One letter at a time at first.
        for _ in 0..3 * PIECE_TEXTS {
            recorder.hear(&frame::written(1, "shell", "s", "", None, b"x"));
        }
        for _ in 0..40 {
            recorder.hear(&frame::written(1, "shell", "s", "", None, &[7; 32_000]));
        }
        drop(recorder);
        let bytes: usize = recorded(&mut read).iter().map(Vec::len).sum();
        assert_eq!(bytes, limits::RECORDING_BYTES);
    }

    #[test]
    fn when_the_store_is_slow_no_more_is_kept_in_memory() {
        let (pieces, mut read) = mpsc::channel(PIECES);
        let began = Instant::now();
        let mut recorder =
            Recorder { pieces, texts: Vec::new(), waiting: 0, recorded: 0, began, is_over: false };
        // A burst of large texts fits: it is less than what is recorded at all.
        for _ in 0..limits::RECORDING_BYTES / PIECE_BYTES - 1 {
            recorder.hear(&frame::written(1, "shell", "s", "", None, &[7; PIECE_BYTES]));
        }
        assert!(!recorder.is_over);
        // One of letters does not.
        for _ in 0..10 * PIECE_TEXTS {
            recorder.hear(&frame::written(1, "shell", "s", "", None, b"x"));
        }
        assert!(recorder.is_over && recorder.texts.is_empty());
        assert_eq!(recorded(&mut read).len(), limits::RECORDING_BYTES / PIECE_BYTES - 1 + 9 * PIECE_TEXTS);
    }
}
