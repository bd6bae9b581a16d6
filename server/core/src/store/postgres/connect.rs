//! Connections: how they are made, and a few that readers share.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Statement};

use super::super::StoreError;
use super::tls::Tls;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest wait for one answer: a database that hangs is one that is away.
const ANSWER: Duration = Duration::from_secs(60);
/// Readers at a time. One more does not make a database with few cores quicker.
const READERS: usize = 4;

/// Why something did not work.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the database or the connection says.
    Database(tokio_postgres::Error),
    /// There is no connection.
    Away(String),
    /// There was no answer.
    Slow,
    /// What is stored is not what was written.
    Damaged(String),
    /// The schema is of a newer program.
    Newer(i32),
    /// The schema is of an older program.
    Older(i32),
    /// There is nothing of ours in it.
    Empty,
    /// It is not empty.
    NotEmpty,
    /// Servers have it: their sessions.
    Served(Vec<i32>),
    /// A fleet is moved out of it or into it: by this session.
    Moving(Vec<i32>),
    /// What is to be filled in was not to be had.
    Source(StoreError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Database(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Database(error) => match error.as_db_error() {
                Some(said) => write!(f, "{}: {}", said.code().code(), said.message()),
                None => {
                    write!(f, "{error}")?;
                    match std::error::Error::source(error) {
                        Some(source) if !error.to_string().contains(&source.to_string()) => {
                            write!(f, ": {source}")
                        }
                        Some(_) | None => Ok(()),
                    }
                }
            },
            Fault::Away(reason) => write!(f, "it cannot be reached: {reason}"),
            Fault::Slow => write!(f, "it does not answer"),
            Fault::Damaged(what) => write!(f, "{what} is damaged"),
            Fault::Newer(found) => {
                write!(f, "its schema has the version {found}, which is newer than this program")
            }
            Fault::Older(found) => {
                write!(f, "its schema has the version {found}, which is older than this program")
            }
            Fault::Empty => write!(f, "it is empty"),
            Fault::NotEmpty => write!(f, "it is not empty"),
            Fault::Served(_) => write!(f, "it is served"),
            Fault::Moving(_) => write!(f, "its fleet is being moved"),
            Fault::Source(error) => write!(f, "{error}"),
        }
    }
}

impl Fault {
    /// Whether the same again can work: another transaction was in the way.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Fault::Database(error) => error.code().is_some_and(|code| {
                [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                    SqlState::UNIQUE_VIOLATION,
                    SqlState::LOCK_NOT_AVAILABLE,
                ]
                .contains(code)
            }),
            Fault::Away(_)
            | Fault::Slow
            | Fault::Damaged(_)
            | Fault::Newer(_)
            | Fault::Older(_)
            | Fault::Empty
            | Fault::NotEmpty
            | Fault::Served(_)
            | Fault::Moving(_)
            | Fault::Source(_) => false,
        }
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Fault::Database(error) => match error.code() {
                // 57P01 to 57P05: the server ends, or ends this session; 53300: it has no place for one; 25006: it has
                // become one that is only read from.
                Some(code) => {
                    code.code().starts_with("57P")
                        || code.code().starts_with("08")
                        || ["53300", "25006"].contains(&code.code())
                }
                None => true,
            },
            // A connection without the lock is none, and is asked for again.
            Fault::Away(_) | Fault::Slow | Fault::Served(_) | Fault::Moving(_) => true,
            Fault::Damaged(_)
            | Fault::Newer(_)
            | Fault::Older(_)
            | Fault::Empty
            | Fault::NotEmpty
            | Fault::Source(_) => false,
        }
    }

    /// For whoever asked the store.
    pub(super) fn at(self, place: &str) -> StoreError {
        match self {
            Fault::Damaged(what) => StoreError::Damaged { what },
            Fault::Empty => StoreError::Empty { place: place.to_owned() },
            Fault::Newer(found) | Fault::Older(found) => {
                StoreError::UnknownFormat { place: place.to_owned(), found: found.to_string() }
            }
            Fault::NotEmpty => StoreError::NotEmpty { place: place.to_owned() },
            Fault::Served(sessions) => StoreError::Served { place: place.to_owned(), sessions },
            Fault::Moving(sessions) => StoreError::Moving { place: place.to_owned(), sessions },
            Fault::Source(error) => error,
            Fault::Database(_) | Fault::Away(_) | Fault::Slow => {
                StoreError::Database { place: place.to_owned(), reason: self.to_string() }
            }
        }
    }
}

/// Which database, and how to get there.
pub(crate) struct Target {
    config: Config,
    tls: Option<Tls>,
    /// Its address without a password.
    pub(super) place: String,
}

