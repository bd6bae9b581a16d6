#!/usr/bin/env bash
# npm's tar 7.5.23 puts access and change time into the last 24 bytes of the ustar field "prefix".
#
# The header says `ustar`, NUL, `00`, in which bytes 345 to 499 are the prefix of the name. With the options that it has by
# itself, and with `noPax`, bytes 476 to 499 hold two octal times, behind the NUL that ends an empty prefix, and nothing in
# the header says so (the format that has times there, star's, marks itself with `tar` at byte 508). With `portable` the
# bytes are zeros. A reader that takes the field whole, or that wants NULs behind the first NUL, gets other names or
# refuses the archive.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

npm install --silent --no-audit --no-fund --prefix node tar@7.5.23 >/dev/null 2>&1
echo content >file
cat >write.mjs <<'JAVASCRIPT'
import { create } from "./node/node_modules/tar/dist/esm/index.js";
await create({ file: "usual.tar" }, ["file"]);
await create({ file: "no-pax.tar", noPax: true }, ["file"]);
await create({ file: "portable.tar", portable: true }, ["file"]);
JAVASCRIPT
node write.mjs

python3 - <<'PYTHON'
import re, sys

def header_of_file(path):
    """The header of the member itself, behind a pax header if there is one."""
    data, at = open(path, "rb").read(), 0
    while data[at + 156 : at + 157] == b"x":
        at += 512 + (int(data[at + 124 : at + 135], 8) + 511) // 512 * 512
    return data[at : at + 512]

for path, times in [("usual.tar", True), ("no-pax.tar", True), ("portable.tar", False)]:
    header = header_of_file(path)
    prefix, end = header[345:500], header[508:512]
    print(f"{path}: magic {header[257:265]}, prefix ends in {prefix[131:]}, bytes 508 to 511 are {end}")
    found = re.fullmatch(rb"[0-7]{11}\0[0-7]{11}\0", prefix[131:]) is not None
    if header[257:265] != b"ustar\x0000" or any(prefix[:131]) or any(end) or found != times:
        sys.exit("it behaves otherwise now")
PYTHON
