//! The checked-in header is what cbindgen makes of the crate.

use std::path::Path;

/// Set to write the header instead of comparing it: `ROTA_WRITE_HEADER=1 cargo test -p rust-ota-ffi header`.
const WRITE: &str = "ROTA_WRITE_HEADER";

#[test]
fn the_checked_in_header_is_what_cbindgen_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let sources = ["codes", "structures", "configuration", "update", "with_server", "handle"];
    let builder = sources.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(folder.join("src").join(name).with_extension("rs"))
    });
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = tidied(&String::from_utf8(made).unwrap());
    let path = folder.join("include/rust_ota.h");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "include/rust_ota.h is not what cbindgen makes; {WRITE}=1 writes it");
}

/// Without what is for Rust programs only (the sections that say what `unsafe` functions are promised), and in the comments
/// that C89 has.
fn tidied(header: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut in_safety = false;
    for line in header.lines() {
        match line.trim() {
            "* # Safety" | "# Safety" => {
                in_safety = true;
                // The empty line above it.
                kept.pop();
            }
            "*/" => in_safety = false,
            _ => {}
        }
        if !in_safety {
            kept.push(match line.split_once(" // ") {
                Some((code, comment)) => format!("{code} /* {comment} */"),
                None => parenthesized(line),
            });
        }
    }
    on_one_line(&kept).join("\n") + "\n"
}

/// A number below zero is one thing wherever it is put.
fn parenthesized(line: &str) -> String {
    match line.split_once(" -").filter(|_| line.starts_with("#define ")) {
        Some((name, number)) => format!("{name} (-{number})"),
        None => line.to_owned(),
    }
}

/// Comments of one line as one line.
fn on_one_line(lines: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for line in lines {
        let opening = joined.len().checked_sub(2).map(|at| joined[at].clone());
        match opening.filter(|opening| opening.trim() == "/*" && line.trim() == "*/") {
            Some(opening) => {
                let text = joined.pop().unwrap_or_default();
                joined.pop();
                joined.push(format!("{opening} {} */", text.trim()));
            }
            None => joined.push(line.clone()),
        }
    }
    joined
}
