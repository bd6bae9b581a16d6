//! Hands one mail to a server that speaks SMTP (RFC 5321), and says what that said of it. Whatever that server does, it ends in
//! time, and in little memory.

mod bounded;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, SUBMISSION_PORT, SUBMISSIONS_PORT};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::tls::certificates;
use crate::domain::mail::{Outcome, address};
use bounded::Bounded;

/// How long one mail may take, from the name of the server until that wants its text.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many times that long a server may take for the text. It has the mail meanwhile, and may look at it before it says so: who
/// does not wait for that sends it twice.
const FOR_TEXT: u32 = 3;
/// How long one address of several is tried, so that there is time for the next.
const REACH: Duration = Duration::from_secs(15);
/// Characters of what the server says that are kept.
const SAID_CHARS: usize = 300;
/// Bytes of a file with a password.
const PASSWORD_BYTES: u64 = 4096;

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    /// From its beginning.
    Wrapped,
    /// After a word about it; without that nothing is sent.
    Starttls,
    /// Not at all.
    Never,
}

/// A server that takes mails.
#[derive(Clone)]
pub struct SmtpOptions {
    encryption: Encryption,
    host: String,
    port: u16,
    user: Option<String>,
    password_file: Option<PathBuf>,
    authorities: Option<PathBuf>,
    from: Address,
    patience: Duration,
}

/// What is read of files for a mail.
struct Secrets {
    password: Option<String>,
    /// Who is trusted, where it is encrypted.
    trusted: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for SmtpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl SmtpOptions {
    /// What an address of a server is, for whoever typed what is none.
    pub const WANTED: &str = "smtps://[USER@]HOST[:PORT], smtp://[USER@]HOST[:PORT] (STARTTLS) or, not encrypted and \
                              without USER, smtp://HOST[:PORT]?starttls=never";

    /// By its address, `smtp://HOST` or `smtps://HOST`, with the address that mails are from.
    ///
    /// # Errors
    /// What would be right.
    pub fn new(url: &str, from: &str) -> Result<SmtpOptions, String> {
        let (encryption, host, port, user) = parse(url).ok_or_else(|| SmtpOptions::WANTED.to_owned())?;
        let (host, user) = (host.to_owned(), user.map(str::to_owned));
        let from = address(from)?;
        let (password_file, authorities, patience) = (None, None, PATIENCE);
        Ok(SmtpOptions { encryption, host, port, user, password_file, authorities, from, patience })
    }

    /// Whether an address of a server is one.
    pub fn is_url(url: &str) -> bool {
        parse(url).is_some()
    }

    /// Whether an address that mails are from is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_from(from: &str) -> Result<(), String> {
        address(from).map(drop)
    }

    /// Whether it says who logs in.
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// The password of the user is in this file, which is read each time.
    ///
    /// # Errors
    /// There is none in it.
    pub fn password_file(mut self, path: &Path) -> Result<SmtpOptions, String> {
        password(path)?;
        self.password_file = Some(path.to_owned());
        Ok(self)
    }

    /// Trust these authorities (PEM) in place of the system's.
    ///
    /// # Errors
    /// There are none in the file.
    pub fn authorities(mut self, path: &Path) -> Result<SmtpOptions, String> {
        certificates(Some(path)).map_err(|error| error.to_string())?;
        self.authorities = Some(path.to_owned());
        Ok(self)
    }

    /// The address that mails are from.
    pub(crate) fn from(&self) -> &Address {
        &self.from
    }

