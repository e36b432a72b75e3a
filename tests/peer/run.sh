#!/usr/bin/env bash
# Boots a Linux with IPVS (2 s), runs bash commands in it as root, switches it off. For questions about the kernel:
#
#   tests/peer/run.sh 'ipvsadm -A -t 10.0.0.1:80 -s rr' 'ipvsadm -Ln'      each in the same shell
#   tests/peer/run.sh < FILE                                               one command a line
#   tests/peer/run.sh -k vec0:transport=tap,ifname=t0 ...                  an argument of the kernel's: an interface
#   tests/peer/run.sh -n ...                                               without tests/peer/setup.sh before
#
# The file tree is this machine's, read-only, but for /run. The status is that of the last command.
set -Eeuo pipefail

# shellcheck source=tests/peer/home.sh
source "$(dirname "${BASH_SOURCE[0]}")/home.sh"
# shellcheck source=tests/peer/uml.sh
source "$PEER/uml.sh"

SETUP=yes ARGUMENTS=()
while getopts nk: option; do
    case $option in
        n) SETUP=no ;;
        k) ARGUMENTS+=("$OPTARG") ;;
        *) sed -n '2,/^set/s/^# \?//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))

if [[ $SETUP == yes ]]; then "$PEER/setup.sh" >/dev/null; fi
RUN=$(mktemp -d /tmp/sluice-peer.XXXXXX)
trap 'uml_stop_all; rm -rf "$RUN"' EXIT
uml_boot peer "" "${ARGUMENTS[@]}"
STATUS=0
if [[ $# -eq 0 ]]; then mapfile -t COMMANDS; else COMMANDS=("$@"); fi
for command in "${COMMANDS[@]}"; do
    STATUS=0
    uml_do peer "$command" || STATUS=$?
done
exit "$STATUS"
