# shellcheck shell=bash
# shellcheck disable=SC2153 # WORKERS, DEVICE, BIN are compare's options
# Plays SCRIPT on one director and prints what its reader would see. Sourced by compare.

# play WHO: the chosen sections with `kernel` or `lbd` as the director. Each section has $P, a port of its own on which
# all servers serve, and source ports of its own: the connections of one say nothing about another's services.
play() {
    # LAN: the director's interface on LAN A, for the script.
    local line WHO=$1 wanted=no number=0 P SOURCE_PORT ALSO='' LAN=eth0
    # shellcheck disable=SC2034 # the script's
    if [[ $WHO == kernel ]]; then LAN=vec0; fi
    for P in "$A.1" "$A6:1"; do
        ip netns exec "$(ns client)" ping -n -c 1 -W 5 "$P" >/dev/null || die "$P does not answer"
    done
    head -c 300000 /dev/zero | tr '\0' x >"$RUN/body"
    while IFS= read -r line; do
        case $line in
            '' | '#'*) continue ;;
            '= '*)
                wanted=no
                if [[ $line =~ $ONLY ]]; then
                    wanted=yes
                    printf '%s\n' "$line"
                fi
                ALSO='' number=$((number + 1))
                P=$((FIRST_PORT + number)) SOURCE_PORT=$((20000 + 100 * number))
                continue
                ;;
        esac
        [[ $wanted == yes ]] || continue
        printf '$ %s\n' "$line"
        eval "$line" || printf 'status %d\n' $?
    done <"$SCRIPT"
}

# ---- The commands of the script ----------------------------------------------------------------------------

# ipvsadm ...: on the director.
ipvsadm() {
    local words
    if [[ $WHO == kernel ]]; then
        printf -v words ' %q' "$@"
        # -R reads its rules. The console's shell takes one line.
        if [[ " $1" == " -R"* ]]; then printf -v words '%s <<<%q' "$words" "$(cat)"; fi
        uml_do director "ipvsadm$words" | normal
    else
        SLUICE_SOCKET=$RUN/lbd.sock "$RUN/ipvsadm" "$@" 2>&1 | normal
    fi
    return "${PIPESTATUS[0]}"
}

# curl ...: on the client, from the next source port.
curl() {
    local port=$((SOURCE_PORT++))
    ip netns exec "$(ns client)" curl -sS --max-time 5 --local-port "$port" "$@" 2>&1 |
        sed 's/ after [0-9]* m.*$//'
    return "${PIPESTATUS[0]}"
}

# udp TEXT HOST PORT: a datagram by nc, and the answer.
udp() {
    local port=$((SOURCE_PORT++))
    printf '%s' "$1" | LD_LIBRARY_PATH=$PEER_LIBRARIES ip netns exec "$(ns client)" \
        "$PEER_HOME/root/bin/nc.openbsd" -u -w 2 -W 1 -p "$port" "$2" "$3" 2>&1
}

# tcp TEXT HOST PORT: a line by nc over TCP, and the answer.
tcp() {
    local port=$((SOURCE_PORT++))
    printf '%s\n' "$1" | LD_LIBRARY_PATH=$PEER_LIBRARIES ip netns exec "$(ns client)" \
        "$PEER_HOME/root/bin/nc.openbsd" -N -w 2 -p "$port" "$2" "$3" 2>&1
}

HELD=()
# hold HOST PORT: a TCP connection that lasts, established when this returns.
hold() {
    local port=$((SOURCE_PORT++))
    LD_LIBRARY_PATH=$PEER_LIBRARIES ip netns exec "$(ns client)" \
        "$PEER_HOME/root/bin/nc.openbsd" -d -p "$port" "$1" "$2" </dev/null >/dev/null 2>&1 &
    HELD+=($!)
    wait_until 5 held "$port"
}
held() { [[ $(ip netns exec "$(ns client)" ss -Htn state established sport = ":$1" | wc -l) == 1 ]]; }

# release: the client closes all of these, and the servers do.
release() {
    kill "${HELD[@]}"
    wait "${HELD[@]}" 2>/dev/null || true
    HELD=()
    wait_until 5 released
}
released() { [[ $(ip netns exec "$(ns client)" ss -Htn | wc -l) == 0 ]]; }

# outcome HOST PORT: what a connected UDP socket hears when it has sent something.
outcome() {
    ip netns exec "$(ns client)" python3 -S -E -c '
import socket, sys
host, port, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", own))
sock.settimeout(1)
sock.connect((host, port))
sock.send(b"hello")
try:
    print(sock.recv(2048).decode(), end="")
except OSError as error:
    print(error.strerror or error)' "$1" "$2" "$((SOURCE_PORT++))"
}

