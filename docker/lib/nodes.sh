# shellcheck shell=bash
# What runs on the lab's nodes: nginx on the real servers, lbd on the director. Sourced after network.sh.
# Uses RUN (the lab's own folder), BIN, DEVICE, WORKERS, FORWARDING. Invariant: PIDS holds every process that was started.

PIDS=()
# Pid of each node's nginx.
declare -A NGINX=()

# start_server NODE: nginx that answers `from ADDRESS` on /, and on /big a file for a connection that lasts. With
# tunnels, also what unpacks them.
start_server() {
    local node=$1 address dir=$RUN/$1
    address=$(server_net).1${1: -1}
    mkdir -p "$dir"
    chmod 755 "$RUN" "$dir"
    truncate -s 64M "$dir/big"
    # keepalive_timeout 0: the server closes first, so TIME-WAIT is seen on its side.
    cat >"$dir/nginx.conf" <<CONF
daemon off;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_timeout 0;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    server {
        listen 80;
        listen 8080;
        default_type text/plain;
        location = / { return 200 "from $address\n"; }
        location = /big { root $dir; }
    }
}
CONF
    start_nginx "$node"
    note "$node: nginx answers on $address"
    if [[ $FORWARDING == tun ]]; then start_decapsulation "$node"; fi
}

# start_nginx NODE: with the configuration that it has.
start_nginx() {
    local node=$1 dir=$RUN/$1
    spawn "$node" nginx -c "$dir/nginx.conf" -p "$dir" -e "$dir/error.log"
    NGINX[$node]=$!
    PIDS+=($!)
    wait_until 10 on "$node" curl -sf -o /dev/null "http://$(server_net).1${node: -1}/" ||
        die "nginx on $node does not answer: $(cat "$dir/error.log")"
}

# kill_nginx NODE
kill_nginx() {
    kill -TERM "${NGINX[$1]}"
    wait_until 5 not_running "${NGINX[$1]}" || die "nginx on $1 does not end"
}

# start_decapsulation NODE: unpacks ipip, gre and gue there, whether the machine's kernel has these or not.
start_decapsulation() {
    spawn "$1" python3 -S -E "$ROOT/docker/lib/decapsulate.py" tun0 >"$RUN/$1/decapsulate.log" 2>&1
    PIDS+=($!)
    wait_until 5 ip -n "$(ns "$1")" link show tun0 up || die "no tunnels on $1: $(cat "$RUN/$1/decapsulate.log")"
    note "$1: ipip, gre and gue (UDP port 6080) come out of tun0"
}

# worker_cpus: the first WORKERS CPUs that this process may run on, as a TOML list.
worker_cpus() {
    local range cpu cpus=()
    for range in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
        for ((cpu = ${range%-*}; cpu <= ${range#*-}; cpu++)); do cpus+=("$cpu"); done
    done
    [[ ${#cpus[@]} -ge $WORKERS ]] || die "--workers $WORKERS: this process may use ${#cpus[@]} CPU(s)"
    local IFS=,
    echo "[${cpus[*]:0:$WORKERS}]"
}

# lbctl ARGUMENT...: asks the lab's director.
lbctl() { "$BIN/lbctl" --socket "$RUN/lbd.sock" "$@"; }

# ipvsadm ARGUMENT...: the same, as IPVS's tool.
ipvsadm() { SLUICE_SOCKET=$RUN/lbd.sock "$RUN/bin/ipvsadm" "$@"; }

# lay_out_tools: a folder for PATH with lbctl and ipvsadm, and a shell on node01 that uses it.
lay_out_tools() {
    mkdir "$RUN/bin"
    # lbctl goes by the name that it is called by.
    ln -s "$(realpath "$BIN/lbctl")" "$RUN/bin/lbctl"
    ln -s lbctl "$RUN/bin/ipvsadm"
    cat >"$RUN/director" <<SH
#!/bin/sh
export SLUICE_SOCKET='$RUN/lbd.sock' PATH='$RUN/bin':"\$PATH"
exec ip netns exec '$(ns node01)' "\${@:-bash}"
SH
    chmod 755 "$RUN/director"
}

# neighbors_resolved: whether the director knows the MAC address of both real servers.
neighbors_resolved() {
    [[ $(lbctl neighbors --json | jq '[.neighbors[] | select(.mac != null)] | length') -ge 2 ]]
}

# start_director: lbd on node01's eth0, waited for until it can forward.
start_director() {
    headline "Director: lbd on node01's eth0 over $DEVICE, $WORKERS worker(s)"
    local cpus
    cpus=$(worker_cpus)
    cat >"$RUN/lbd.toml" <<CONF
[appliance]
name = "${PREFIX:-lab}"
workers = $cpus
huge_pages = "none"
memory_mib = 256
idle = "adaptive"
socket = "$RUN/lbd.sock"

[limits]
max_connections = 65536
mbufs = 16384

[tables]
directory = "$RUN"

[[ports]]
name = "lan"
device = "$DEVICE:eth0"
addresses = ["$DIP/24"]

$(ports_behind)
[[services]]
name = "web"
vip = "$VIP"
port = 80
protocol = "tcp"
scheduler = "rr"
$(forwarding_lines)

[[services.servers]]
address = "$(server_net).12"
$(server_lines)

[[services.servers]]
address = "$(server_net).13"
$(server_lines)
CONF
    lay_out_tools
    spawn node01 "$BIN/lbd" --config "$RUN/lbd.toml" >"$RUN/lbd.log" 2>&1
    DIRECTOR_PID=$!
    PIDS+=("$DIRECTOR_PID")
    wait_until 30 director_answers_or_ended
    kill -0 "$DIRECTOR_PID" 2>/dev/null || die "lbd ended: $(cat "$RUN/lbd.log")"
    wait_until 15 neighbors_resolved ||
        die "the director did not resolve its real servers: $(lbctl neighbors) $(cat "$RUN/lbd.log")"
    note "configuration $RUN/lbd.toml"
    show lbctl version
    verdict "lbd answers lbctl" "$SHOWN_STATUS"
}

# ports_behind: the director's port to servers behind it.
ports_behind() {
    [[ $FORWARDING == nat ]] || return 0
    cat <<CONF
[[ports]]
name = "servers"
device = "$DEVICE:eth1"
addresses = ["$BEHIND.11/24"]

CONF
}

# forwarding_lines: how the service's packets get to its servers.
forwarding_lines() {
    case $FORWARDING in
        tun) printf 'forwarding = "tunnel"\ntunnel = { type = "ipip" }\n' ;;
        *) printf 'forwarding = "%s"\n' "$FORWARDING" ;;
    esac
}

# server_lines: NAT alone can change the port.
server_lines() { if [[ $FORWARDING == nat ]]; then echo "port = 8080"; fi; }

# director_answers_or_ended: whether there is nothing left to wait for.
director_answers_or_ended() { lbctl version || ! kill -0 "$DIRECTOR_PID"; }

# stop_nodes: ends what was started, first politely.
stop_nodes() {
    local pid
    for pid in "${PIDS[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do
        wait_until 5 not_running "$pid" || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    PIDS=()
}

# not_running PID: whether it ended (a zombie has).
not_running() { [[ ! -e /proc/$1/stat || $(cut -d ' ' -f 3 "/proc/$1/stat") == Z ]]; }
