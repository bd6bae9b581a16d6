//! What is published packs: every manifest, file and version that a registry asks for is there.

use crate::{Outcome, workspace};

/// Packs every package that may be published. They are not built once more: they were, with the rest of the workspace.
pub fn pack() -> Outcome {
    let metadata = workspace::metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    // `publish` is null where everywhere will do, and an empty list where nowhere will.
    let published = packages.iter().filter(|package| package["publish"].is_null());
    let names: Vec<&str> = published.filter_map(|package| package["name"].as_str()).collect();
    if names.is_empty() {
        return Err("no package is to be published".into());
    }
    let mut command = workspace::cargo();
    command.args(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    workspace::run(command.args(names.iter().flat_map(|name| ["--package", name])))
}
