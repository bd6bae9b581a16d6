//! `cargo xtask openapi`: whether `docs/openapi.json` is OpenAPI, by a validator that others have written. That it is what the
//! code says is a test of the server.

use std::process::{Command, Stdio};

use xtask::python;

use crate::options::Options;
use crate::{Outcome, workspace};

/// The package of the Python registry that knows the format.
const VALIDATOR: &str = "openapi-spec-validator==0.9.0";

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask openapi

Checks docs/openapi.json with openapi-spec-validator, which is installed into target/ the first time. Where that cannot be, it
says so and checks nothing.
";

/// Checks it.
pub fn run(arguments: &[String]) -> Outcome {
    Options::new(arguments).finish()?;
    let python = match python::environment(&workspace::target_directory()?.join("openapi/venv"), VALIDATOR) {
        Ok(python) => python,
        Err(reason) => {
            println!("docs/openapi.json is not validated: {VALIDATOR} cannot be installed: {reason}");
            return Ok(());
        }
    };
    let mut check = Command::new(python);
    check.args(["-m", "openapi_spec_validator", "docs/openapi.json"]).current_dir(workspace::root());
    workspace::run(check.stdin(Stdio::null()))
}
