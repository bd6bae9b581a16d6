//! The daemons that tests compare with or fetch from. Debian's packages of them are unpacked into a folder of the project and never
//! installed: an installed one is a service that starts with the machine and asks somebody's server for updates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, workspace};

/// Says to the tests where the unpacked packages are.
pub const FOLDER: &str = "ROTA_PEERS";

/// The packages, and what of each must be there.
const PACKAGES: &[(&str, &[&str])] = &[
    ("mender-client", &["usr/bin/mender", "usr/share/mender/modules/v3/single-file"]),
    ("mender-connect", &["usr/bin/mender-connect"]),
    ("mender-cli", &["usr/bin/mender-cli"]),
    ("nginx", &["usr/sbin/nginx"]),
];

/// The same for the programs that installations are measured against. Their libraries are unpacked too where few machines
/// have them.
const INSTALLERS: &[(&str, &[&str])] = &[
    ("mender-client", &["usr/bin/mender"]),
    ("swupdate", &["usr/bin/swupdate"]),
    ("rauc", &["usr/bin/rauc"]),
    ("libb2-1", &[]),
    ("libconfig9", &[]),
    ("libgpiod2", &[]),
    ("libjson-glib-1.0-0", &[]),
    ("liblua5.3-0", &[]),
    ("librsync2", &[]),
    ("libswupdate0.1", &[]),
    ("liburiparser1", &[]),
    ("libwebsockets17", &[]),
    ("libzck1", &[]),
];

/// The same for the database of the tests. Its programs find what belongs to them beside themselves.
const POSTGRES: &[(&str, &[&str])] = &[
    ("postgresql-15", &["usr/lib/postgresql/15/bin/postgres", "usr/lib/postgresql/15/bin/initdb"]),
    ("postgresql-client-15", &["usr/lib/postgresql/15/bin/psql"]),
];

/// Says to the tests where the programs of PostgreSQL are.
pub const POSTGRES_FOLDER: &str = "RUST_OTA_POSTGRES";

/// Where Debian has the programs of PostgreSQL.
const POSTGRES_PROGRAMS: &str = "usr/lib/postgresql/15/bin";

/// Where the libraries of `INSTALLERS` lie in their folder.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Which packages were unpacked, with their versions.
const LIST: &str = "packages";

/// Where they are, or would be: kept until the build output is removed.
pub fn folder() -> Outcome<PathBuf> {
    Ok(workspace::target_directory()?.join("peers"))
}

/// The folder with the programs that installations are measured against, which are unpacked if they are not there.
pub fn installers() -> Outcome<PathBuf> {
    let folder = workspace::target_directory()?.join("peers-that-install");
    if !has_all(&folder, INSTALLERS) {
        unpack_all(&folder, INSTALLERS)?;
    }
    Ok(folder)
}

/// The installed programs of PostgreSQL, if they are.
pub fn installed_postgres() -> Option<PathBuf> {
    let programs = Path::new("/").join(POSTGRES_PROGRAMS);
    ["postgres", "initdb", "psql"].iter().all(|name| programs.join(name).is_file()).then_some(programs)
}

/// The unpacked programs of PostgreSQL, which are unpacked first if they are not there, and the packages of libraries that this
/// machine does not have.
pub fn unpacked_postgres() -> Outcome<(PathBuf, Vec<&'static str>)> {
    let folder = workspace::target_directory()?.join("postgres");
    if !has_all(&folder, POSTGRES) {
        unpack_all(&folder, POSTGRES)?;
        println!("unpacked {}", versions(&folder));
    }
    Ok((folder.join(POSTGRES_PROGRAMS), missing_for(&folder, POSTGRES)?))
}

/// Whether everything is there.
pub fn complete(folder: &Path) -> bool {
    has_all(folder, PACKAGES)
}

fn has_all(folder: &Path, packages: &[(&str, &[&str])]) -> bool {
    let files = packages.iter().flat_map(|(_, files)| files.iter());
    folder.join(LIST).is_file() && files.into_iter().all(|file| folder.join(file).is_file())
}

/// The packages as they are unpacked in `folder`, for a person.
pub fn versions(folder: &Path) -> String {
    let list = fs::read_to_string(folder.join(LIST)).unwrap_or_default();
    list.lines().map(|name| name.trim_end_matches(".deb")).collect::<Vec<_>>().join(", ")
}

