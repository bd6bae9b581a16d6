//! The argument of `install`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A web server.
    Web(String),
    /// A file.
    Local(PathBuf),
}

impl Source {
    /// What the argument of `install` means. A name with a scheme that nobody can serve is no file: it says so.
    ///
    /// # Errors
    /// When it means nothing; the text says what to write.
    pub fn of(argument: &OsStr) -> Result<Source, String> {
        let local = || Source::Local(argument.into());
        let Some((scheme, rest)) = argument.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(local());
        };
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return Ok(local());
        }
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Ok(Source::Web(format!("{scheme}://{rest}"))),
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                let path = Some(path).filter(|path| path.starts_with('/')).and_then(decoded);
                let wrong = || "file:// takes a path that begins with /, or give the path alone".to_owned();
                path.map(|path| Source::Local(OsString::from_vec(path).into())).ok_or_else(wrong)
            }
            _ => Err(format!("{scheme}:// is not supported: install takes http://, https://, a file, or -")),
        }
    }
}

/// The bytes that `text` means, with what `%XX` stands for; `None` when it stands for nothing.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_comes_from_the_web_or_from_a_file() {
        let of = |text: &str| Source::of(OsStr::new(text));
        let web = |text: &str| assert_eq!(of(text), Ok(Source::Web(text.into())));
        let local = |text: &str, path: &str| assert_eq!(of(text), Ok(Source::Local(path.into())), "{text}");
        web("http://h/a");
        web("HTTPS://h/a b");
        local("a.mender", "a.mender");
        local("./ftp://a", "./ftp://a");
        local("file:///tmp/my%20file%25.mender", "/tmp/my file%.mender");
        local("File://localhost/a", "/a");
        for text in ["file://a/b", "file://", "file:///a%2", "file:///a%+1", "ftp://h/a", "htp://h/a"] {
            assert!(of(text).is_err(), "{text}");
        }
        assert!(of("ftp://h/a").unwrap_err().contains("ftp:// is not supported"));
    }
}
