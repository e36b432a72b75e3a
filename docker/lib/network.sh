# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# The lab's network: one namespace per node and one that holds the switch. Sourced after say.sh.
# Invariant: nothing is added to the namespace that the script runs in, and net_down removes what net_up made.
#
#   client .1 ---+
#   node01 .11 --+-- br0 in the switch's namespace        192.168.150.0/24, VIP .100
#   node02 .12 --+
#   node03 .13 --+
#
# With NAT the servers are behind the director, which is their gateway:
#
#   client .1 ---+-- br0                                  192.168.150.0/24, VIP .100
#   node01 .11 --+
#          .11 --+-- br1                                  192.168.160.0/24
#   node02 .12 --+
#   node03 .13 --+

NET=192.168.150
BEHIND=192.168.160
VIP=$NET.100
CLIENT=$NET.1
DIP=$NET.11

# server_net: the first three bytes of the servers' addresses (RIPs).
server_net() { if [[ $FORWARDING == nat ]]; then echo "$BEHIND"; else echo "$NET"; fi; }

# ns NODE: the name of the node's namespace.
ns() { echo "${PREFIX:+$PREFIX-}$1"; }

# on NODE COMMAND...: runs a command there.
on() { ip netns exec "$(ns "$1")" "${@:2}"; }

# show_on NODE COMMAND...: show, with the command as a person would type it.
show_on() { show ip netns exec "$(ns "$1")" "${@:2}"; }

# spawn NODE COMMAND...: starts a command there in the background; $! is its own pid, for `ip` becomes it.
spawn() { ip netns exec "$(ns "$1")" "${@:2}" & }

MADE=() # namespaces that net_up made

# bridge NAME: a switch's bridge.
bridge() {
    ip -n "$(ns switch)" link add "$1" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$(ns switch)" link set "$1" up
}

# plug NODE INTERFACE BRIDGE: a cable from the node to the bridge.
plug() {
    local port=$1${2#eth0}
    ip -n "$(ns "$1")" link add "$2" type veth peer name "$port" netns "$(ns switch)"
    # A veth hands on frames whose checksum is still to be computed, and frames of up to 64 KiB; a wire does not.
    on "$1" ethtool -K "$2" rx off tx off sg off tso off gso off gro off >/dev/null
    on switch ethtool -K "$port" rx off tx off sg off tso off gso off gro off >/dev/null
    ip -n "$(ns switch)" link set "$port" master "$3" up
    ip -n "$(ns "$1")" link set "$2" up
}

# net_up: makes everything, or dies.
net_up() {
    local node name side=br0
    for node in switch client node01 node02 node03; do
        name=$(ns "$node")
        if ip netns list | cut -d ' ' -f 1 | grep -qxF -- "$name"; then
            die "network namespace $name exists: another lab runs? Use --prefix NAME, or ip netns del $name if nothing uses it"
        fi
    done
    for node in switch client node01 node02 node03; do
        name=$(ns "$node")
        ip netns add "$name"
        MADE+=("$name")
        ip -n "$name" link set lo up
        # A namespace takes these over from the host's: state them.
        on "$node" sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 \
            net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    done
    # Not through the machine's netfilter, where it looks at bridged frames.
    # shellcheck disable=SC2016 # expanded there
    on switch sh -c 'for file in /proc/sys/net/bridge/bridge-nf-call-*; do ! [ -e "$file" ] || echo 0 >"$file"; done'
    bridge br0
    plug client eth0 br0
    ip -n "$(ns client)" addr add "$CLIENT/24" dev eth0
    # node01's interfaces get no address from the kernel: lbd owns the wire.
    plug node01 eth0 br0
    if [[ $FORWARDING == nat ]]; then
        side=br1
        bridge br1
        plug node01 eth1 br1
    fi
    for node in node02 node03; do
        plug "$node" eth0 "$side"
        ip -n "$(ns "$node")" addr add "$(server_net).1${node: -1}/24" dev eth0
        if [[ $FORWARDING == nat ]]; then
            ip -n "$(ns "$node")" route add default via "$BEHIND.11"
        else
            on "$node" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
            ip -n "$(ns "$node")" addr add "$VIP/32" dev lo
        fi
    done
}

# net_down: ends every process that is left in our namespaces, by pid, and removes them.
net_down() {
    local name pids
    for name in "${MADE[@]}"; do
        pids=$(ip netns pids "$name" 2>/dev/null) || true
        # shellcheck disable=SC2086 # one word per pid
        if [[ -n $pids ]]; then kill -KILL $pids 2>/dev/null || true; fi
        ip netns del "$name" || true
    done
    MADE=()
}

# mac_of NODE: the MAC address of the node's eth0.
mac_of() { ip -n "$(ns "$1")" -j link show eth0 | jq -r '.[0].address'; }
