//! The manifest: the signed list of everything in the artifact, in the form `sha256sum` prints.
//!
//! It is parsed from exactly the bytes whose signature was checked, by one strict grammar, once.

use crate::compression::Compression;
use crate::error::ArtifactError;
use crate::limits::Limits;
use crate::members::{self, HEADER, VERSION};
use crate::sha256::Sha256;

/// The parsed manifest. Every entry an artifact can have is here with its digest; nothing has an optional one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Digest of `version`.
    pub version_sha256: Sha256,
    /// Digest of the header as it is stored, compressed.
    pub header_sha256: Sha256,
    /// How the header is compressed, from its name.
    pub header_compression: Compression,
    /// The payload files in the order they are listed.
    pub files: Vec<ManifestFile>,
}

/// A payload file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Plain file name, without `data/0000/`.
    pub name: String,
    /// Digest of the uncompressed content.
    pub sha256: Sha256,
}

impl Manifest {
    /// The name of the header member, with its suffix.
    pub(crate) fn header_name(&self) -> String {
        format!("{HEADER}{}", self.header_compression.suffix())
    }

    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Manifest, ArtifactError> {
        let bad = |line, problem| ArtifactError::ManifestLine { line, problem };
        let text = std::str::from_utf8(bytes).map_err(|_| bad(1, "not UTF-8"))?;
        let mut version = None;
        let mut header = None;
        let mut files: Vec<ManifestFile> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        // The last line may lack its line feed; an empty line is never one.
        let text = text.strip_suffix('\n').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            let number = index + 1;
            if number > limits.manifest_lines {
                return Err(ArtifactError::too_large("manifest", "lines", limits.manifest_lines as u64));
            }
            let (digest, name) = parse_line(line).map_err(|problem| bad(number, problem))?;
            if !names.insert(name) {
                return Err(ArtifactError::ManifestDuplicate { entry: name.to_owned() });
            }
            if let Some(file) = members::file(name) {
                check_file_name(file, limits)?;
                if files.len() >= limits.payload_files {
                    let limit = limits.payload_files as u64;
                    return Err(ArtifactError::too_large("manifest", "payload files", limit));
                }
                files.push(ManifestFile { name: file.to_owned(), sha256: digest });
            } else if name == VERSION {
                version = Some(digest);
            } else if let Some(compression) = Compression::of_member(name, HEADER) {
                // Two headers under two suffixes are two names for one thing.
                if header.replace((digest, compression)).is_some() {
                    return Err(ArtifactError::ManifestDuplicate { entry: name.to_owned() });
                }
            } else {
                return Err(ArtifactError::NotInArtifact { entry: name.to_owned() });
            }
        }
        let missing = |entry: &str| ArtifactError::NotInManifest { entry: entry.to_owned() };
        let (header_sha256, header_compression) = header.ok_or_else(|| missing(HEADER))?;
        let version_sha256 = version.ok_or_else(|| missing(VERSION))?;
        Ok(Manifest { version_sha256, header_sha256, header_compression, files })
    }

    /// The manifest's text in the order writers use: payload files, header, version.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |digest: &Sha256, name: &str| text.push_str(&format!("{digest}  {name}\n"));
        self.files.iter().for_each(|file| line(&file.sha256, &members::of_file(&file.name)));
        line(&self.header_sha256, &self.header_name());
        line(&self.version_sha256, VERSION);
        text
    }
}

/// 64 lowercase hexadecimal digits, two blanks, a name without white space or control characters.
fn parse_line(line: &str) -> Result<(Sha256, &str), &'static str> {
    let (digits, rest) = line.split_at_checked(64).ok_or("shorter than a checksum")?;
    let name = rest.strip_prefix("  ").ok_or("no two blanks behind the checksum")?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("no name, or white space in it");
    }
    let digest = digits.parse().map_err(|_| "the checksum is not lowercase hexadecimal")?;
    Ok((digest, name))
}

