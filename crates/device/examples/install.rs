//! An installer: `install CONFIG STATE ARTIFACT`, restart, and `install CONFIG STATE` to commit.
//!
//! ```text
//! cargo run -p rust-ota-device --example install -- \
//!     /etc/mender/mender.conf /var/lib/mender release-2.mender
//! ```

// A program at a desk: it prints.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;

use client_core::deploy::{Notice, Observer, Options};
use client_core::install::Progress;
use device::artifact_file;
use device::client::Client;
use device::compose::{Overrides, Setup};
use device::config_files::{For, Readable};

struct Show;

impl Progress for Show {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        println!("written {done_bytes} of {total_bytes} bytes");
    }
    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        println!("read back {done_bytes} of {total_bytes} bytes");
    }
}

impl Observer for Show {
    fn notice(&mut self, _: Notice) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, state, rest @ ..] = &arguments[..] else {
        return Err("install CONFIG STATE [ARTIFACT]".into());
    };
    let overrides =
        Overrides { config: Some(config.into()), datastore: Some(state.into()), ..Overrides::default() };
    let setup = Setup::load(&overrides, For::Command, Readable::All, |_| None)?;
    let mut show = Show;
    let mut client = Client::open(&setup, &mut show)?;
    let summary = match rest.first() {
        Some(path) => {
            client.install(&mut || artifact_file::supply(File::open(path)?), &Options::default())?
        }
        None => client.commit(&Options::default())?,
    };
    if let Some(error) = summary.error {
        return Err(error.into());
    }
    println!("{}", summary.status.name());
    Ok(())
}
