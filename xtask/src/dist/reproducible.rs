//! Whether a commit gives the same programs wherever and whenever it is built.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::shipped::{self, Tree, Way};

use super::tarball::Commit;
use crate::{Outcome, workspace};

/// Builds the commit that is checked out in two folders whose names have different lengths, and compares the bytes.
pub fn check(programs: &[&str], target: &str) -> Outcome {
    let way = Way::to(Some(target))?;
    let root = workspace::root();
    let commit = Commit::head(&root)?;
    let work = workspace::target_directory()?.join("xtask/twice");
    let mut trees = Vec::new();
    for name in ["one", "the-other-folder"] {
        let tree = Tree { root: work.join(name).join("source"), target: work.join(name).join("built") };
        workspace::fresh_directory(&tree.root)?;
        commit.files(&root, &tree.root, &[])?;
        // From nothing: what an earlier run left would be compared with itself.
        workspace::fresh_directory(&tree.target)?;
        trees.push(tree);
    }
    for program in programs {
        let mut built = Vec::new();
        for tree in &trees {
            built.push(shipped::build(program, &way, &[], tree)?);
        }
        let [one, other] = built.as_slice() else { return Err("there are not two builds".into()) };
        let folders: Vec<PathBuf> = std::iter::once(work.clone()).chain(shipped::cargo_home()).collect();
        same(one, other)?;
        names_no_folder(one, &folders)?;
        println!("{program} for {target}: the same {} bytes from two folders", bytes(one)?.len());
    }
    fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))
}

fn bytes(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Both stay where they are when they differ, to be looked at.
fn same(one: &Path, other: &Path) -> Outcome {
    let (first, second) = (bytes(one)?, bytes(other)?);
    if first == second {
        return Ok(());
    }
    let at = first.iter().zip(&second).position(|(a, b)| a != b).unwrap_or(first.len().min(second.len()));
    Err(format!(
        "{} ({} bytes) and {} ({} bytes) differ, first at byte {at}",
        one.display(),
        first.len(),
        other.display(),
        second.len()
    ))
}

/// Whether a file has the name of one of `folders` in it.
fn names_no_folder(file: &Path, folders: &[PathBuf]) -> Outcome {
    let bytes = bytes(file)?;
    for folder in folders {
        let name = folder.as_os_str().as_encoded_bytes();
        if let Some(at) = bytes.windows(name.len().max(1)).position(|part| part == name) {
            return Err(format!(
                "{} has the folder {} in it, at byte {at}",
                file.display(),
                folder.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_and_the_name_of_a_folder_are_found() {
        let folder = std::env::temp_dir().join(format!("xtask-twice-{}", std::process::id()));
        workspace::fresh_directory(&folder).unwrap();
        let (one, other) = (folder.join("one"), folder.join("other"));
        fs::write(&one, b"a program").unwrap();
        fs::write(&other, b"a program").unwrap();
        assert_eq!(same(&one, &other), Ok(()));
        fs::write(&other, b"a pr0gram").unwrap();
        assert!(same(&one, &other).unwrap_err().contains("byte 4"));
        fs::write(&other, b"a program, longer").unwrap();
        assert!(same(&one, &other).unwrap_err().contains("byte 9"));

        let machine = [PathBuf::from("/somebody/project"), PathBuf::from("/somebody/crates")];
        assert_eq!(names_no_folder(&one, &machine), Ok(()));
        fs::write(&one, b"panic at /somebody/crates/x.rs").unwrap();
        assert!(names_no_folder(&one, &machine).unwrap_err().contains("byte 9"));
        fs::remove_dir_all(folder).unwrap();
    }
}
