//! Artifacts against the real `mender-artifact`: what it writes we read, what we write it reads.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic)]

use client_core::artifact::{
    self, Artifact, ArtifactError, Header, Limits, SignatureStatus, Trust, VerifyKeys,
};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tool, keys and input files in a folder of their own.
struct Bench {
    tool: PathBuf,
    folder: tempfile::TempDir,
    /// Name, private key, public key.
    keys: Vec<(&'static str, PathBuf, PathBuf)>,
}

const IMAGE: &str = "image.ext4";
const SCRIPTS: [&str; 2] = ["ArtifactCommit_Enter_05_check.sh", "ArtifactInstall_Leave_01"];

impl Bench {
    /// `None` when a program is missing; the reason is printed.
    fn new() -> Option<Bench> {
        let tool = interop::tool("mender-artifact")?;
        let openssl = interop::tool("openssl")?;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let image: Vec<u8> =
            (0..300_000u32).flat_map(|n| (n / 3).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(at(IMAGE), image).unwrap();
        fs::write(at("a.gz"), "not gzip").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("config,v1_2-x.json"), "{}\n").unwrap();
        fs::write(at("meta.json"), r#"{ "b": {"x": [1, 2, null]}, "a": "<é&>" }"#).unwrap();
        SCRIPTS.iter().for_each(|name| fs::write(at(name), format!("#!/bin/sh\n# {name}\n")).unwrap());
        let keys = [
            ("rsa", &["genrsa", "-traditional", "2048"][..], "rsa"),
            ("ecdsa", &["ecparam", "-genkey", "-name", "prime256v1", "-noout"], "ec"),
        ]
        .map(|(name, generate, kind)| {
            let (private, public) = (at(&format!("{name}.key")), at(&format!("{name}.pub")));
            fs::write(&private, output(Command::new(&openssl).args(generate))).unwrap();
            let text = output(Command::new(&openssl).arg(kind).args(["-pubout", "-in"]).arg(&private));
            fs::write(&public, text).unwrap();
            (name, private, public)
        });
        Some(Bench { tool, folder, keys: keys.to_vec() })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn real(&self) -> Command {
        let mut command = Command::new(&self.tool);
        command.current_dir(self.folder.path());
        command
    }

    /// Our tool, with paths relative to the folder made absolute.
    fn ours(&self, arguments: &[String]) -> Result<String, String> {
        let here = |text: &String| match self.at(text).exists() && !text.is_empty() {
            true => self.at(text).into_os_string(),
            false => OsString::from(text),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        match rust_ota_artifact::run(arguments.iter().map(here), &mut out, &mut err) {
            true => Ok(String::from_utf8(out).unwrap()),
            false => Err(String::from_utf8(err).unwrap()),
        }
    }

    fn trust(&self, key: Option<&str>) -> Trust {
        let Some(key) = key else { return Trust::DangerUnsigned };
        let mut keys = VerifyKeys::new();
        keys.add_pem(key, &fs::read(self.at(&format!("{key}.pub"))).unwrap()).unwrap();
        Trust::Keys(keys)
    }
}

/// The output of a program that has to succeed.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// One artifact to write; the options mean the same to both tools.
struct Case {
    name: &'static str,
    options: &'static str,
    files: &'static [&'static str],
    scripts: &'static [&'static str],
    meta_data: Option<&'static str>,
}

const CASES: [Case; 6] = [
    Case {
        name: "a root file system with defaults",
        options: "rootfs-image -n rel-1 -t dev-a -f image.ext4",
        files: &[IMAGE],
        scripts: &[],
        meta_data: None,
    },
    Case {
        name: "a root file system with everything",
        options: "rootfs-image -n rel-2 -t dev-a -t dev-b -f image.ext4 -s ArtifactCommit_Enter_05_check.sh \
                  -s ArtifactInstall_Leave_01 -d k1:v1 -d k2:v:2 -p p1:q1 -p a<b>:c&d -g grp -G g1 -G g2 -N rel-0 -N rel-1 \
                  --clears-provides x.* --software-name os --software-version 7",
        files: &[IMAGE],
        scripts: &SCRIPTS,
        meta_data: None,
    },
    Case {
        name: "a root file system without defaults",
        options: "rootfs-image -n rel-3 -t dev-a -f image.ext4 --no-checksum-provide --no-default-software-version \
                  --no-default-clears-provides",
        files: &[IMAGE],
        scripts: &[],
        meta_data: None,
    },
    Case {
        name: "several files for a module",
        options: "module-image -T my-mod -n mod-1 -t dev-a -f image.ext4 -f a.gz -f empty -f config,v1_2-x.json -m meta.json \
                  -s ArtifactInstall_Leave_01 --software-filesystem data -d k:v",
        files: &[IMAGE, "a.gz", "empty", "config,v1_2-x.json"],
        scripts: &[SCRIPTS[1]],
        meta_data: Some("{\"a\":\"\\u003cé\\u0026\\u003e\",\"b\":{\"x\":[1,2,null]}}"),
    },
    Case {
        name: "a module without files",
        options: "module-image -T my-mod -n mod-2 -t dev-a",
        files: &[],
        scripts: &[],
        meta_data: None,
    },
    Case {
        name: "a bootstrap artifact",
        options: "bootstrap-artifact -n boot-1 -t dev-a -p a:b -p c:d --clears-provides e.* -d f:g -g grp",
        files: &[],
        scripts: &[],
        meta_data: None,
    },
];

/// What the members of the header are, as text, whichever tool has written them.
fn header_members(path: &Path, compression: &str) -> Vec<(String, String)> {
    let (member, flag) = match compression {
        "none" => ("header.tar", "-"),
        "gzip" => ("header.tar.gz", "-z"),
        "lzma" => ("header.tar.xz", "-J"),
        other => panic!("{other}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join(member);
    fs::write(&inner, output(Command::new("tar").arg("-xOf").arg(path).arg(member))).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        command.args(if flag == "-" { &[] } else { std::slice::from_ref(&flag) });
        String::from_utf8(output(command.arg(arguments[0]).arg(&inner).args(&arguments[1..]))).unwrap()
    };
    let names: Vec<String> = tar(&["-tf"]).lines().map(str::to_owned).collect();
    names.into_iter().map(|name| (name.clone(), tar(&["-xOf", &name]))).collect()
}

fn open(path: &Path, trust: &Trust) -> Result<Artifact, ArtifactError> {
    artifact::open(File::open(path).unwrap(), trust, &Limits::default())
}

/// Opens, verifies and compares an artifact with what went into it.
fn check_contents(bench: &Bench, path: &Path, case: &Case, key: Option<&str>) -> Header {
    let what = case.name;
    let mut artifact = open(path, &bench.trust(key)).unwrap_or_else(|error| panic!("{what}: {error}"));
    match (&artifact.header.signature, key) {
        (SignatureStatus::Verified { key }, Some(expected)) => assert_eq!(key, expected),
        (SignatureStatus::Unsigned, None) => {}
        other => panic!("{what}: {other:?}"),
    }
    let scripts: Vec<&str> = artifact.header.scripts.iter().map(|script| script.name.as_str()).collect();
    assert_eq!(scripts, case.scripts, "{what}");
    for script in &artifact.header.scripts {
        assert_eq!(script.content, fs::read(bench.at(&script.name)).unwrap(), "{what}");
    }
    let meta_data = artifact.header.payload.as_ref().and_then(|payload| payload.meta_data.as_deref());
    assert_eq!(meta_data, case.meta_data, "{what}");
    let mut names = Vec::new();
    while let Some(mut file) = artifact.payload.next_file().unwrap() {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == fs::read(bench.at(file.name())).unwrap(), "{what}: {}", file.name());
        names.push(file.name().to_owned());
    }
    assert_eq!(names, case.files, "{what}");
    artifact.header
}

/// Our compressions; the tool's names for them.
const COMPRESSIONS: [&str; 3] = ["none", "gzip", "lzma"];

#[test]
fn both_tools_write_the_same_header_and_read_each_other() {
    let Some(bench) = Bench::new() else { return };
    for case in &CASES {
        for compression in COMPRESSIONS {
            for key in [None, Some("rsa"), Some("ecdsa")] {
                let what = format!("{}, {compression}, {key:?}", case.name);
                let mut options = words(&format!("write {} --compression {compression}", case.options));
                options.extend(key.map(|key| format!("--key={key}.key")));
                let (theirs, ours) = (bench.at("theirs.mender"), bench.at("ours.mender"));

                let mut command = bench.real();
                output(command.args(&options).args(["-o", "theirs.mender"]));
                let read = check_contents(&bench, &theirs, case, key);

                let mut options: Vec<String> = options
                    .into_iter()
                    .map(|option| match option.strip_prefix("--key=") {
                        Some(key) => format!("--key={}", bench.at(key).display()),
                        None => option,
                    })
                    .collect();
                options.extend(["-o".to_owned(), ours.display().to_string()]);
                bench.ours(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
                let written = check_contents(&bench, &ours, case, key);
                assert_eq!(written.provides, read.provides, "{what}");
                assert_eq!(written.clears_provides, read.clears_provides, "{what}");
                assert_eq!(written.depends, read.depends, "{what}");
                assert_eq!(written.payload, read.payload, "{what}");

                let mut validate = bench.real();
                validate.arg("validate").args(key.map(|key| format!("--key={key}.pub"))).arg("ours.mender");
                output(&mut validate);
                let text = String::from_utf8(output(bench.real().args(["read", "ours.mender"]))).unwrap();
                assert!(text.contains(&format!("Name: {}\n", read.artifact_name)), "{what}: {text}");

                // The order of scripts in theirs is random.
                let mut members = [header_members(&theirs, compression), header_members(&ours, compression)];
                members.iter_mut().for_each(|members| members.sort());
                // Their release writes no type for root file systems, and later releases refuse that.
                members[0].iter_mut().for_each(|(_, text)| {
                    if text.starts_with("{\"type\":\"\"") {
                        *text = text.replacen("\"\"", "\"rootfs-image\"", 1);
                    }
                });
                assert_eq!(members[0], members[1], "{what}");
                assert_eq!(listing(&theirs), listing(&ours), "{what}");
                fs::remove_file(&theirs).unwrap();
                fs::remove_file(&ours).unwrap();
            }
        }
    }
}

/// Mode and name of each member of the outer archive.
fn listing(path: &Path) -> Vec<(String, String)> {
    let text = String::from_utf8(output(Command::new("tar").arg("-tvf").arg(path))).unwrap();
    let column = |line: &str, at: usize| line.split_whitespace().nth(at).unwrap().to_owned();
    text.lines().map(|line| (column(line, 0), column(line, 5))).collect()
}

#[test]
fn our_zstd_artifacts_are_read_back() {
    let Some(bench) = Bench::new() else { return };
    let ours = bench.at("ours.mender");
    for compression in ["zstd", "zstd_fastest", "zstd_fast", "zstd_better", "zstd_best"] {
        let options = format!("write {} --compression {compression} -o {}", CASES[1].options, ours.display());
        bench.ours(&words(&options)).unwrap();
        check_contents(&bench, &ours, &CASES[1], None);
    }
}

#[test]
fn what_one_tool_signs_the_other_verifies() {
    let Some(bench) = Bench::new() else { return };
    output(bench.real().args(words(&format!("write {} -o plain.mender", CASES[1].options))));
    for (name, private, public) in &bench.keys {
        output(bench.real().args(["sign", "plain.mender", "-o", "theirs.mender", "-k"]).arg(private));
        check_contents(&bench, &bench.at("theirs.mender"), &CASES[1], Some(name));

        let ours = bench.at("ours.mender");
        let sign = format!("sign plain.mender -k {} -o {}", private.display(), ours.display());
        bench.ours(&words(&sign)).unwrap();
        check_contents(&bench, &ours, &CASES[1], Some(name));
        output(bench.real().args(["validate", "ours.mender", "-k"]).arg(public));
        let validate = format!("validate -k {} ours.mender", public.display());
        assert!(bench.ours(&words(&validate)).unwrap().contains("validated successfully"));
        let read = bench.ours(&words(&format!("read -k {} ours.mender", public.display()))).unwrap();
        assert!(read.contains("signed and verified correctly"), "{read}");

        // What nobody should accept, neither of us does.
        for (other, _, wrong) in bench.keys.iter().filter(|(other, _, _)| other != name) {
            assert!(open(&ours, &bench.trust(Some(other))).is_err());
            let validate = format!("validate -k {} ours.mender", wrong.display());
            assert!(bench.ours(&words(&validate)).is_err());
            let theirs = bench.real().args(["validate", "ours.mender", "-k"]).arg(wrong).output().unwrap();
            assert!(!theirs.status.success());
        }
        assert!(bench.ours(&words("validate ours.mender")).unwrap_err().contains("no key to verify it"));
        assert!(bench.ours(&words(&format!("validate -k {} plain.mender", public.display()))).is_err());
        assert!(bench.ours(&words(&sign.replace("plain", "ours"))).unwrap_err().contains("--force"));
        bench.ours(&words(&format!("{} --force", sign.replace("plain", "ours")))).unwrap();
    }
}

#[test]
fn keys_of_our_keygen_sign_for_both_tools() {
    let Some(bench) = Bench::new() else { return };
    for (kind, known_to_theirs) in [("ecdsa-p256", true), ("ed25519", false)] {
        let key = bench.at(kind);
        bench.ours(&words(&format!("keygen -T {kind} -o {}", key.display()))).unwrap();
        assert!(
            bench.ours(&words(&format!("keygen -T {kind} -o {}", key.display()))).is_err(),
            "no overwriting"
        );
        let ours = bench.at("ours.mender");
        let options = format!("write {} -k {} -o {}", CASES[3].options, key.display(), ours.display());
        bench.ours(&words(&options)).unwrap();
        let public = bench.at(&format!("{kind}.pub"));
        bench.ours(&words(&format!("validate -k {} ours.mender", public.display()))).unwrap();
        check_contents(&bench, &ours, &CASES[3], Some(kind));
        if known_to_theirs {
            output(bench.real().args(["validate", "ours.mender", "-k"]).arg(&public));
            output(bench.real().args(["sign", "ours.mender", "-f", "-o", "theirs.mender", "-k"]).arg(&key));
            check_contents(&bench, &bench.at("theirs.mender"), &CASES[3], Some(kind));
        }
    }
}

#[test]
fn every_form_of_key_and_signature_openssl_makes_is_understood() {
    let Some(bench) = Bench::new() else { return };
    let openssl = interop::tool("openssl").unwrap();
    let plain = bench.at("plain.mender");
    bench.ours(&words(&format!("write {} -o {}", CASES[4].options, plain.display()))).unwrap();
    let manifest = output(Command::new("tar").arg("-xOf").arg(&plain).arg("manifest"));
    fs::write(bench.at("manifest"), manifest).unwrap();
    let generate: [(&str, &[&str]); 7] = [
        ("rsa3072", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
        ("rsa1024", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]),
        ("p256", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("p521", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ("p256params", &["ecparam", "-genkey", "-name", "prime256v1"]),
        ("ed", &["genpkey", "-algorithm", "ed25519"]),
    ];
    for (name, arguments) in generate {
        let (key, public) = (bench.at(&format!("{name}.key")), bench.at(&format!("{name}.pub")));
        fs::write(&key, output(Command::new(&openssl).args(arguments))).unwrap();
        fs::write(&public, output(Command::new(&openssl).args(["pkey", "-pubout", "-in"]).arg(&key)))
            .unwrap();
        let pem = fs::read(&public).unwrap();
        let known = VerifyKeys::new().add_pem(name, &pem);
        assert_eq!(known.is_ok(), !["rsa1024", "p521"].contains(&name), "{name}: {known:?}");
        if known.is_err() {
            continue;
        }
        // OpenSSL's own signature, which is DER for elliptic curves.
        let mut sign = Command::new(&openssl);
        let signature = match name {
            "ed" => output(
                sign.args(["pkeyutl", "-sign", "-rawin", "-inkey"])
                    .arg(&key)
                    .arg("-in")
                    .arg(bench.at("manifest")),
            ),
            _ => output(sign.args(["dgst", "-sha256", "-sign"]).arg(&key).arg(bench.at("manifest"))),
        };
        fs::write(bench.at("signature"), &signature).unwrap();
        let base64 = output(Command::new(&openssl).args(["base64", "-in"]).arg(bench.at("signature")));
        with_signature(&bench, &plain, &base64);
        check_contents(&bench, &bench.at("signed.mender"), &CASES[4], Some(name));
        if let Some(raw) = fixed_width(&signature).filter(|_| name.starts_with('p')) {
            fs::write(bench.at("signature"), raw).unwrap();
            let base64 =
                output(Command::new(&openssl).args(["base64", "-A", "-in"]).arg(bench.at("signature")));
            with_signature(&bench, &plain, &base64);
            check_contents(&bench, &bench.at("signed.mender"), &CASES[4], Some(name));
        }
        // Ours with the same key; the library signs with P-256 only, as the real tool does.
        let sign = format!("sign plain.mender -k {} -o {}", key.display(), bench.at("ours.mender").display());
        let signed = bench.ours(&words(&sign));
        assert_eq!(signed.is_ok(), name != "p384", "{name}: {signed:?}");
        if signed.is_ok() {
            check_contents(&bench, &bench.at("ours.mender"), &CASES[4], Some(name));
        }
    }
    // RSA-PSS is not in the format.
    let key = bench.at("rsa3072.key");
    let pss = ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sign"];
    let signature = output(Command::new(&openssl).args(pss).arg(&key).arg(bench.at("manifest")));
    fs::write(bench.at("signature"), signature).unwrap();
    let base64 = output(Command::new(&openssl).args(["base64", "-A", "-in"]).arg(bench.at("signature")));
    with_signature(&bench, &plain, &base64);
    let refused = open(&bench.at("signed.mender"), &bench.trust(Some("rsa3072")));
    assert!(matches!(refused, Err(ArtifactError::SignatureMismatch { .. })));
}

/// `r‖s` of a DER signature.
fn fixed_width(der: &[u8]) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| -> (Vec<u8>, usize) {
        let length = usize::from(bytes[1]);
        (bytes[2..2 + length].to_vec(), 2 + length)
    };
    if der.first() != Some(&0x30) {
        return None;
    }
    let body = &der[2..];
    let (r, used) = number(body);
    let (s, _) = number(&body[used..]);
    let width = if der.len() > 80 { 48 } else { 32 };
    let fixed = |number: Vec<u8>| {
        let digits = number.strip_prefix(&[0]).unwrap_or(&number).to_vec();
        [vec![0; width - digits.len()], digits].concat()
    };
    Some([fixed(r), fixed(s)].concat())
}

/// Puts a signature into an artifact with the system's tar.
fn with_signature(bench: &Bench, artifact: &Path, signature: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("tar").arg("-xf").arg(artifact).arg("-C").arg(folder.path()));
    fs::write(folder.path().join("manifest.sig"), signature).unwrap();
    output(
        Command::new("tar")
            .args(["--format=ustar", "--owner=0", "--group=0", "-cf"])
            .arg(bench.at("signed.mender"))
            .arg("-C")
            .arg(folder.path())
            .args(["version", "manifest", "manifest.sig", "header.tar.gz", "data/0000.tar.gz"]),
    );
}

#[test]
fn what_neither_client_supports_is_refused_by_name() {
    let Some(bench) = Bench::new() else { return };
    let refused = |options: &str, because: &str| {
        output(bench.real().args(words(&format!("write {options} -o theirs.mender"))));
        let error = open(&bench.at("theirs.mender"), &Trust::DangerUnsigned).unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
    };
    refused("module-image -T m -n n -t d -f empty --augment-type m --augment-file a.gz", "augmented");
    refused("rootfs-image -n n -t d -f image.ext4 -v 2", "format 2 is not supported, only 3");
}

#[test]
fn what_is_dumped_makes_the_same_artifact_again() {
    let Some(bench) = Bench::new() else { return };
    for case in &CASES {
        output(bench.real().args(words(&format!("write {} -o theirs.mender", case.options))));
        let at = |name: &str| bench.at(name).display().to_string();
        let dump = format!(
            "dump theirs.mender --scripts {} --meta-data {} --files {} --print-cmdline",
            at("scripts"),
            at("meta"),
            at("files")
        );
        let command = bench.ours(&words(&dump)).unwrap();
        for name in case.files {
            assert!(
                fs::read(bench.at("files").join(name)).unwrap() == fs::read(bench.at(name)).unwrap(),
                "{name}"
            );
        }
        // As a shell takes it apart.
        let script = format!("printf '%s\\n' {command}");
        let split = String::from_utf8(output(Command::new("bash").args(["-c", &script]))).unwrap();
        let command: Vec<String> = split.lines().map(str::to_owned).collect();
        let again = [&command[..], &["-o".to_owned(), at("again.mender")]].concat();
        bench.ours(&again).unwrap_or_else(|error| panic!("{}: {error}: {again:?}", case.name));
        let (before, after) = (header(&bench.at("theirs.mender")), header(&bench.at("again.mender")));
        assert_eq!(before.provides, after.provides);
        assert_eq!(before.clears_provides, after.clears_provides);
        assert_eq!(before.depends, after.depends);
        assert_eq!(before.payload, after.payload);
        assert_eq!(before.scripts, after.scripts);
        assert_eq!(before.artifact_group, after.artifact_group);
        // The real tool understands the command too.
        output(bench.real().args(&command).args(["-o", "theirs-again.mender"]));
        assert_eq!(header(&bench.at("theirs-again.mender")).provides, after.provides);
    }
}

fn header(path: &Path) -> Header {
    open(path, &Trust::DangerUnsigned).unwrap().header
}

#[test]
fn reproducible_artifacts_are_the_same_bytes_and_a_failed_write_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let write = |name: &str, extra: &str| {
        bench.ours(&words(&format!("write {} {extra} -o {}", CASES[3].options, bench.at(name).display())))
    };
    write("one.mender", "--reproducible").unwrap();
    write("two.mender", "--reproducible").unwrap();
    assert!(fs::read(bench.at("one.mender")).unwrap() == fs::read(bench.at("two.mender")).unwrap());
    let before = fs::read_dir(bench.folder.path()).unwrap().count();
    assert!(write("three.mender", "--clears-provides x -f no-such-file").is_err());
    assert!(write("three.mender", "-p K:1 -p k:2").unwrap_err().contains("twice"));
    assert!(write("three.mender", "-s a.gz").unwrap_err().contains("not the name of a state script"));
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), before);
}
