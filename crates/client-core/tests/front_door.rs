//! What a newcomer runs first works.

#[path = "../examples/install_to_files.rs"]
#[allow(dead_code, unreachable_pub)]
mod install_to_files;

#[test]
fn the_example_installs_restarts_and_commits() {
    let folder = tempfile::tempdir().unwrap();
    install_to_files::update(folder.path()).unwrap();
}
