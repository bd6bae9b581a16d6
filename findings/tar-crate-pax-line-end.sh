#!/usr/bin/env bash
# The crate tar 0.4.46 writes what it cannot read: a pax record whose value has a line end in it.
#
# A pax record begins with its own length, so that its value may be any bytes, a line end among them; extended attributes are
# stored like that (SCHILY.xattr.NAME), and attributes of that kind exist. `Builder::append_pax_extensions` writes such a record
# as it should be, and GNU tar reads it. `Entry::pax_extensions` looks for the line end first and for the length after that:
# its first item is the error "malformed pax extension".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "line-end"
version = "0.0.0"
edition = "2021"
[dependencies]
tar = "=0.4.46"
TOML
cat >src/main.rs <<'RUST'
use tar::{Archive, Builder, Header};

fn archive(value: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.note", value)]).unwrap();
    let mut header = Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", &b"hello"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn main() {
    for (name, value) in [("one line", &b"a b"[..]), ("two lines", &b"a\nb"[..])] {
        let bytes = archive(value);
        std::fs::write(format!("{name}.tar"), &bytes).unwrap();
        let mut archive = Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let said = match entry.pax_extensions().unwrap().unwrap().next().unwrap() {
            Ok(record) => format!("{:?}", String::from_utf8_lossy(record.value_bytes())),
            Err(error) => error.to_string(),
        };
        println!("{name}: {said}");
    }
}
RUST
cargo build --quiet
said=$("./target/debug/line-end")
echo "$said"
[ "$said" = 'one line: "a b"
two lines: malformed pax extension' ] || { echo "it was another answer"; exit 1; }
# GNU tar has the attribute with its three bytes.
gnu=$(tar --xattrs -tvvf "two lines.tar" | sed -n 's/^ *x: *//p')
echo "GNU tar: $gnu"
[ "$gnu" = "3 user.note" ] || { echo "it was another answer"; exit 1; }
