# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# Where things are. Sourced by everything in this folder.

PEER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$PEER/../.." && pwd)
# Folder that setup.sh makes.
PEER_HOME=${PEER_HOME:-${CARGO_TARGET_DIR:-$ROOT/target}/peer}
# The unpacked packages' libraries, for the programs in it.
PEER_LIBRARIES=$PEER_HOME/root/usr/lib/x86_64-linux-gnu:$PEER_HOME/root/lib/x86_64-linux-gnu
