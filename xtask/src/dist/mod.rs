//! `cargo xtask dist`: the programs as they ship, their sources, and everything of a release.

mod deb;
mod release;
mod reproducible;
mod sbom;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use xtask::compilers::Arch;
use xtask::shipped::{self, CLIENT, FOR_HOSTS, Tree, Way};

use crate::options::Options;
use crate::{Outcome, workspace};

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask dist [--target TRIPLE] [PROGRAM...]
       cargo xtask dist --deb PROGRAM...
       cargo xtask dist --source
       cargo xtask dist --release [--arch ARCH]... [--key KEY]
       cargo xtask dist --check-reproducible [--target TRIPLE] [PROGRAM...]

Builds programs as they ship and puts them into target/dist, with a target into target/dist/TRIPLE. Without a name it is
the client, rust-ota: one static program without anything beside it. The host tool rust-ota-artifact and the server
rust-ota-server are built when they are named.

Without a target it is this machine's own compiler, or Debian's with musl if that was fetched before: the client is a
megabyte smaller. The targets x86_64-unknown-linux-musl, aarch64-unknown-linux-musl and armv7-unknown-linux-musleabihf
fetch it (on a Debian of x86-64: 250 MB of packages, 700 MB in the cache of the user; nothing is installed, but GCC for the
processor has to be). For any other target its library has to be installed (rustup target add TRIPLE), with a linker, which
cargo is told as CARGO_TARGET_..._LINKER.

  --deb                 Debian packages of the named programs for this machine, target/dist/PROGRAM_VERSION_ARCH.deb
  --source              the sources of this commit with all crates, target/dist/rust-ota-VERSION.tar.xz
  --release             sources, programs, Debian packages, lists of what is in them (CycloneDX), SHA256SUMS, in
                        target/dist/rust-ota-VERSION
  --arch ARCH           only for x86_64, aarch64 or armv7; as often as wanted
  --key KEY             sign SHA256SUMS with this Ed25519 key (rust-ota-artifact keygen)
  --check-reproducible  build the commit in two folders and compare: by itself the client with musl for x86_64
";

/// Builds, copies and says where.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let (source, release) = (options.flag("--source"), options.flag("--release"));
    let check = options.flag("--check-reproducible");
    let deb = options.flag("--deb");
    let target = options.value("--target")?;
    let key = options.value("--key")?.map(PathBuf::from);
    let mut archs = Vec::new();
    while let Some(name) = options.value("--arch")? {
        archs.push(arch_of(name)?);
    }
    let mut programs = options.words();
    options.finish()?;
    let only_of_release = only_of_release_options(&key, &archs);
    if deb {
        if source || release || check || target.is_some() || only_of_release_options(&key, &archs) {
            return Err("--deb is for this machine, and takes nothing but names of programs".into());
        }
        known(&programs)?;
        return packages(&programs);
    }
    match (source, release, check) {
        (false, false, _) if only_of_release => Err("--arch and --key belong to --release".into()),
        (true, false, false) if target.is_none() && programs.is_empty() && !only_of_release => {
            report(&tarball::write(&folder(None)?, &version()?)?)
        }
        (false, true, false) if target.is_none() && programs.is_empty() => {
            let archs = if archs.is_empty() { Arch::ALL.to_vec() } else { archs };
            release::make(&archs, key.as_deref())
        }
        (false, false, true) => {
            let target = target.unwrap_or(Arch::X86_64.triple());
            if programs.is_empty() {
                programs.push(CLIENT);
            }
            known(&programs)?;
            reproducible::check(&programs, target)
        }
        (false, false, false) => {
            if programs.is_empty() {
                programs.push(CLIENT);
            }
            known(&programs)?;
            build(&programs, target)
        }
        (_, _, _) => {
            Err("--source, --release and --check-reproducible exclude each other, and the first two build \
                          everything for every target"
                .into())
        }
    }
}

/// Whether the sources of this commit are whole and the same each time, and so are the programs that ship for devices.
pub fn check() -> Outcome {
    tarball::check(&version()?)?;
    reproducible::check(&[CLIENT], Arch::X86_64.triple())
}

fn only_of_release_options(key: &Option<PathBuf>, archs: &[Arch]) -> bool {
    key.is_some() || !archs.is_empty()
}

