#!/usr/bin/env bash
# Builds docker/Dockerfile and runs the lab of docker/compose.yaml with a Docker Engine of its own.
#
# The engine that runs the lab is in a network namespace of its own, so its bridge and its rules are no concern of
# the machine's. The one that builds is not: a build downloads packages. Nothing is left behind but, with
# SLUICE_DOCKER_DATA=DIR, the images in DIR, for a quicker second run.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=docker/lib/say.sh
source "$ROOT/docker/lib/say.sh"
# shellcheck source=docker/lib/packages.sh
source "$ROOT/docker/lib/packages.sh"

[[ $EUID -eq 0 ]] || die "an engine of its own wants root"
need_packages docker.io debootstrap iproute2 jq
# Either form of Compose does.
if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
else
    need_packages docker-compose
    COMPOSE=(docker-compose)
fi

WORK=$(mktemp -d /var/tmp/sluice-docker.XXXXXX)
DATA=${SLUICE_DOCKER_DATA:-$WORK/data}
NETNS=sluice-docker-$$
ENGINE_PID=''
LAB_UP=no
export DOCKER_HOST=unix://$WORK/docker.sock
# The client's own settings are not ours to use.
export DOCKER_CONFIG=$WORK/config
mkdir -p "$DATA" "$WORK/config"

# engine COMMAND...: starts dockerd, by way of the command, and waits until it answers.
engine() {
    "$@" dockerd --data-root "$DATA" --exec-root "$WORK/exec" --pidfile "$WORK/docker.pid" --host "$DOCKER_HOST" \
        "${ENGINE_OPTIONS[@]}" >>"$WORK/dockerd.log" 2>&1 &
    ENGINE_PID=$!
    wait_until 60 docker info || die "dockerd does not answer: $(tail -n 20 "$WORK/dockerd.log")"
}

engine_stop() {
    if [[ -n $ENGINE_PID ]]; then
        kill -TERM "$ENGINE_PID" 2>/dev/null || true
        wait "$ENGINE_PID" 2>/dev/null || true
    fi
    ENGINE_PID=''
}

compose() { BASE=$BASE BUILD_NETWORK=host "${COMPOSE[@]}" --project-name sluice-lab --file "$ROOT/docker/compose.yaml" "$@"; }

cleanup() {
    trap '' INT TERM HUP
    if [[ $LAB_UP == yes ]]; then compose down --volumes --timeout 5 >/dev/null 2>&1 || true; fi
    engine_stop
    if [[ -e /run/netns/$NETNS ]]; then ip netns del "$NETNS" || true; fi
    # Only what this script mounted: the engine's namespaces and layers below WORK.
    findmnt -rno TARGET | sort -r | while read -r target; do
        if [[ $target == "$WORK"/* ]]; then umount "$target" || true; fi
    done
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# base_image: BASE is Debian 12, pulled, or else made here.
base_image() {
    BASE=debian:bookworm-slim
    if docker image inspect "$BASE" >/dev/null 2>&1 || timeout 60 docker pull -q "$BASE" 2>/dev/null; then return; fi
    BASE=sluice-base
    if docker image inspect "$BASE" >/dev/null 2>&1; then return; fi
    note "no image can be pulled: debootstrap makes the base"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$WORK/base" >"$WORK/debootstrap.log" ||
        die "debootstrap: $(tail -n 5 "$WORK/debootstrap.log")"
    # The machine's own package sources (with the security suite) and trust store, so that what it can reach the
    # build can reach.
    if [[ -e /etc/apt/sources.list.d/debian.sources ]]; then
        rm "$WORK/base/etc/apt/sources.list"
        cp /etc/apt/sources.list.d/debian.sources "$WORK/base/etc/apt/sources.list.d/"
    else
        cp /etc/apt/sources.list "$WORK/base/etc/apt/sources.list"
    fi
    cp /etc/ssl/certs/ca-certificates.crt "$WORK/base/etc/ssl/certs/ca-certificates.crt"
    tar -C "$WORK/base" -c . | docker import - "$BASE" >/dev/null
    rm -rf "$WORK/base"
}

headline "an engine for the build"
ENGINE_OPTIONS=(--bridge=none --iptables=false --ip-forward=false --ip-masq=false)
engine env
note "Docker Engine $(docker version --format '{{.Server.Version}}'), ${COMPOSE[*]}"
base_image
note "base image: $BASE"

headline "docker build"
# Without BuildKit: Debian's Docker has none.
for target in node sluice; do
    image=$target
    if [[ $target == node ]]; then image=sluice-node; fi
    DOCKER_BUILDKIT=0 docker build --network host --build-arg "BASE=$BASE" --target "$target" -t "$image" \
        -f "$ROOT/docker/Dockerfile" "$ROOT" || die "docker build --target $target failed"
done
show docker run --rm --network none --entrypoint lbctl sluice --version
verdict "the image runs lbctl" "$SHOWN_STATUS"
show docker run --rm --network none sluice --check /usr/local/share/sluice/example.toml
verdict "the image's lbd takes the documented example" "$SHOWN_STATUS"
docker images --format 'table {{.Repository}}\t{{.Size}}'
engine_stop

headline "docker compose up, with an engine in a network namespace of its own"
ip netns add "$NETNS"
ip -n "$NETNS" link set lo up
ENGINE_OPTIONS=()
# Its network alone: with `ip netns exec` it would lose sight of the cgroups below /sys too.
engine nsenter --net="/run/netns/$NETNS"
LAB_UP=yes
compose up -d --no-build || die "compose up failed"
in_node() { compose exec -T "$@"; }
resolved() { [[ $(in_node node01 lbctl neighbors --json | jq '[.neighbors[] | select(.mac != null)] | length') -ge 2 ]]; }
status=0
wait_until 30 resolved || status=1
verdict "the director in its container resolves both real servers" "$status"
if [[ $status -ne 0 ]]; then compose logs --tail 30; fi

answers=() status=0
for request in {0..11}; do
    show compose exec -T client curl -s --max-time 5 http://192.168.150.100/
    answers+=("$SHOWN")
    [[ $SHOWN == "from 192.168.150.12" || $SHOWN == "from 192.168.150.13" ]] || status=1
    [[ $request -eq 0 || $SHOWN != "${answers[request - 1]}" ]] || status=1
done
verdict "12 answers alternate strictly between the real servers" "$status"
for command in "server list" stats drops; do
    # shellcheck disable=SC2086 # a command of one or two words
    show compose exec -T node01 lbctl $command
    verdict "lbctl $command" "$SHOWN_STATUS"
done
show compose exec -T client arping -b -c 3 -w 5 -I eth0 192.168.150.100
macs=$(sed -n 's/.*\[\(.*\)\].*/\1/p' <<<"$SHOWN" | tr 'A-F' 'a-f' | sort -u)
check "only the director answers ARP for the VIP" \
    test "$macs" = "$(in_node node01 cat /sys/class/net/eth0/address | tr -d '\r')"
id=$(compose ps -q node01)
show docker inspect --format 'privileged {{.HostConfig.Privileged}}, capabilities {{.HostConfig.CapAdd}}' "$id"
check "no container is privileged" \
    test "$(compose ps -q | xargs docker inspect --format '{{.HostConfig.Privileged}}' | sort -u)" = false
show docker stop --time 10 "$id"
check "lbd stopped cleanly on docker stop" test "$(docker inspect --format '{{.State.ExitCode}}' "$id")" = 0

printf '\n%s checks, %s failed\n' "$CHECKS" "${#FAILURES[@]}"
[[ ${#FAILURES[@]} -eq 0 ]]
