//! The options that name a server for mails.

use std::path::PathBuf;

use server_core::SmtpOptions;

use crate::console::CliError;
use crate::value::OptionValue;

/// What was typed of them.
#[derive(Default)]
pub(crate) struct Typed {
    url: Option<String>,
    from: Option<String>,
    password: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl Typed {
    /// Takes an option if it is one of these.
    pub(crate) fn takes(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, CliError> {
        match name {
            "smtp" => {
                let value = OptionValue::of(name, parser)?;
                let wrong = value.refused(SmtpOptions::WANTED);
                let url = value.secret()?;
                if has_password(&url) {
                    let wrong = "--smtp is an address without a password, which is in --smtp-password";
                    return Err(CliError::usage(wrong.to_owned()));
                }
                if !SmtpOptions::is_url(&url) {
                    return Err(wrong);
                }
                self.url = Some(url);
            }
            "mail-from" => {
                let value = OptionValue::of(name, parser)?;
                let wrong = value.refused("an address such as ota@example.com");
                let from = value.text()?;
                SmtpOptions::check_from(&from).map_err(|_| wrong)?;
                self.from = Some(from);
            }
            "smtp-password" => self.password = Some(OptionValue::of(name, parser)?.file()?),
            "smtp-ca" => self.authorities = Some(OptionValue::of(name, parser)?.file()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The server that was typed.
    pub(crate) fn wanted(&self) -> Result<Option<SmtpOptions>, CliError> {
        let Some(url) = &self.url else {
            let typed = [
                ("mail-from", self.from.is_some()),
                ("smtp-password", self.password.is_some()),
                ("smtp-ca", self.authorities.is_some()),
            ];
            return match typed.into_iter().find(|(_, is_typed)| *is_typed) {
                Some((name, _)) => Err(CliError::usage(format!("--{name} needs --smtp"))),
                None => Ok(None),
            };
        };
        let needs = |name: &str| CliError::usage(format!("--smtp needs --{name}"));
        let from = self.from.as_deref().ok_or_else(|| needs("mail-from"))?;
        let wrong = |name: &'static str| move |reason: String| CliError::usage(format!("--{name}: {reason}"));
        let mut smtp = SmtpOptions::new(url, from).map_err(wrong("smtp"))?;
        match (&self.password, smtp.has_user()) {
            (Some(path), true) => smtp = smtp.password_file(path).map_err(wrong("smtp-password"))?,
            (None, false) => {}
            (None, true) => {
                return Err(CliError::usage("--smtp with a user needs --smtp-password".to_owned()));
            }
            (Some(_), false) => {
                return Err(CliError::usage(
                    "--smtp-password needs a user in --smtp, as in smtps://USER@HOST".to_owned(),
                ));
            }
        }
        if let Some(path) = &self.authorities {
            smtp = smtp.authorities(path).map_err(wrong("smtp-ca"))?;
        }
        Ok(Some(smtp))
    }
}

/// Whether somebody has put a password into an address: it is not repeated.
fn has_password(url: &str) -> bool {
    let user = url.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once("://").map_or(user, |(_, user)| user).contains(':')
}
