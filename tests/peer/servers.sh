# shellcheck shell=bash
# The real servers, in one kernel: rs1, rs2, rs3 as namespaces on LAN A (vec0) and LAN B (vec1). Sourced in the kernel.
# Each decapsulates ipip, sit, gre (rs3: with checksums), gue and what IPv6 has of these, and serves on 8080 and the sections' ports.
# An exec is 30 ms here, so all goes through `ip -batch`.

# shellcheck source=tests/peer/addresses.sh
source "$PEER/addresses.sh"

# start_server N, kill_server N: its program.
declare -A PIDS
start_server() {
    # shellcheck disable=SC2086 # a list
    ip netns exec "rs$1" python3 -S -E "$PEER/server.py" "rs$1" 8080 $PORTS </dev/null >/dev/null 2>&1 &
    PIDS[$1]=$!
}
kill_server() { { kill -KILL "${PIDS[$1]}" && wait "${PIDS[$1]}"; } 2>/dev/null; }

# await_servers: until each listens on every port.
await_servers() {
    local n tries=0
    for n in "${SERVERS[@]}"; do
        until [[ $(ip netns exec "rs$n" sh -c 'wc -l </proc/net/udp6') -gt $(wc -w <<<"$PORTS") ]]; do
            [[ $((tries++)) -lt 200 ]] || return 1
        done
    done
}

# Namespaces made from here on take these over.
settings <<SET
ipv4/conf/all/rp_filter 0
ipv4/conf/default/rp_filter 0
ipv6/conf/all/accept_dad 0
ipv6/conf/default/accept_dad 0
ipv6/conf/default/accept_ra 0
ipv6/conf/all/disable_ipv6 0
SET
{
    for lan in 0 1; do
        echo "link add br$lan type bridge forward_delay 0 mcast_snooping 0"
        echo "link set vec$lan master br$lan up"
        echo "link set br$lan up"
    done
    for n in "${SERVERS[@]}"; do
        echo "netns add rs$n"
        for lan in 0 1; do echo "link add rs$n-$lan type veth peer name eth$lan netns rs$n"; done
        for lan in 0 1; do echo "link set rs$n-$lan master br$lan up"; done
    done
} | ip -batch -
for n in "${SERVERS[@]}"; do
    # A GRE interface takes packets with a checksum or packets without.
    if [[ $n == 3 ]]; then checksum=icsum; else checksum=noicsum; fi
    ip -n "rs$n" -batch - <<IP
link set lo up
link set eth0 up
link set eth1 up
addr add $A.1$n/24 dev eth0
addr add $A6:1$n/64 dev eth0 nodad
addr add $B.1$n/24 dev eth1
addr add $B6:1$n/64 dev eth1 nodad
rule add from $B.0/24 lookup 100
route add default via $B.1 table 100
addr add $VIP/32 dev lo
addr add $VIP6/128 dev lo nodad
addr add $MARKED/32 dev lo
addr add $MARKED6/128 dev lo nodad
link set tunl0 up
link set sit0 up
link set ip6tnl0 up
link add gre-a type gre local $A.1$n $checksum
link set gre-a up
link add gre6-a type ip6gre local $A6:1$n $checksum
link set gre6-a up
link add ip6-a type ip6tnl mode any local $A6:1$n
link set ip6-a up
IP
    ip -n "rs$n" -6 -batch - <<IP
rule add from $B6:/64 lookup 100
route add default via $B6:1 table 100
IP
    ip -n "rs$n" fou add port "$GUE_PORT" gue
    ip -n "rs$n" -6 fou add port "$GUE_PORT" gue
    # The tunnels' interfaces are made by the namespace, some of them with settings of their own.
    # shellcheck disable=SC2016 # expanded there
    ip netns exec "rs$n" bash -c 'source "$PEER/addresses.sh"; settings
        for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >"$file"; done' <<SET
ipv4/conf/all/arp_ignore 1
ipv4/conf/all/arp_announce 2
SET
    start_server "$n"
done
await_servers
