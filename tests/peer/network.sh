# shellcheck shell=bash
# The machine's side of the comparison's network: namespaces and two bridges. Sourced after addresses.sh.
# Uses PREFIX, unique to the run. Invariant: network_down removes what network_up made, and what runs in it.
#
#   PREFIX-lan       bridges brA and brB, the kernels' TAPs, the kernels themselves
#   PREFIX-client    eth0 on LAN A
#   PREFIX-node01    eth0 on LAN A, eth1 on LAN B, without addresses: lbd's, when lbd is the director

MADE=()

ns() { echo "$PREFIX-$1"; }

# plug NODE INTERFACE BRIDGE: a cable without the offloads that no wire has.
plug() {
    local port=$1-$2 off=(rx off tx off sg off tso off gso off gro off)
    ip -n "$(ns "$1")" link add "$2" type veth peer name "$port" netns "$(ns lan)"
    ip netns exec "$(ns "$1")" ethtool -K "$2" "${off[@]}" >/dev/null
    ip netns exec "$(ns lan)" ethtool -K "$port" "${off[@]}" >/dev/null
    ip -n "$(ns lan)" link set "$port" master "$3" up
    ip -n "$(ns "$1")" link set "$2" up
}

# network_up TAP=BRIDGE...: the network, with a TAP of each name in its bridge.
network_up() {
    local node tap
    for node in lan client node01; do
        ip netns add "$(ns "$node")"
        MADE+=("$(ns "$node")")
        ip -n "$(ns "$node")" link set lo up
        ip netns exec "$(ns "$node")" sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 \
            net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.router_solicitations=0
    done
    ip netns exec "$(ns node01)" sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    # The second director's connections have the source ports of the first one's.
    ip netns exec "$(ns client)" sysctl -qw net.ipv4.tcp_max_tw_buckets=0
    # Not through the machine's netfilter, where it looks at bridged frames.
    # shellcheck disable=SC2016 # expanded there
    ip netns exec "$(ns lan)" sh -c 'for file in /proc/sys/net/bridge/bridge-nf-call-*; do ! [ -e "$file" ] || echo 0 >"$file"; done'
    for bridge in brA brB; do
        ip -n "$(ns lan)" link add "$bridge" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
        ip -n "$(ns lan)" link set "$bridge" up
    done
    for tap in "$@"; do
        ip netns exec "$(ns lan)" ip tuntap add "${tap%=*}" mode tap
        ip -n "$(ns lan)" link set "${tap%=*}" master "${tap#*=}" up
    done
    plug client eth0 brA
    plug node01 eth0 brA
    plug node01 eth1 brB
    ip -n "$(ns client)" addr add "$A.10/24" dev eth0
    ip -n "$(ns client)" addr add "$A6:10/64" dev eth0 nodad
}

# network_down: also ends what is left in the namespaces, by pid.
network_down() {
    local name pids
    for name in "${MADE[@]}"; do
        pids=$(ip netns pids "$name" 2>/dev/null) || true
        # shellcheck disable=SC2086 # one word per pid
        if [[ -n $pids ]]; then kill -KILL $pids 2>/dev/null || true; fi
        ip netns del "$name" || true
    done
    MADE=()
}
