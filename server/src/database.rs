//! The options that name a database.

use std::path::PathBuf;

use server_core::DatabaseOptions;

use crate::console::CliError;
use crate::value::OptionValue;

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
        match name {
            // There may be a password in it.
            "database" => self.url = Some(OptionValue::of(name, parser)?.secret()?),
            "database-password" => self.password = Some(OptionValue::of(name, parser)?.file()?),
            "database-ca" => self.authorities = Some(OptionValue::of(name, parser)?.file()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The database at an address that stands behind the option `name`, with what was typed beside it.
    pub(crate) fn at(&self, name: &str, url: &str) -> Result<DatabaseOptions, CliError> {
        let mut options = DatabaseOptions::new(url);
        if let Some(path) = &self.password {
            options = options.password_file(path);
        }
        if let Some(path) = &self.authorities {
            options = options.authorities(path);
        }
        options.check().map_err(|error| CliError::usage(format!("--{name}: {error}")))?;
        Ok(options)
    }

    /// The database that was typed.
    pub(crate) fn wanted(&self) -> Result<Option<DatabaseOptions>, CliError> {
        match &self.url {
            Some(url) => self.at("database", url).map(Some),
            None if self.password.is_some() || self.authorities.is_some() => {
                Err(CliError::missing("database"))
            }
            None => Ok(None),
        }
    }
}
