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
        [[ ${answers[request]} == "from $(server_net).1"[23] ]] || status=1
        [[ $request -eq 0 || ${answers[request]} != "${answers[request - 1]}" ]] || status=1
    done
    verdict "12 answers alternate strictly between $(server_net).12 and .13" "$status"
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
    local all='' node served="$VIP:80"
    if [[ $FORWARDING == nat ]]; then served="$BEHIND.1[23]:8080"; fi
    for node in node02 node03; do
        show_on "$node" ss -tan
        all+=$SHOWN$'\n'
        check "$node has connections from the client to $served in TIME-WAIT" \
            grep -q "TIME-WAIT.* $served .*$CLIENT:" <<<"$SHOWN"
    done
    check "a real server has the open connection ESTABLISHED" grep -q "ESTAB.* $served .*$CLIENT:" <<<"$all"
}

# show_arp: three nodes hold the VIP (with NAT one does), one answers for it.
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

# show_tunnel: the servers got the client's packets in packets of the director's.
show_tunnel() {
    [[ $FORWARDING == tun ]] || return 0
    headline "The servers unpack what comes from the director"
    local node
    for node in node02 node03; do
        show ip -n "$(ns "$node")" -s link show tun0
        check "packets came out of $node's tun0" tunnelled "$node"
    done
}

# tunnelled NODE: whether packets came out of its tunnels.
tunnelled() { ip -n "$(ns "$1")" -s -j link show tun0 | jq -e '.[0].stats64.rx.packets > 0'; }

# show_ipvsadm: the commands of LVS guides, as they stand there, and what they say about a server that is down.
show_ipvsadm() {
    headline "ipvsadm, as in any LVS guide"
    local option server state
    case $FORWARDING in dr) option=-g ;; nat) option=-m ;; tun) option=-i ;; esac
    server=$(server_net)
    typed ipvsadm -C
    typed ipvsadm -A -t "$VIP:80" -s rr
    typed ipvsadm -a -t "$VIP:80" -r "$server.12" "$option"
    typed ipvsadm -a -t "$VIP:80" -r "$server.13" "$option"
    typed ipvsadm -ln
    check "ipvsadm -ln lists the service and both servers" listed "$server"
    show_on client curl -s --max-time 5 "http://$VIP/" "http://$VIP/"
    check "one answer from each server" test "$(sort -u <<<"$SHOWN" | grep -c "^from $server")" = 2
    typed ipvsadm -lnc
    # Of a client that the server closes first: in DR and TUN the director sees the client's half alone.
    if [[ $FORWARDING == nat ]]; then state=TIME_WAIT; else state=FIN_WAIT; fi
    check "ipvsadm -lnc shows the closed connections in $state" grep -q " $state " <<<"$SHOWN"

    note "nginx of node02 is killed"
    kill_nginx node02
    typed ipvsadm -C
    typed ipvsadm -A -t "$VIP:80" -s rr
    typed ipvsadm -a -t "$VIP:80" -r "$server.12" "$option"
    show_on client curl -s --max-time 5 "http://$VIP/"
    check "the client is refused" test "$SHOWN_STATUS" = 7
    typed ipvsadm -lnc
    # The server's RST passes the director in NAT alone.
    if [[ $FORWARDING == nat ]]; then state=CLOSE; else state=SYN_RECV; fi
    check "ipvsadm -lnc shows the refused connection in $state" grep -q " $state " <<<"$SHOWN"
    start_nginx node02

    typed ipvsadm -a -t "$VIP:80" -r "$server.13" "$option"
    typed ipvsadm -S -n
    local saved=$SHOWN
    typed ipvsadm -C
    typed ipvsadm -ln
    check "after ipvsadm -C there is no service" test "$(grep -c "$VIP" <<<"$SHOWN")" = 0
    typed ipvsadm -R <<<"$saved"
    typed ipvsadm -ln
    check "ipvsadm -R brings back what -S saved" listed "$server"
    show_on client curl -s --max-time 5 "http://$VIP/" "http://$VIP/"
    check "and it works" test "$(sort -u <<<"$SHOWN" | grep -c "^from $server")" = 2
}

# typed COMMAND...: show, and a verdict from its status.
typed() {
    show "$@"
    verdict "$*" "$SHOWN_STATUS"
}

# listed NET: whether what was shown last is the lab's service with both servers of that network.
listed() {
    local kind
    case $FORWARDING in dr) kind=Route ;; nat) kind=Masq ;; tun) kind=Tunnel ;; esac
    grep -q "^TCP  $VIP:80 rr" <<<"$SHOWN" &&
        grep -q "^  -> $1.12:80 .* $kind " <<<"$SHOWN" && grep -q "^  -> $1.13:80 .* $kind " <<<"$SHOWN"
}

# how_to_go_on: what a person can do while the lab is up.
how_to_go_on() {
    headline "The lab is up. Ctrl-C takes everything away."
    cat <<HOW
   in another terminal, as root:
     ip netns exec $(ns client) bash          the client:        curl http://$VIP/
     ip netns exec $(ns node02) bash          a real server:     ss -tan; tcpdump -ni eth0
     $RUN/director          the director:      tcpdump -ni eth0; ipvsadm and lbctl ask the lab's lbd
       ipvsadm -ln
       ipvsadm -e -t $VIP:80 -r $(server_net).12 $(case $FORWARDING in dr) echo -g ;; nat) echo -m ;; *) echo -i ;; esac) -w 0
       ipvsadm -lnc
       lbctl server list
       lbctl drops
   lbd's log: $RUN/lbd.log
HOW
}
