#!/bin/sh
# Makes certificates that OpenSSL takes and WebPKI does not, with OpenSSL 3.0: `own-*` are signed by themselves, `leaf-*` by
# `odd-ca`. All have the key `odd.key`, but for the one on P-521. They are good until 2120, and nobody trusts them.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out odd.key 2>/dev/null
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/ca.key" 2>/dev/null
names=subjectAltName=DNS:localhost,IP:127.0.0.1

# As tutorials have it: CA:TRUE comes from the configuration of OpenSSL.
openssl req -x509 -new -key odd.key -subj /CN=localhost -days 34000 -out own.pem -addext "$names"
openssl req -x509 -new -key odd.key -subj /CN=localhost -days 34000 -out own-cn.pem
openssl req -x509 -new -key odd.key -subj /CN=x -days 34000 -out own-ip-name.pem -addext subjectAltName=DNS:127.0.0.1
openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -keyout "$work/p521.key" -subj /CN=localhost \
    -days 34000 -out own-p521.pem -addext "$names" 2>/dev/null
openssl req -new -key odd.key -subj /CN=localhost -out "$work/csr"
openssl x509 -req -in "$work/csr" -key odd.key -days 34000 -out own-v1.pem 2>/dev/null
: > "$work/index"
printf '[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' \
    "$work" "$work" > "$work/conf"
printf '%s\n' "$names" > "$work/ext"
openssl ca -batch -notext -config "$work/conf" -selfsign -keyfile odd.key -in "$work/csr" -startdate 20200101000000Z \
    -enddate 20210101000000Z -extfile "$work/ext" -out own-expired.pem 2>/dev/null

openssl req -x509 -new -key "$work/ca.key" -subj '/CN=rust-ota odd test CA' -days 34000 -out odd-ca.pem
leaf() {
    printf '%b' "$2" > "$work/ext"
    openssl x509 -req -in "$work/csr" -CA odd-ca.pem -CAkey "$work/ca.key" -days 34000 -extfile "$work/ext" \
        -out "leaf-$1.pem" 2>/dev/null
}
leaf ca-true "basicConstraints=CA:TRUE\n$names\n"
leaf cn 'basicConstraints=CA:FALSE\n'
leaf ip-name 'subjectAltName=DNS:127.0.0.1\n'
