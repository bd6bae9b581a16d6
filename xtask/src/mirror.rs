//! Debian's packages without installing them: a private configuration of apt over the mirrors that this machine uses, for its
//! own architecture, arm64 and armhf.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::Outcome;
use crate::workspace::{run_quietly as run, write};

/// How old the lists of packages may be.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);

/// The private configuration.
pub struct Debian {
    config: PathBuf,
}

/// An entry of the machine's own sources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

impl Debian {
    /// Makes the configuration in `cache`, and brings its lists up to date if they are not of today.
    pub fn open(cache: &Path) -> Outcome<Debian> {
        if !Path::new("/usr/bin/apt-get").is_file() {
            return Err(
                "there is no apt-get: compilers, kernels and bootloaders come from Debian's packages".into(),
            );
        }
        let directory = cache.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).map_err(|error| format!("cannot make {}: {error}", part.display()))?;
        }
        let sources = sources_list(&machine_sources()?);
        let list = directory.join("sources.list");
        let is_same = fs::read_to_string(&list).is_ok_and(|old| old == sources);
        write(&list, sources)?;
        write(&directory.join("status"), "")?;
        let config = directory.join("apt.conf");
        let here = directory.display();
        write(
            &config,
            format!(
                "APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"arm64\"; \"armhf\"; }};\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nDir::State \"{here}\";\n\
                 Dir::State::lists \"{here}/lists\";\nDir::State::status \"{here}/status\";\n\
                 Dir::Cache \"{here}\";\nDir::Etc::sourcelist \"{here}/sources.list\";\n\
                 Dir::Etc::sourceparts \"-\";\nDir::Etc::preferencesparts \"-\";\n"
            ),
        )?;
        let debian = Debian { config };
        let mark = directory.join("updated");
        let age = fs::metadata(&mark).and_then(|mark| mark.modified()).ok();
        let age = age.and_then(|then| SystemTime::now().duration_since(then).ok()).filter(|_age| is_same);
        if age.is_none_or(|age| age > LISTS_AGE) {
            println!("reading the lists of packages");
            let updated = run(debian.command("apt-get").args(["update", "-qq"]));
            // Yesterday's will do where the network does not.
            match (updated, age) {
                (Ok(()), _) => write(&mark, "")?,
                (Err(error), None) => return Err(error),
                (Err(error), Some(_)) => println!("the lists are old: {error}"),
            }
        }
        Ok(debian)
    }

    /// The full name, with version and architecture, of what would be downloaded.
    pub fn candidate(&self, package: &str, arch: &str) -> Outcome<String> {
        let (name, _release) = split(package);
        Ok(format!("{name} {} {arch}", self.version(package, arch)?))
    }

    /// The version that would be downloaded. A name may end in `=VERSION` or in `/RELEASE`.
    pub fn version(&self, package: &str, arch: &str) -> Outcome<String> {
        let (name, release) = split(package);
        if let Some((_, version)) = package.split_once('=') {
            return Ok(version.to_owned());
        }
        let mut command = self.command("apt-cache");
        if let Some(release) = release {
            command.args(["-t", release]);
        }
        let said = self.ask(command.args(["policy", &format!("{name}:{arch}")]))?;
        let version = said.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        match version {
            Some(version) if version != "(none)" => Ok(version.to_owned()),
            Some(_) | None => {
                Err(format!("Debian has no package {name} for {arch} on this machine's mirrors"))
            }
        }
    }

    /// What `package` depends on and begins with `prefix`.
    pub fn depends(&self, package: &str, arch: &str, prefix: &str) -> Outcome<String> {
        let (name, _release) = split(package);
        let exact = format!("{name}:{arch}={}", self.version(package, arch)?);
        let said = self.ask(self.command("apt-cache").args(["show", "--no-all-versions", &exact]))?;
        let depends = said.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let names = depends.split([',', '|']).filter_map(|name| name.split_whitespace().next());
        let mut names = names.map(|name| name.split(':').next().unwrap_or(name));
        let found = names.find(|name| name.starts_with(prefix));
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("{package} depends on nothing that begins with {prefix}"))
    }

    /// Downloads packages and unpacks them into `directory`. A name may end in `=VERSION` or in `/RELEASE`.
    pub fn unpack(&self, packages: &[&str], arch: &str, directory: &Path) -> Outcome {
        let downloads = directory.with_extension("debs");
        let _ = fs::remove_dir_all(&downloads);
        fs::create_dir_all(&downloads).map_err(|error| format!("{}: {error}", downloads.display()))?;
        for package in packages {
            let (name, release) = split(package);
            let mut command = self.command("apt-get");
            if let Some(release) = release {
                command.args(["-t", release]);
            }
            let version =
                package.split_once('=').map(|(_, version)| format!("={version}")).unwrap_or_default();
            let name = format!("{name}:{arch}{version}");
            run(command.args(["download", "-qq", &name]).current_dir(&downloads))?;
        }
        for file in files_of(&downloads)? {
            run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(directory))?;
        }
        fs::remove_dir_all(&downloads).map_err(|error| format!("{}: {error}", downloads.display()))
    }

    /// Downloads the source package `package` and unpacks it below `directory`; gives the tree.
    pub fn source(&self, package: &str, directory: &Path) -> Outcome<PathBuf> {
        run(self.command("apt-get").args(["source", "-qq", package]).current_dir(directory))?;
        let mut trees = files_of(directory)?.into_iter();
        trees.rfind(|path| path.is_dir()).ok_or_else(|| format!("the source of {package} is no tree"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    fn ask(&self, command: &mut Command) -> Outcome<String> {
        let output =
            command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A name without its version, and the release after a slash.
fn split(package: &str) -> (&str, Option<&str>) {
    if let Some((name, _version)) = package.split_once('=') {
        return (name, None);
    }
    match package.split_once('/') {
        Some((name, release)) => (name, Some(release)),
        None => (package, None),
    }
}

fn files_of(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// What the machine's own apt is told.
fn machine_sources() -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    let mut places = vec![PathBuf::from("/etc/apt/sources.list")];
    places.extend(files_of(Path::new("/etc/apt/sources.list.d")).unwrap_or_default());
    for place in places {
        let Ok(text) = fs::read_to_string(&place) else { continue };
        if place.extension().is_some_and(|end| end == "sources") {
            sources.extend(parse_paragraphs(&text));
        } else {
            sources.extend(text.lines().filter_map(parse_line));
        }
    }
    // Of other vendors there is nothing that is wanted.
    sources.retain(|source| source.uri.contains("/debian"));
    if sources.is_empty() { Err("apt of this machine knows no Debian mirror".into()) } else { Ok(sources) }
}

/// `deb [signed-by=KEY] URI SUITE COMPONENT...`
fn parse_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Source { uri, suites: vec![suite], signed_by: signed_by.map(str::to_owned) })
}

/// Paragraphs of fields (deb822).
fn parse_paragraphs(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
            let value = lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
            value.map(|(_, value)| value.trim().to_owned())
        };
        let is_binary =
            field("Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
        if field("Enabled").as_deref() == Some("no") || !is_binary {
            continue;
        }
        if let (Some(uris), Some(suites)) = (field("URIs"), field("Suites")) {
            let suites: Vec<String> = suites.split_whitespace().map(str::to_owned).collect();
            for uri in uris.split_whitespace() {
                let signed_by = field("Signed-By").filter(|key| key.starts_with('/'));
                sources.push(Source { uri: uri.to_owned(), suites: suites.clone(), signed_by });
            }
        }
    }
    sources
}

/// The same mirrors for all architectures, with sources, and with the backports of each main suite. armhf is taken from the
/// main suites alone: mirrors do not all keep its updates, and one list that is missing spoils the others.
fn sources_list(sources: &[Source]) -> String {
    let mut list = String::new();
    for source in sources {
        let mut suites = source.suites.clone();
        let main = suites.iter().find(|suite| !suite.contains('-')).cloned();
        suites.extend(main.map(|suite| format!("{suite}-backports")));
        suites.dedup();
        let key = source.signed_by.as_ref().map(|key| format!(" signed-by={key}")).unwrap_or_default();
        for suite in suites {
            let uri = &source.uri;
            let armhf = if suite.contains('-') { "" } else { ",armhf" };
            list += &format!("deb [arch=amd64,arm64{armhf}{key}] {uri} {suite} main\n");
            if !suite.ends_with("-backports") {
                list += &format!("deb-src [arch=amd64{key}] {uri} {suite} main\n");
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_understood() {
        let expected = Source {
            uri: "http://mirror/debian".into(),
            suites: vec!["bookworm".into()],
            signed_by: Some("/key.gpg".into()),
        };
        let line = "deb [arch=amd64 signed-by=/key.gpg] http://mirror/debian bookworm main contrib";
        assert_eq!(parse_line(line), Some(expected.clone()));
        assert_eq!(parse_line("# deb http://mirror/debian bookworm main"), None);
        assert_eq!(parse_line("deb-src http://mirror/debian bookworm main"), None);

        let paragraphs = "Types: deb\n# a remark\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: main\n\
                          Signed-By: /key.gpg\n\nTypes: deb-src\nURIs: http://x/debian\nSuites: bookworm\n\n\
                          Enabled: no\nTypes: deb\nURIs: http://y/debian\nSuites: z\n";
        assert_eq!(parse_paragraphs(paragraphs), std::slice::from_ref(&expected));

        let list = sources_list(&[expected]);
        assert!(list.contains(
            "deb [arch=amd64,arm64,armhf signed-by=/key.gpg] http://mirror/debian bookworm main\n"
        ));
        assert!(list.contains("http://mirror/debian bookworm-backports main\n"));
    }
}
