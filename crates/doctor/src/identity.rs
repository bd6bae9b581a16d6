//! What the device says it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use client_core::slot::System;
use device::compose::Setup;

use crate::finding::{self as check, Finding};

/// The type, and the program that prints the identity.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) device_type: Result<String, String>,
    pub(crate) program: PathBuf,
    pub(crate) state: Program,
    pub(crate) has_server: bool,
}

/// What is at the place of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Something that can be run.
    Executable,
    /// A file that cannot.
    NotExecutable,
    /// No file.
    Missing,
}

impl Program {
    pub(crate) fn at(path: &std::path::Path) -> Program {
        match fs::metadata(path) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Program::Executable,
            Ok(found) if found.is_file() => Program::NotExecutable,
            Ok(_) | Err(_) => Program::Missing,
        }
    }
}

pub(crate) fn gather(setup: &Setup) -> Facts {
    let program = setup.identity_program();
    Facts {
        device_type: setup.system().device_type().map_err(|error| error.to_string()),
        state: Program::at(&program),
        program,
        has_server: !setup.config.servers.is_empty(),
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![match &facts.device_type {
        Ok(name) if name.trim() != name || name.contains(['"', '\'', ' ', '\t', '\r']) => {
            check::DEVICE_TYPE_ODD
                .found(format_args!("the device type is {name:?}, with everything between the outer quotes"))
        }
        Ok(name) => check::DEVICE_TYPE.found(format_args!("device type {name}")),
        Err(error) => check::DEVICE_TYPE_WRONG.found(format_args!("{error}")),
    }];
    // Only a server asks who this is.
    if facts.has_server {
        let program = facts.program.display();
        found.push(match facts.state {
            Program::Executable => check::IDENTITY.found(format_args!("identity program {program}")),
            Program::NotExecutable => check::IDENTITY_NOT_EXECUTABLE
                .found(format_args!("the identity program {program} is not executable")),
            Program::Missing => check::IDENTITY_MISSING
                .found(format_args!("there is no identity program {program}: the server cannot be asked")),
        });
    }
    found
}
