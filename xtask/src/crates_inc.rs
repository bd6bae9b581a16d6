//! `cargo xtask crates-inc`: what the Yocto layer says of this workspace, generated from it, and compared with it.
//!
//! The crates with their checksums, the oldest compiler, the version in the names of the recipes, and the features that
//! `PACKAGECONFIG` may name. It does not run BitBake.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::options::Options;
use crate::{Outcome, workspace};

/// What is generated.
const CRATES: &str = "yocto/meta-rust-ota/recipes-core/rust-ota/rust-ota-crates.inc";
/// The layer.
const LAYER: &str = "yocto/meta-rust-ota";
/// What a crate comes from, in `Cargo.lock`.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask crates-inc

Writes the crates of Cargo.lock with their checksums, and the oldest compiler, for the recipes of yocto/meta-rust-ota. That
the file, the versions in the names of the recipes, and the features that a recipe asks for are those of the workspace is
looked at by cargo xtask tidy.
";

/// A crate of the registry, as `Cargo.lock` has it.
#[derive(Debug, PartialEq, Eq)]
struct Crate {
    name: String,
    version: String,
    checksum: String,
}

/// Writes the file.
pub fn run(arguments: &[String]) -> Outcome {
    Options::new(arguments).finish()?;
    workspace::write(&workspace::root().join(CRATES), generated(&manifest()?)?)
}

/// What of the layer is not as this workspace has it.
pub fn findings(files: &[PathBuf], metadata: &Value) -> Outcome<Vec<String>> {
    let root = workspace::root();
    let manifest = manifest()?;
    let mut findings = Vec::new();
    if workspace::read(&root.join(CRATES))? != generated(&manifest)? {
        findings.push(format!("{CRATES} is not that of Cargo.lock: run cargo xtask crates-inc"));
    }
    let version = value_of(&manifest, "version")?;
    for recipe in recipes(files) {
        findings.extend(version_finding(&recipe, &version));
        let said = workspace::read(&root.join(&recipe))?;
        findings.extend(feature_findings(&recipe, &said, metadata)?);
    }
    Ok(findings)
}

/// The workspace's own Cargo.toml.
fn manifest() -> Outcome<String> {
    workspace::read(&workspace::root().join("Cargo.toml"))
}

/// What the file has to say, by `manifest` and Cargo.lock.
fn generated(manifest: &str) -> Outcome<String> {
    let oldest = value_of(manifest, "rust-version")?;
    Ok(include_file(&crates(&workspace::read(&workspace::root().join("Cargo.lock"))?)?, &oldest))
}

/// The recipes of the layer that are ours.
fn recipes(files: &[PathBuf]) -> Vec<PathBuf> {
    let ours = |path: &&PathBuf| path.starts_with(LAYER) && path.extension().is_some_and(|end| end == "bb");
    files.iter().filter(ours).cloned().collect()
}

/// The value of `key = "value"` under `[workspace.package]`.
fn value_of(manifest: &str, key: &str) -> Outcome<String> {
    let below = manifest.split_once("[workspace.package]").map(|(_, below)| below).unwrap_or_default();
    let table = below.split("\n[").next().unwrap_or_default();
    let found = table.lines().find_map(|line| field(line, key));
    found.map(str::to_owned).ok_or_else(|| format!("Cargo.toml: [workspace.package] has no {key}"))
}

/// The text of `key = "text"`.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
    rest.trim().strip_prefix('"')?.strip_suffix('"')
}

/// The crates of the registry. Those of the workspace have no source; any other source is one that nobody fetches here.
fn crates(lock: &str) -> Outcome<Vec<Crate>> {
    let mut found = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| block.lines().find_map(|line| field(line, key)).map(str::to_owned);
        let name = value("name").ok_or("Cargo.lock has a package without a name")?;
        let Some(source) = value("source") else { continue };
        if source != REGISTRY {
            return Err(format!(
                "Cargo.lock: {name} comes from {source}, and the recipes fetch from crates.io only"
            ));
        }
        let version = value("version").ok_or_else(|| format!("Cargo.lock: {name} has no version"))?;
        let checksum = value("checksum").ok_or_else(|| format!("Cargo.lock: {name} has no checksum"))?;
        found.push(Crate { name, version, checksum });
    }
    Ok(found)
}

/// The file for the recipes, in the form that the core's own generator writes.
fn include_file(crates: &[Crate], oldest: &str) -> String {
    let mut text = "# From Cargo.lock and Cargo.toml by `cargo xtask crates-inc`. Every recipe of the workspace takes all of it: \
                    cargo\n# reads the whole lock, whichever package it builds.\n\n"
        .to_owned();
    text += &format!("RUST_OTA_OLDEST_RUST = \"{oldest}\"\n\nSRC_URI += \"\\\n");
    for Crate { name, version, .. } in crates {
        text += &format!("    crate://crates.io/{name}/{version} \\\n");
    }
    text += "\"\n\n";
    for Crate { name, version, checksum } in crates {
        text += &format!("SRC_URI[{name}-{version}.sha256sum] = \"{checksum}\"\n");
    }
    text
}

