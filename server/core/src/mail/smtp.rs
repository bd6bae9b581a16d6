//! Hands one mail to a server that speaks SMTP (RFC 5321), and says what that said of it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, SUBMISSION_PORT, SUBMISSIONS_PORT};
use tokio_rustls::rustls::RootCertStore;

use crate::client::tls::certificates;
use crate::domain::mail::{Outcome, address};

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
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
        Ok(SmtpOptions { encryption, host, port, user, password_file: None, authorities: None, from })
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

    /// Sends a mail, which waits for the server. What it said.
    pub(crate) fn send(&self, receiver: &Address, letter: &[u8]) -> (Outcome, String) {
        let failed = |said: String| (Outcome::Failed(said.clone()), said);
        let refused = |said: String| (Outcome::Refused(said.clone()), said);
        let mut connection = match self.connect() {
            Ok(connection) => connection,
            Err(reason) => return failed(reason),
        };
        // A server that does not want this sender does not want any mail: that is to be put right, and no reason to drop one.
        if let Err(error) = connection.command(Mail::new(Some(self.from.clone()), Vec::new())) {
            return failed(format!("the sender {}: {}", self.from, said(&error)));
        }
        let taken = connection
            .command(Rcpt::new(receiver.clone(), Vec::new()))
            .and_then(|_| connection.command(Data))
            .and_then(|_| connection.message(letter));
        match taken {
            Ok(answer) => {
                // It has the mail, whatever it says of the end.
                let _ = connection.quit();
                let lines: Vec<&str> = answer.message().collect();
                (Outcome::Sent, short(&format!("{} {}", answer.code(), lines.join(" "))))
            }
            Err(error) => {
                connection.abort();
                if error.is_permanent() { refused(said(&error)) } else { failed(said(&error)) }
            }
        }
    }

    /// A connection that is encrypted, and with a user who has logged in.
    fn connect(&self) -> Result<SmtpConnection, String> {
        let place = || format!("{}:{}", self.host, self.port);
        let told = |error: Error| format!("{}: {}", place(), said(&error));
        let name = own_name();
        // The brackets of an IPv6 address are not part of it.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let tls = match self.encryption {
            Encryption::Never => None,
            Encryption::Wrapped | Encryption::Starttls => Some(self.tls(host)?),
        };
        let at_once = tls.as_ref().filter(|_| self.encryption == Encryption::Wrapped);
        let mut connection =
            SmtpConnection::connect((host, self.port), Some(PATIENCE), &name, at_once, None).map_err(told)?;
        if let Some(tls) = tls.filter(|_| self.encryption == Encryption::Starttls) {
            if !connection.can_starttls() {
                connection.abort();
                return Err(format!("{}: it does not offer STARTTLS, so nothing is sent", place()));
            }
            connection.starttls(&tls, &name).map_err(told)?;
        }
        if let (Some(user), Some(path)) = (&self.user, &self.password_file) {
            let credentials = Credentials::new(user.clone(), password(path)?);
            connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .map_err(|error| format!("{}: the login of {user}: {}", place(), said(&error)))?;
        }
        Ok(connection)
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, String> {
        let (_, trusted) = certificates(self.authorities.as_deref())
            .map_err(|error| error.to_string().replace("--ca", "--smtp-ca"))?;
        let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
        for certificate in trusted {
            // One that is too odd to vouch for others must not keep the others from it.
            if RootCertStore::empty().add(certificate.clone()).is_ok() {
                let certificate = Certificate::from_der(certificate.to_vec());
                builder = builder.add_root_certificate(certificate.map_err(|error| said(&error))?);
            }
        }
        builder.build_rustls().map_err(|error| said(&error))
    }
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
fn said(error: &Error) -> String {
    if is_late(error) {
        return format!("it does not answer within {} seconds", PATIENCE.as_secs());
    }
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

/// Whether the server took too long. The system says of a read that it would have to wait.
fn is_late(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => return true,
            Some(_) | None => source = error.source(),
        }
    }
    false
}

/// What a server says goes to the log and to people.
fn short(text: &str) -> String {
    artifact::text::printable(text).chars().take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
