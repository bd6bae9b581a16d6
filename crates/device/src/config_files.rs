//! The files of the configuration: which there are, which of them a daemon can go on with, and the last good ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use linux::{atomic_file, regular_file};

use crate::compose::{ComposeError, io_error};
use crate::config::{Config, Source};
use crate::keystore::{self, KeyStoreError};

/// The configuration that the daemon last ran with and that was good: files with their names, the stronger one last.
const LAST_GOOD_FILE: &str = "rust-ota-last-good.conf";
/// What it is called until it is complete.
const NEW_LAST_GOOD_FILE: &str = "rust-ota-last-good.conf.new";
/// Longest configuration file that is read.
const CONFIG_BYTES: u64 = 1024 * 1024;

/// Which configuration files must be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// All that are there.
    All,
    /// Those that this user may read, for somebody who only looks: the others, which may hold secrets, say nothing about
    /// what is installed.
    ByThisUser,
}

/// Who goes on with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Somebody at a prompt, who can put a bad one right.
    Command,
    /// The daemon, and whoever has to find it. Without the daemon nothing can send the device a better configuration, so
    /// that it goes on with the last good one.
    Daemon,
}

/// Why a daemon cannot go on with a configuration.
pub enum Unusable {
    /// It cannot be read or understood.
    Wrong(ComposeError),
    /// It names no server.
    NoServer,
    /// The device key that it names is not there.
    Key(KeyStoreError),
}

