//! `seed`: fills an empty data folder with a fleet that is made up.

use std::time::Instant;

use lexopt::prelude::*;
use serde_json::json;
use server_core::simulated;

use crate::console::{CliError, help_of, print};
use crate::value::{OptionValue, SOME};

/// Fills a folder.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut data, mut devices, mut is_json) = (None, 1000, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return help_of("seed"),
            Long("data") => data = Some(OptionValue::of("data", &mut parser)?.path()?),
            Long("devices") => devices = OptionValue::of("devices", &mut parser)?.number::<u32>(SOME)?,
            Long("json") => is_json = true,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    let data = data.ok_or_else(|| CliError::missing("data"))?;
    let began = Instant::now();
    simulated::seed(&data, devices).map_err(|error| CliError::Failed(error.to_string()))?;
    let seconds = began.elapsed().as_secs_f64();
    print(&if is_json {
        format!("{}\n", json!({ "devices": devices, "seconds": seconds }))
    } else {
        format!("{devices} devices in {seconds:.1} s\n")
    })
}
