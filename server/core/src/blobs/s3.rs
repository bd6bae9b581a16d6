//! Blobs as objects in a bucket of an S3 store: written in parts while they come, read as ranges, and given by links that
//! the store itself checks.
//!
//! An object is there once its upload is complete, and is never changed; S3 shows nothing of parts. A server that is killed
//! leaves parts behind, which a rule of the bucket removes (`AbortIncompleteMultipartUpload`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use hyper::Method;
use hyper::body::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt,
    RetryConfig,
};
use tokio::task::JoinHandle;

use super::{BlobError, Blobs, Found, Lie, Listing, Name, Pieces, Shelf, Span, Upload, Verb};
use crate::model::time::Timestamp;

/// One part of an upload. Two are in memory: the one that comes in and the one that goes out.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// S3 takes no more parts of one object.
const PARTS: u64 = 10_000;
/// S3 signs no link for longer.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long S3 may take for one request, or for the next bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection to S3 may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a request is made again when S3 does not answer.
const RETRIES: usize = 3;
/// Between two attempts: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Names that are not ours and are remembered of one listing.
const STRANGE: usize = 1000;
/// What S3 says about an error, for the log: not long.
const REASON_CHARS: usize = 400;

/// Where artifacts are when they are in S3. What is not said here comes from the environment, as for other programs:
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct S3Options {
    bucket: String,
    prefix: String,
    endpoint: Option<String>,
    public_endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<Credentials>,
    allow_http: bool,
    through_server: bool,
    patience: Duration,
}

/// A pair of keys. It is never shown.
#[derive(Clone)]
struct Credentials {
    id: String,
    secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Default for S3Options {
    fn default() -> S3Options {
        S3Options {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            public_endpoint: None,
            region: None,
            credentials: None,
            allow_http: false,
            through_server: false,
            patience: PATIENCE,
        }
    }
}

impl S3Options {
    /// In this bucket, which exists.
    pub fn bucket(mut self, bucket: &str) -> S3Options {
        bucket.clone_into(&mut self.bucket);
        self
    }

    /// What the names of all objects begin with.
    pub fn prefix(mut self, prefix: &str) -> S3Options {
        self.prefix = prefix.trim_matches('/').to_owned();
        self
    }

