//! The page that people open in a browser: the files of `server/page`, which are in the program, or those of a folder for
//! whoever changes them. It knows no HTTP: how a file is answered is in `api::page`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;

use crate::domain::id;

/// What `/` shows.
pub(crate) const INDEX: &str = "index.html";
/// The longest name: a file system would answer another with an error of its own.
const NAME_BYTES: usize = 200;
/// Bytes of one file of a folder.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Puts files of `server/page` into the program.
macro_rules! keep {
    ($($name:literal),* $(,)?) => {
        /// The page.
        static FILES: [Kept; [$($name),*].len()] = [$(Kept {
            name: $name,
            bytes: include_bytes!(concat!("../../../page/", $name)),
            made: OnceLock::new(),
        }),*];
    };
}

// Every file but what is for its readers, in the order of their names.
keep![
    "api.js",
    "html.js",
    "icon.svg",
    "index.html",
    "lib/hooks.js",
    "lib/htm.js",
    "lib/preact.js",
    "lib/xterm.css",
    "lib/xterm.js",
    "main.js",
    "msgpack.js",
    "pages/artifact.js",
    "pages/attributes.js",
    "pages/audit.js",
    "pages/choose.js",
    "pages/curve.js",
    "pages/dashboard.js",
    "pages/device.js",
    "pages/device_alerts.js",
    "pages/device_bulk.js",
    "pages/device_columns.js",
    "pages/device_configuration.js",
    "pages/device_connected.js",
    "pages/device_export.js",
    "pages/device_files.js",
    "pages/device_inventory.js",
    "pages/device_overview.js",
    "pages/device_search.js",
    "pages/device_updates.js",
    "pages/devices.js",
    "pages/failures.js",
    "pages/gate.js",
    "pages/later.js",
    "pages/log.js",
    "pages/names.js",
    "pages/new_rollout.js",
    "pages/plan.js",
    "pages/progress.js",
    "pages/releases.js",
    "pages/rollout.js",
    "pages/rollouts.js",
    "pages/settings.js",
    "pages/settings_mails.js",
    "pages/settings_oneself.js",
    "pages/settings_people.js",
    "pages/settings_roles.js",
    "pages/settings_server.js",
    "pages/settings_webhooks.js",
    "pages/terminal.js",
    "pages/timeline.js",
    "pages/uploads.js",
    "permit.js",
    "route.js",
    "sheet.js",
    "style.css",
    "ui.js",
    "words.js",
];

/// A file in the program.
struct Kept {
    name: &'static str,
    bytes: &'static [u8],
    /// What is made of it when it is first asked for.
    made: OnceLock<(String, Option<Bytes>)>,
}

impl Kept {
    fn asset(&'static self) -> Asset {
        let (tag, gzip) = self.made.get_or_init(|| {
            let packed = packed(self.bytes).filter(|packed| packed.len() < self.bytes.len());
            (tag(self.bytes), packed.map(Bytes::from))
        });
        let bytes = Bytes::from_static(self.bytes);
        Asset { kind: kind(self.name), tag: tag.clone(), bytes, gzip: gzip.clone() }
    }
}

/// A file as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    /// Its type of content.
    pub(crate) kind: &'static str,
    /// Another text for other bytes.
    pub(crate) tag: String,
    /// What is in it.
    pub(crate) bytes: Bytes,
    /// The same in gzip, where that is less.
    pub(crate) gzip: Option<Bytes>,
}

/// Where the files are.
#[derive(Debug)]
pub(crate) enum Page {
    /// In the program.
    Kept,
    /// In a folder: each is read when it is asked for.
    Folder(PathBuf),
}

impl Page {
    /// The page of a folder, or the one in the program.
    ///
    /// # Errors
    /// The folder is none, or has no page in it.
    pub(crate) fn open(folder: Option<&Path>) -> io::Result<Page> {
        let Some(folder) = folder else { return Ok(Page::Kept) };
        let folder = fs::canonicalize(folder)?;
        read_in(&folder, INDEX)?;
        Ok(Page::Folder(folder))
    }

