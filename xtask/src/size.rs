//! `cargo xtask size`: the client as it ships, and whether it is as small and as static as promised.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::compilers::Arch;
use crate::options::Options;
use crate::shipped::{self, CLIENT, Tree, Way};
use crate::{Outcome, markdown, workspace};

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask size [--target TRIPLE | --all-targets | --library]
       cargo xtask size --features [--write]

Builds the client as it ships, for this machine with musl where its compilers can be had, and fails when it is larger than
promised or not static. `cargo xtask dist` is what builds it to be used.

  --all-targets   x86_64, aarch64 and armv7
  --library       the shared C library for this machine, with its own compiler and C library
  --features      what each feature costs, a build each; --write puts the table into docs/performance.md
";

/// The promise for each processor, with TLS and every decoder: 2.4 MiB and 2.2 MiB.
fn limit_bytes(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => 2_516_582,
        Arch::Aarch64 | Arch::Armv7 => 2_306_867,
    }
}

/// Builds, prints and judges.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let target = options.value("--target")?;
    let (all, features, write) =
        (options.flag("--all-targets"), options.flag("--features"), options.flag("--write"));
    let library = options.flag("--library");
    options.finish()?;
    match (target, all, features) {
        (None, false, false) if library => check_library(),
        (Some(triple), false, false) => check(&Way::to(Some(triple))?),
        (None, true, false) => {
            // Each is judged, whatever came of the others.
            let results: Vec<Outcome> =
                Arch::ALL.iter().map(|arch| check(&Way::to(Some(arch.triple()))?)).collect();
            let errors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
            if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
        }
        (None, false, true) => features_table(write),
        (None, false, false) => {
            if let Some(reason) = check_here()? {
                println!("with this machine's own compiler and C library: {reason}");
            }
            Ok(())
        }
        (Some(_), _, _) | (None, true, true) => {
            Err("--target, --all-targets and --features exclude each other".into())
        }
    }
}

/// The check for this machine. Says why it was not that of the build with musl, if it was not.
pub fn check_here() -> Outcome<Option<String>> {
    let (way, reason) = Way::best()?;
    check(&way)?;
    Ok(reason)
}

/// The promise for the shared C library, stripped: 1.6 MiB.
const LIBRARY_LIMIT_BYTES: u64 = 1_677_721;

/// Builds the C library and judges its size.
pub fn check_library() -> Outcome {
    let library = shipped::library(&Tree::own()?)?;
    let bytes = fs::metadata(&library).map_err(|error| format!("{}: {error}", library.display()))?.len();
    println!("{}: {bytes} bytes ({:.2} MiB), stripped", library.display(), mebibytes(bytes));
    if bytes > LIBRARY_LIMIT_BYTES {
        return Err(format!("{bytes} bytes are more than the {LIBRARY_LIMIT_BYTES} promised"));
    }
    println!("{} bytes below the limit of {LIBRARY_LIMIT_BYTES}", LIBRARY_LIMIT_BYTES - bytes);
    Ok(())
}

fn check(way: &Way) -> Outcome {
    let program = shipped::build(CLIENT, way, &[], &Tree::own()?)?;
    let limit = match way {
        Way::Musl(compilers) => Some(limit_bytes(compilers.arch())),
        // With the machine's own compiler and C library it is not what ships: its size is told.
        Way::Machine(_) => None,
    };
    judge(&program, way.triple(), limit)
}

fn judge(program: &Path, triple: &str, limit: Option<u64>) -> Outcome {
    let bytes = fs::read(program).map_err(|error| format!("cannot read {}: {error}", program.display()))?;
    let linking = match needs_loader(&bytes) {
        Some(false) => "static",
        Some(true) => "dynamic",
        None => "not an ELF program of this kind",
    };
    let size = bytes.len() as u64;
    println!("{}", program.display());
    println!("{CLIENT} for {triple}: {size} bytes ({:.2} MiB), {linking}, stripped", mebibytes(size));
    if let Some(limit) = limit.filter(|limit| size > *limit) {
        return Err(format!("{triple}: {size} bytes are more than the {limit} promised"));
    }
    if needs_loader(&bytes) != Some(false) {
        return Err(format!("{triple}: the program is not static"));
    }
    match limit {
        Some(limit) => println!("{} bytes below the limit of {limit}", limit - size),
        None => println!("no limit: what ships is built with musl"),
    }
    Ok(())
}

/// A set of features, and what the table calls it.
struct Selection {
    name: String,
    features: Vec<String>,
}

