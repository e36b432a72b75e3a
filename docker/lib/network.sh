# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# The lab's network: one namespace per node and one that holds the switch. Sourced after say.sh.
# Invariant: nothing is added to the namespace that the script runs in, and net_down removes what net_up made.
#
#   client .1 ---+
#   node01 .11 --+-- br0 in the switch's namespace        192.168.150.0/24, VIP .100
#   node02 .12 --+
#   node03 .13 --+

NET=192.168.150
VIP=$NET.100
CLIENT=$NET.1
DIP=$NET.11

# ns NODE: the name of the node's namespace.
ns() { echo "${PREFIX:+$PREFIX-}$1"; }

# on NODE COMMAND...: runs a command there.
on() { ip netns exec "$(ns "$1")" "${@:2}"; }

# show_on NODE COMMAND...: show, with the command as a person would type it.
show_on() { show ip netns exec "$(ns "$1")" "${@:2}"; }

# spawn NODE COMMAND...: starts a command there in the background; $! is its own pid, for `ip` becomes it.
spawn() { ip netns exec "$(ns "$1")" "${@:2}" & }

MADE=() # namespaces that net_up made

# net_up: makes everything, or dies.
net_up() {
    local node name
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
    ip -n "$(ns switch)" link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$(ns switch)" link set br0 up
    for node in client node01 node02 node03; do
        name=$(ns "$node")
        ip -n "$name" link add eth0 type veth peer name "$node" netns "$(ns switch)"
        # A veth hands on frames whose checksum is still to be computed, and frames of up to 64 KiB; a wire does not.
        on "$node" ethtool -K eth0 rx off tx off sg off tso off gso off gro off >/dev/null
        on switch ethtool -K "$node" rx off tx off sg off tso off gso off gro off >/dev/null
        ip -n "$(ns switch)" link set "$node" master br0 up
        ip -n "$name" link set eth0 up
    done
    ip -n "$(ns client)" addr add "$CLIENT/24" dev eth0
    # node01's eth0 gets no address from the kernel: lbd owns the wire.
    for node in node02 node03; do
        on "$node" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
        ip -n "$(ns "$node")" addr add "$NET.1${node: -1}/24" dev eth0
        ip -n "$(ns "$node")" addr add "$VIP/32" dev lo
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
