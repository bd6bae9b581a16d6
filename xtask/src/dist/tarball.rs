//! `cargo xtask dist --source`: the sources of a commit with those of all crates they need, in one archive. The same commit
//! gives the same bytes.
//!
//! Crates that are for other systems than Linux are there by name only: cargo asks for everything in the lock file, and
//! builds none of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{Outcome, workspace};

/// What of the project is not for packagers of a system: it is what they have.
const LEFT_OUT: [&str; 3] = ["buildroot", "findings", "yocto"];

/// Where the crates are, in the words of Buildroot, which then vendors nothing itself.
const VENDOR: &str = "VENDOR";

/// Tells cargo so.
const CONFIGURATION: &str = "
[source.crates-io]
replace-with = \"vendored-sources\"

[source.vendored-sources]
directory = \"VENDOR\"
";

/// The systems that crates are kept for. Others of Linux need no other crates.
const SYSTEMS: [&str; 5] = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
    "riscv64gc-unknown-linux-gnu",
];

/// A commit.
pub struct Commit {
    /// Its name.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub seconds: u64,
}

impl Commit {
    /// The one that is checked out in `root`.
    pub fn head(root: &Path) -> Outcome<Commit> {
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%H %ct"]).current_dir(root).stdin(Stdio::null());
        let said = workspace::capture(&mut git)
            .map_err(|error| format!("a release is made of a commit, and git does not know one: {error}"))?;
        let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let parsed = said.split_once(' ').and_then(|(id, time)| Some((id, time.parse().ok()?)));
        let (id, seconds) = parsed.ok_or_else(|| format!("git log answers {said:?}"))?;
        Ok(Commit { id: id.to_owned(), seconds })
    }

    /// Puts the files of the commit below the empty folder `to`, but for `left_out`.
    pub fn files(&self, root: &Path, to: &Path, left_out: &[&str]) -> Outcome {
        let archive = to.with_extension("commit.tar");
        let mut git = Command::new("git");
        git.args(["archive", "--format=tar", "-o"]).arg(&archive).arg(&self.id).current_dir(root);
        workspace::run_quietly(&mut git)?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(to);
        workspace::run_quietly(&mut tar)?;
        fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
        for folder in left_out {
            remove(&to.join(folder))?;
        }
        Ok(())
    }
}

/// Writes the archive of the commit that is checked out to `folder`, and returns its path.
pub fn write(folder: &Path, version: &str) -> Outcome<PathBuf> {
    let root = workspace::root();
    let commit = Commit::head(&root)?;
    let name = format!("rust-ota-{version}");
    let work = workspace::target_directory()?.join("xtask/source");
    let tree = work.join(&name);
    workspace::fresh_directory(&tree)?;
    commit.files(&root, &tree, &LEFT_OUT)?;
    vendor(&tree)?;
    let archive = folder.join(format!("{name}.tar.xz"));
    pack(&work, &name, commit.seconds, &archive)?;
    let cargo_home = work.join("cargo");
    offline(&tree, &["metadata", "--format-version", "1"], &cargo_home)?;
    remove(&work)?;
    Ok(archive)
}

/// Writes the archive twice, compares, and builds the host tool from what is in it, without a network.
pub fn check(version: &str) -> Outcome {
    let work = workspace::target_directory()?.join("xtask/source-check");
    let mut archives = Vec::new();
    for name in ["one", "other"] {
        workspace::fresh_directory(&work.join(name))?;
        let archive = write(&work.join(name), version)?;
        archives.push(fs::read(&archive).map_err(|error| format!("{}: {error}", archive.display()))?);
    }
    if archives.first() != archives.last() {
        return Err(format!("two archives of one commit differ; they are in {}", work.display()));
    }
    let name = format!("rust-ota-{version}");
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(work.join("one").join(format!("{name}.tar.xz"))).arg("-C").arg(&work);
    workspace::run_quietly(&mut tar)?;
    offline(&work.join(name), &["build", "--quiet", "--package", "rust-ota-artifact"], &work.join("cargo"))?;
    remove(&work)
}

