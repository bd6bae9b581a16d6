//! The client for other processors, as it ships there.

use std::fs;
use std::path::PathBuf;

use xtask::compilers::Compilers;
use xtask::shipped::{self, CLIENT, Tree, Way};

use super::{Arch, Assets};
use crate::{Outcome, read};

/// A minute less, and the same code: for every change.
const QUICKLY: &[&str] =
    &["--quiet", "--config", "profile.dist.lto=\"off\"", "--config", "profile.dist.codegen-units=16"];

impl Assets {
    /// The client for another processor, built when its sources changed.
    pub fn client(&self, arch: Arch) -> Outcome<PathBuf> {
        if arch == Arch::X86_64 {
            return Err("the client for this machine is given with --client".into());
        }
        self.once(&format!("client-{}", arch.debian()), |assets| {
            let compilers = Compilers::fetch(&assets.cache, arch)?;
            let root = crate::workspace();
            // Kept between runs: what comes from others is compiled once for a lock file.
            let lock = read(&root.join("Cargo.lock"))?;
            let kept = format!("musl 1\n{}\n{}", compilers.versions(), String::from_utf8_lossy(&lock));
            let target =
                assets.place().join(format!("client-{}-{}", arch.debian(), xtask::cache::hash(&kept)));
            println!("building the client for {}", arch.triple());
            let arguments = if assets.as_it_ships { &["--quiet"][..] } else { QUICKLY };
            let tree = Tree { root: root.clone(), target };
            let built = shipped::build(CLIENT, &Way::Musl(compilers), arguments, &tree)?;
            // Another run may build another client there.
            let own = root.join("target/qemu");
            fs::create_dir_all(&own).map_err(|error| format!("cannot make {}: {error}", own.display()))?;
            let own = own.join(format!("rust-ota-{}", arch.debian()));
            fs::copy(&built, &own).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
            Ok(own)
        })
    }
}