# ping HOST: how many answers of three.
ping() {
    ip netns exec "$(ns client)" ping -n -c 3 -i 0.2 -W 2 "$1" 2>&1 | grep -o '[0-9]* packets transmitted, [0-9]* received'
}

# settle: until the director has summed its counters, which both do every 2 s.
settle() { sleep 2.3; }

# also PATTERN: this section's `ipvsadm -lnc` shows the connections that match it too, as templates have no port.
also() { ALSO="|$1"; }

# kill_server N, start_server N: the program of a real server.
kill_server() { uml_do servers "kill_server $1; true"; }
start_server() { uml_do servers "start_server $1; await_servers"; }

# normal: what differs from run to run is taken out: the time that is left to a connection, the order of a hash table,
# the version and size in the first line. Of the connections, those of the section are left, as some outlive it: by the
# section's port, the client's port, or what `also` said.
normal() {
    awk -v port=":$P( |\$)|:${SOURCE_PORT%??}[0-9][0-9] $ALSO" '
        /^(TCP|UDP|SCTP|IP ) +[0-9]+:[0-9][0-9] +/ && $0 !~ port { next }
        /^IP Virtual Server version / { print "IP Virtual Server version X"; next }
        /^(TCP|UDP|SCTP|IP ) +[0-9]+:[0-9][0-9] +/ { sub(/ [0-9]+:[0-9][0-9] +/, " MM:SS  "); print | "sort"; sorted = 1; next }
        { if (sorted) close("sort"); sorted = 0; print }'
}

# ---- lbd as the director -----------------------------------------------------------------------------------

# start_lbd: on node01, without services.
start_lbd() {
    local cpus="[0]"
    if [[ $WORKERS == 2 ]]; then cpus="[0, 1]"; fi
    cat >"$RUN/lbd.toml" <<CONF
[tables]
# another phase's connections are none of this one's
keep = false

[appliance]
name = "$PREFIX"
workers = $cpus
huge_pages = "none"
memory_mib = 256
socket = "$RUN/lbd.sock"

[limits]
max_connections = 65536
mbufs = 16384

[[ports]]
name = "a"
device = "$DEVICE:eth0"
addresses = ["$A.1/24", "$A6:1/64", "$MARKED/24", "$MARKED6/64"]

[[ports]]
name = "b"
device = "$DEVICE:eth1"
addresses = ["$B.1/24", "$B6:1/64"]

[[marks]]
value = 1
destination = "$MARKED"
protocol = "tcp"
ports = "${MARKED_PORTS[0]}-${MARKED_PORTS[1]}"

[[marks]]
value = 2
destination = "$MARKED6"
protocol = "tcp"
ports = "${MARKED_PORTS[0]}-${MARKED_PORTS[1]}"
CONF
    ln -sf "$(realpath "$BIN/lbctl")" "$RUN/ipvsadm"
    ip netns exec "$(ns node01)" "$BIN/lbd" --config "$RUN/lbd.toml" >"$RUN/lbd.log" 2>&1 &
    LBD_PID=$!
    wait_until 30 lbd_answers_or_ended
    kill -0 "$LBD_PID" 2>/dev/null || die "lbd ended: $(cat "$RUN/lbd.log")"
}

lbd_answers_or_ended() { "$BIN/lbctl" --socket "$RUN/lbd.sock" version || ! kill -0 "$LBD_PID"; }

stop_lbd() {
    [[ -n $LBD_PID ]] || return 0
    kill -TERM "$LBD_PID" 2>/dev/null || true
    wait "$LBD_PID" 2>/dev/null || true
    LBD_PID=''
}

# ---- The verdict -------------------------------------------------------------------------------------------

# section FILE TITLE: that section's lines.
section() { awk -v title="$2" '/^= / { inside = ($0 == title) } inside' "$1"; }

# judge WORD: compares section by section. Adds to PASSED; DIFFERENT has the titles of those that differ, printed with
# WORD before them.
PASSED=0
judge() {
    local title
    DIFFERENT=()
    while IFS= read -r title; do
        if diff -u --label kernel --label lbd <(section "$RUN/kernel.txt" "$title") <(section "$RUN/lbd.txt" "$title"); then
            printf '%s   ok%s    %s\n' "$GREEN" "$PLAIN" "${title#= }"
            PASSED=$((PASSED + 1))
        else
            printf '%s   %s%s  %s\n' "$RED" "$1" "$PLAIN" "${title#= }"
            DIFFERENT+=("${title#= }")
        fi
    done < <(grep '^= ' "$RUN/kernel.txt" | grep -E -- "$ONLY")
}
