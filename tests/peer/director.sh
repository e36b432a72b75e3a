# shellcheck shell=bash
# The kernel's IPVS as the director: LAN A on vec0, LAN B on vec1, the VIPs its own, marks by iptables. Sourced in the kernel.
# HOST: last part of its addresses. Other than 1 it is one of two directors, without the addresses that one of them has,
# which are .1 and the VIPs: take_over gives it these.
HOST=${HOST-1}

# shellcheck source=tests/peer/addresses.sh
source "$PEER/addresses.sh"
settings <<SET
ipv4/ip_forward 1
ipv6/conf/all/forwarding 1
ipv6/conf/all/accept_dad 0
ipv6/conf/default/accept_dad 0
ipv4/conf/all/rp_filter 0
ipv4/conf/default/rp_filter 0
ipv4/conf/all/send_redirects 0
ipv4/conf/default/send_redirects 0
SET
ip -batch - <<IP
link set vec0 up
link set vec1 up
addr add $A.$HOST/24 dev vec0
addr add $A6:$HOST/64 dev vec0 nodad
addr add $B.$HOST/24 dev vec1
addr add $B6:$HOST/64 dev vec1 nodad
IP
vips() {
    ip -batch - <<IP
addr add $VIP/32 dev vec0
addr add $VIP6/128 dev vec0 nodad preferred_lft 0
addr add $MARKED/32 dev vec0
addr add $MARKED6/128 dev vec0 nodad preferred_lft 0
IP
}
# take_over: what the director has that serves.
take_over() {
    ip -batch - <<IP
addr add $B.1/32 dev vec1
addr add $B6:1/128 dev vec1 nodad preferred_lft 0
IP
    vips
}
if [[ $HOST == 1 ]]; then vips; fi
echo 0 >/proc/sys/net/ipv4/conf/vec0/send_redirects
export XTABLES_LIBDIR=$PEER_HOME/root/usr/lib/x86_64-linux-gnu/xtables
/run/modprobe -a iptable_mangle ip6table_mangle xt_mark xt_tcpudp
for port in "${MARKED_PORTS[@]}"; do
    xtables-legacy-multi iptables -t mangle -A PREROUTING -d "$MARKED" -p tcp --dport "$port" -j MARK --set-mark 1
    xtables-legacy-multi ip6tables -t mangle -A PREROUTING -d "$MARKED6" -p tcp --dport "$port" -j MARK --set-mark 2
done
# What is sent before a neighbour is known may be lost, and lbd knows its servers from the start.
NEAR=("$A.10" "$A6:10" "$A".1{1,2,3} "$A6":1{1,2,3})
# On LAN B servers answer through .1.
if [[ $HOST == 1 ]]; then NEAR+=("$B".1{1,2,3} "$B6":1{1,2,3}); fi
for address in "${NEAR[@]}"; do
    ping -n -c 1 -W 5 "$address" >/dev/null || { echo "$address does not answer" && return 1; }
done
