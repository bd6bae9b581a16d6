//! Values of options. Whoever types a wrong one is told which option it is, what would be right, and what was typed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::console::CliError;

/// How many of something there may be: more than anybody has use for, and not so many that a sum of them is none.
pub(crate) const COUNT: RangeInclusive<u64> = 0..=1_000_000_000;
/// The same where none makes no sense.
pub(crate) const SOME: RangeInclusive<u64> = 1..=1_000_000_000;
/// A hundred years.
pub(crate) const DAYS: RangeInclusive<u64> = 0..=36_500;
/// The same.
pub(crate) const SECONDS: RangeInclusive<u64> = 1..=36_500 * 24 * 3600;

/// What was typed behind an option.
pub(crate) struct OptionValue<'a> {
    name: &'a str,
    value: OsString,
}

impl<'a> OptionValue<'a> {
    /// The value of the option `name`, which was just read.
    ///
    /// # Errors
    /// There is none. A word that looks like an option is none, unless it stands behind `=`.
    pub(crate) fn of(name: &'a str, parser: &mut lexopt::Parser) -> Result<OptionValue<'a>, CliError> {
        if let Some(value) = parser.optional_value() {
            return Ok(OptionValue { name, value });
        }
        let value = parser.value()?;
        if value.as_bytes().starts_with(b"--") {
            return Err(lexopt::Error::MissingValue { option: Some(format!("--{name}")) }.into());
        }
        Ok(OptionValue { name, value })
    }

    /// What is said of it: `wanted` is what would be right.
    pub(crate) fn refused(&self, wanted: &str) -> CliError {
        CliError::usage(format!("--{} is {wanted}, not {:?}", self.name, self.value))
    }

    /// Whether it is this word.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.value == *word
    }

    /// Any text, which may be empty.
    pub(crate) fn any_text(self) -> Result<String, CliError> {
        self.value.to_str().map(str::to_owned).ok_or_else(|| self.refused("text in UTF-8"))
    }

    /// Text.
    pub(crate) fn text(self) -> Result<String, CliError> {
        let text = self.value.to_str().filter(|text| !text.is_empty()).map(str::to_owned);
        text.ok_or_else(|| self.refused("text, and not empty"))
    }

    /// Text that is a secret or has one in it: it is not repeated.
    pub(crate) fn secret(self) -> Result<String, CliError> {
        let name = self.name;
        let text = self.value.into_string().ok().filter(|text| !text.is_empty());
        text.ok_or_else(|| CliError::usage(format!("--{name} is text, and not empty")))
    }

    /// A file or a folder.
    pub(crate) fn path(self) -> Result<PathBuf, CliError> {
        match self.value.is_empty() {
            true => Err(self.refused("a path")),
            false => Ok(self.value.into()),
        }
    }

    /// A file that is there and can be read.
    pub(crate) fn file(self) -> Result<PathBuf, CliError> {
        let path = PathBuf::from(&self.value);
        let refused = |why: &str| {
            let typed = &self.value;
            CliError::usage(format!("--{} is a file that can be read, not {typed:?}: {why}", self.name))
        };
        match rustix::fs::access(&path, rustix::fs::Access::READ_OK) {
            Ok(()) if path.is_dir() => Err(refused("it is a folder")),
            Ok(()) => Ok(path),
            Err(error) => Err(refused(&std::io::Error::from(error).to_string())),
        }
    }

    /// A whole number.
    pub(crate) fn number<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<T, CliError> {
        let number = self.parsed::<u64>().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.refused(&format!("a number from {} to {}", range.start(), range.end())))
    }

    /// A number above 0 that may have a fraction.
    pub(crate) fn fraction(self) -> Result<f64, CliError> {
        let number = self.parsed().filter(|number: &f64| *number >= 0.001 && *number <= 1e9);
        number.ok_or_else(|| self.refused("a number from 0.001 to 1000000000"))
    }

    /// One of these words.
    pub(crate) fn word(self, words: &[&'static str]) -> Result<&'static str, CliError> {
        let found = words.iter().find(|word| self.is(word));
        found.copied().ok_or_else(|| self.refused(&one_of(words)))
    }

    /// Where to listen.
    pub(crate) fn address(self) -> Result<SocketAddr, CliError> {
        let wanted = "ADDRESS:PORT, such as 127.0.0.1:8080 or [::]:8080";
        self.parsed().ok_or_else(|| self.refused(wanted))
    }

    /// What other addresses begin with.
    pub(crate) fn url(self) -> Result<String, CliError> {
        let url = self.value.to_str().filter(|text| is_url(text)).map(str::to_owned);
        url.ok_or_else(|| {
            self.refused("http://HOST or https://HOST, with a port and a path where it has them")
        })
    }

    /// A program that can be started.
    pub(crate) fn program(self) -> Result<PathBuf, CliError> {
        let path = PathBuf::from(&self.value);
        find_program(&path)
            .ok_or_else(|| self.refused("a program: a file that may be executed, or the name of one in PATH"))
    }

    fn parsed<T: FromStr>(&self) -> Option<T> {
        self.value.to_str()?.parse().ok()
    }
}

/// `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The program at a path, whole: it may be started in another folder. A bare name is looked for in `PATH`.
pub(crate) fn find_program(path: &Path) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        let file = std::fs::metadata(path);
        file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if path.components().count() != 1 || path.is_absolute() || path.as_os_str().as_bytes().contains(&b'/') {
        return std::path::absolute(path).ok().filter(|path| is_program(path));
    }
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders).map(|folder| folder.join(path)).find(|path| is_program(path));
    found.and_then(|path| std::path::absolute(path).ok())
}

