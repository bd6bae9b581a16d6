//! What is in a program, as CycloneDX 1.5: the crates that it is built from with their checksums and licenses, and the
//! libraries of Rust and of C.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Outcome;
use xtask::cache;

/// What the list is about.
pub struct Subject<'a> {
    /// The package, which is the program's name.
    pub program: &'a str,
    /// What Rust calls the target.
    pub triple: &'a str,
    /// When the commit was made, in seconds since 1970.
    pub seconds: u64,
    /// Name and version of the crates that are in it, as `cargo tree` has them for its features.
    pub crates: &'a BTreeSet<(String, String)>,
    /// Name and version of what is linked and is no crate, a line each.
    pub libraries: &'a str,
}

/// The packages in what `cargo tree --prefix none` prints: `NAME vVERSION`, and more.
pub fn crates(tree: &str) -> BTreeSet<(String, String)> {
    let lines = tree.lines().filter_map(|line| line.split_once(" v"));
    lines
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()))
        .collect()
}

/// The list for a subject, from what `cargo metadata` resolved for its target and the lock file.
pub fn list(subject: &Subject, metadata: &Value, lock: &str) -> Outcome<Value> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("cargo metadata resolves nothing")?;
    let packages: BTreeMap<&str, &Value> =
        packages.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let root = packages.iter().find(|(_, package)| package["name"] == subject.program);
    let (root, main) = root.ok_or_else(|| format!("there is no package {:?}", subject.program))?;
    let checksums = checksums(lock);

    let mut seen = BTreeSet::from([*root]);
    let mut waiting = vec![*root];
    let mut depends = Vec::new();
    while let Some(id) = waiting.pop() {
        let node = nodes.get(id).ok_or_else(|| format!("{id} is not resolved"))?;
        let is_in_it =
            |id: &&str| packages.get(*id).is_some_and(|package| subject.crates.contains(&identity(package)));
        let mut needs: Vec<&str> = linked(node).filter(is_in_it).collect();
        needs.sort_unstable();
        needs.dedup();
        for need in &needs {
            if seen.insert(need) {
                waiting.push(need);
            }
        }
        let refs: Vec<String> = needs.iter().filter_map(|need| packages.get(need).map(|p| purl(p))).collect();
        let package = packages.get(id).ok_or_else(|| format!("{id} is no package"))?;
        depends.push(json!({ "ref": purl(package), "dependsOn": refs }));
    }
    depends.sort_by_key(|entry| entry["ref"].as_str().map(str::to_owned));

    let crates = seen.iter().filter(|id| *id != root).filter_map(|id| packages.get(*id));
    let mut components: Vec<Value> =
        crates.map(|package| component(package, "library", &checksums)).collect();
    components.extend(subject.libraries.lines().filter_map(library));
    components.sort_by_key(|entry| entry["bom-ref"].as_str().map(str::to_owned));

    let mut list = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(subject.seconds),
            "component": component(main, "application", &checksums),
            "properties": [{ "name": "rust-ota:target", "value": subject.triple }],
        },
        "components": components,
        "dependencies": depends,
    });
    // The same list has the same number: it is made of the content.
    list["serialNumber"] = json!(uuid(&list.to_string()));
    Ok(list)
}

/// The packages of a node's normal dependencies: what is in the program, not what built or tests it.
fn linked(node: &Value) -> impl Iterator<Item = &str> {
    let deps = node["deps"].as_array().into_iter().flatten();
    let normal = deps.filter(|dep| {
        let kinds = dep["dep_kinds"].as_array().into_iter().flatten();
        kinds.into_iter().any(|kind| kind["kind"].is_null())
    });
    normal.filter_map(|dep| dep["pkg"].as_str())
}

fn identity(package: &Value) -> (String, String) {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

fn component(package: &Value, kind: &str, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = identity(package);
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    let license = package["license"].as_str().unwrap_or_default();
    if !license.is_empty() {
        // Old manifests separate alternatives by a slash.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// A line `NAME VERSION [ARCHITECTURE]` of what is linked and is no crate.
fn library(line: &str) -> Option<Value> {
    let (name, rest) = line.split_once(' ')?;
    let version = rest.split(' ').next()?;
    let purl = format!("pkg:deb/debian/{name}@{}", version.replace('+', "%2B"));
    Some(json!({ "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl }))
}

fn purl(package: &Value) -> String {
    let (name, version) = identity(package);
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Name and version of each package in a lock file that has a checksum, and that.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut checksums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

/// A UUID of version 8 (what is in it is ours to say), from the SHA-256 of `content`.
fn uuid(content: &str) -> String {
    let hash = cache::sha256(content.as_bytes());
    format!(
        "urn:uuid:{}-{}-8{}-a{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    )
}

/// `seconds` since 1970 as RFC 3339 writes them.
pub fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from civil, backwards: years begin in March, so that the leap day is the last.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"ab\"\n\n[[package]]\nname = \"rust-ota\"\nversion = \"0.1.0\"\n";

    fn metadata() -> Value {
        let package = |name: &str, license: &str| json!({ "id": name, "name": name, "version": if name == "rust-ota" { "0.1.0" } else { "1.0.0" }, "license": license });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        json!({
            "packages": [package("rust-ota", "Apache-2.0"), package("serde", "MIT/Apache-2.0"), package("cc", "MIT"), package("tempfile", "MIT")],
            "resolve": { "nodes": [
                { "id": "rust-ota", "deps": [dep("serde", Value::Null), dep("cc", json!("build")), dep("tempfile", json!("dev"))] },
                { "id": "serde", "deps": [] },
                { "id": "cc", "deps": [] },
                { "id": "tempfile", "deps": [] },
            ] },
        })
    }

    /// The list for `program` with the crates of this tree.
    fn made(program: &str, tree: &str, lock: &str) -> Outcome<Value> {
        let (triple, libraries) = ("x86_64-unknown-linux-musl", "musl-dev 1.2.3-1 amd64");
        let subject = Subject { program, triple, seconds: 1_700_000_000, crates: &crates(tree), libraries };
        list(&subject, &metadata(), lock)
    }

    const TREE: &str = "rust-ota v0.1.0 (/somewhere)\nserde v1.0.0\nserde v1.0.0 (*)\n";

    #[test]
    fn what_is_linked_is_listed_with_its_checksum_and_what_builds_or_tests_is_not() {
        let list = made("rust-ota", TREE, LOCK).unwrap();
        let names: Vec<&str> =
            list["components"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(names, ["serde", "musl-dev"]);
        let serde = &list["components"][0];
        assert_eq!(serde["hashes"][0]["content"], "ab");
        assert_eq!(serde["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(list["dependencies"][0]["dependsOn"], json!(["pkg:cargo/serde@1.0.0"]));
        assert_eq!(list["metadata"]["component"]["purl"], "pkg:cargo/rust-ota@0.1.0");
        assert_eq!(list["metadata"]["timestamp"], "2023-11-14T22:13:20Z");

        // A feature that another program of the workspace asks for is not this one's.
        let without = made("rust-ota", "rust-ota v0.1.0\n", LOCK).unwrap();
        assert_eq!(without["components"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_same_content_has_the_same_number_and_other_content_another() {
        let one = made("rust-ota", TREE, LOCK).unwrap();
        assert_eq!(one, made("rust-ota", TREE, LOCK).unwrap());
        let other = made("rust-ota", TREE, "").unwrap();
        assert_ne!(one["serialNumber"], other["serialNumber"]);
        assert!(made("rust-nothing", TREE, LOCK).is_err());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
