#!/usr/bin/env bash
# An archive that the crate tar 0.4.46 writes with pax records cannot be read by BusyBox 1.35 (Debian 12, busybox-static).
#
# A pax header is a member of its own in front of the one that it is about. What it is called means nothing, and
# `Builder::append_pax_extensions` leaves its name empty. BusyBox says "invalid tar magic" and ends with 1, where GNU tar lists
# the member. With any name in that header BusyBox lists it too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq busybox-static >/dev/null 2>&1
for package in busybox-static_*.deb; do dpkg-deb -x "$package" root; done
busybox=$(find "$folder/root" -type f -path '*bin/busybox')
version=$("$busybox" | sed -n '1s/^BusyBox v\([0-9]*\.[0-9]*\).*/\1/p')
echo "BusyBox $version"
[ "$version" = 1.35 ] || { echo "this is another BusyBox"; exit 1; }
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "empty-name"
version = "0.0.0"
edition = "2021"
[dependencies]
tar = "=0.4.46"
TOML
cat >src/main.rs <<'RUST'
use tar::{Builder, EntryType, Header};

fn member(builder: &mut Builder<Vec<u8>>) {
    let mut header = Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", &b"hello"[..]).unwrap();
}

fn main() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.note", &b"x"[..])]).unwrap();
    member(&mut builder);
    std::fs::write("without-a-name.tar", builder.into_inner().unwrap()).unwrap();

    let record = b"28 SCHILY.xattr.user.note=x\n";
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(record.len() as u64);
    header.set_path("pax").unwrap();
    header.set_cksum();
    builder.append(&header, &record[..]).unwrap();
    member(&mut builder);
    std::fs::write("with-a-name.tar", builder.into_inner().unwrap()).unwrap();
}
RUST
cargo run --quiet
check() {
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "it should have been: $3"; exit 1; }
}
check "GNU tar, without a name" "$(tar -tf without-a-name.tar)" "file"
check "GNU tar, with a name" "$(tar -tf with-a-name.tar)" "file"
check "BusyBox, with a name" "$("$busybox" tar -tf with-a-name.tar 2>&1; echo "exit $?")" "$(printf 'file\nexit 0')"
check "BusyBox, without a name" "$("$busybox" tar -tf without-a-name.tar 2>&1; echo "exit $?")" "$(printf 'tar: invalid tar magic\nexit 1')"