    /// Where this server reaches S3.
    pub fn endpoint(mut self, url: &str) -> S3Options {
        self.endpoint = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// Where devices and people reach it, if that is another address.
    pub fn public_endpoint(mut self, url: &str) -> S3Options {
        self.public_endpoint = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// The region that requests are signed for.
    pub fn region(mut self, region: &str) -> S3Options {
        self.region = Some(region.to_owned());
        self
    }

    /// The keys.
    pub fn credentials(mut self, id: &str, secret: &str) -> S3Options {
        self.credentials = Some(Credentials { id: id.to_owned(), secret: secret.to_owned() });
        self
    }

    /// Whether S3 may be reached without TLS.
    pub fn allow_http(mut self, yes: bool) -> S3Options {
        self.allow_http = yes;
        self
    }

    /// Whether nobody is sent to S3: then all downloads and uploads go through this server.
    pub fn through_server(mut self, yes: bool) -> S3Options {
        self.through_server = yes;
        self
    }

    /// How long S3 may take for one request, or for the next bytes of an answer.
    pub fn patience(mut self, patience: Duration) -> S3Options {
        self.patience = patience;
        self
    }
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct S3 {
    /// For requests that end soon; it asks again when S3 does not answer.
    store: Arc<AmazonS3>,
    reader: Reader,
    /// Signs links, for the address that others use.
    public: Option<AmazonS3>,
    prefix: String,
}

impl S3 {
    /// The bucket of `options`. Nothing is asked yet.
    ///
    /// # Errors
    /// The options cannot be used.
    pub(crate) fn open(options: &S3Options) -> Result<S3, BlobError> {
        let wrong = |error: Error| BlobError::Settings { reason: error.to_string() };
        if options.bucket.is_empty() {
            return Err(BlobError::Settings { reason: "no bucket was named".to_owned() });
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&options.bucket);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(Credentials { id, secret }) = &options.credentials {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
        let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
        for url in endpoint.iter().chain(&options.public_endpoint) {
            check_endpoint(url, options.allow_http)?;
        }
        let client = ClientOptions::new()
            .with_allow_http(options.allow_http)
            .with_connect_timeout(CONNECT.min(options.patience))
            .with_timeout(options.patience);
        let retries = RetryConfig {
            backoff: BackoffConfig { init_backoff: BACKOFF.0, max_backoff: BACKOFF.1, base: 2.0 },
            max_retries: RETRIES,
            retry_timeout: options.patience,
        };
        // An answer with an artifact in it takes as long as a device needs for it, and what is asked again has to be
        // checked again: see `Reader`.
        let reader = builder
            .clone()
            .with_client_options(client.clone().with_timeout_disabled())
            .with_retry(RetryConfig { max_retries: 0, ..retries.clone() });
        let builder = builder.with_client_options(client).with_retry(retries);
        let public = match (&options.public_endpoint, options.through_server) {
            (_, true) => None,
            (None, false) => Some(builder.clone()),
            (Some(url), false) => {
                Some(builder.clone().with_endpoint(url).with_config(AmazonS3ConfigKey::S3Endpoint, url))
            }
        };
        Ok(S3 {
            store: Arc::new(builder.build().map_err(wrong)?),
            reader: Reader { store: Arc::new(reader.build().map_err(wrong)?), patience: options.patience },
            public: public.map(AmazonS3Builder::build).transpose().map_err(wrong)?,
            prefix: options.prefix.clone(),
        })
    }

    fn folder(&self, shelf: Shelf) -> Key {
        let shelf = match shelf {
            Shelf::Artifacts => "artifacts",
            Shelf::Direct => "direct",
        };
        Key::from_iter(self.prefix.split('/').filter(|part| !part.is_empty()).chain([shelf]))
    }

    fn key(&self, name: &Name) -> Key {
        self.folder(name.shelf).join(name.file())
    }
}

fn check_endpoint(url: &str, allow_http: bool) -> Result<(), BlobError> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let reason = match scheme.as_deref() {
        Some("https") => return Ok(()),
        Some("http") if allow_http => return Ok(()),
        Some("http") => {
            format!("{url} is not encrypted, which is only used when --s3-allow-http asks for it")
        }
        Some(_) | None => format!("{url} is no address that begins with https://"),
    };
    Err(BlobError::Settings { reason })
}

#[async_trait]
impl Blobs for S3 {
    async fn create(&self, name: &Name) -> Result<Box<dyn Upload>, BlobError> {
        Ok(Box::new(Sending {
            store: self.store.clone(),
            key: self.key(name),
            name: name.clone(),
            buffer: Vec::new(),
            parts: None,
            going: None,
            size_bytes: 0,
        }))
    }

    async fn read(&self, name: &Name, span: Span) -> Result<Pieces, BlobError> {
        let object = Object { reader: self.reader.clone(), key: self.key(name), name: name.clone() };
        if span.length == 0 {
            return match self.size(name).await? {
                Some(size) if size == span.total => Ok(stream::empty().boxed()),
                Some(size) => Err(object.lie(Lie::Total { told_bytes: size, expected_bytes: span.total })),
                None => Err(BlobError::Missing { name: name.clone() }),
            };
        }
        let answer = object.ask(span, None).await?;
        let asked_bytes = span.length;
        let reading = Reading { object, answer, asked_bytes, span, failures: 0, is_over: false };
        Ok(stream::unfold(reading, Reading::next).boxed())
    }

    async fn size(&self, name: &Name) -> Result<Option<u64>, BlobError> {
        size(&self.store, &self.key(name)).await
    }

    async fn remove(&self, name: &Name) -> Result<(), BlobError> {
        match self.store.delete(&self.key(name)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(refusal("removing an object", error)),
        }
    }

    async fn list(&self, shelf: Shelf) -> Result<Listing, BlobError> {
        let folder = self.folder(shelf);
        let mut all = self.store.list(Some(&folder));
        let mut listing = Listing::default();
        while let Some(found) = all.try_next().await.map_err(|error| refusal("listing objects", error))? {
            let file = found
                .location
                .prefix_match(&folder)
                .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
            match file.as_deref().and_then(|file| Name::parse(shelf, file)) {
                None if listing.strange.len() >= STRANGE => {}
                None => listing.strange.push(found.location.to_string()),
                Some(name) => {
                    let modified = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or_default();
                    listing.blobs.push(Found { name, size: found.size, modified: Timestamp(modified) });
                }
            }
        }
        Ok(listing)
    }

    async fn link(&self, verb: Verb, name: &Name, valid: Duration) -> Result<Option<String>, BlobError> {
        let Some(public) = &self.public else { return Ok(None) };
        let method = match verb {
            Verb::Get => Method::GET,
            Verb::Put => Method::PUT,
        };
        let signed = public.signed_url(method, &self.key(name), valid.min(LONGEST_LINK)).await;
        Ok(Some(signed.map_err(|error| refusal("signing a link", error))?.into()))
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let folder = self.folder(Shelf::Artifacts);
        match self.store.list(Some(&folder)).next().await {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(refusal("listing objects", error)),
        }
    }
}

async fn size(store: &AmazonS3, key: &Key) -> Result<Option<u64>, BlobError> {
    match store.head(key).await {
        Ok(found) => Ok(Some(found.size)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(refusal("asking for the size of an object", error)),
    }
}

/// Whether there is no such object. Without its bucket nothing can be found either, and that is something else.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

/// What an error about one object means.
fn failure(doing: &'static str, name: &Name, error: Error) -> BlobError {
    if is_missing(&error) {
        return BlobError::Missing { name: name.clone() };
    }
    refusal(doing, error)
}

/// What an error means that is not about one object.
fn refusal(doing: &'static str, error: Error) -> BlobError {
    let reason = short(&error.to_string());
    // Asking again would be answered the same, unless S3 only asks for patience. The library tells a list's errors apart
    // by their text alone.
    let is_refused = ["400", "401", "403", "404", "405"]
        .iter()
        .any(|status| reason.contains(&format!("status code: {status}")));
    match matches!(error, Error::Generic { .. } | Error::JoinError { .. }) && !is_refused {
        true => BlobError::Unreachable { doing, reason },
        false => BlobError::Refused { doing, reason },
    }
}

fn short(reason: &str) -> String {
    let line: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS).collect()
}

/// Asks for ranges. It asks again by itself: what comes then has to be the same object still, and the same range.
#[derive(Debug, Clone)]
struct Reader {
    store: Arc<AmazonS3>,
    patience: Duration,
}

/// An object that is read.
struct Object {
    reader: Reader,
    key: Key,
    name: Name,
}

/// An answer with a range.
struct Answer {
    tag: Option<String>,
    body: BoxStream<'static, Result<Bytes, Error>>,
}

impl Object {
    fn lie(&self, lie: Lie) -> BlobError {
        BlobError::Lies { name: self.name.clone(), lie }
    }

    /// Asks until there is an answer, a few times. With `tag` it has to be the object that had that one.
    async fn ask(&self, span: Span, tag: Option<&str>) -> Result<Answer, BlobError> {
        let mut pause = BACKOFF.0;
        for _ in 0..RETRIES {
            match self.ask_once(span, tag).await {
                Err(BlobError::Unreachable { .. }) => {}
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
        self.ask_once(span, tag).await
    }

    async fn ask_once(&self, span: Span, tag: Option<&str>) -> Result<Answer, BlobError> {
        const DOING: &str = "reading an object";
        let range = span.start..span.start.saturating_add(span.length);
        let options = GetOptions::new().with_range(Some(range.clone()));
        let asked = self.reader.store.get_opts(&self.key, options);
        let answer = match tokio::time::timeout(self.reader.patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.no_answer(span, error).await),
            Err(_) => {
                return Err(BlobError::Unreachable { doing: DOING, reason: late(self.reader.patience) });
            }
        };
        if answer.meta.size != span.total {
            return Err(self.lie(Lie::Total { told_bytes: answer.meta.size, expected_bytes: span.total }));
        }
        if answer.range != range {
            let reason = format!("bytes {:?} instead of {range:?}", answer.range);
            return Err(self.lie(Lie::NotTheRange { reason }));
        }
        let now = answer.meta.e_tag.clone();
        if let (Some(before), Some(after)) = (tag, &now) {
            if before != after {
                return Err(self.lie(Lie::Changed { before: short(before), after: short(after) }));
            }
        }
        Ok(Answer { tag: now, body: answer.into_stream() })
    }

    async fn no_answer(&self, span: Span, error: Error) -> BlobError {
        let reason = error.to_string();
        let error = failure("reading an object", &self.name, error);
        // The object ends before the range begins.
        if reason.contains("416 Range Not Satisfiable") {
            return match size(&self.reader.store, &self.key).await {
                Ok(Some(size)) => self.lie(Lie::Total { told_bytes: size, expected_bytes: span.total }),
                Ok(None) | Err(_) => error,
            };
        }
        // The library has no type for what it says about answers; a request that failed begins with these words.
        if matches!(error, BlobError::Unreachable { .. }) && !reason.contains("Error performing") {
            return self.lie(Lie::NotTheRange { reason: short(&reason) });
        }
        error
    }
}

fn late(patience: Duration) -> String {
    format!("nothing came for {} seconds", patience.as_secs())
}

/// A range on its way.
struct Reading {
    object: Object,
    answer: Answer,
    /// As much as was asked for at first.
    asked_bytes: u64,
    /// What has not come yet.
    span: Span,
    /// Attempts since the last bytes came.
    failures: usize,
    is_over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes, BlobError>, Reading)> {
        if self.is_over || self.span.length == 0 {
            return None;
        }
        let piece = self.piece().await;
        self.is_over = piece.is_err();
        Some((piece, self))
    }

    async fn piece(&mut self) -> Result<Bytes, BlobError> {
        loop {
            let reason = match self.receive().await {
                Ok(Some(piece)) => return self.count(piece).await,
                Ok(None) => {
                    let came_bytes = self.asked_bytes - self.span.length;
                    return Err(self.object.lie(Lie::Short { came_bytes, asked_bytes: self.asked_bytes }));
                }
                Err(reason) => reason,
            };
            self.failures += 1;
            if self.failures > RETRIES {
                return Err(BlobError::Unreachable { doing: "reading an object", reason });
            }
            log::warn!("reading {}: {reason}; the rest is asked for again", self.object.name);
            let tag = self.answer.tag.clone();
            self.answer = self.object.ask(self.span, tag.as_deref()).await?;
        }
    }

    /// The next bytes of the answer; `None` at its end. An answer that breaks is a reason to ask again.
    async fn receive(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let piece = tokio::time::timeout(self.object.reader.patience, self.answer.body.next()).await;
            match piece {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
                Ok(Some(Ok(bytes))) => return Ok(Some(bytes)),
                Ok(Some(Err(error))) => return Err(short(&error.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(late(self.object.reader.patience)),
            }
        }
    }

    async fn count(&mut self, piece: Bytes) -> Result<Bytes, BlobError> {
        let count = piece.len() as u64;
        let left = self.span.length;
        // The last bytes wait for the end of the answer: whoever gets them counts, and would not hear of an error behind
        // them.
        let is_long = count > left || (count == left && matches!(self.receive().await, Ok(Some(_))));
        if is_long {
            return Err(self.object.lie(Lie::Long { asked_bytes: self.asked_bytes }));
        }
        self.failures = 0;
        self.span.start = self.span.start.saturating_add(count);
        self.span.length -= count;
        Ok(piece)
    }
}

/// An upload in parts. Nothing is sent before there is a whole part, and what is smaller than one is sent at once.
struct Sending {
    store: Arc<AmazonS3>,
    key: Key,
    name: Name,
    buffer: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
    /// The part that is on its way.
    going: Option<JoinHandle<Result<(), Error>>>,
    size_bytes: u64,
}

impl Sending {
    /// Waits for the part before, and sends the buffer.
    async fn send(&mut self) -> Result<(), BlobError> {
        self.settle().await?;
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let begun = self.store.put_multipart(&self.key).await;
                none.insert(begun.map_err(|error| failure("beginning an upload", &self.name, error))?)
            }
        };
        let part = parts.put_part(Bytes::from(std::mem::take(&mut self.buffer)).into());
        self.going = Some(tokio::spawn(part));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), BlobError> {
        let Some(going) = self.going.take() else { return Ok(()) };
        let sent = going.await.unwrap_or_else(|source| Err(Error::JoinError { source }));
        sent.map_err(|error| failure("sending a part", &self.name, error))
    }

    async fn finish(&mut self) -> Result<(), BlobError> {
        if self.parts.is_none() {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            let sent = self.store.put(&self.key, bytes.into()).await;
            return sent.map(|_| ()).map_err(|error| failure("sending an object", &self.name, error));
        }
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        self.settle().await?;
        let Some(parts) = &mut self.parts else { return Ok(()) };
        match parts.complete().await {
            // Nobody else knows of this upload: when it is not there any more, a request whose answer was lost has completed
            // it.
            Ok(_) | Err(Error::NotFound { .. }) => {
                self.parts = None;
                Ok(())
            }
            Err(error) => Err(failure("completing an upload", &self.name, error)),
        }
    }
}

#[async_trait]
impl Upload for Sending {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let most_bytes = PART_BYTES as u64 * PARTS;
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > most_bytes {
            return Err(BlobError::TooLarge { most_bytes });
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(PART_BYTES);
            }
            let room = PART_BYTES - self.buffer.len();
            let piece = rest.split_to(room.min(rest.len()));
            self.buffer.extend_from_slice(&piece);
            if self.buffer.len() == PART_BYTES {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn keep(mut self: Box<Self>) -> Result<u64, BlobError> {
        let error = match self.finish().await {
            Ok(()) => match size(&self.store, &self.key).await {
                Ok(Some(size)) if size == self.size_bytes => return Ok(size),
                Ok(Some(told_bytes)) => {
                    let lie = Lie::Total { told_bytes, expected_bytes: self.size_bytes };
                    BlobError::Lies { name: self.name.clone(), lie }
                }
                Ok(None) => BlobError::Missing { name: self.name.clone() },
                Err(error) => error,
            },
            Err(error) => error,
        };
        // It may be there all the same, since only the answer may be lost. Nobody waits for this: S3 may be slow.
        let (store, key, name) = (self.store.clone(), self.key.clone(), self.name.clone());
        tokio::spawn(async move {
            if let Err(error) = store.delete(&key).await {
                log::warn!("{name} was not kept, and could not be removed: {}", short(&error.to_string()));
            }
        });
        Err(error)
    }

    async fn discard(mut self: Box<Self>) {
        if let Some(abort) = self.abort() {
            abort.await;
        }
    }
}

impl Sending {
    /// What removes the parts that were sent, if there are any.
    fn abort(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut parts = self.parts.take()?;
        let going = self.going.take();
        let name = self.name.clone();
        Some(async move {
            // A part that arrives behind the end of its upload would stay.
            if let Some(going) = going {
                going.abort();
                match going.await {
                    Ok(_) | Err(_) => {}
                }
            }
            if let Err(error) = parts.abort().await {
                log::warn!("the parts of {name} could not be removed: {}", short(&error.to_string()));
            }
        })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(abort) = self.abort() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(abort)),
            Err(_) => log::warn!("the parts of {} stay: the server stops", self.name),
        }
    }
}
