//! `cargo xtask page`: the page of the server in a real browser. What it needs from the npm registry goes into target/page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::options::Options;
use crate::{Outcome, debian, workspace};

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask page [--pictures] [--no-install] [FILE]...

Runs the tests of the page (tests/page) in Chromium against the real server, each from an empty folder; with FILE only
these. --pictures writes the pictures of the documents anew (docs/pictures), from what the tests see. Node.js and npm have to be
there; Debian's Chromium is installed where that is allowed.
";

/// Where the sources of the tests are.
const TESTS: &str = "tests/page";
/// Texts of a library, and what stands there instead.
type Changes = &'static [(&'static str, &'static str)];
/// Files of `server/page/lib`, which files of packages they are, and what is changed in them.
const LIBRARIES: &[(&str, &str, Changes)] = &[
    ("preact.js", "preact/dist/preact.mjs", &[]),
    ("hooks.js", "preact/hooks/dist/hooks.mjs", &[("from\"preact\"", "from\"./preact.js\"")]),
    ("htm.js", "htm/dist/htm.mjs", &[]),
    ("xterm.js", "@xterm/xterm/lib/xterm.mjs", XTERM),
    ("xterm.css", "@xterm/xterm/css/xterm.css", &[]),
];
/// The page's Content-Security-Policy takes no `<style>` and no `style` that a script writes as text.
const XTERM: Changes = &[
    (
        "var zs=Object.defineProperty;",
        "import{sheetElement}from\"../sheet.js\";var zs=Object.defineProperty;",
    ),
    ("this._document.createElement(\"style\")", "sheetElement()"),
    ("n.mainDocument.createElement(\"style\")", "sheetElement()"),
    ("t.setAttribute(\"style\",`${t.getAttribute(\"style\")||\"\"}${e};`)", "t.style.cssText+=`${e};`"),
];
/// Where pictures go.
const PICTURES: &str = "docs/pictures";

/// Runs them with a build of now.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let (pictures, no_install) = (options.flag("--pictures"), options.flag("--no-install"));
    let files: Vec<String> = options.words().into_iter().map(str::to_owned).collect();
    options.finish()?;
    let modules = prepare(!no_install)?;
    let mut build = workspace::cargo();
    build.args(["build", "-p", "rust-ota-server", "-p", "rust-ota-artifact"]);
    workspace::run(&mut build)?;
    let folder = workspace::target_directory()?.join("debug");
    let pictures = pictures.then(|| workspace::root().join(PICTURES));
    test(&modules, &folder, pictures.as_deref(), &files)
}

/// Runs them with the programs in `programs`; `modules` is what [`prepare`] has returned.
pub fn test(modules: &Path, programs: &Path, pictures: Option<&Path>, files: &[String]) -> Outcome {
    check_libraries(modules)?;
    let tests = workspace::root().join(TESTS);
    let mut node = Command::new("node");
    // One after the other: each has a browser of its own, and what it waits for is bounded.
    node.args(["--test", "--test-concurrency=1"]);
    if files.is_empty() {
        node.args(files_of(&tests, ".test.mjs")?);
    } else {
        node.args(files);
    }
    node.env("ROTA_NODE_MODULES", modules)
        .env("ROTA_SERVER", programs.join("rust-ota-server"))
        .env("ROTA_ARTIFACT", programs.join("rust-ota-artifact"))
        .current_dir(workspace::root())
        .stdin(Stdio::null());
    if let Some(pictures) = pictures {
        node.env("ROTA_PICTURES", pictures);
    }
    workspace::run(&mut node)
}

/// The libraries in the page are what the registry has, but for the lines that their README names.
fn check_libraries(modules: &Path) -> Outcome {
    let page = workspace::root().join("server/page/lib");
    for (ours, theirs, changes) in LIBRARIES {
        let mut published = workspace::read(&modules.join(theirs))?;
        for (from, to) in *changes {
            if !published.contains(from) {
                return Err(format!("{theirs} has no {from}"));
            }
            published = published.replace(from, to);
        }
        let kept = |line: &&str| !line.starts_with("//# sourceMappingURL=");
        let published: Vec<&str> = published.lines().filter(kept).collect();
        if workspace::read(&page.join(ours))?.lines().collect::<Vec<_>>() != published {
            return Err(format!("server/page/lib/{ours} is not {theirs} of the registry"));
        }
    }
    Ok(())
}

/// The files of a folder whose names end so, in the order of their names.
fn files_of(folder: &Path, end: &str) -> Outcome<Vec<PathBuf>> {
    let read = |error| format!("cannot read {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.to_string_lossy().ends_with(end) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the folder with the packages, which are fetched first if they are not there and `may_install`; else why not.
pub fn prepare(may_install: bool) -> Outcome<PathBuf> {
    let tools = debian::prepare_for_page(may_install);
    if !tools.missing.is_empty() {
        return Err(format!("{} are missing: {}", tools.missing.join(", "), tools.reason));
    }
    for program in ["node", "npm"] {
        if !debian::has(program) {
            return Err(format!("there is no {program}"));
        }
    }
    let folder = workspace::target_directory()?.join("page");
    let modules = folder.join("node_modules");
    let lock = "package-lock.json";
    let wanted = workspace::read(&workspace::root().join(TESTS).join(lock))?;
    // Written behind the work: what was cut short is begun anew.
    let done = folder.join("installed");
    if workspace::read(&done).is_ok_and(|there| there == wanted) {
        return Ok(modules);
    }
    if !may_install {
        return Err(format!("{} is not as {lock} says and --no-install was given", modules.display()));
    }
    workspace::fresh_directory(&folder)?;
    workspace::write(
        &folder.join("package.json"),
        workspace::read(&workspace::root().join(TESTS).join("package.json"))?,
    )?;
    workspace::write(&folder.join(lock), &wanted)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).stdin(Stdio::null());
    workspace::run(&mut npm)?;
    workspace::write(&done, &wanted)?;
    Ok(modules)
}
