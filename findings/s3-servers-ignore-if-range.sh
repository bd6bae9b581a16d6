#!/usr/bin/env bash
# S3-compatible servers answer a conditional range request as if the condition were not there.
#
# moto 5.2.5 (PyPI) and s3rver 3.7.1 (npm): `GET` with `Range: bytes=1000-` and `If-Range: "ETAG OF THE OLD OBJECT"`, after
# the object was replaced by another one of the same size, is answered with 206 and bytes of the new object. RFC 9110,
# 13.1.5, wants the range ignored then: 200 and the whole new object. Whoever goes on with a download that was cut gets
# the head of one file and the tail of another, and both answers look right. What tells the two apart is in the answer:
# its `ETag` is the new one.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.5' 'boto3==1.44.8'
npm install --silent --no-audit --no-fund --prefix node s3rver@3.7.1 >/dev/null 2>&1

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

cat >ask.py <<'PYTHON'
import sys, time, urllib.error, urllib.request
import boto3, botocore.config, botocore.exceptions

name, port = sys.argv[1], sys.argv[2]
s3 = boto3.client(
    "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="S3RVER", aws_secret_access_key="S3RVER",
    region_name="us-east-1",
    config=botocore.config.Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))
for _ in range(100):
    try:
        s3.create_bucket(Bucket="artifacts")
        break
    except botocore.exceptions.EndpointConnectionError:
        time.sleep(0.1)

def put(letter):
    return s3.put_object(Bucket="artifacts", Key="release", Body=letter * 2000)["ETag"]

def go_on(etag):
    address = s3.generate_presigned_url("get_object", Params={"Bucket": "artifacts", "Key": "release"})
    request = urllib.request.Request(address, headers={"Range": "bytes=1000-", "If-Range": etag})
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        return answer.status, len(body), body[:1].decode(), answer.headers["ETag"]

old = put(b"o")
same = go_on(old)
new = put(b"n")
other = go_on(old)
print(f"{name}: the same object: {same[0]}, {same[1]} bytes of {same[2]!r}; "
      f"replaced in between: {other[0]}, {other[1]} bytes of {other[2]!r}, its ETag is the new one: {other[3] == new}")
if same[:3] != (206, 1000, "o") or other[:3] != (206, 1000, "n") or other[3] != new:
    sys.exit(f"{name} behaves otherwise now")
PYTHON

port=$(free_port)
python/bin/moto_server -H 127.0.0.1 -p "$port" >moto.log 2>&1 &
servers+=($!)
python/bin/python ask.py "moto 5.2.5" "$port"

port=$(free_port)
mkdir store
node node/node_modules/s3rver/bin/s3rver.js --directory store --address 127.0.0.1 --port "$port" --silent >s3rver.log 2>&1 &
servers+=($!)
python/bin/python ask.py "s3rver 3.7.1" "$port"