    /// Sends a mail. What the server said.
    pub(crate) async fn send(&self, receiver: &Address, letter: &[u8]) -> (Outcome, String) {
        let late = || self.told(&format!("the mail was not sent within {} seconds", self.patience.as_secs()));
        let until = Instant::now() + self.patience;
        let mut connection = match timeout_at(until, self.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(reason)) => return failed(reason),
            Err(_) => return failed(late()),
        };
        match timeout_at(until, self.ask(&mut connection, receiver)).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => {
                let _ = timeout_at(until, connection.abort()).await;
                return ended;
            }
            Err(_) => return failed(late()),
        }
        match timeout(self.patience * FOR_TEXT, connection.message(letter)).await {
            Ok(Ok(answer)) => {
                // Whatever it says of the end, it has the mail.
                let _ = timeout(self.patience, connection.abort()).await;
                let lines: Vec<&str> = answer.message().collect();
                (Outcome::Sent, short(&format!("{} {}", answer.code(), lines.join(" "))))
            }
            Ok(Err(error)) => ended(&error),
            Err(_) => failed(self.told(&"it has the mail and does not say that it takes it")),
        }
    }

    /// Says from whom and to whom a mail is. What became of it, when the server does not want its text.
    async fn ask(
        &self,
        connection: &mut AsyncSmtpConnection,
        receiver: &Address,
    ) -> Result<(), (Outcome, String)> {
        // A server that does not want this sender does not want any mail: that is to be put right, and no reason to drop one.
        if let Err(error) = connection.command(Mail::new(Some(self.from.clone()), Vec::new())).await {
            return Err(failed(format!("the sender {}: {}", self.from, said(&error))));
        }
        let asked = async {
            connection.command(Rcpt::new(receiver.clone(), Vec::new())).await?;
            connection.command(Data).await
        };
        asked.await.map(drop).map_err(|error| ended(&error))
    }

    /// A connection that is encrypted, and with a user who has logged in.
    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let own = self.clone();
        // A disk may be slow.
        let read = tokio::task::spawn_blocking(move || own.secrets()).await;
        let Secrets { password, trusted } = read.map_err(|error| error.to_string())??;
        let told = |error: Error| self.told(&said(&error));
        // The brackets of an IPv6 address are not part of it.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = self.reach(host).await.map_err(|error| self.told(&said(&error)))?;
        let name = own_name();
        let mut connection = match self.encryption {
            Encryption::Never => greeted(Bounded::new(stream), &name).await.map_err(told)?,
            Encryption::Wrapped => {
                let connector = connector(trusted)?;
                let server = ServerName::try_from(host.to_owned())
                    .map_err(|_| self.told(&"it is no name of a server"))?;
                let stream = connector.connect(server, stream).await;
                let stream = stream.map_err(|error| self.told(&said(&error)))?;
                greeted(Bounded::new(stream), &name).await.map_err(told)?
            }
            Encryption::Starttls => {
                let mut connection = greeted(Bounded::new(stream), &name).await.map_err(told)?;
                if !connection.can_starttls() {
                    connection.abort().await;
                    return Err(self.told(&"it does not offer STARTTLS, so nothing is sent"));
                }
                connection.starttls(parameters(host, trusted)?, &name).await.map_err(told)?;
                connection
            }
        };
        if let (Some(user), Some(password)) = (&self.user, password) {
            let credentials = Credentials::new(user.clone(), password);
            let logged_in = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            logged_in.map_err(|error| self.told(&format!("the login of {user}: {}", said(&error))))?;
        }
        Ok(connection)
    }

    fn secrets(&self) -> Result<Secrets, String> {
        let trusted = match self.encryption {
            Encryption::Never => Vec::new(),
            Encryption::Wrapped | Encryption::Starttls => {
                let (_, mut trusted) = certificates(self.authorities.as_deref())
                    .map_err(|error| error.to_string().replace("--ca", "--smtp-ca"))?;
                // One that is too odd to vouch for others must not keep the others from it.
                trusted.retain(|one| RootCertStore::empty().add(one.clone()).is_ok());
                trusted
            }
        };
        Ok(Secrets { password: self.password_file.as_deref().map(password).transpose()?, trusted })
    }

    async fn reach(&self, host: &str) -> io::Result<TcpStream> {
        let mut error = io::Error::other("its name has no address");
        for address in lookup_host((host, self.port)).await? {
            match timeout(REACH, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(refused)) => error = refused,
                Err(_) => error = io::Error::other("it does not answer"),
            }
        }
        Err(error)
    }

    /// What is wrong with the server.
    fn told(&self, reason: &dyn fmt::Display) -> String {
        format!("{}:{}: {reason}", self.host, self.port)
    }
}

/// A connection to a server that has greeted.
async fn greeted<S: bounded::Stream>(
    stream: Bounded<S>,
    own: &ClientId,
) -> Result<AsyncSmtpConnection, Error> {
    AsyncSmtpConnection::connect_with_transport(Box::new(stream), own).await
}

/// Encrypts from the beginning, to a server for which one of these vouches.
fn connector(trusted: Vec<CertificateDer<'static>>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| said(&error))?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

/// The same for a connection that is encrypted later.
fn parameters(host: &str, trusted: Vec<CertificateDer<'static>>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    for certificate in trusted {
        let certificate = Certificate::from_der(certificate.to_vec());
        builder = builder.add_root_certificate(certificate.map_err(|error| said(&error))?);
    }
    builder.build_rustls().map_err(|error| said(&error))
}

fn failed(said: String) -> (Outcome, String) {
    (Outcome::Failed(said.clone()), said)
}

