//! Pairs of images: a tree of Debian's packages as they were released, and the same tree with newer versions of some of them, each in
//! an ext4 image with fixed times and identifiers, so that nothing differs but what the packages bring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xtask::{Outcome, workspace};

use super::mib;

/// What a pair is made of.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// In both images, in the oldest version that the machine's sources have.
    base: &'static [&'static str],
    /// Of those, the ones that the new image has in the newest version.
    newer: &'static [&'static str],
    /// Only in the new one.
    added: &'static [&'static str],
    /// A kernel: oldest and newest of this kind.
    kernel: Option<&'static str>,
    /// For mke2fs.
    size: &'static str,
    /// Of the full image, at most.
    pub(super) share: f64,
}

/// What both pairs are made of; the last three are in a release alone.
const RELEASE: &[&str] = &[
    "libc6",
    "coreutils",
    "bash",
    "busybox",
    "python3.11-minimal",
    "libpython3.11-stdlib",
    "perl-base",
    "systemd",
    "libsystemd0",
    "tar",
    "gzip",
    "util-linux",
    "mount",
    "libmount1",
    "libblkid1",
    "zlib1g",
    "liblzma5",
    "libzstd1",
    "libgnutls30",
    "libp11-kit0",
    "libstdc++6",
    "iproute2",
    "e2fsprogs",
    "libext2fs2",
    "dpkg",
    "apt",
    "libapt-pkg6.0",
    "openssh-client",
    "openssh-server",
    "login",
    "passwd",
    "procps",
    "libglib2.0-0",
    "nano",
    "less",
    "openssl",
    "libssl3",
    "libexpat1",
    "curl",
    "libcurl4",
    "bind9-libs",
    "nodejs",
    "libnode108",
];

const SYSTEM: &[&str] = RELEASE.split_at(RELEASE.len() - 3).0;

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "security",
        base: SYSTEM,
        newer: &["openssl", "libssl3", "libexpat1", "curl", "libcurl4", "liblzma5"],
        added: &[],
        kernel: None,
        size: "128M",
        share: 0.03,
    },
    Recipe {
        name: "release",
        base: RELEASE,
        newer: RELEASE,
        added: &["nginx", "nginx-core"],
        kernel: Some("cloud-amd64"),
        size: "512M",
        share: 0.25,
    },
];

/// Two images.
pub(super) struct Pair {
    pub(super) recipe: &'static Recipe,
    pub(super) old: PathBuf,
    pub(super) new: PathBuf,
    /// In words.
    pub(super) described: String,
}

/// Which of the versions that there are.
#[derive(Clone, Copy)]
enum Age {
    Oldest,
    Newest,
}

/// Makes the pair, of packages that are fetched once and kept until the build output is removed.
pub(super) fn make(recipe: &'static Recipe) -> Outcome<Pair> {
    let folder = workspace::target_directory()?.join("delta-pairs");
    let packages = folder.join("packages");
    fs::create_dir_all(&packages).map_err(|error| format!("cannot make {}: {error}", packages.display()))?;
    let (old_tree, new_tree) = (folder.join("old"), folder.join("new"));
    workspace::fresh_directory(&old_tree)?;
    workspace::fresh_directory(&new_tree)?;
    let mut changed = Vec::new();
    for package in recipe.base {
        let versions = versions(package)?;
        let old = unpack(&packages, package, pick(&versions, Age::Oldest)?, &old_tree)?;
        let age = if recipe.newer.contains(package) { Age::Newest } else { Age::Oldest };
        let new = unpack(&packages, package, pick(&versions, age)?, &new_tree)?;
        if old != new {
            changed.push(*package);
        }
    }
    for package in recipe.added {
        unpack(&packages, package, pick(&versions(package)?, Age::Newest)?, &new_tree)?;
    }
    if let Some(kind) = recipe.kernel {
        let kernels = kernels(kind)?;
        for (age, tree) in [(Age::Oldest, &old_tree), (Age::Newest, &new_tree)] {
            let package = pick(&kernels, age)?;
            unpack(&packages, package, pick(&versions(package)?, Age::Newest)?, tree)?;
        }
        changed.push("a kernel");
    }
    if changed.is_empty() {
        return Err("the sources of this machine have one version of each package: there is no pair".into());
    }
    let (old, new) =
        (folder.join(format!("{}-old.ext4", recipe.name)), folder.join(format!("{}-new.ext4", recipe.name)));
    for (tree, image) in [(&old_tree, &old), (&new_tree, &new)] {
        format(tree, image, recipe.size)?;
        fs::remove_dir_all(tree).map_err(|error| format!("cannot remove {}: {error}", tree.display()))?;
    }
    let bytes =
        fs::metadata(&new).map_err(|error| format!("cannot look at {}: {error}", new.display()))?.len();
    let described = format!(
        "ext4 images of {} with {} packages of Debian, of which {} are newer in the second one and {} are only there",
        mib(bytes),
        recipe.base.len() + usize::from(recipe.kernel.is_some()),
        changed.len(),
        recipe.added.len(),
    );
    Ok(Pair { recipe, old, new, described })
}

