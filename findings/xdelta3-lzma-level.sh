#!/usr/bin/env bash
# xdelta3 3.0.11 compresses with LZMA as at level 0, whatever level it is given: -9 does not reach it.
#
# `xdelta3 -9 -S lzma` is how the smallest deltas are asked for. The sections of the delta are streams of xz, and each stream says
# in its header how large its dictionary is. It is 256 KiB with every level from -0 to -9, which is xz's level 0 (its level 9 has
# 64 MiB). What repeats at a greater distance inside a section is stored again: here 600,000 bytes that come twice. The level
# governs the search for copies, which finds most of that at -1 already and leaves LZMA nothing to do; with -0, where the search
# does not, the delta is more than twice as large, and as large as the output of `xz -0`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=3.0.11-dfsg-1.2
apt-get download -qq "xdelta3=$version" >/dev/null
dpkg-deb -x xdelta3_*.deb root
xdelta3=root/usr/bin/xdelta3
python3 - <<'PYTHON'
import random

words_of = random.Random(7)
words = [bytes(words_of.randrange(97, 123) for _ in range(words_of.randrange(3, 10))) for _ in range(3000)]


def text(length, seed):
    chosen, parts, size = random.Random(seed), [], 0
    while size < length:
        word = chosen.choice(words) + b" "
        parts.append(word)
        size += len(word)
    return b"".join(parts)[:length]


open("old", "wb").write(text(1000, 9))
open("new", "wb").write(text(600_000, 1) * 2)
PYTHON
for level in 0 1 3 6 9; do
    "$xdelta3" -e -f -q "-$level" -S lzma -s old new "delta-$level"
    "$xdelta3" -d -f -q -s old "delta-$level" back
    cmp new back
done
python3 - <<'PYTHON'
sizes = {}
for level in (0, 1, 3, 6, 9):
    delta = open(f"delta-{level}", "rb").read()
    found, at = [], delta.find(b"\xfd7zXZ\0")
    while at >= 0:
        # Behind the stream header of 12 bytes the block's: its length, flags, then filter 0x21 (LZMA2) with one property.
        _, _, name, count, bits = delta[at + 12 : at + 17]
        assert (name, count) == (0x21, 1)
        found.append((2 | bits & 1) << bits // 2 + 11)
        at = delta.find(b"\xfd7zXZ\0", at + 1)
    sizes[level] = len(delta)
    print(f"-{level} -S lzma: {len(delta)} bytes, dictionaries {sorted(set(found))}")
    assert found and set(found) == {256 * 1024}, "the dictionary follows the level now"
assert sizes[0] > 1.5 * sizes[1], "the level made no difference"
PYTHON