/// A payload file is created by its name in a directory of the update module, so the name has to be one plain path
/// component.
pub(crate) fn check_file_name(name: &str, limits: &Limits) -> Result<(), ArtifactError> {
    if name.len() > limits.name_bytes {
        return Err(ArtifactError::too_large(name, "name bytes", limits.name_bytes as u64));
    }
    let odd = |c: char| c == '/' || c == '\\' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.chars().any(odd) {
        return Err(ArtifactError::PayloadName { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn lines(names: &[&str]) -> String {
        names.iter().map(|name| format!("{DIGEST}  {name}\n")).collect()
    }

    fn check(text: &str) -> Result<Manifest, ArtifactError> {
        Manifest::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn what_is_written_parses_to_the_same() {
        let manifest = check(&lines(&["data/0000/b", "data/0000/a.gz", "header.tar.gz", "version"])).unwrap();
        assert_eq!(manifest.header_compression, Compression::Gzip);
        assert_eq!(manifest.files.iter().map(|f| &f.name[..]).collect::<Vec<_>>(), ["b", "a.gz"]);
        assert_eq!(check(&manifest.to_text()).unwrap(), manifest);
    }

    #[test]
    fn order_does_not_matter_and_the_last_line_feed_may_be_missing() {
        assert!(check(&lines(&["version", "header.tar", "data/0000/x"])).is_ok());
        assert!(check(lines(&["version", "header.tar"]).trim_end()).is_ok());
    }

    #[test]
    fn header_and_version_have_to_be_listed() {
        assert!(
            matches!(check(&lines(&["version"])), Err(ArtifactError::NotInManifest { entry }) if entry == "header.tar")
        );
        assert!(
            matches!(check(&lines(&["header.tar"])), Err(ArtifactError::NotInManifest { entry }) if entry == "version")
        );
    }

    #[test]
    fn a_name_twice_is_refused_also_under_two_suffixes_of_the_header() {
        for names in [
            &["version", "version", "header.tar"][..],
            &["version", "header.tar", "header.tar.gz"],
            &["version", "header.tar", "data/0000/x", "data/0000/x"],
        ] {
            assert!(
                matches!(check(&lines(names)), Err(ArtifactError::ManifestDuplicate { .. })),
                "{names:?}"
            );
        }
    }

    #[test]
    fn a_suffix_of_a_payload_file_is_part_of_its_name() {
        let manifest = check(&lines(&["version", "header.tar", "data/0000/x", "data/0000/x.gz"])).unwrap();
        assert_eq!(manifest.files.len(), 2);
    }

    #[test]
    fn names_of_nothing_in_an_artifact_are_refused() {
        for name in [
            "manifest",
            "data/0000.tar",
            "data/0001/x",
            "header.tar.bz2",
            "Version",
            "x",
            "header-augment.tar",
        ] {
            let refused = check(&lines(&["version", "header.tar", name]));
            assert!(matches!(refused, Err(ArtifactError::NotInArtifact { .. })), "{name}");
        }
        for name in
            ["data/0000/", "data/0000/a/b", "data/0000/..", "data/0000/.", "data/0000/../x", "data/0000/a\\b"]
        {
            let refused = check(&lines(&["version", "header.tar", name]));
            assert!(matches!(refused, Err(ArtifactError::PayloadName { .. })), "{name}");
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        let good = lines(&["version", "header.tar"]);
        for line in [
            "\n".to_owned(),
            format!("{DIGEST} x\n"),
            format!("{DIGEST} *data/0000/x\n"),
            format!("{DIGEST}   data/0000/x\n"),
            format!("{DIGEST}  data/0000/a b\n"),
            format!("{DIGEST}  data/0000/x\r\n"),
            format!("{DIGEST}  \n"),
            format!("{}  data/0000/x\n", DIGEST.to_uppercase()),
            format!("{}  data/0000/x\n", &DIGEST[1..]),
            format!("0{DIGEST}  data/0000/x\n"),
            "é".repeat(40),
        ] {
            let refused = check(&format!("{good}{line}"));
            assert!(
                matches!(refused, Err(ArtifactError::ManifestLine { line: 3, .. })),
                "{line:?} {refused:?}"
            );
        }
        assert!(check("").is_err());
    }

    #[test]
    fn lines_files_and_names_at_the_limit_pass_and_one_past_it_is_refused() {
        let mut limits = Limits { manifest_lines: 5, ..Limits::default() };
        let four = lines(&["version", "header.tar", "data/0000/a", "data/0000/b", "data/0000/c"]);
        let parse = |text: &str, limits: &Limits| Manifest::parse(text.as_bytes(), limits);
        assert!(parse(&four, &limits).is_ok());
        assert!(parse(&format!("{four}{}", lines(&["data/0000/d"])), &limits).is_err());
        limits = Limits { payload_files: 3, ..Limits::default() };
        assert!(parse(&four, &limits).is_ok());
        assert!(parse(&format!("{four}{}", lines(&["data/0000/d"])), &limits).is_err());
        let named = |length| lines(&["version", "header.tar", &format!("data/0000/{}", "n".repeat(length))]);
        assert!(check(&named(255)).is_ok());
        assert!(matches!(check(&named(256)), Err(ArtifactError::TooLarge { .. })));
    }
}