/// Whether an address of the web is one that paths can be put behind.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    // The colons of an IPv6 address are between brackets.
    let (name, port) = match host.rfind(']') {
        Some(end) => (&host[..=end], host[end + 1..].strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let has_rest = name.len() + port.map_or(0, |port| port.len() + 1) == host.len();
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#@\\\"<>`{}|^".contains(c);
    !name.is_empty() && has_rest && is_port && rest.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl OptionValue<'_> {
        /// As if it stood behind `--x`.
        pub(crate) fn typed(typed: &str) -> OptionValue<'static> {
            OptionValue { name: "x", value: typed.into() }
        }
    }

    fn value(typed: &str) -> OptionValue<'static> {
        OptionValue::typed(typed)
    }

    #[test]
    fn a_number_that_is_none_or_out_of_its_range_is_refused_with_what_would_be_right() {
        assert_eq!(value("3").number::<usize>(1..=4).unwrap(), 3);
        for typed in ["", "0", "5", "-1", "1.5", "x", "18446744073709551616", " 1"] {
            let error = value(typed).number::<usize>(1..=4).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let expected = format!("--x is a number from 1 to 4, not {typed:?} (try --help)");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(value("0.5").fraction().unwrap(), 0.5);
        for typed in ["", "0", "-1", "NaN", "inf", "x"] {
            assert!(value(typed).fraction().is_err(), "{typed}");
        }
    }

    #[test]
    fn an_address_of_the_web_has_a_scheme_and_a_host_and_nothing_behind_its_path() {
        for right in [
            "http://a",
            "https://a.example",
            "https://a.example:8443",
            "https://a.example/under/this/",
            "http://[::1]:80",
            "http://[::1]",
        ] {
            assert_eq!(value(right).url().unwrap(), right);
        }
        for wrong in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "https:///x",
            "http://a:port",
            "http://a:0",
            "http://a:65536",
            "http://:80",
            "http://[::1]80",
            "http://a b",
            "http://a/?b",
            "http://a/#b",
            "http://user@a",
            "http://a\n",
            "http://ä",
        ] {
            let error = value(wrong).url().unwrap_err().to_string();
            assert!(error.contains("--x is http://HOST or https://HOST"), "{error}");
        }
    }

    #[test]
    fn a_program_is_a_file_that_may_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        std::fs::write(&file, "").unwrap();
        for mode in [0o644, 0o755] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = value(file.to_str().unwrap()).program();
            assert_eq!(found.ok(), (mode == 0o755).then(|| file.clone()));
        }
        assert!(value(folder.path().to_str().unwrap()).program().is_err(), "a folder");
        assert!(value("").program().is_err());
        assert!(value("no-program-is-called-this").program().is_err());
        assert!(value("sh").program().unwrap().is_absolute());
    }

    #[test]
    fn a_file_is_there_and_can_be_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(value(file.path().to_str().unwrap()).file().unwrap(), file.path());
        for (typed, why) in [("", "No such file"), ("/no/such/file", "No such file"), ("/", "it is a folder")]
        {
            let error = value(typed).file().unwrap_err().to_string();
            let expected = format!("--x is a file that can be read, not {typed:?}: {why}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn what_looks_like_an_option_is_no_value_unless_it_is_tied_to_it() {
        let typed = |words: &[&str]| {
            let mut parser = lexopt::Parser::from_args(words.iter().copied());
            parser.next().unwrap();
            OptionValue::of("data", &mut parser)
                .and_then(OptionValue::text)
                .map_err(|error| error.to_string())
        };
        assert_eq!(typed(&["--data", "x"]).unwrap(), "x");
        assert_eq!(typed(&["--data=--x"]).unwrap(), "--x");
        for missing in [&["--data", "--x"][..], &["--data"]] {
            assert_eq!(typed(missing).unwrap_err(), "missing argument for option '--data' (try --help)");
        }
        assert_eq!(typed(&["--data="]).unwrap_err(), "--data is text, and not empty, not \"\" (try --help)");
    }
}
