# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# The network of the comparison, seen from both sides of a kernel's console. Sourced.
#
#   client .10 --- LAN A 10.20.0.0/24 fd20::/64 --- director .1 --- LAN B 10.21.0.0/24 fd21::/64
#                             |          VIP .100 and fd20::100               |
#                             +------------- rs1 .11, rs2 .12, rs3 .13 -------+
#
# Servers of DR and tunnels are known by their LAN A addresses and have the VIP on lo; servers of NAT by those of
# LAN B, from where the director is their way back.

A=10.20.0 A6=fd20: B=10.21.0 B6=fd21:
VIP=$A.100 VIP6=$A6:100
SERVERS=(1 2 3)
# The servers serve on 8080 and on these: one for each section of the script.
FIRST_PORT=8100
PORTS=$(seq $FIRST_PORT $((FIRST_PORT + 60)))
# Addresses of the director's and of the servers' lo. TCP to their MARKED_PORTS has firewall mark 1 in IPv4, 2 in IPv6.
MARKED=$A.101 MARKED6=$A6:101
MARKED_PORTS=(8191 8192)
PORTS+=" ${MARKED_PORTS[*]}"
# Port to which GUE comes.
GUE_PORT=6080

# settings: writes `path value` lines from stdin to /proc/sys/net.
settings() {
    local path value
    while read -r path value; do echo "$value" >"/proc/sys/net/$path"; done
}