/// What an error is for a mail: what a server refuses for good is not sent again.
fn ended(error: &Error) -> (Outcome, String) {
    let said = said(error);
    if error.is_permanent() { (Outcome::Refused(said.clone()), said) } else { failed(said) }
}

/// What this machine calls itself: its name where that is a whole one, as some servers want it, else an address.
fn own_name() -> ClientId {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let is_whole = name.contains('.') && name.chars().all(is_of_a_name);
    if is_whole { ClientId::Domain(name.to_owned()) } else { ClientId::default() }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_".contains(c)
}

/// What an address of a server says.
fn parse(url: &str) -> Option<(Encryption, &str, u16, Option<&str>)> {
    let (encryption, rest) = match (url.strip_prefix("smtps://"), url.strip_prefix("smtp://")) {
        (Some(rest), _) => (Encryption::Wrapped, rest),
        (None, Some(rest)) => match rest.split_once('?') {
            None => (Encryption::Starttls, rest),
            Some((rest, "starttls=required")) => (Encryption::Starttls, rest),
            Some((rest, "starttls=never")) => (Encryption::Never, rest),
            Some(_) => return None,
        },
        (None, None) => return None,
    };
    // A user may be an address of mail.
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    let end = place.find(']').map_or(0, |at| at + 1);
    let (host, port) = match place.get(end..)?.split_once(':') {
        Some((middle, port)) => {
            (place.get(..end + middle.len())?, port.parse().ok().filter(|port| *port > 0)?)
        }
        None if encryption == Encryption::Wrapped => (place, SUBMISSIONS_PORT),
        None => (place, SUBMISSION_PORT),
    };
    let is_host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_of_a_name),
    };
    // A password is in a file: an address is in the list of processes.
    let is_user =
        |user: &str| !user.is_empty() && user.chars().all(|c| c.is_ascii_graphic() && !":%/".contains(c));
    let fits = is_host && user.is_none_or(is_user) && (user.is_none() || encryption != Encryption::Never);
    fits.then_some((encryption, host, port, user))
}

