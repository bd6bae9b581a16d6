//! `rust-ota-artifact delta` as scripts call it: of images and of artifacts, what the artifact says then, and what is refused.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic)]

use artifact::{Header, Limits, Sha256, SignatureStatus, Trust, VerifyKeys};
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;

/// A folder with two images that differ by little, artifacts with them, and keys.
struct Bench {
    folder: tempfile::TempDir,
}

/// As hard to compress as programs are.
fn content(words: u32, seed: u32) -> Vec<u8> {
    (0..words).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let old = content(400_000, 0);
        let mut new = content(3000, 77);
        new.extend_from_slice(&old);
        new.truncate(old.len());
        fs::write(bench.at("old.img"), &old).unwrap();
        fs::write(bench.at("new.img"), &new).unwrap();
        bench.run("keygen -o KEY");
        bench.run("write rootfs-image -t dev -n one -f OLD -k KEY -o one.mender");
        bench.run("write rootfs-image -t dev -t other -n two -f NEW -p app.colour:red -k KEY -o two.mender");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The exit code, and what was printed and said. Words that name files become paths.
    fn exit(&self, line: &str) -> (u8, String, String) {
        let word = |word: &str| match word {
            "OLD" => self.at("old.img").into_os_string(),
            "NEW" => self.at("new.img").into_os_string(),
            "KEY" => self.at("key").into_os_string(),
            name if name.ends_with(".mender") => self.at(name).into_os_string(),
            other => other.into(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = rust_ota_artifact::exit_code(line.split_whitespace().map(word), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        let (code, printed, said) = self.exit(line);
        assert_eq!(code, 0, "{line}: {said}");
        printed
    }

    fn header(&self, name: &str) -> Header {
        let mut keys = VerifyKeys::new();
        keys.add_pem("key", &fs::read(self.at("key.pub")).unwrap()).unwrap();
        let file = File::open(self.at(name)).unwrap();
        artifact::open(file, &Trust::Keys(keys), &Limits::default()).unwrap().header
    }

    fn digest(&self, name: &str) -> String {
        Sha256::of(&fs::read(self.at(name)).unwrap()).to_string()
    }
}

#[test]
fn a_delta_between_artifacts_says_what_the_new_one_says_and_what_it_is_for() {
    let bench = Bench::new();
    let said = bench.run("delta -k KEY one.mender two.mender -o delta.mender --json");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["delta"]["verified"], true);
    assert_eq!(said["delta"]["full_bytes"], fs::metadata(bench.at("two.mender")).unwrap().len());
    assert_eq!(said["delta"]["source_sha256"], bench.digest("old.img"));
    assert!(said["delta"]["bytes"].as_u64().unwrap() < 20_000, "{said}");
    assert!(said["delta"]["memory_bytes"].as_u64().unwrap() <= 6 << 20);

    let header = bench.header("delta.mender");
    assert!(matches!(header.signature, SignatureStatus::Verified { .. }));
    assert_eq!(header.artifact_name, *"two");
    let types: Vec<&str> = header.depends.device_type.iter().map(|name| name.as_str()).collect();
    assert_eq!(types, ["dev", "other"]);
    assert_eq!(header.payload.unwrap().payload_type, *"rust-ota-delta");
    assert_eq!(header.depends.type_info["rootfs-image.checksum"], [bench.digest("old.img")]);
    let provides = header.provides.unwrap();
    assert_eq!(provides["rootfs-image.checksum"], bench.digest("new.img"));
    assert_eq!((provides["rootfs-image.version"].as_str(), provides["app.colour"].as_str()), ("two", "red"));
    assert!(header.clears_provides.unwrap().contains(&"rootfs-image.*".to_owned()));

    bench.run(
        "validate -k KEY.pub delta.mender"
            .replace("KEY.pub", &bench.at("key.pub").display().to_string())
            .as_str(),
    );
    let shown = bench.run("read delta.mender");
    for part in
        ["Type:   rust-ota-delta", "from an image of 1600000 bytes", &bench.digest("new.img"), "of memory"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_delta_between_images_says_what_the_options_say() {
    let bench = Bench::new();
    let options =
        "-n three -t dev -k KEY --software-version 3.0 -d app.size:5 -N one --compression lzma --jobs 2";
    let said = bench.run(&format!("delta {options} OLD NEW -o delta.mender"));
    assert!(said.contains("applied to the old image, and the same as the new one"), "{said}");
    let header = bench.header("delta.mender");
    assert_eq!(header.artifact_name, *"three");
    assert_eq!(header.provides.unwrap()["rootfs-image.version"], "3.0");
    assert_eq!(header.depends.type_info["app.size"], ["5"]);
    assert_eq!(header.depends.artifact_name.unwrap(), ["one"]);
    // Images and artifacts may be mixed, and what is in an artifact is the same image.
    let of_images = bench.run("delta -n x -t dev --reproducible --json OLD NEW -o a.mender");
    let mixed = bench.run("delta -n x -t dev --reproducible --json one.mender NEW -o b.mender");
    assert_eq!(of_images, mixed);
    assert_eq!(fs::read(bench.at("a.mender")).unwrap(), fs::read(bench.at("b.mender")).unwrap());
}

#[test]
fn the_name_in_the_options_is_the_version_that_is_provided() {
    let bench = Bench::new();
    bench.run("delta -k KEY -n two-by-delta -t special one.mender two.mender -o delta.mender");
    let header = bench.header("delta.mender");
    assert_eq!(header.artifact_name, *"two-by-delta");
    assert_eq!(header.provides.unwrap()["rootfs-image.version"], "two-by-delta");
    assert_eq!(header.depends.device_type.len(), 1);
}

#[test]
fn what_cannot_become_a_delta_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    bench.run("write module-image -T app -t dev -n m -f OLD -k KEY -o module.mender");
    for (line, part) in [
        ("delta OLD NEW -o x.mender", "--artifact-name"),
        ("delta -n a OLD NEW -o x.mender", "--device-type"),
        ("delta -n a -t dev OLD -o x.mender", "two images"),
        ("delta -n a -t dev OLD NEW NEW -o x.mender", "two images"),
        ("delta one.mender module.mender -o x.mender", "only rootfs-image"),
        ("delta -n a -t dev --compression gzip OLD NEW -o x.mender", "zstd_best or lzma"),
        ("delta -n a -t dev --jobs 0 OLD NEW -o x.mender", "--jobs"),
        ("delta -n a -t dev --max-artifact-size 10 OLD NEW -o x.mender", "--max-artifact-size"),
        ("delta one.mender two.mender -o two.mender", "both the output and an input"),
    ] {
        let (code, _, said) = bench.exit(line);
        assert!(code == 1 && said.contains(part), "{line}: {code} {said}");
        assert!(!bench.at("x.mender").exists(), "{line}");
    }
}

#[test]
fn a_compressed_squashfs_is_told_of() {
    let bench = Bench::new();
    let mut image = fs::read(bench.at("new.img")).unwrap();
    image[..4].copy_from_slice(b"hsqs");
    image[24..26].copy_from_slice(&[0xC0, 0]);
    fs::write(bench.at("new.img"), &image).unwrap();
    let (code, _, said) = bench.exit("delta -n a -t dev OLD NEW -o x.mender");
    assert!(code == 0 && said.contains("compressed squashfs") && said.contains("-noD"), "{said}");
    image[24] = 0xCB;
    fs::write(bench.at("new.img"), &image).unwrap();
    let (code, _, said) = bench.exit("delta -n a -t dev OLD NEW -o x.mender");
    assert!(code == 0 && !said.contains("squashfs"), "{said}");
}