client_core::artifact::debug_as_displayed!(Unusable);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Wrong(error) => error.fmt(f),
            Unusable::NoServer => f.write_str("no server is configured: set ServerURL or Servers"),
            Unusable::Key(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unusable {}

/// One place of a configuration file.
#[derive(Debug, Clone)]
pub(crate) enum ConfigFile {
    /// Named on the command line: it has to be there.
    Named(PathBuf),
    /// Where it is otherwise, if it is.
    Usual(PathBuf),
}

impl ConfigFile {
    pub(crate) fn new(named: Option<&PathBuf>, usual: PathBuf) -> ConfigFile {
        named.map_or(ConfigFile::Usual(usual), |named| ConfigFile::Named(named.clone()))
    }

    fn path(&self) -> &Path {
        match self {
            ConfigFile::Named(path) | ConfigFile::Usual(path) => path,
        }
    }

    /// The content; `None` where there needs to be none.
    fn read(&self, for_whom: For, readable: Readable) -> Result<Option<(String, Vec<u8>)>, ComposeError> {
        let path = self.path();
        let read = match (self, for_whom) {
            // A person may name a pipe.
            (ConfigFile::Named(path), For::Command) => read_whatever_it_is(path),
            // What merely lies there must be a file, and so must what the daemon looks into again and again: a FIFO
            // would let it wait for ever.
            (ConfigFile::Named(path), For::Daemon) | (ConfigFile::Usual(path), _) => {
                regular_file::read(path, CONFIG_BYTES)
            }
        };
        let may_be_missing = matches!(self, ConfigFile::Usual(_));
        match read {
            Ok(content) => Ok(Some((path.display().to_string(), content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_missing => Ok(None),
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && readable == Readable::ByThisUser =>
            {
                Ok(None)
            }
            Err(error) => Err(io_error("read the configuration", path, error)),
        }
    }
}

fn read_whatever_it_is(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(CONFIG_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > CONFIG_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(content)
}

/// Where the configuration lies, the stronger file last, and what whoever runs this client says over both.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    pub(crate) files: [ConfigFile; 2],
    pub(crate) over: Option<String>,
}

/// What stands for the name of a file where values came from the program itself.
const OVER_THE_FILES: &str = "the values set by the program";

/// The content of configuration files, each with its name.
type Contents = Vec<(String, Vec<u8>)>;

impl ConfigFiles {
    /// The configuration to go on with, and why that is the one that was last kept in `datastore`, if it is.
    ///
    /// # Errors
    /// When a file cannot be read or understood, and there is nothing else to go on with.
    pub(crate) fn load(
        &self,
        for_whom: For,
        readable: Readable,
        datastore: &Path,
    ) -> Result<(Config, Option<Unusable>), ComposeError> {
        match self.read(for_whom, readable).and_then(|files| parse(&files)) {
            Ok(config) => {
                let problem = match for_whom {
                    For::Daemon => useless(&config),
                    For::Command => None,
                };
                let instead = problem.and_then(|problem| Some((last_good(datastore)?, Some(problem))));
                Ok(instead.unwrap_or((config, None)))
            }
            Err(error) => match last_good(datastore).filter(|_| for_whom == For::Daemon) {
                Some(good) => Ok((good, Some(Unusable::Wrong(error)))),
                None => Err(error),
            },
        }
    }

    /// The configuration that lies there, as far as this user may read it; or why there is none, and the last good one. Only
    /// files are read.
    pub(crate) fn look(&self, datastore: &Path) -> Result<Config, (ComposeError, Option<Box<Config>>)> {
        let config = self.read(For::Daemon, Readable::ByThisUser).and_then(|files| parse(&files));
        config.map_err(|error| (error, last_good(datastore).map(Box::new)))
    }

    /// Each file with its content, the stronger one last; `None` where there is none, or this user may not read it.
    pub fn contents(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let content = |file: &ConfigFile| {
            let read = file.read(For::Daemon, Readable::ByThisUser).ok().flatten();
            (file.path().to_owned(), read.map(|(_, content)| content))
        };
        self.files.iter().map(content).collect()
    }

    /// What keeps a daemon from going on with the configuration that lies there now.
    pub fn problem(&self) -> Option<Unusable> {
        match self.read(For::Daemon, Readable::All).and_then(|files| parse(&files)) {
            Ok(config) => useless(&config),
            Err(error) => Some(Unusable::Wrong(error)),
        }
    }

    /// Keeps the configuration in `datastore` for a daemon that finds a bad one.
    ///
    /// # Errors
    /// When it cannot be written; what was kept before is still there.
    pub(crate) fn keep(&self, datastore: &Path) -> Result<(), ComposeError> {
        let files = self.read(For::Daemon, Readable::All)?;
        // It may have been changed since it was read.
        if useless(&parse(&files)?).is_some() {
            return Ok(());
        }
        let text = |content: &Vec<u8>| String::from_utf8_lossy(content).into_owned();
        let kept: Vec<[String; 2]> =
            files.iter().map(|(name, content)| [name.clone(), text(content)]).collect();
        let kept = serde_json::json!(kept).to_string().into_bytes();
        let (path, new) = (datastore.join(LAST_GOOD_FILE), datastore.join(NEW_LAST_GOOD_FILE));
        if regular_file::read(&path, CONFIG_BYTES).is_ok_and(|known| known == kept) {
            return Ok(());
        }
        // What a power cut left behind.
        let _ = fs::remove_file(&new);
        atomic_file::write_new(&new, &kept, 0o600)
            .and_then(|()| atomic_file::publish(&new, &path))
            .map_err(|error| io_error("keep the configuration as", &path, error))
    }

    fn read(&self, for_whom: For, readable: Readable) -> Result<Contents, ComposeError> {
        let read = self.files.iter().map(|file| file.read(for_whom, readable).transpose());
        let over = self.over.iter().map(|over| Ok((OVER_THE_FILES.to_owned(), over.clone().into_bytes())));
        read.flatten().chain(over).collect()
    }
}

/// Why a daemon can do nothing with a configuration that says nothing wrong.
fn useless(config: &Config) -> Option<Unusable> {
    if config.servers.is_empty() {
        return Some(Unusable::NoServer);
    }
    let key = Path::new(config.auth_private_key.as_deref()?);
    keystore::static_key_problem(key).map(Unusable::Key)
}

/// The configuration that was kept, if there is one that a daemon can go on with.
fn last_good(datastore: &Path) -> Option<Config> {
    let kept = regular_file::read(&datastore.join(LAST_GOOD_FILE), CONFIG_BYTES).ok()?;
    let kept: Vec<[String; 2]> = serde_json::from_slice(&kept).ok()?;
    let files = kept.into_iter().map(|[name, content]| (name, content.into_bytes())).collect();
    parse(&files).ok().filter(|config| useless(config).is_none())
}

fn parse(files: &Contents) -> Result<Config, ComposeError> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, content)| Source { name, content }).collect();
    Config::parse(&sources).map_err(ComposeError::Config)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::compose::{Overrides, Setup};

    #[test]
    fn the_configuration_that_is_kept_is_whole_or_none_whatever_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (config, datastore) = (folder.path().join("mender.conf"), folder.path().join("data"));
        let overrides = Overrides {
            config: Some(config.clone()),
            datastore: Some(datastore.clone()),
            ..Overrides::default()
        };
        let load = |for_whom| Setup::load(&overrides, for_whom, Readable::All, |_| None);
        let write = |text: &str| fs::write(&config, text).unwrap();
        let keep = || {
            let setup = load(For::Daemon).unwrap();
            let _lock = setup.lock().unwrap();
            setup.keep_config().unwrap();
        };
        write("{\"RustOta\":{\"Typo\":1}}");
        assert!(load(For::Daemon).is_err());
        // One without a server is nothing to go on with.
        write("{}");
        keep();
        let kept = datastore.join(LAST_GOOD_FILE);
        assert!(!kept.exists());
        write("{\"ServerURL\":\"https://a\"}");
        fs::write(datastore.join(NEW_LAST_GOOD_FILE), "cut").unwrap();
        keep();
        let bytes = fs::read(&kept).unwrap();
        for text in ["{", "{}", "{\"RustOta\":{\"Typo\":1}}"] {
            write(text);
            for length in 0..=bytes.len() {
                fs::write(&kept, &bytes[..length]).unwrap();
                let servers = load(For::Daemon).map(|setup| setup.config.servers).unwrap_or_default();
                assert_eq!(servers.is_empty(), length < bytes.len(), "{text} {length}");
            }
            let setup = load(For::Daemon).unwrap();
            assert_eq!(said(&setup.config_error).unwrap(), said(&setup.config_files().problem()).unwrap());
            assert!(text == "{}" || load(For::Command).is_err());
        }
    }
    fn said(problem: &Option<Unusable>) -> Option<String> {
        problem.as_ref().map(Unusable::to_string)
    }

    /// Loads `config` for a daemon with a datastore of its own.
    fn daemon(config: &Path) -> Result<Setup, ComposeError> {
        let overrides = Overrides {
            config: Some(config.to_owned()),
            datastore: Some(config.with_file_name("data")),
            ..Overrides::default()
        };
        Setup::load(&overrides, For::Daemon, Readable::All, |_| None)
    }

    fn keep(setup: &Setup) {
        let _lock = setup.lock().unwrap();
        setup.keep_config().unwrap();
    }

    #[test]
    fn a_daemon_does_not_wait_for_somebody_to_write_into_a_fifo() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mender.conf");
        fs::write(&config, "{\"ServerURL\":\"https://a\"}").unwrap();
        keep(&daemon(&config).unwrap());
        fs::remove_file(&config).unwrap();
        assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
        let setup = daemon(&config).unwrap();
        assert_eq!(setup.config.servers, ["https://a"]);
        let problem = said(&setup.config_error).unwrap();
        assert!(problem.contains("it is a FIFO, not a regular file"), "{problem}");
        assert_eq!(said(&setup.config_files().problem()), Some(problem));
    }

    #[test]
    fn a_device_key_that_is_not_there_is_a_reason_to_go_on_with_the_last_good_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (folder.path().join("mender.conf"), folder.path().join("device.pem"));
        let with_key = |server: &str| {
            format!(r#"{{"ServerURL":"{server}","Security":{{"AuthPrivateKey":"{}"}}}}"#, key.display())
        };
        // Without a last good one there is nothing to go on with: whoever asks for the key says what is wrong.
        fs::write(&config, with_key("https://a")).unwrap();
        let setup = daemon(&config).unwrap();
        assert_eq!(setup.config.servers, ["https://a"]);
        assert_eq!(said(&setup.config_error), None);
        fs::write(&key, "a key").unwrap();
        keep(&daemon(&config).unwrap());
        fs::remove_file(&key).unwrap();
        // What was kept is no better.
        fs::write(&config, with_key("https://b")).unwrap();
        assert_eq!(daemon(&config).unwrap().config.servers, ["https://b"]);
        fs::write(&config, "{\"ServerURL\":\"https://good\"}").unwrap();
        keep(&daemon(&config).unwrap());
        fs::write(&config, with_key("https://b")).unwrap();
        let setup = daemon(&config).unwrap();
        assert_eq!(setup.config.servers, ["https://good"]);
        let problem = said(&setup.config_error).unwrap();
        assert!(problem.starts_with(&format!("cannot read the device key {}: ", key.display())), "{problem}");
        // An update that brings such a configuration is not committed, and none is kept.
        assert_eq!(said(&setup.config_files().problem()), Some(problem));
        keep(&setup);
        assert_eq!(daemon(&config).unwrap().config.servers, ["https://good"]);
    }
}
