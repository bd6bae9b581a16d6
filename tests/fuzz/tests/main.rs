//! The corpora of the fuzz targets, replayed: what a fuzzer once found stays found.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_entries::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap())).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_corpus_is_taken_without_a_broken_promise() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        let files = names(&folder);
        assert!(files.len() >= 3, "the corpus of {} is nearly empty", target.name);
        for name in &files {
            // Shown only with a failure.
            println!("{}/{name}", target.name);
            (target.run)(&fs::read(folder.join(name)).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_else_has() {
    let known: Vec<String> = {
        let mut known: Vec<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        known.sort();
        known
    };
    assert_eq!(names(&fuzz().join("corpus")), known);
    let programs: Vec<String> = names(&fuzz().join("fuzz_targets"))
        .iter()
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    assert_eq!(programs, known);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml has no {name}");
    }
}