/// Runs cargo in an unpacked archive, as somebody does who has nothing else: without a network, and without crates of earlier
/// builds.
fn offline(tree: &Path, arguments: &[&str], cargo_home: &Path) -> Outcome {
    let mut command = cargo_in(tree);
    command.args(arguments).args(["--offline", "--locked"]).env("CARGO_HOME", cargo_home);
    workspace::capture(&mut command)
        .map(|_output| ())
        .map_err(|error| format!("the archive is not complete: {error}"))
}

/// Puts the crates into the tree, and tells cargo where they are.
fn vendor(tree: &Path) -> Outcome {
    println!("vendoring the crates");
    let mut command = cargo_in(tree);
    workspace::run(command.args(["vendor", "--locked", "--quiet", VENDOR]).stdout(Stdio::null()))?;
    let config = tree.join(".cargo/config.toml");
    let own = workspace::read(&config)?;
    workspace::write(&config, format!("{own}{CONFIGURATION}"))?;
    let wanted = wanted(tree)?;
    let folder = tree.join(VENDOR);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut emptied = 0;
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let package = entry.map_err(failed)?.path();
        if !wanted.contains(&identity(&workspace::read(&package.join("Cargo.toml"))?)?) {
            empty(&package)?;
            emptied += 1;
        }
    }
    println!("{emptied} crates are for other systems: their names are kept, their content is not");
    Ok(())
}

/// Name and version of every package that a build on Linux needs.
fn wanted(tree: &Path) -> Outcome<BTreeSet<(String, String)>> {
    let mut wanted = BTreeSet::new();
    for system in SYSTEMS {
        let mut command = cargo_in(tree);
        command.args(["metadata", "--locked", "--offline", "--all-features", "--format-version", "1"]);
        let output = workspace::capture(command.args(["--filter-platform", system]))?;
        let metadata: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
        wanted.extend(resolved(&metadata)?);
    }
    Ok(wanted)
}

/// Name and version of the packages that the resolution in `metadata` has.
fn resolved(metadata: &Value) -> Outcome<BTreeSet<(String, String)>> {
    let of = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("cargo metadata resolves nothing")?;
    let ids: BTreeSet<String> = nodes.iter().filter_map(|node| of(node, "id")).collect();
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let named = packages.iter().filter(|package| of(package, "id").is_some_and(|id| ids.contains(&id)));
    Ok(named.filter_map(|package| Some((of(package, "name")?, of(package, "version")?))).collect())
}

/// Name and version in a manifest as `cargo package` writes it: each key on a line of its own.
fn identity(manifest: &str) -> Outcome<(String, String)> {
    let package = manifest.split_once("[package]").map(|(_, rest)| rest).unwrap_or_default();
    let value = |key: &str| {
        let mut lines = package.lines().skip(1).take_while(|line| !line.starts_with('['));
        lines
            .find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='))
            .map(|value| value.trim().trim_matches('"').to_owned())
    };
    match (value("name"), value("version")) {
        (Some(name), Some(version)) => Ok((name, version)),
        (_, _) => Err("a vendored manifest has no name and version".into()),
    }
}

/// Leaves of a vendored package its manifest, its checksum, and empty files where the manifest names some.
fn empty(package: &Path) -> Outcome {
    let manifest = workspace::read(&package.join("Cargo.toml"))?;
    let checksum_path = package.join(".cargo-checksum.json");
    let checksum: Value = serde_json::from_str(&workspace::read(&checksum_path)?)
        .map_err(|error| format!("{}: {error}", checksum_path.display()))?;
    workspace::fresh_directory(package)?;
    workspace::write(&package.join("Cargo.toml"), &manifest)?;
    // The checksum of the package is what the lock file is compared with.
    workspace::write(&checksum_path, json!({ "files": {}, "package": checksum["package"] }).to_string())?;
    let paths = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix(".rs\""));
    for path in paths.chain(["src/lib"]) {
        let file = package.join(format!("{path}.rs"));
        let folder = file.parent().unwrap_or(package);
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        workspace::write(&file, "")?;
    }
    Ok(())
}