/// Fetches and unpacks them into `folder`. The machine's own list of packages says where they come from; no right of
/// root is needed.
pub fn unpack(folder: &Path) -> Outcome {
    unpack_all(folder, PACKAGES)
}

fn unpack_all(folder: &Path, packages: &[(&str, &[&str])]) -> Outcome {
    let unfinished = folder.with_extension("unfinished");
    let archives = unfinished.join("archives");
    workspace::fresh_directory(&archives)?;
    let mut fetch = Command::new("apt-get");
    // It would give its rights up for a user who cannot write here.
    fetch.args(["-q", "-q", "-o", "APT::Sandbox::User=root", "download"]);
    fetch.args(packages.iter().map(|(package, _)| *package)).current_dir(&archives).stdin(Stdio::null());
    workspace::run(&mut fetch)?;
    let failed = |error: std::io::Error| format!("cannot list {}: {error}", archives.display());
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&archives).map_err(failed)? {
        found.push(entry.map_err(failed)?.path());
    }
    found.sort();
    let mut list = String::new();
    for archive in &found {
        // `-x` unpacks the files. The scripts that would enable the services are not run.
        workspace::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&unfinished))?;
        list += &format!("{}\n", archive.file_name().unwrap_or_default().to_string_lossy());
    }
    workspace::write(&unfinished.join(LIST), list)?;
    fs::remove_dir_all(&archives)
        .map_err(|error| format!("cannot remove {}: {error}", archives.display()))?;
    if !has_all(&unfinished, packages) {
        return Err("the packages do not have what is expected in them".into());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    }
    fs::rename(&unfinished, folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))
}

/// The packages with the libraries that the unpacked programs of `folder` need and this machine does not have.
pub fn missing_libraries(folder: &Path) -> Outcome<Vec<&'static str>> {
    missing_for(folder, PACKAGES)
}

fn missing_for(folder: &Path, packages: &[(&str, &[&str])]) -> Outcome<Vec<&'static str>> {
    let mut missing = Vec::new();
    for (_, files) in packages {
        let Some(program) = files.first() else { continue };
        let output = workspace::capture(Command::new("ldd").arg(folder.join(program)))?;
        missing.extend(not_found(&String::from_utf8_lossy(&output.stdout)));
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// The packages of the libraries that `ldd` did not find.
fn not_found(said: &str) -> Vec<&'static str> {
    const LIBRARIES: &[(&str, &str)] = &[
        ("libgio-2.0.so", "libglib2.0-0"),
        ("libglib-2.0.so", "libglib2.0-0"),
        ("libgobject-2.0.so", "libglib2.0-0"),
        ("libssl.so", "libssl3"),
        ("libcrypto.so", "libssl3"),
        ("liblzma.so", "liblzma5"),
        ("libpcre2-8.so", "libpcre2-8-0"),
        ("libcrypt.so", "libcrypt1"),
        ("libpq.so", "libpq5"),
        ("libxml2.so", "libxml2"),
        ("libicui18n.so", "libicu72"),
        ("libicuuc.so", "libicu72"),
        ("libldap-2.5.so", "libldap-2.5-0"),
        ("libreadline.so", "libreadline8"),
    ];
    let lost = said.lines().filter(|line| line.contains("not found")).map(str::trim_start);
    let package = |line: &str| LIBRARIES.iter().find(|(name, _)| line.starts_with(name)).map(|(_, of)| *of);
    lost.filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_are_missing_name_their_packages() {
        let said = "\tlinux-vdso.so.1 (0x00007)\n\tlibgio-2.0.so.0 => not found\n\tlibssl.so.3 => not found\n\
                    \tliblzma.so.5 => /lib/liblzma.so.5 (0x00007)\n";
        assert_eq!(not_found(said), ["libglib2.0-0", "libssl3"]);
    }

    #[test]
    fn a_folder_without_its_list_is_not_complete() {
        let folder = std::env::temp_dir().join(format!("xtask-peers-{}", std::process::id()));
        for file in PACKAGES.iter().flat_map(|(_, files)| files.iter()) {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert!(!complete(&folder));
        fs::write(folder.join(LIST), "mender-client_3.4.0_amd64.deb\n").unwrap();
        assert!(complete(&folder));
        assert_eq!(versions(&folder), "mender-client_3.4.0_amd64");
        fs::remove_file(folder.join("usr/bin/mender")).unwrap();
        assert!(!complete(&folder));
        fs::remove_dir_all(folder).unwrap();
    }
}
