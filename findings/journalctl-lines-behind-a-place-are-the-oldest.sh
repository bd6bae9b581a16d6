#!/usr/bin/env bash
# journalctl 252: `--lines=N` shows the newest N entries, but behind a place (`--after-cursor`, `--since`) the oldest N; and
# `--lines=0` behind a place says a place from which one entry is never shown.
#
# The manual says of --lines that it shows the most recent events. A watcher that reads on with the cursor of last time and bounds
# what it reads with --lines=500 gets the oldest 500 of what is new: of a unit that writes more than that between two looks it falls
# further behind with each, and nothing says so. It has to ask again until fewer lines than it asked for come.
# (The manual wants a positive number, and 0 is taken.) Who only moves its place, with --lines=0 --after-cursor=C --show-cursor,
# shows no entry and is told the cursor of the one behind C: going on from there, that entry is lost. Without a place --lines=0 tells
# the cursor of the last entry, as one expects.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=252.39-1~deb12u2
apt-get download -qq "systemd=$version" "libsystemd-shared=$version" "systemd-journal-remote=$version" libmicrohttpd12=0.9.75-6 >/dev/null
for package in *.deb; do
    dpkg-deb -x "$package" root
done
libraries=$(find "$PWD/root" -name 'libsystemd-shared-*.so' -printf '%h:' -o -name 'libmicrohttpd.so.12' -printf '%h:')
export LD_LIBRARY_PATH=${libraries%:}
python3 - <<'PYTHON' >entries
for number in range(1, 1201):
    seconds = 1_795_860_000 + number
    print(f"__REALTIME_TIMESTAMP={seconds}000000\n__MONOTONIC_TIMESTAMP={number}000000")
    print(f"_BOOT_ID={'0' * 31}1\n_MACHINE_ID={'0' * 31}2\n_SYSTEMD_UNIT=a.service\nMESSAGE=line {number}\n")
PYTHON
root/lib/systemd/systemd-journal-remote --output=it.journal entries >/dev/null 2>&1
journal() {
    root/bin/journalctl --file it.journal --quiet --no-pager --output=cat "$@"
}
cursor_of() {
    root/bin/journalctl --file it.journal --quiet --output=export | sed -n 's/^__CURSOR=//p' | sed -n "$1p"
}
check() {
    printf '%s: %s\n' "$1" "$(tr '\n' ' ' <<<"$2")"
    [ "$2" = "$3" ] || { echo "it is otherwise now: $2" >&2; exit 1; }
}
root/bin/journalctl --version | head -n 1
hundred=$(cursor_of 100)
check "--lines=3" "$(journal --lines=3)" $'line 1198\nline 1199\nline 1200'
check "--lines=3 --after-cursor=(that of line 100)" "$(journal --lines=3 --after-cursor="$hundred")" $'line 101\nline 102\nline 103'
check "--lines=3 --since=(the time of line 100)" "$(journal --lines=3 --since=@1795860100)" $'line 100\nline 101\nline 102'
told=$(journal --lines=0 --after-cursor="$hundred" --show-cursor)
told=${told#-- cursor: }
check "--lines=0 --after-cursor=(that of line 100), and on from what it says" "$(journal --lines=1 --after-cursor="$told")" "line 102"
last=$(journal --lines=0 --show-cursor)
[ "${last#-- cursor: }" = "$(cursor_of 1200)" ] || { echo "--lines=0 says another place now" >&2; exit 1; }
