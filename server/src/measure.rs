//! `measure`: what single steps of the server cost on this machine.

use std::time::Duration;

use lexopt::prelude::*;
use server_core::steps;

use crate::console::{CliError, help_of, print};
use crate::value::{OptionValue, SOME};

/// Measures.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut tokens, mut names) = (200_000, 1_000_000);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return help_of("measure"),
            Long("tokens") => tokens = OptionValue::of("tokens", &mut parser)?.number(SOME)?,
            Long("names") => names = OptionValue::of("names", &mut parser)?.number(SOME)?,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    let failed = |what: &str| CliError::Failed(format!("{what} could not be measured"));
    let each = |time: Duration, count: u32| time.as_nanos() as f64 / f64::from(count.max(1)) / 1000.0;
    let (own, older) = steps::token_checks(tokens).ok_or_else(|| failed("tokens"))?;
    print(&format!("a token of this server      {:9.3} µs\n", each(own, tokens)))?;
    print(&format!("a token of an older server  {:9.3} µs\n", each(older, tokens)))?;
    for text in ["device-00[0-4].*9-of", "/DEVICE-.*77.*FLEET/i"] {
        let (time, found) = steps::pattern_searches(text, names).ok_or_else(|| failed("patterns"))?;
        print(&format!("{text} in a name {:9.3} µs, {found} found\n", each(time, names)))?;
    }
    Ok(())
}
