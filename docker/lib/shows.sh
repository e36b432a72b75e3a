# shellcheck shell=bash
# The steps of the lab's show. Each prints a headline, the commands, their output and a verdict.
# Sourced after nodes.sh.

# show_spreading: 12 requests, each on a connection of its own, alternate between the real servers.
show_spreading() {
    headline "curl from the client: round robin over the real servers"
    local request answers=() status=0
    for request in {1..12}; do
        show_on client curl -s --max-time 5 "http://$VIP/"
        answers+=("$SHOWN")
    done
    # The first may be either server; from then on each differs from the one before.
    for request in {0..11}; do
        [[ ${answers[request]} == "from $NET.12" || ${answers[request]} == "from $NET.13" ]] || status=1
        [[ $request -eq 0 || ${answers[request]} != "${answers[request - 1]}" ]] || status=1
    done
    verdict "12 answers alternate strictly between $NET.12 and $NET.13" "$status"
}

# show_tables: what the director sees, with one connection held open.
show_tables() {
    headline "What the director sees (one client downloads slowly)"
    spawn client curl -s -o /dev/null --limit-rate 20K "http://$VIP/big"
    PIDS+=($!)
    check "a connection becomes ESTABLISHED in lbctl connections" wait_until 10 connection_established
    local command
    for command in "service list" "server list" connections stats drops neighbors workers latency; do
        # shellcheck disable=SC2086 # a command of one or two words
        show lbctl $command
        verdict "lbctl $command" "$SHOWN_STATUS"
    done
    check "12 connections and the open one are counted" \
        counts '[.services[].counters.connections] | add == 13' lbctl service list --json
    check "one connection is active, on one of the real servers" \
        counts '[.services[].servers[].counters.active] | add == 1' lbctl server list --json
    check "both real servers got connections" \
        counts '[.services[].servers[].counters.connections] | sort == [6, 7]' lbctl server list --json
}

# counts FILTER COMMAND...: whether jq's FILTER is true of the command's output.
counts() {
    local filter=$1
    shift
    "$@" | jq -e "$filter"
}

connection_established() {
    counts '[.connections[] | select(.state | ascii_downcase == "established")] | length == 1' lbctl connections --json
}

# show_sockets: the director terminates nothing; the real servers do.
show_sockets() {
    headline "No socket on the director, ESTABLISHED and TIME-WAIT on the real servers"
    show_on node01 ss -Htan
    check "node01 has no TCP socket" test -z "$SHOWN"
    local all='' node
    for node in node02 node03; do
        show_on "$node" ss -tan
        all+=$SHOWN$'\n'
        check "$node has connections to $VIP:80 in TIME-WAIT" grep -q "TIME-WAIT.* $VIP:80 .*$CLIENT:" <<<"$SHOWN"
    done
    check "a real server has the open connection ESTABLISHED" grep -q "ESTAB.* $VIP:80 .*$CLIENT:" <<<"$all"
}

# show_arp: three nodes hold the VIP, one answers for it.
show_arp() {
    headline "Only the director answers ARP for the VIP"
    show ip -n "$(ns node02)" -brief addr show lo
    show ip -n "$(ns node03)" -brief addr show lo
    show_on client arping -b -c 3 -w 5 -I eth0 "$VIP"
    local macs
    macs=$(sed -n 's/.*\[\(.*\)\].*/\1/p' <<<"$SHOWN" | tr 'A-F' 'a-f' | sort -u)
    note "node01's eth0 is $(mac_of node01)"
    check "every reply comes from node01's eth0" test "$macs" = "$(mac_of node01)"
    show_on client ping -n -c 3 -i 0.2 -W 2 "$VIP"
    verdict "the VIP answers ping" "$SHOWN_STATUS"
}

# how_to_go_on: what a person can do while the lab is up.
how_to_go_on() {
    headline "The lab is up. Ctrl-C takes everything away."
    cat <<HOW
   in another terminal, as root:
     ip netns exec $(ns client) bash          the client:        curl http://$VIP/
     ip netns exec $(ns node01) bash          the director:      ss -tan; tcpdump -ni eth0
     ip netns exec $(ns node02) bash          a real server:     ss -tan; tcpdump -ni eth0
     export SLUICE_SOCKET=$RUN/lbd.sock
     PATH=\$PATH:$BIN
     lbctl server list
     lbctl server drain web $NET.12
     lbctl service edit web --scheduler lc
   lbd's log: $RUN/lbd.log
HOW
}