fn pick(all: &[String], age: Age) -> Outcome<&str> {
    let found = match age {
        Age::Oldest => all.first(),
        Age::Newest => all.last(),
    };
    found.map(String::as_str).ok_or_else(|| "a package is not to be had".into())
}

/// The versions of a package that the machine's sources have, the oldest first.
fn versions(package: &str) -> Outcome<Vec<String>> {
    let output = workspace::capture(Command::new("apt-cache").args(["madison", package]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found =
        text.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned());
    let mut found: Vec<String> = found.collect();
    if found.is_empty() {
        return Err(format!(
            "the sources of this machine have no package {package}; apt-get update may help"
        ));
    }
    sort(&mut found);
    found.dedup();
    Ok(found)
}

/// Kernels of this kind by their number.
fn kernels(kind: &str) -> Outcome<Vec<String>> {
    let pattern = format!("^linux-image-[0-9][0-9.-]*-{kind}$");
    let output = workspace::capture(Command::new("apt-cache").args(["--names-only", "search", &pattern]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    sort(&mut found);
    Ok(found)
}

/// As Debian does, near enough: numbers in them are numbers.
fn sort(versions: &mut [String]) {
    versions.sort_by_cached_key(|version| {
        let mut parts: Vec<(u64, String)> = Vec::new();
        let mut rest = version.as_str();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, behind) = rest.split_at(digits);
            let words = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
            let (word, behind) = behind.split_at(words);
            parts.push((number.parse().unwrap_or(0), word.to_owned()));
            rest = behind;
        }
        parts
    });
}

/// Puts the files of a package into a tree. Returns which version it was.
fn unpack(packages: &Path, package: &str, version: &str, tree: &Path) -> Outcome<String> {
    // As `apt-get` calls the file.
    let start = format!("{package}_{}_", version.replace(':', "%3a"));
    let find = || {
        let entries = fs::read_dir(packages).ok()?;
        let mut names = entries.flatten().map(|entry| entry.path());
        names.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
    };
    if find().is_none() {
        let mut fetch = Command::new("apt-get");
        fetch.args([
            "-q",
            "-q",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            &format!("{package}={version}"),
        ]);
        workspace::run(fetch.current_dir(packages).stdin(Stdio::null()))?;
    }
    let archive = find().ok_or_else(|| format!("apt-get has fetched no {start}"))?;
    workspace::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(tree))?;
    // What images of devices do not have.
    for part in ["usr/share/locale", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian"]
    {
        let path = tree.join(part);
        if path.exists() {
            fs::remove_dir_all(&path)
                .map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
        }
    }
    Ok(version.to_owned())
}

fn format(tree: &Path, image: &Path, size: &str) -> Outcome {
    const TIME: &str = "1700000000";
    // Times of the tree become times of inodes.
    let touch = format!("find \"$0\" -print0 | xargs -0 touch -h -d @{TIME}");
    workspace::run(Command::new("sh").arg("-c").arg(touch).arg(tree))?;
    if image.exists() {
        fs::remove_file(image).map_err(|error| format!("cannot remove {}: {error}", image.display()))?;
    }
    let mut command = Command::new("/usr/sbin/mke2fs");
    command.env("E2FSPROGS_FAKE_TIME", TIME).args(["-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal"]);
    command.args(["-U", "7e57da7a-0000-4000-8000-000000000001"]);
    command.args(["-E", "hash_seed=7e57da7a-0000-4000-8000-000000000002,root_owner=0:0"]);
    workspace::run(command.arg("-d").arg(tree).arg(image).arg(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_their_numbers() {
        let mut found = ["6.1.0-56-x", "6.1.0-9-x", "6.1.0-47-x"].map(str::to_owned);
        sort(&mut found);
        assert_eq!(found, ["6.1.0-9-x", "6.1.0-47-x", "6.1.0-56-x"]);
    }
}