impl Target {
    /// Reads `postgres://USER@HOST/NAME` or `host=… dbname=…`. A password that is not in it is taken from `PGPASSWORD`, or
    /// from a file; `authorities` are the certificates (PEM) that the server's has to come from, as is `sslrootcert` in the
    /// address.
    ///
    /// # Errors
    /// It cannot be read, or TLS is wanted without certificates.
    pub(crate) fn parse(
        text: &str,
        password: Option<&Path>,
        authorities: Option<&Path>,
    ) -> Result<Target, StoreError> {
        // What was typed may have a password in it: it is not repeated.
        let wrong = |reason: String| StoreError::Database { place: "address".to_owned(), reason };
        let (text, named) = without_authorities(text).map_err(wrong)?;
        let mut config: Config = text.parse().map_err(|error| {
            wrong(format!("{error}; it is postgres://USER@HOST/NAME, or host=HOST user=USER dbname=NAME"))
        })?;
        if let Some(path) = password {
            let read = std::fs::read_to_string(path);
            let read =
                read.map_err(|source| StoreError::Io { doing: "reading", path: path.to_owned(), source })?;
            config.password(read.trim_end_matches(['\r', '\n']));
        } else if config.get_password().is_none() {
            if let Some(password) = std::env::var_os("PGPASSWORD") {
                config.password(password.as_encoded_bytes());
            }
        }
        let tls = authorities.or(named.as_deref()).map(Tls::trusting).transpose()?;
        match (config.get_ssl_mode(), &tls) {
            (SslMode::Require, None) => {
                return Err(wrong(
                    "TLS needs the certificates that the server's has to come from: a file of them is named with \
                     --database-ca, or sslrootcert in the address"
                        .to_owned(),
                ));
            }
            // Whoever names certificates does not want to go on without them.
            (_, Some(_)) => {
                config.ssl_mode(SslMode::Require);
            }
            (_, None) => {
                config.ssl_mode(SslMode::Disable);
            }
        }
        config.connect_timeout(CONNECT);
        config.keepalives_idle(Duration::from_secs(10));
        config.tcp_user_timeout(Duration::from_secs(15));
        if config.get_application_name().is_none() {
            config.application_name("rust-ota-server");
        }
        let place = place(&config);
        Ok(Target { config, tls, place })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Conn, Fault> {
        Ok(self.connect_listening().await?.0)
    }

    /// A new connection, and the payloads of what it is notified of.
    pub(super) async fn connect_listening(&self) -> Result<(Conn, mpsc::UnboundedReceiver<()>), Fault> {
        let (told, notices) = mpsc::unbounded_channel();
        let made = async {
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls.clone()).await?;
                    drive(connection, told);
                    Ok::<Client, tokio_postgres::Error>(client)
                }
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    drive(connection, told);
                    Ok(client)
                }
            }
        };
        // The library's own limit is for each address and not for the whole.
        let client = timeout(CONNECT * 2, made).await.map_err(|_| Fault::Away("no answer".to_owned()))?;
        let client = client.map_err(|error| Fault::Away(Fault::Database(error).to_string()))?;
        // Neither the time zone nor the letters of the database have a part in what is stored.
        client
            .batch_execute(
                "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; SET jit = off",
            )
            .await?;
        Ok((Conn { client, statements: Mutex::new(HashMap::new()) }, notices))
    }
}

/// The address as the library knows it, and the file of certificates that it names. The library has no `sslrootcert`, and of the
/// values of `sslmode` neither `verify-ca` nor `verify-full`: with certificates, this program always does what the latter says.
fn without_authorities(text: &str) -> Result<(String, Option<PathBuf>), String> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    let (before, words, between) = match text.split_once('?') {
        Some((before, query)) if is_url => (format!("{before}?"), query.split('&').collect(), "&"),
        Some(_) | None if is_url => return Ok((text.to_owned(), None)),
        Some(_) | None => (String::new(), settings(text), " "),
    };
    let (mut kept, mut named) = (Vec::new(), None);
    for word in words {
        match word.split_once('=') {
            Some(("sslmode", "verify-ca" | "verify-full" | "'verify-ca'" | "'verify-full'")) => {
                kept.push("sslmode=require")
            }
            Some(("sslrootcert", path)) => {
                let path = if is_url { path } else { path.trim_matches('\'') };
                // What is written otherwise would be another file than is meant.
                if path.is_empty() || path.contains('\\') || (is_url && path.contains('%')) {
                    return Err(
                        "the file of sslrootcert is written in a way that is not read here; name it with \
                                --database-ca"
                            .to_owned(),
                    );
                }
                named = Some(PathBuf::from(path));
            }
            Some(_) | None => kept.push(word),
        }
    }
    Ok((before + &kept.join(between), named))
}

/// The words of `key=value key='a value'`.
fn settings(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let split = |letter: char| {
        let ends = !quoted && letter.is_whitespace();
        if letter == '\'' && !escaped {
            quoted = !quoted;
        }
        escaped = letter == '\\' && !escaped;
        ends
    };
    text.split(split).filter(|word| !word.is_empty()).collect()
}

/// Host and name of a database.
fn place(config: &Config) -> String {
    let host = config.get_hosts().first().map_or_else(
        || "?".to_owned(),
        |host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        },
    );
    let port = config.get_ports().first().map_or(String::new(), |port| format!(":{port}"));
    format!("postgres://{host}{port}/{}", config.get_dbname().unwrap_or_default())
}

fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, told: mpsc::UnboundedSender<()>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(_) = message {
                // Nobody listens: nobody wants to know.
                let _ = told.send(());
            }
        }
    });
}

