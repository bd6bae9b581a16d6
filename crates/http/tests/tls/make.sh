#!/bin/sh
# Makes the certificates and keys of the TLS tests, with OpenSSL 3.0. They are good until 2120, and nobody trusts them.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: > "$work/index"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }

# root NAME SUBJECT
root() {
    key "$1"
    openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days 34000 -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}

# issue NAME SUBJECT ISSUER START END EXTENSIONS
issue() {
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$2" -out "$work/$1.csr"
    printf '%b' "$6" > "$work/ext"
    cat > "$work/conf" <<CONF
[ca]
default_ca=x
[x]
database=$work/index
new_certs_dir=$work
rand_serial=yes
default_md=sha256
policy=p
unique_subject=no
[p]
commonName=supplied
CONF
    openssl ca -batch -notext -config "$work/conf" -cert "$3.pem" -keyfile "$3.key" -in "$work/$1.csr" \
        -startdate "$4" -enddate "$5" -extfile "$work/ext" -out "$1.pem" 2>/dev/null
}

server='subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n'
root server-ca 'rust-ota test server CA'
issue server localhost server-ca 20240101000000Z 21200101000000Z "$server"
issue expired localhost server-ca 20200101000000Z 20210101000000Z "$server"
root client-ca 'rust-ota test client CA'
issue client-middle 'rust-ota test client middle CA' client-ca 20240101000000Z 21200101000000Z \
    'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n'
issue client device client-middle 20240101000000Z 21200101000000Z 'extendedKeyUsage=clientAuth\n'
cat client.pem client-middle.pem > client-chain.pem
rm client.pem client-middle.pem client-middle.key client-ca.key server-ca.key