    /// A file by its name, such as `lib/preact.js`; `None` when there is none.
    ///
    /// # Errors
    /// It is there, and could not be read.
    pub(crate) async fn file(&self, name: &str) -> io::Result<Option<Asset>> {
        match self {
            Page::Kept => Ok(FILES.iter().find(|file| file.name == name).map(Kept::asset)),
            Page::Folder(folder) => {
                let (folder, name) = (folder.clone(), name.to_owned());
                let read = tokio::task::spawn_blocking(move || read_in(&folder, &name));
                match read.await.map_err(io::Error::other)? {
                    Ok(asset) => Ok(Some(asset)),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A file of a folder. Neither its name nor a link leads out of the folder.
fn read_in(folder: &Path, name: &str) -> io::Result<Asset> {
    let nothing = || io::Error::from(io::ErrorKind::NotFound);
    if !is_name(name) {
        return Err(nothing());
    }
    let path = fs::canonicalize(folder.join(name))?;
    if !path.starts_with(folder) || !path.is_file() {
        return Err(nothing());
    }
    let mut bytes = Vec::new();
    File::open(&path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::other(format!("{} is larger than 8 MiB", path.display())));
    }
    Ok(Asset { kind: kind(name), tag: tag(&bytes), bytes: bytes.into(), gzip: None })
}

/// Whether every part of a name is of a file that is no hidden one. Nothing is decoded: a name with `%` in it is none.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    name.len() <= NAME_BYTES && name.split('/').all(is_part)
}

fn tag(bytes: &[u8]) -> String {
    let mut digest = id::sha256_hex(bytes);
    digest.truncate(32);
    digest
}

/// `None` does not happen: writing to memory does not fail.
fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).ok()
}

/// The type of content. A browser is told to believe it, so a name that says nothing is of no type that acts.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of all files below a folder.
    fn names(folder: &Path, before: &str, all: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{before}{}", entry.file_name().into_string().unwrap());
            match entry.path().is_dir() {
                true => names(&entry.path(), &format!("{name}/"), all),
                false => all.push(name),
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_program_and_has_a_type() {
        let mut there = Vec::new();
        names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../page"), "", &mut there);
        there.retain(|name| !name.ends_with(".md"));
        there.sort();
        let kept: Vec<&str> = FILES.iter().map(|file| file.name).collect();
        assert_eq!(kept, there, "the list in {}", file!());
        for file in &FILES {
            assert!(is_name(file.name), "{}", file.name);
            assert_ne!(kind(file.name), "application/octet-stream", "{}", file.name);
        }
    }

    #[tokio::test]
    async fn a_file_of_a_folder_is_read_each_time_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        assert!(Page::open(Some(&path)).is_err(), "there is no folder");
        fs::create_dir_all(path.join("lib")).unwrap();
        assert!(Page::open(Some(&path)).is_err(), "there is nothing in it");
        fs::write(path.join(INDEX), "one").unwrap();
        fs::write(path.join("lib/a.js"), "a").unwrap();
        fs::write(path.join(".hidden"), "h").unwrap();
        fs::write(folder.path().join("secret.js"), "s").unwrap();
        std::os::unix::fs::symlink("../secret.js", path.join("link.js")).unwrap();
        std::os::unix::fs::symlink("lib/a.js", path.join("inside.js")).unwrap();
        let page = Page::open(Some(&path)).unwrap();
        let first = page.file(INDEX).await.unwrap().unwrap();
        assert_eq!((&*first.bytes, first.kind), (&b"one"[..], "text/html; charset=utf-8"));
        fs::write(path.join(INDEX), "two").unwrap();
        let second = page.file(INDEX).await.unwrap().unwrap();
        assert_eq!(&*second.bytes, b"two");
        assert_ne!(first.tag, second.tag);
        for name in ["lib/a.js", "inside.js"] {
            assert_eq!(&*page.file(name).await.unwrap().unwrap().bytes, b"a", "{name}");
        }
        let absolute = folder.path().join("secret.js");
        for name in [
            "",
            "/",
            "lib",
            "lib/",
            "none.js",
            "../secret.js",
            "lib/../../secret.js",
            "lib/..",
            "..%2fsecret.js",
            "%2e%2e/secret.js",
            "..\\secret.js",
            "./index.html",
            "lib//a.js",
            "index.html/a.js",
            &"a".repeat(5000),
            ".hidden",
            "link.js",
            "index.html\0",
            absolute.to_str().unwrap(),
        ] {
            assert_eq!(page.file(name).await.unwrap(), None, "{name:?}");
        }
        File::create(path.join("large.js")).unwrap().set_len(FILE_BYTES + 1).unwrap();
        assert!(page.file("large.js").await.is_err());
    }

    #[tokio::test]
    async fn what_is_in_the_program_is_packed_once_where_that_is_less() {
        let first = Page::Kept.file(INDEX).await.unwrap().unwrap();
        let mut read = String::new();
        let gzip = first.gzip.clone().unwrap();
        flate2::read::GzDecoder::new(&*gzip).read_to_string(&mut read).unwrap();
        assert_eq!(read.as_bytes(), &*first.bytes);
        assert!(gzip.len() < first.bytes.len());
        let second = Page::Kept.file(INDEX).await.unwrap().unwrap();
        assert_eq!(second.gzip.unwrap().as_ptr(), gzip.as_ptr(), "packed twice");
        assert_eq!(Page::Kept.file("../page/index.html").await.unwrap(), None);
    }
}
