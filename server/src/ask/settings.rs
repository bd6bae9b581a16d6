//! Which server is asked, with which token, and whom to trust: said once, by option, environment or file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use server_core::client::Management;

use crate::console::CliError;

/// Asked when nothing else is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// What was typed.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) server: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
}

/// What stands in the file of settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    server: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// What holds.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    server: String,
    token_file: PathBuf,
    ca: Option<PathBuf>,
}

impl Given {
    /// The server to ask.
    pub(super) fn management(self) -> Result<Management, CliError> {
        let Settings { server, token_file, ca } = self.resolve(|name| std::env::var_os(name))?;
        let token = std::fs::read_to_string(&token_file).map_err(|error| unread(&token_file, &error))?;
        if token.trim().is_empty() {
            return Err(CliError::Failed(format!("{}: there is no token in it", token_file.display())));
        }
        if let Some(ca) = &ca {
            // Now, and with its name, also when the address turns out to be without TLS.
            std::fs::File::open(ca).map_err(|error| unread(ca, &error))?;
        }
        Ok(Management::with_authority(&server, &token, ca.as_deref()))
    }

    /// An option, else the environment, else the file.
    fn resolve(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Settings, CliError> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let own = own_file(&variable);
        let kept = match (&self.config, &own) {
            (Some(path), _) => read(path)?,
            (None, Some(path)) if path.exists() => read(path)?,
            (None, _) => Kept::default(),
        };
        let text = |value: OsString| value.into_string().ok();
        let server = self.server.or_else(|| variable("RUST_OTA_SERVER").and_then(text)).or(kept.server);
        let server = server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let token_file = self.token_file.or_else(|| path("RUST_OTA_TOKEN_FILE")).or(kept.token_file);
        let ca = self.ca.or_else(|| path("RUST_OTA_CA")).or(kept.ca);
        if !(server.starts_with("http://") || server.starts_with("https://")) {
            return Err(CliError::Failed(format!(
                "the server is http://HOST:PORT or https://HOST:PORT, not {server}"
            )));
        }
        let token_file = token_file.ok_or_else(|| {
            let own = own.map_or_else(String::new, |own| format!(", or token_file in {}", own.display()));
            CliError::Failed(format!(
                "nothing says with which token to ask: --token-file FILE (the server's DATA/management-token), the \
                 environment variable RUST_OTA_TOKEN_FILE{own}"
            ))
        })?;
        Ok(Settings { server, token_file, ca })
    }
}

/// The file of settings of whoever has typed this.
fn own_file(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = match variable("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(variable("HOME")?).join(".config"),
    };
    Some(folder.join("rust-ota").join("server.json"))
}

/// Paths in it begin at its folder.
fn read(path: &Path) -> Result<Kept, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| unread(path, &error))?;
    let kept: Kept = serde_json::from_str(&text)
        .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let beside = |file: Option<PathBuf>| file.map(|file| folder.join(file));
    Ok(Kept { server: kept.server, token_file: beside(kept.token_file), ca: beside(kept.ca) })
}

fn unread(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_stronger_than_the_environment_and_that_than_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("rust-ota");
        std::fs::create_dir(&own).unwrap();
        let file = r#"{ "server": "https://file", "token_file": "token", "ca": "/ca.pem" }"#;
        std::fs::write(own.join("server.json"), file).unwrap();
        let home = folder.path().as_os_str().to_owned();
        let without = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.clone());
        let kept = Given::default().resolve(without).unwrap();
        let of_file = |server: &str, token: PathBuf| Settings {
            server: server.to_owned(),
            token_file: token,
            ca: Some("/ca.pem".into()),
        };
        assert_eq!(kept, of_file("https://file", own.join("token")));
        let with = |name: &str| match name {
            "RUST_OTA_SERVER" => Some("https://environment".into()),
            "RUST_OTA_TOKEN_FILE" => Some("/environment".into()),
            other => without(other),
        };
        assert_eq!(
            Given::default().resolve(with).unwrap(),
            of_file("https://environment", "/environment".into())
        );
        let given = Given { server: Some("https://option".to_owned()), ..Given::default() };
        assert_eq!(given.resolve(with).unwrap(), of_file("https://option", "/environment".into()));
    }

    #[test]
    fn what_is_missing_or_misspelt_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        std::fs::write(&path, r#"{ "sever": "https://x" }"#).unwrap();
        let said = |given: Given| given.resolve(|_| None).unwrap_err().to_string();
        let config = |path: &Path| Given { config: Some(path.to_owned()), ..Given::default() };
        assert!(said(config(&path)).contains("sever"));
        assert!(said(config(&folder.path().join("none"))).contains("none"));
        assert!(said(Given::default()).contains("RUST_OTA_TOKEN_FILE"));
        let given = Given { server: Some("updates".to_owned()), ..Given::default() };
        assert!(said(given).contains("updates"));
    }
}