/// A recipe whose name has another version than the workspace: it would look for a folder that is not there.
fn version_finding(recipe: &Path, version: &str) -> Option<String> {
    let stem = recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let has = stem.rsplit_once('_').map(|(_, has)| has).unwrap_or_default();
    (has != version).then(|| format!("{}: the version of the workspace is {version}", recipe.display()))
}

/// Features after `--features` that the package of the recipe does not have, and those of its own choice that the recipe of a
/// program without that choice does not offer.
fn feature_findings(recipe: &Path, text: &str, metadata: &Value) -> Outcome<Vec<String>> {
    let mut asked = BTreeSet::new();
    for (_, after) in text.match_indices("--features ").map(|(at, word)| text.split_at(at + word.len())) {
        asked.insert(after.split([',', '"', ' ', '\n']).next().unwrap_or_default());
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let stem = recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let named = text.lines().find_map(|line| field(line, "RUST_OTA_PACKAGE"));
    let package = named.unwrap_or_else(|| stem.split('_').next().unwrap_or_default());
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let Some(found) = packages.iter().find(|found| found["name"] == package) else {
        return Ok(vec![format!("{}: the workspace has no package {package}", recipe.display())]);
    };
    let known = &found["features"];
    let chosen = known["default"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let forgotten = chosen.filter(|feature| !asked.contains(feature));
    let forgotten = forgotten.map(|feature| format!("{}: no PACKAGECONFIG[{feature}]", recipe.display()));
    let missing = asked.iter().filter(|feature| known.get(**feature).is_none());
    let missing = missing.map(|feature| format!("{}: {package} has no feature {feature}", recipe.display()));
    Ok(forgotten.chain(missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "aes"
version = "0.8.4"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "b169"
dependencies = [
 "cfg-if",
]

[[package]]
name = "rust-ota"
version = "0.1.0"
"#;

    #[test]
    fn crates_of_the_registry_are_listed_with_their_checksums_and_the_workspace_is_not() {
        let text = include_file(&crates(LOCK).unwrap(), "1.85");
        assert!(text.contains("    crate://crates.io/aes/0.8.4 \\\n"), "{text}");
        assert!(text.contains("SRC_URI[aes-0.8.4.sha256sum] = \"b169\"\n"), "{text}");
        assert!(text.contains("RUST_OTA_OLDEST_RUST = \"1.85\"\n"), "{text}");
        assert!(!text.contains("io/rust-ota"), "{text}");
    }

    #[test]
    fn a_crate_from_another_place_is_refused_by_name() {
        let error = crates(&LOCK.replace("registry+", "git+")).unwrap_err();
        assert!(error.contains("aes comes from git+"), "{error}");
    }

    #[test]
    fn the_version_of_a_dependency_is_not_that_of_the_workspace() {
        let manifest =
            "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\nrust-version = \"9\"\n";
        assert_eq!(value_of(manifest, "version"), Ok("0.1.0".into()));
        assert!(value_of(manifest, "rust-version").is_err());
    }

    #[test]
    fn a_recipe_of_another_version_or_with_an_unknown_feature_is_found() {
        let recipe = Path::new("yocto/meta-rust-ota/recipes-core/rust-ota/rust-ota_0.1.0.bb");
        assert_eq!(version_finding(recipe, "0.1.0"), None);
        assert!(version_finding(recipe, "0.2.0").unwrap().contains("0.2.0"));
        let metadata = serde_json::json!({"packages": [{"name": "rust-ota", "features": {"xz": []}}]});
        let text = "PACKAGECONFIG[xz] = \"--features xz,,xz\"\nPACKAGECONFIG[lz4] = \"--features lz4\"\n";
        let found = feature_findings(recipe, text, &metadata).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("rust-ota has no feature lz4"), "{}", found[0]);
        let grown = serde_json::json!({"packages": [
            {"name": "rust-ota", "features": {"xz": [], "lz4": [], "zstd": [], "default": ["xz", "zstd"]}}
        ]});
        let found = feature_findings(recipe, text, &grown).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("no PACKAGECONFIG[zstd]"), "{}", found[0]);
        let other = format!("RUST_OTA_PACKAGE = \"rust-ota-ffi\"\n{text}");
        assert!(feature_findings(recipe, &other, &metadata).unwrap()[0].ends_with("no package rust-ota-ffi"));
    }
}
