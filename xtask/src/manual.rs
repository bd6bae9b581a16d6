//! `cargo xtask manual`: man pages and completions, from the description that the programs print their help from.

use std::path::{Path, PathBuf};

use ::manual::pages::File;

use crate::options::Options;
use crate::{Outcome, workspace};

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask manual [--out DIR]
       cargo xtask manual --root DIR [PROGRAM]...
       cargo xtask manual --check

Writes what is installed beside the programs into DIR, by default target/dist: man pages into man, completions into
completions/bash, completions/zsh and completions/fish.

--root writes them where packages have them below DIR, such as DIR/usr/share/man/man8, of all programs or of those that are
named.

--check reads them as others do: groff has no complaint, and bash, zsh and fish offer what is there.
";

/// Writes them and says where.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let checks = options.flag("--check");
    let folder = options.value("--out")?.map(PathBuf::from);
    let root = options.value("--root")?.map(PathBuf::from);
    let programs = options.words();
    options.finish()?;
    let written = match (checks, folder, root) {
        (true, None, None) if programs.is_empty() => return crate::test::manual::check_all(),
        (false, None, Some(root)) => install(&root, &programs)?,
        (false, None, None) if programs.is_empty() => write(&workspace::target_directory()?.join("dist"))?,
        (false, Some(folder), None) if programs.is_empty() => write(&folder)?,
        _ => {
            return Err("--check, --out and --root exclude each other, and only --root takes programs".into());
        }
    };
    written.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}

/// Writes those of all programs below `folder`, each kind in a folder of its own. The paths.
pub fn write(folder: &Path) -> Outcome<Vec<PathBuf>> {
    files().iter().map(|file| put(folder.join(&file.path), file)).collect()
}

/// Writes those of these programs, or of all, where packages have them. The paths.
pub fn install(root: &Path, programs: &[&str]) -> Outcome<Vec<PathBuf>> {
    let files = files();
    if let Some(unknown) = programs.iter().find(|name| files.iter().all(|file| file.program != **name)) {
        return Err(format!("there is no program {unknown:?}"));
    }
    let wanted = files.iter().filter(|file| programs.is_empty() || programs.contains(&file.program));
    wanted.map(|file| put(root.join(&file.installed), file)).collect()
}

fn files() -> Vec<File> {
    ::manual::pages::files(env!("CARGO_PKG_VERSION"))
}

fn put(path: PathBuf, file: &File) -> Outcome<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
    workspace::write(&path, &file.text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_gets_the_files_of_its_program_and_no_others() {
        let folder = std::env::temp_dir().join(format!("xtask-manual-{}", std::process::id()));
        let written = install(&folder, &["rust-ota"]).unwrap();
        let there = workspace::files_of(&folder).unwrap();
        let refused = install(&folder, &["rust-ota", "rust-oat"]);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(written.len(), there.len());
        let expected = [
            "usr/share/bash-completion/completions/rust-ota",
            "usr/share/fish/vendor_completions.d/rust-ota.fish",
            "usr/share/man/man8/rust-ota.8",
            "usr/share/zsh/vendor-completions/_rust-ota",
        ];
        assert_eq!(there, expected.map(PathBuf::from));
        assert!(refused.unwrap_err().contains("rust-oat"));
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for words in [&["--check", "--out", "x"][..], &["--out", "x", "--root", "y"], &["rust-ota"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert!(run(&words).is_err(), "{words:?}");
        }
    }
}
