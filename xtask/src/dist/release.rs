//! `cargo xtask dist --release`: everything of a release in one folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use xtask::cache::{self, Cache};
use xtask::compilers::{Arch, Compilers};
use xtask::shipped::{self, CLIENT, FOR_HOSTS, Tree, Way};

use super::tarball::Commit;
use super::{deb, report, sbom, tarball, version};
use crate::{Outcome, workspace};

/// The list of what is in the folder, and its signature.
const SUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.sig";

/// Makes it from the commit that is checked out, for `archs`, signed with `key` if there is one.
pub fn make(archs: &[Arch], key: Option<&Path>) -> Outcome {
    let root = workspace::root();
    let commit = Commit::head(&root)?;
    let version = version()?;
    let folder = workspace::target_directory()?.join("dist").join(format!("rust-ota-{version}"));
    workspace::fresh_directory(&folder)?;
    if let Some(key) = key {
        // Before minutes of work, not after. Not beside what it verifies: it has to come another way.
        let public_half = folder.with_file_name("release-key.pub");
        public(key, &public_half)?;
        println!("{} verifies the release", public_half.display());
    }
    tarball::write(&folder, &version)?;

    // Of the commit, not of what lies beside it.
    let work = workspace::target_directory()?.join("xtask/release");
    let tree = Tree { root: work.join("source"), target: work.join("built") };
    workspace::fresh_directory(&tree.root)?;
    commit.files(&root, &tree.root, &[])?;
    let cache = Cache::open()?;
    let lock = workspace::read(&tree.root.join("Cargo.lock"))?;
    let mut built_with = format!("commit {}\ntime {}\n", commit.id, sbom::timestamp(commit.seconds));
    built_with += &cargo_version()?;
    for arch in archs {
        let compilers = Compilers::fetch(&cache, *arch)?;
        built_with += &format!("\n{}\n{}\n", arch.triple(), compilers.versions());
        let libraries = linked(compilers.versions());
        let way = Way::Musl(compilers);
        for program in std::iter::once(CLIENT).chain(FOR_HOSTS) {
            let built = shipped::build(program, &way, &[], &tree)?;
            let name = format!("{program}-{version}-{}", arch.name());
            let path = folder.join(&name);
            fs::copy(&built, &path).map_err(|error| format!("{}: {error}", path.display()))?;
            let (seconds, arch) = (commit.seconds, *arch);
            let package = deb::Package {
                program,
                built: &built,
                version: &version,
                arch,
                seconds,
                compression: deb::Compression::Xz,
            };
            package.make(&tree.root, &work.join("deb"), &folder)?;
            let (metadata, crates) = resolved(&tree.root, program, arch)?;
            let (triple, crates, libraries) = (arch.triple(), &crates, libraries.as_str());
            let subject = sbom::Subject { program, triple, seconds, crates, libraries };
            let list = sbom::list(&subject, &metadata, &lock)?;
            workspace::write(&folder.join(format!("{name}.cdx.json")), format!("{list:#}\n"))?;
        }
    }
    workspace::write(&folder.join("BUILT-WITH"), built_with)?;
    sums(&folder)?;
    match key {
        Some(key) => sign(&folder, key)?,
        None => println!("{SUMS} is not signed: no --key was given"),
    }
    for name in names(&folder)? {
        report(&folder.join(name))?;
    }
    fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))
}

/// The lines of what is in the program.
fn linked(versions: &str) -> String {
    let lines =
        versions.lines().filter(|line| line.starts_with("musl-dev ") || line.starts_with("rust-web-src "));
    lines.collect::<Vec<_>>().join("\n")
}

