#!/usr/bin/env bash
# Fetches what a Linux kernel with IPVS as a process needs: Debian's User-mode Linux, ipvsadm, iptables, nc, modprobe.
#
#   tests/peer/setup.sh     prints the folder that it made: ${CARGO_TARGET_DIR:-target}/peer, or PEER_HOME
#
# Nothing is installed: the packages are unpacked into that folder, so that the machine's own ipvsadm, or none, stays
# as it is. Once made, the folder is used again. Exit status 0, or 77 and a reason on stderr where it cannot be had.
set -Eeuo pipefail

# shellcheck source=tests/peer/home.sh
source "$(dirname "${BASH_SOURCE[0]}")/home.sh"

# user-mode-linux: the kernel (6.1) and its modules; the rest runs inside, and nc on the client too.
PACKAGES=(user-mode-linux ipvsadm kmod iptables netcat-openbsd
    libpopt0 libnl-3-200 libnl-genl-3-200 libkmod2 libip4tc2 libip6tc2 libxtables12 libbsd0 libmd0)
# Seconds that the repository may take: 42 MB.
LIMIT=120
APT=(apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)

# unavailable TEXT...: the reason, for who skips.
unavailable() {
    printf '%s\n' "$*" >&2
    exit 77
}

# A change of what it is made from makes the folder anew.
STAMP=$(cat "${BASH_SOURCE[0]}" "$PEER"/{xstate.c,uml.sh,init.sh} | sha256sum | cut -d ' ' -f 1)
if [[ $(cat "$PEER_HOME/stamp" 2>/dev/null) == "$STAMP" ]]; then
    echo "$PEER_HOME"
    exit
fi
[[ $(uname -m) == x86_64 ]] || unavailable "User-mode Linux is for x86_64, this is $(uname -m)"
for program in apt-get dpkg-deb cc python3 curl; do
    command -v "$program" >/dev/null || unavailable "$program is not installed"
done

mkdir -p "$(dirname "$PEER_HOME")"
NEW=$(mktemp -d "$PEER_HOME.XXXXXX")
trap 'rm -rf "$NEW"' EXIT
mkdir "$NEW/deb"
fetch() { (cd "$NEW/deb" && timeout "$LIMIT" "${APT[@]}" download "${PACKAGES[@]}") >"$NEW/log" 2>&1; }
# The machine's package lists may be older than the repository.
fetch || { timeout "$LIMIT" "${APT[@]}" update >/dev/null 2>&1 && fetch; } ||
    unavailable "apt-get cannot download ${PACKAGES[*]}: $(tail -n 1 "$NEW/log")"
for package in "$NEW"/deb/*.deb; do dpkg-deb -x "$package" "$NEW/root"; done
rm -rf "$NEW/deb" "$NEW/log"
# kmod's links are absolute.
for program in modprobe lsmod; do ln -sfn ../bin/kmod "$NEW/root/sbin/$program"; done
# Where `modprobe -d` looks.
ln -s ../usr/lib/uml/modules "$NEW/root/lib/modules"
cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$NEW/xstate.so" "$PEER/xstate.c" || unavailable "cc cannot build xstate.c"
# Once, so that a machine on which it does not run (no ptrace, say) is told from a fault of a test.
PEER_HOME=$NEW "$PEER/run.sh" -n "ipvsadm -Ln" >"$NEW/log" 2>&1 || true
grep -q "^IP Virtual Server" "$NEW/log" || unavailable "User-mode Linux does not run here: $(tail -n 1 "$NEW/log")"
rm "$NEW/log"
echo "$STAMP" >"$NEW/stamp"
rm -rf "$PEER_HOME"
mv "$NEW" "$PEER_HOME"
chmod 755 "$PEER_HOME"
trap - EXIT
echo "$PEER_HOME"
