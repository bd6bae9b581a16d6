//! The options that name a database.

use std::path::PathBuf;

use server_core::DatabaseOptions;

use crate::console::CliError;

/// What was typed of them.
#[derive(Default)]
pub(crate) struct Typed {
    url: Option<String>,
    password: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl Typed {
    /// Takes an option if it is one of these.
    pub(crate) fn takes(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, CliError> {
        use lexopt::ValueExt;
        match name {
            "database" => self.url = Some(parser.value()?.string()?),
            "database-password" => self.password = Some(parser.value()?.into()),
            "database-ca" => self.authorities = Some(parser.value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The database at an address, with what was typed beside it.
    pub(crate) fn at(&self, url: &str) -> DatabaseOptions {
        let mut options = DatabaseOptions::new(url);
        if let Some(path) = &self.password {
            options = options.password_file(path);
        }
        if let Some(path) = &self.authorities {
            options = options.authorities(path);
        }
        options
    }

    /// The database that was typed.
    pub(crate) fn wanted(&self) -> Result<Option<DatabaseOptions>, CliError> {
        match &self.url {
            Some(url) => Ok(Some(self.at(url))),
            None if self.password.is_some() || self.authorities.is_some() => {
                Err(CliError::Failed("--database is missing".to_owned()))
            }
            None => Ok(None),
        }
    }
}
