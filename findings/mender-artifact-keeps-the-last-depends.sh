#!/usr/bin/env bash
# mender-artifact 3.9.0 keeps one value of a key that `--depends` or `--provides` names twice, and says nothing.
#
# The format allows several values for a key of the depends (a list: any of them will do), and `-t`
# adds up when it is repeated: `-t one -t two` is for both. `--depends key:one --depends key:two` is taken with
# exit code 0 and no word, and the artifact depends on `two` alone, so that devices that provide `one` refuse it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

apt-get download -qq mender-artifact=3.9.0+ds1-1+b5 >/dev/null 2>&1
dpkg-deb -x mender-artifact*.deb root
echo content >file
root/usr/bin/mender-artifact write module-image -T files -n release -t one -t two -f file -o artifact.mender \
    --depends key:one --depends key:two --provides given:one --provides given:two >output 2>&1
tar -xf artifact.mender
tar -xzf header.tar.gz
python3 - <<'PYTHON'
import json, sys
types = json.load(open("header-info"))["artifact_depends"]["device_type"]
payload = json.load(open("headers/0000/type-info"))
depends, provides = payload["artifact_depends"], payload["artifact_provides"]
print("device types", types, "depends", depends, "provides", provides)
if types != ["one", "two"] or depends != {"key": "two"} or provides.get("given") != "two":
    sys.exit("it behaves otherwise now")
PYTHON
if grep -qi 'key\|twice\|duplicate' output; then echo "it says something now"; exit 1; fi