/// The password in a file: its first line.
fn password(path: &Path) -> Result<String, String> {
    let told = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
    let found = fs::metadata(path).map_err(|error| told(&error))?;
    if !found.is_file() {
        return Err(told(&"it is no regular file"));
    }
    if found.len() > PASSWORD_BYTES {
        return Err(told(&format!("a password has at most {PASSWORD_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| told(&error))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err(told(&"there is no password in its first line")) } else { Ok(line.to_owned()) }
}

/// What is told of an error.
fn said(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let hint = [
        ("UnknownIssuer", "; name its authority with --smtp-ca"),
        (
            "CaUsedAsEndEntity",
            "; its certificate is one of an authority (CA:TRUE), which is taken for no server's",
        ),
    ];
    let hint = hint.into_iter().find(|(reason, _)| text.contains(reason));
    short(&text) + hint.map_or("", |(_, hint)| hint)
}

/// What a server says goes to the log and to people.
fn short(text: &str) -> String {
    artifact::text::printable(text).chars().take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// How a server goes on when it has said its lines.
    #[derive(Clone, Copy)]
    enum Then {
        /// A few bytes, and one more again and again: never nothing for long, and never all.
        Drips(&'static [u8]),
        /// A line without an end, up to so many bytes.
        GoesOn(usize),
    }

    /// A server that says these lines, each but the first when it was told something, and goes on behind the last.
    fn server(lines: &'static [&'static str], then: Then) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut told = BufReader::new(stream.try_clone().unwrap());
            let mut is_body = false;
            for (at, line) in lines.iter().enumerate() {
                let mut heard = String::new();
                while at > 0 && told.read_line(&mut heard).unwrap() > 0 && is_body && heard != ".\r\n" {
                    heard.clear();
                }
                stream.write_all(line.as_bytes()).unwrap();
                is_body = line.starts_with("354");
            }
            // It may be encrypted by now.
            if !lines.is_empty() {
                told.fill_buf().unwrap();
            }
            // Nobody listens any more when a write fails.
            match then {
                Then::GoesOn(bytes) => {
                    let _ = stream.write_all(&vec![b'2'; bytes]);
                }
                Then::Drips(first) => {
                    let mut is_heard = stream.write_all(first).is_ok();
                    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                    for _ in 0..500 {
                        // What is told meanwhile does not matter; the end of it does.
                        is_heard &= !matches!(told.read(&mut [0; 512]), Ok(0));
                        is_heard &= stream.write_all(b"2").is_ok();
                        if !is_heard {
                            return;
                        }
                    }
                }
            }
        });
        place
    }

    async fn sent(url: &str, patience: Duration) -> (Outcome, String) {
        let authorities = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls-ca.pem"));
        let smtp = SmtpOptions::new(url, "fleet@b.example").unwrap().authorities(authorities).unwrap();
        let smtp = SmtpOptions { patience, ..smtp };
        smtp.send(&address("a@b.example").unwrap(), b"Subject: x\r\n\r\nx\r\n").await
    }

    /// Longer than any of these tests takes.
    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_server_that_drips_has_one_deadline_for_a_whole_mail() {
        // The header of 16 KiB of a handshake, which do not come.
        let record = Then::Drips(&[0x16, 3, 3, 0x40, 0]);
        for (kind, query, lines, then) in [
            ("smtp", "?starttls=never", &[][..], Then::Drips(b"220-")),
            ("smtp", "?starttls=never", &["220 a\r\n", "250 a\r\n"], Then::Drips(b"250-")),
            ("smtp", "", &["220 a\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n"], record),
            ("smtps", "", &[], record),
        ] {
            let place = server(lines, then);
            let (outcome, said) = sent(&format!("{kind}://{place}{query}"), SHORT).await;
            let expected = format!("{place}: the mail was not sent within 1 seconds");
            assert_eq!((outcome, said), (Outcome::Failed(expected.clone()), expected), "{kind}{query}");
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_left_when_it_is_too_long() {
        for lines in [&[][..], &["220 a\r\n", "250 a\r\n"]] {
            let place = server(lines, Then::GoesOn(2 * bounded::SAID_BYTES));
            let (outcome, said) = sent(&format!("smtp://{place}?starttls=never"), LONG).await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            assert!(said.contains("it says more than 262144 bytes"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_server_that_looks_at_a_mail_first_has_longer_for_that_and_not_for_ever() {
        let lines = &["220 a\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n", "354 d\r\n"];
        let place = server(lines, Then::Drips(b"250-"));
        let began = Instant::now();
        let (outcome, said) = sent(&format!("smtp://{place}?starttls=never"), SHORT).await;
        assert_eq!(said, format!("{place}: it has the mail and does not say that it takes it"));
        assert!(matches!(outcome, Outcome::Failed(_)) && began.elapsed() >= SHORT * FOR_TEXT);
    }

    #[tokio::test]
    async fn a_mail_that_was_taken_is_sent_whatever_is_said_of_the_end() {
        let lines = &["220 a\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n", "354 d\r\n", "250 taken\r\n"];
        let place = server(lines, Then::Drips(b"221-"));
        let ended = sent(&format!("smtp://{place}?starttls=never"), SHORT).await;
        assert_eq!(ended, (Outcome::Sent, "250 taken".to_owned()));
    }

    #[test]
    fn an_address_of_a_server_says_how_it_is_encrypted() {
        use Encryption::{Never, Starttls, Wrapped};
        for (url, expected) in [
            ("smtp://mail.example", (Starttls, "mail.example", 587, None)),
            ("smtp://a@mail.example:25?starttls=required", (Starttls, "mail.example", 25, Some("a"))),
            ("smtps://a@b.example@mail.example", (Wrapped, "mail.example", 465, Some("a@b.example"))),
            ("smtps://[::1]:4650/", (Wrapped, "[::1]", 4650, None)),
            ("smtp://127.0.0.1:25?starttls=never", (Never, "127.0.0.1", 25, None)),
        ] {
            assert_eq!(parse(url), Some(expected), "{url}");
        }
        for url in [
            "",
            "mail.example",
            "http://mail.example",
            "smtp://",
            "smtp://:25",
            "smtp://a:0",
            "smtp://a:x",
            "smtp://a:65536",
            "smtp://u:word@a",
            "smtp://u%40b@a",
            "smtp://@a",
            "smtp://a b",
            "smtp://a/x",
            "smtp://[::1",
            "smtp://[x]",
            "smtp://a?starttls=maybe",
            "smtp://u@a?starttls=never",
            "smtps://a?starttls=never",
            "smtp://a\r\n",
        ] {
            assert_eq!(parse(url), None, "{url}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("word\n", Some("word")), ("a b", Some("a b")), ("", None), ("\nx", None)] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(password(file.path()).ok().as_deref(), expected, "{text:?}");
        }
        fs::write(file.path(), "x".repeat(5000)).unwrap();
        assert!(password(file.path()).is_err());
        assert!(password(Path::new("/no/such/file")).is_err());
        assert!(password(Path::new("/dev/null")).unwrap_err().ends_with("it is no regular file"));
    }
}