/// Builds programs for this machine and packs each.
fn packages(programs: &[&str]) -> Outcome {
    if programs.is_empty() {
        return Err(format!("--deb wants names of programs: {CLIENT}, {}", FOR_HOSTS.join(", ")));
    }
    let arch = arch_of(std::env::consts::ARCH)?;
    build(programs, None)?;
    let folder = folder(None)?;
    let work = workspace::target_directory()?.join("deb");
    let seconds = tarball::Commit::head(&workspace::root())?.seconds;
    for program in programs {
        let built = folder.join(program);
        let package = deb::Package {
            program,
            built: &built,
            version: &version()?,
            arch,
            seconds,
            compression: deb::Compression::Xz,
        };
        report(&package.make(&workspace::root(), &work, &folder)?)?;
    }
    Ok(())
}

fn build(programs: &[&str], target: Option<&str>) -> Outcome {
    let folder = folder(target)?;
    let way = Way::to(target)?;
    for name in programs {
        let built = match &way {
            // What runs on this machine only is built as everybody builds it, and has the libraries of this machine.
            Way::Machine(_) if *name != CLIENT => build_for_host(name, target)?,
            Way::Musl(_) | Way::Machine(_) => shipped::build(name, &way, &[], &Tree::own()?)?,
        };
        let path = folder.join(name);
        fs::copy(&built, &path)
            .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), path.display()))?;
        report(&path)?;
    }
    if target.is_none() && matches!(way, Way::Machine(_)) && programs.contains(&CLIENT) {
        println!(
            "built with this machine's C library; cargo xtask dist --target {} fetches compilers for a smaller one",
            Arch::X86_64.triple()
        );
    }
    Ok(())
}

fn build_for_host(name: &str, target: Option<&str>) -> Outcome<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--package", name]);
    let mut folder = workspace::target_directory()?;
    if let Some(target) = target {
        command.args(["--target", target]);
        folder.push(target);
    }
    workspace::run(&mut command)?;
    Ok(folder.join("release").join(name))
}

fn known(programs: &[&str]) -> Outcome {
    match programs.iter().find(|name| **name != CLIENT && !FOR_HOSTS.contains(name)) {
        Some(unknown) => {
            Err(format!("there is no program {unknown:?}; there are {CLIENT}, {}", FOR_HOSTS.join(", ")))
        }
        None => Ok(()),
    }
}

fn arch_of(name: &str) -> Outcome<Arch> {
    Arch::ALL.into_iter().find(|arch| arch.name() == name).ok_or_else(|| {
        format!("there is no release for {name:?}; there are {}", Arch::ALL.map(Arch::name).join(", "))
    })
}

/// Where what was built for `target` is put.
fn folder(target: Option<&str>) -> Outcome<PathBuf> {
    let mut folder = workspace::target_directory()?.join("dist");
    folder.extend(target);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

/// The version of the workspace.
fn version() -> Outcome<String> {
    let metadata = workspace::metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let client = packages.iter().find(|package| package["name"] == CLIENT);
    let version = client.and_then(|package| package["version"].as_str());
    version.map(str::to_owned).ok_or_else(|| format!("cargo metadata has no version of {CLIENT}"))
}

/// Says what was made, and how large it is.
fn report(path: &Path) -> Outcome {
    let bytes = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    println!("{}: {bytes} bytes", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        run(&arguments).unwrap_err()
    }

    #[test]
    fn what_does_not_go_together_is_refused_before_anything_is_built() {
        assert!(refused(&["--source", "--release"]).contains("exclude"));
        assert!(refused(&["--source", "rust-ota"]).contains("exclude"));
        assert!(refused(&["--release", "--target", "x"]).contains("exclude"));
        assert!(refused(&["--deb"]).contains("names of programs"));
        assert!(refused(&["--deb", "--source"]).contains("for this machine"));
        assert!(refused(&["--key", "k"]).contains("--release"));
        assert!(refused(&["--release", "--arch", "mips"]).contains("x86_64, aarch64, armv7"));
        assert!(refused(&["rust-nothing"]).contains("there is no program"));
        assert!(refused(&["--check-reproducible", "rust-nothing"]).contains("there is no program"));
    }
}