/// All that ships; each of its features left out; each other one besides; none.
fn selections(metadata: &Value) -> Outcome<Vec<Selection>> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let package = packages.iter().find(|found| found["name"] == CLIENT);
    let features = package.and_then(|found| found["features"].as_object());
    let features = features.ok_or_else(|| format!("cargo metadata has no features of {CLIENT}"))?;
    let default = features.get("default").and_then(Value::as_array);
    let default = default.ok_or_else(|| format!("{CLIENT} has no default features"))?;
    let default: Vec<String> = default.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut selections = vec![Selection { name: "as it ships".into(), features: default.clone() }];
    for without in &default {
        let features = default.iter().filter(|feature| *feature != without).cloned().collect();
        selections.push(Selection { name: format!("without `{without}`"), features });
    }
    selections.push(Selection { name: "without all of these".into(), features: Vec::new() });
    for other in features.keys().filter(|name| *name != "default" && !default.contains(name)) {
        let features = default.iter().chain([other]).cloned().collect();
        selections.push(Selection { name: format!("with `{other}` besides"), features });
    }
    Ok(selections)
}

fn features_table(write: bool) -> Outcome {
    let (way, reason) = Way::best()?;
    if let Some(reason) = reason {
        return Err(format!("the table is made with musl: {reason}"));
    }
    let tree = Tree::own()?;
    let mut table = format!(
        "For {}.\n\n| client | bytes | MiB | difference |\n| --- | --- | --- | --- |\n",
        way.triple()
    );
    let mut ships = None;
    for selection in selections(&workspace::metadata()?)? {
        let features = selection.features.join(",");
        let arguments = ["--no-default-features", "--features", &features];
        let program = shipped::build(CLIENT, &way, &arguments, &tree)?;
        let bytes = fs::metadata(&program).map_err(|error| format!("{}: {error}", program.display()))?.len();
        let ships = *ships.get_or_insert(bytes);
        let difference = i128::from(bytes) - i128::from(ships);
        let difference = if difference == 0 { String::new() } else { format!("{difference:+}") };
        table += &format!("| {} | {bytes} | {:.2} | {difference} |\n", selection.name, mebibytes(bytes));
    }
    print!("{table}");
    if write {
        let path = workspace::root().join("docs/performance.md");
        let page = markdown::with_section(&workspace::read(&path)?, "size", &table)?;
        workspace::write(&path, page)?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Whether an ELF program asks for a dynamic loader (has a segment `PT_INTERP`). `None` for anything but a
/// little-endian ELF program.
fn needs_loader(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF") || elf.get(5) != Some(&1) {
        return None;
    }
    let (table, entry_bytes, entries) = match elf.get(4)? {
        1 => (number(0x1c, 4)?, number(0x2a, 2)?, number(0x2c, 2)?),
        2 => (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?),
        _ => return None,
    };
    let mut interpreter = false;
    for index in 0..entries {
        let at = usize::try_from(table + index * entry_bytes).ok()?;
        interpreter |= number(at, 4)? == PT_INTERP;
    }
    Some(interpreter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This test is one, on every target that the project is developed on.
        let this = std::env::current_exe().unwrap();
        assert_eq!(needs_loader(&fs::read(&this).unwrap()), Some(true));

        let mut elf = fs::read(this).unwrap();
        let table = u64::from_le_bytes(elf[0x20..0x28].try_into().unwrap()) as usize;
        for entry in 0..usize::from(elf[0x38]) {
            let kind = table + entry * 56;
            if elf[kind] == 3 {
                elf[kind] = 0;
            }
        }
        assert_eq!(needs_loader(&elf), Some(false));
    }

    #[test]
    fn the_table_has_each_feature_that_can_be_left_out_or_added() {
        let features =
            serde_json::json!({ "default": ["gzip", "xz"], "gzip": [], "xz": [], "dbus": ["dep:zbus"] });
        let metadata = serde_json::json!({ "packages": [{ "name": CLIENT, "features": features }] });
        let found = selections(&metadata).unwrap();
        let found: Vec<(&str, String)> =
            found.iter().map(|one| (one.name.as_str(), one.features.join(","))).collect();
        let expected = [
            ("as it ships", "gzip,xz"),
            ("without `gzip`", "xz"),
            ("without `xz`", "gzip"),
            ("without all of these", ""),
            ("with `dbus` besides", "gzip,xz,dbus"),
        ];
        assert_eq!(found, expected.map(|(name, features)| (name, features.to_owned())));
        assert!(selections(&serde_json::json!({ "packages": [] })).is_err());
    }

    #[test]
    fn a_program_above_its_limit_or_with_a_loader_is_refused() {
        let this = std::env::current_exe().unwrap();
        let size = fs::metadata(&this).unwrap().len();
        assert!(judge(&this, "here", Some(size - 1)).unwrap_err().contains("promised"));
        assert!(judge(&this, "here", Some(size)).unwrap_err().contains("not static"));
    }

    #[test]
    fn options_that_exclude_each_other_are_refused_before_anything_is_built() {
        for arguments in [["--target", "x", "--all-targets"], ["--all-targets", "--features", "--write"]] {
            assert!(run(&arguments.map(String::from)).unwrap_err().contains("exclude"));
        }
    }

    #[test]
    fn what_is_no_program_is_not_judged() {
        assert_eq!(needs_loader(b""), None);
        assert_eq!(needs_loader(b"#!/bin/sh"), None);
        assert_eq!(needs_loader(b"\x7fELF\x02\x01\x01"), None);
    }
}
