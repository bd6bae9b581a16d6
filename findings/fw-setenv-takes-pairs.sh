#!/usr/bin/env bash
# libubootenv's fw_setenv and fw_printenv differ from U-Boot's programs of the same names, on lines that both accept.
#
# libubootenv-tool 0.3.2-1 (Debian 12), with a valid environment:
# - `fw_setenv NAME word word word`: U-Boot's program joins the words into one value. This one takes pairs, so that
#   `fw_setenv q 1 2 3` stores two variables, q=1 and 2=3, and ends with 0.
# - `fw_setenv NAME word word`: the same, and the name without a value is removed: `fw_setenv bootdelay 5 bootcmd` sets
#   bootdelay and deletes bootcmd.
# - `fw_setenv -s FILE` with a line `NAME VALUE`, the form of U-Boot's program: nothing is stored, the exit code is 0.
# - `fw_printenv NAME` of a variable that is not there prints `NAME=` and ends with 0, as for an empty one; with -n it
#   prints an empty line. A script cannot tell from it whether the variable is there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

apt-get download -qq libubootenv-tool=0.3.2-1 libubootenv0.1=0.3.2-1 >/dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
export LD_LIBRARY_PATH=$(dirname "$(find "$folder/root" -name 'libubootenv.so*' | head -1)")
tools=$folder/root/usr/bin

echo "$folder/environment 0x0 0x1000" >fw_env.config
# A valid environment of 4096 bytes: the checksum of what follows it, then the variables, then zeros.
python3 - <<'PYTHON'
import struct, zlib
data = b"bootdelay=2\0bootcmd=run distro\0\0".ljust(4092, b"\0")
open("environment", "wb").write(struct.pack("<I", zlib.crc32(data)) + data)
PYTHON
set_env() { "$tools/fw_setenv" -c fw_env.config "$@"; }
print_env() { "$tools/fw_printenv" -c fw_env.config "$@"; }
check() {
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "it was: $3"; exit 1; }
}

check "at the beginning" "$(print_env | sort | tr '\n' ' ')" "bootcmd=run distro bootdelay=2 "
set_env q 1 2 3
check "fw_setenv q 1 2 3" "$(print_env | sort | tr '\n' ' ')" "2=3 bootcmd=run distro bootdelay=2 q=1 "
set_env bootdelay 5 bootcmd
check "fw_setenv bootdelay 5 bootcmd" "$(print_env | sort | tr '\n' ' ')" "2=3 bootdelay=5 q=1 "
echo "bootcmd run distro" >script
set_env -s script
check "fw_setenv -s, exit 0" "$(print_env | sort | tr '\n' ' ')" "2=3 bootdelay=5 q=1 "
check "fw_printenv bootcmd" "$(print_env bootcmd; echo "exit $?")" "$(printf 'bootcmd=\nexit 0')"
check "fw_printenv -n bootcmd" "$(print_env -n bootcmd; echo "exit $?")" "$(printf '\nexit 0')"
