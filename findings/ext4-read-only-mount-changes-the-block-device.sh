#!/usr/bin/env bash
# Linux (seen with 6.1 and 6.18): an ext4 file system that is mounted read-only changes what its block device reads as.
#
# Nothing is written, and the medium stays as it was. But ext4 works on the blocks that the block device itself caches, and its
# journal notes the features that it is going to use (64-bit numbers, checksums) in the journal's superblock, in memory, also for
# `mount -o ro`. Whoever reads the device meanwhile gets that block from the cache: `sha256sum /dev/...` of a root file system that
# nobody may write differs from the image that was flashed, until it is unmounted; a delta made from that image meets other
# content in the one block. With O_DIRECT the same device gives the image. An image whose file system was mounted for writing
# once has the features on the medium, so that nothing is seen with it: it is the images fresh from mke2fs that have this.
#
# Needs root, for a loop device and a mount.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "left out: no root for a loop device and a mount"; exit 0; }
folder=$(mktemp -d)
loop=
clean() {
    umount "$folder/mounted" 2>/dev/null || true
    [ -z "$loop" ] || losetup -d "$loop"
    rm -rf "$folder"
}
trap clean EXIT
cd "$folder"
chmod 755 .
apt-get download -qq e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
mkdir tree mounted
echo content >tree/file
truncate -s 16M image
LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu root/sbin/mke2fs -q -t ext4 -b 4096 -d tree image
loop=$(losetup --find --show image)
digest() { dd if="$loop" bs=1M "$@" 2>/dev/null | sha256sum | cut -c1-16; }
flashed=$(sha256sum image | cut -c1-16)
before=$(digest)
mount -o ro "$loop" mounted
cached=$(digest)
direct=$(digest iflag=direct)
dd if="$loop" of=seen bs=1M 2>/dev/null
cmp -l image seen >differ || true
blocks=$(awk '{ print int(($1 - 1) / 4096) }' differ | sort -u | tr '\n' ' ')
first=$(awk 'NR == 1 { print $1 - 1 }' differ)
# The block begins with the magic number of a journal, and the first byte that differs is the last of its incompatible features.
magic=$(dd if=image bs=1 skip=$((first / 4096 * 4096)) count=4 2>/dev/null | od -An -tx1 | tr -d ' ')
umount mounted
after=$(sha256sum image | cut -c1-16)
echo "kernel $(uname -r): image $flashed, device before the mount $before"
echo "mounted read-only: through the cache $cached, with O_DIRECT $direct; blocks that differ: $blocks(magic $magic, at $((first % 4096)))"
echo "image afterwards $after"
found="$before $direct $after $magic $((first % 4096))"
if [ "$found" != "$flashed $flashed $flashed c03b3998 43" ] || [ "$cached" = "$flashed" ]; then
    echo "it was another answer"
    exit 1
fi