fn cargo_version() -> Outcome<String> {
    let output = workspace::capture(workspace::cargo().arg("--version"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What cargo resolves on a processor, and which crates of that are in a program with the features that ship.
fn resolved(root: &Path, program: &str, arch: Arch) -> Outcome<(Value, BTreeSet<(String, String)>)> {
    let mut command = workspace::cargo();
    command.current_dir(root).args(["metadata", "--locked", "--format-version", "1"]);
    let output = workspace::capture(command.args(["--filter-platform", arch.triple()]))?;
    let metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut command = workspace::cargo();
    command.current_dir(root).args([
        "tree",
        "--locked",
        "--prefix",
        "none",
        "--edges",
        "normal,no-proc-macro",
    ]);
    let output = workspace::capture(command.args(["--package", program, "--target", arch.triple()]))?;
    Ok((metadata, sbom::crates(&String::from_utf8_lossy(&output.stdout))))
}

/// What is in the folder, sorted.
fn names(folder: &Path) -> Outcome<Vec<String>> {
    let files = workspace::files_of(folder)?;
    Ok(files.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// Writes the list in the form of `sha256sum`.
fn sums(folder: &Path) -> Outcome {
    let mut list = String::new();
    for name in names(folder)?.iter().filter(|name| *name != SUMS && *name != SIGNATURE) {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        list += &format!("{}  {name}\n", cache::sha256(&bytes));
    }
    workspace::write(&folder.join(SUMS), list)
}

/// Signs the list with `openssl`, which verifies it too: nothing of ours is needed for that.
fn sign(folder: &Path, key: &Path) -> Outcome {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(key);
    openssl.arg("-in").arg(folder.join(SUMS)).arg("-out").arg(folder.join(SIGNATURE));
    workspace::run_quietly(&mut openssl)
}

/// Writes the public half of `key`; an error if it is no private key.
fn public(key: &Path, to: &PathBuf) -> Outcome {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubout", "-in"]).arg(key).arg("-out").arg(to);
    workspace::run_quietly(&mut openssl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
        let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
        output.status.success()
    }

    #[test]
    fn a_release_is_verified_with_tools_that_everybody_has_and_a_changed_one_is_not() {
        let folder = std::env::temp_dir().join(format!("xtask-release-{}", std::process::id()));
        workspace::fresh_directory(&folder).unwrap();
        if !run("openssl", &["version"], &folder) {
            println!("SKIPPED: openssl is not installed");
            return;
        }
        let key = folder.with_extension("key");
        assert!(run(
            "openssl",
            &["genpkey", "-algorithm", "ed25519", "-out", &key.display().to_string()],
            &folder
        ));
        fs::write(folder.join("rust-ota-1"), "a program").unwrap();
        public(&key, &folder.join("release-key.pub")).unwrap();
        sums(&folder).unwrap();
        sign(&folder, &key).unwrap();
        // As docs/releases.md says.
        let verify =
            "pkeyutl -verify -pubin -inkey release-key.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig";
        let verify: Vec<&str> = verify.split(' ').collect();
        assert!(run("openssl", &verify, &folder));
        assert!(run("sha256sum", &["--check", "--strict", "SHA256SUMS"], &folder));

        fs::write(folder.join("rust-ota-1"), "another").unwrap();
        assert!(!run("sha256sum", &["--check", "--strict", "SHA256SUMS"], &folder));
        sums(&folder).unwrap();
        assert!(!run("openssl", &verify, &folder));
        fs::remove_dir_all(&folder).unwrap();
        fs::remove_file(key).unwrap();
    }

    #[test]
    fn what_is_no_key_signs_nothing() {
        let folder = std::env::temp_dir();
        let none = folder.join(format!("xtask-no-key-{}", std::process::id()));
        assert!(public(&none, &folder.join(format!("xtask-no-key-{}.pub", std::process::id()))).is_err());
    }

    #[test]
    fn the_list_of_the_real_client_has_what_it_links_and_no_test_library() {
        let root = workspace::root();
        let (metadata, crates) = resolved(&root, CLIENT, Arch::Aarch64).unwrap();
        let lock = workspace::read(&root.join("Cargo.lock")).unwrap();
        let (triple, crates, libraries) = (Arch::Aarch64.triple(), &crates, "musl-dev 1.2.3-1 arm64");
        let subject = sbom::Subject { program: CLIENT, triple, seconds: 1_700_000_000, crates, libraries };
        let list = sbom::list(&subject, &metadata, &lock).unwrap();
        let components = list["components"].as_array().unwrap();
        let has = |name: &str| components.iter().find(|one| one["name"] == name);
        assert!(has("rustls").is_some_and(|rustls| rustls["hashes"][0]["content"].is_string()));
        assert!(has("rust-ota-client-core").is_some() && has("musl-dev").is_some());
        for other in ["rust-ota-testkit", "tempfile", "tokio", "serde_derive", "cc"] {
            assert!(has(other).is_none(), "{other}");
        }
        // Every reference leads to something.
        let own = &list["metadata"]["component"]["bom-ref"];
        let known: Vec<&Value> = components.iter().map(|one| &one["bom-ref"]).chain([own]).collect();
        for entry in list["dependencies"].as_array().unwrap() {
            let refs = entry["dependsOn"].as_array().unwrap().iter().chain([&entry["ref"]]);
            for reference in refs {
                assert!(known.contains(&reference), "{reference}");
            }
        }
        let kept = workspace::target_directory().unwrap().join("xtask");
        fs::create_dir_all(&kept).unwrap();
        workspace::write(&kept.join("example.cdx.json"), list.to_string()).unwrap();
    }

    #[test]
    fn compilers_are_no_part_of_a_program() {
        let versions = "rustc-web 1.96 amd64\nrust-web-src 1.96 amd64\nmusl-dev 1.2.3-1 arm64\ngcc 12.2.0";
        assert_eq!(linked(versions), "rust-web-src 1.96 amd64\nmusl-dev 1.2.3-1 arm64");
    }
}
