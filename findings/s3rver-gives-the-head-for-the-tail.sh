#!/usr/bin/env bash
# s3rver 3.7.1 (npm) answers a question for the last bytes of an object with its first ones.
#
# `Range: bytes=-6` wants the last six bytes (RFC 9110, 14.1.2), and S3 gives them. This server reads it as `bytes=0-6`: 206
# and the first seven bytes, one more than were asked for. `bytes=20-` and `bytes=20-25` are answered right. Who reads the
# directory at the end of an archive that way, as of a zip or a Parquet file, gets its beginning; what tells it is `Content-Range`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund s3rver@3.7.1 >/dev/null 2>&1
mkdir store
cat >ask.js <<'JAVASCRIPT'
const http = require("http");
const S3rver = require("s3rver");

const server = new S3rver({
  address: "127.0.0.1", port: 0, silent: true, directory: "store", configureBuckets: [{ name: "artifacts" }],
});

function ask(port, method, headers, body) {
  return new Promise((done, failed) => {
    const request = http.request({ host: "127.0.0.1", port, method, path: "/artifacts/letters", headers }, (answer) => {
      let text = "";
      answer.on("data", (more) => (text += more));
      answer.on("end", () => done([answer.statusCode, answer.headers["content-range"], text]));
    });
    request.on("error", failed);
    request.end(body);
  });
}

server.run().then(async ({ port }) => {
  await ask(port, "PUT", { "content-length": 26 }, "abcdefghijklmnopqrstuvwxyz");
  for (const range of ["bytes=20-", "bytes=20-25", "bytes=-6"]) {
    console.log(`${range}: ${(await ask(port, "GET", { range })).join(", ")}`);
  }
  await server.close();
});
JAVASCRIPT
node ask.js | tee said
diff - said <<'TEXT' || { echo "s3rver behaves otherwise now"; exit 1; }
bytes=20-: 206, bytes 20-25/26, uvwxyz
bytes=20-25: 206, bytes 20-25/26, uvwxyz
bytes=-6: 206, bytes 0-6/26, abcdefg
TEXT