/// One connection, with what it has prepared.
pub(super) struct Conn {
    pub(super) client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
}

/// Parameters of a statement that is made for one question.
#[derive(Default)]
pub(super) struct Params(Vec<(Box<dyn ToSql + Sync + Send>, Type)>);

impl Params {
    /// One more; how the statement names it.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, is: Type) -> String {
        self.0.push((Box::new(value), is));
        format!("${}", self.0.len())
    }
}

impl Conn {
    async fn prepared(&self, sql: &'static str) -> Result<Statement, Fault> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }

    /// Rows of a statement that is prepared once.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let all = async { Ok(self.client.query(&self.prepared(sql).await?, params).await?) };
        timeout(ANSWER, all).await.map_err(|_| Fault::Slow)?
    }

    /// The same, of which there is at most one row that matters.
    pub(super) async fn row(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// How many rows it has changed.
    pub(super) async fn run(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Fault> {
        let all = async { Ok(self.client.execute(&self.prepared(sql).await?, params).await?) };
        timeout(ANSWER, all).await.map_err(|_| Fault::Slow)?
    }

    /// Statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        timeout(ANSWER, self.client.batch_execute(sql)).await.map_err(|_| Fault::Slow)?.map_err(Fault::from)
    }

    /// Rows of a statement that is planned for these parameters.
    pub(super) async fn ask(&self, sql: &str, params: &Params) -> Result<Vec<Row>, Fault> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            params.0.iter().map(|(value, is)| (&**value as &(dyn ToSql + Sync), is.clone())).collect();
        timeout(ANSWER, self.client.query_typed(sql, &typed))
            .await
            .map_err(|_| Fault::Slow)?
            .map_err(Fault::from)
    }

    /// The same, row by row: for what may be long.
    pub(super) async fn each(
        &self,
        sql: &str,
        params: &Params,
        mut each: impl FnMut(&Row) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let typed = params.0.iter().map(|(value, is)| (&**value as &(dyn ToSql + Sync), is.clone()));
        let rows =
            timeout(ANSWER, self.client.query_typed_raw(sql, typed)).await.map_err(|_| Fault::Slow)??;
        futures_util::pin_mut!(rows);
        while let Some(row) = timeout(ANSWER, rows.next()).await.map_err(|_| Fault::Slow)? {
            each(&row?)?;
        }
        Ok(())
    }

    /// Begins to read as it is at one moment.
    pub(super) async fn begin_reading(&self) -> Result<(), Fault> {
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }
}

/// Connections of readers.
pub(super) struct Pool {
    pub(super) target: Arc<Target>,
    idle: Arc<Mutex<Vec<Conn>>>,
    permits: Arc<Semaphore>,
}

/// A connection that goes back with [`Lease::done`]. One that does not may be in the middle of something: it is closed.
pub(super) struct Lease {
    conn: Conn,
    idle: Arc<Mutex<Vec<Conn>>>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl Lease {
    /// Nothing is open on it.
    pub(super) fn done(self) {
        let Lease { conn, idle, _permit } = self;
        if !conn.client.is_closed() {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }
}

impl Pool {
    pub(super) fn new(target: Arc<Target>) -> Pool {
        Pool { target, idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// A connection for one question.
    pub(super) async fn get(&self) -> Result<Lease, Fault> {
        let permit = timeout(ANSWER, self.permits.clone().acquire_owned()).await.map_err(|_| Fault::Slow)?;
        let permit = permit.map_err(|_| Fault::Away("the server stops".to_owned()))?;
        let idle = loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(conn) if conn.client.is_closed() => {}
                other => break other,
            }
        };
        let conn = match idle {
            Some(conn) => conn,
            None => self.target.connect().await?,
        };
        Ok(Lease { conn, idle: self.idle.clone(), _permit: permit })
    }

    /// Closes all.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_certificates_as_other_programs_read_it() {
        for (text, address, named) in [
            ("postgres://a@b/c", "postgres://a@b/c", None),
            (
                "postgres://a@b/c?sslmode=verify-full&sslrootcert=/x/y.pem",
                "postgres://a@b/c?sslmode=require",
                Some("/x/y.pem"),
            ),
            (
                "postgresql://b/c?connect_timeout=3&sslmode=verify-ca",
                "postgresql://b/c?connect_timeout=3&sslmode=require",
                None,
            ),
            ("host=b sslrootcert='/x y.pem'  dbname=c", "host=b dbname=c", Some("/x y.pem")),
            (
                "host=b password='a\\'  sslrootcert=z' sslmode='verify-full'",
                "host=b password='a\\'  sslrootcert=z' sslmode=require",
                None,
            ),
        ] {
            let found = without_authorities(text).unwrap();
            assert_eq!(found, (address.to_owned(), named.map(PathBuf::from)), "{text}");
            found.0.parse::<Config>().unwrap();
        }
        assert!(without_authorities("postgres://b/c?sslrootcert=%2Fx").is_err());
        assert!(without_authorities("host=b sslrootcert=").is_err());
    }
}
