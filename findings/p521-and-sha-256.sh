#!/usr/bin/env bash
# The Rust crate p521 refuses a valid signature over a SHA-256 digest.
#
# p521 0.13.3 with ecdsa 0.16.9 (crates.io): ECDSA may be used with a digest that is shorter than the field (FIPS 186-5, 6.4:
# only one that is longer is cut), and `openssl dgst -sha256` signs and verifies with a P-521 key. `verify_prehash` refuses
# such a signature: it wants a digest of half the field at least, 33 bytes for P-521, and SHA-256 has 32. The same digest with
# zeros in front, which is the same number, is accepted; SHA-384 and SHA-512 are accepted as they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.0.0"
edition = "2021"

[dependencies]
p521 = { version = "=0.13.3", features = ["ecdsa", "pkcs8", "pem"] }
ecdsa = "=0.16.9"
sha2 = "=0.10.9"
TOML
cat >src/main.rs <<'RUST'
use p521::ecdsa::{signature::hazmat::PrehashVerifier, Signature, VerifyingKey};
use p521::pkcs8::DecodePublicKey;
use sha2::Digest;

fn main() {
    let key = p521::PublicKey::from_public_key_pem(&std::fs::read_to_string("key.pub").unwrap()).unwrap();
    let key = VerifyingKey::from_affine(*key.as_affine()).unwrap();
    let message = std::fs::read("message").unwrap();
    let check = |name: &str, digest: &[u8]| {
        let signature = Signature::from_der(&std::fs::read(format!("{name}.signature")).unwrap()).unwrap();
        let mut padded = vec![0; 66 - digest.len()];
        padded.extend(digest);
        let accepts = |digest: &[u8]| key.verify_prehash(digest, &signature).is_ok();
        println!("{name}: as it is {}, with zeros in front {}", accepts(digest), accepts(&padded));
    };
    check("sha256", &sha2::Sha256::digest(&message));
    check("sha384", &sha2::Sha384::digest(&message));
    check("sha512", &sha2::Sha512::digest(&message));
}
RUST
openssl ecparam -genkey -name secp521r1 -noout -out key
openssl ec -in key -pubout -out key.pub 2>/dev/null
echo hello >message
for digest in sha256 sha384 sha512; do
    openssl dgst -$digest -sign key -out $digest.signature message
    openssl dgst -$digest -verify key.pub -signature $digest.signature message >/dev/null
done
CARGO_TARGET_DIR=$folder/target cargo run --quiet >output
cat output
diff output - <<'EXPECTED'
sha256: as it is false, with zeros in front true
sha384: as it is true, with zeros in front true
sha512: as it is true, with zeros in front true
EXPECTED