/// Archives `name` of the folder `from`: names in order, one owner, one time, and rights that do not depend on who packs.
fn pack(from: &Path, name: &str, seconds: u64, archive: &Path) -> Outcome {
    println!("packing {}", archive.display());
    let unpacked = archive.with_extension("");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--numeric-owner", "--owner=0", "--group=0"]);
    tar.args(["--mode=u+rw,go+r,go-w,a+X", &format!("--mtime=@{seconds}"), "--file"]).arg(&unpacked);
    tar.arg("--directory").arg(from).arg(name).env("LC_ALL", "C");
    workspace::run_quietly(&mut tar)?;
    // One thread: how many there are shows in the result.
    let mut xz = Command::new("xz");
    xz.args(["-9", "--threads=1", "--force"]).arg(&unpacked).env_remove("XZ_OPT").env_remove("XZ_DEFAULTS");
    workspace::run_quietly(&mut xz)
}

/// Cargo in another tree: nothing of this one's settings.
fn cargo_in(tree: &Path) -> Command {
    let mut command = workspace::cargo();
    command.current_dir(tree);
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

fn remove(folder: &Path) -> Outcome {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-tarball-{name}-{}", std::process::id()));
        workspace::fresh_directory(&folder).unwrap();
        folder
    }

    #[test]
    fn one_tree_gives_the_same_bytes_whoever_made_its_files_and_when() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("pack");
        let mut packed = Vec::new();
        for (at, mode) in [("one", 0o600), ("two", 0o664)] {
            let tree = folder.join(at).join("tree");
            // In another order, with other rights.
            let names = if at == "one" { ["b", "a"] } else { ["a", "b"] };
            fs::create_dir_all(&tree).unwrap();
            for name in names {
                fs::write(tree.join(name), name).unwrap();
                fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            let archive = folder.join(at).join("tree.tar.xz");
            pack(&folder.join(at), "tree", 1_700_000_000, &archive).unwrap();
            packed.push(fs::read(archive).unwrap());
        }
        assert!(packed[0] == packed[1] && !packed[0].is_empty());
        let later = folder.join("later.tar.xz");
        pack(&folder.join("one"), "tree", 1_700_000_001, &later).unwrap();
        assert!(fs::read(later).unwrap() != packed[0], "the time of the commit is in it");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_crate_of_another_system_keeps_what_cargo_asks_for() {
        let folder = folder("empty");
        let package = folder.join("winapi");
        fs::create_dir_all(package.join("src")).unwrap();
        let manifest = "[package]\nedition = \"2015\"\nname = \"winapi\"\nversion = \"0.3.9\"\n\n[lib]\nname = \"winapi\"\npath = \"src/lib.rs\"\n\n[dependencies.other]\nversion = \"2\"\n";
        fs::write(package.join("Cargo.toml"), manifest).unwrap();
        fs::write(package.join(".cargo-checksum.json"), r#"{"files":{"src/lib.rs":"aa"},"package":"bb"}"#)
            .unwrap();
        fs::write(package.join("src/lib.rs"), "code").unwrap();
        fs::write(package.join("big.lib"), "code").unwrap();
        assert_eq!(identity(manifest), Ok(("winapi".to_owned(), "0.3.9".to_owned())));
        empty(&package).unwrap();
        assert_eq!(fs::read_to_string(package.join("Cargo.toml")).unwrap(), manifest);
        assert_eq!(fs::read_to_string(package.join("src/lib.rs")).unwrap(), "");
        assert_eq!(
            fs::read_to_string(package.join(".cargo-checksum.json")).unwrap(),
            r#"{"files":{},"package":"bb"}"#
        );
        assert!(!package.join("big.lib").exists());
        assert!(identity("[workspace]\n").is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_packages_of_the_resolution_are_kept() {
        let metadata = json!({
            "packages": [
                { "id": "a 1", "name": "a", "version": "1.0.0" },
                { "id": "w 1", "name": "windows", "version": "1.0.0" },
            ],
            "resolve": { "nodes": [{ "id": "a 1" }] },
        });
        assert_eq!(resolved(&metadata).unwrap(), BTreeSet::from([("a".to_owned(), "1.0.0".to_owned())]));
        assert!(resolved(&json!({ "packages": [] })).is_err());
    }

    #[test]
    fn a_folder_that_is_no_commit_is_no_release() {
        let folder = folder("commit");
        // Not below this repository: git would find it.
        assert!(Commit::head(&folder).is_err_and(|error| error.contains("made of a commit")));
        fs::remove_dir_all(folder).unwrap();
    }
}
