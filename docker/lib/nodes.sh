# shellcheck shell=bash
# What runs on the lab's nodes: nginx on the real servers, lbd on the director. Sourced after network.sh.
# Uses RUN (the lab's own folder), BIN, DEVICE, WORKERS. Invariant: PIDS holds every process that was started.

PIDS=()

# start_server NODE: nginx that answers `from ADDRESS` on /, and on /big a file for a connection that lasts.
start_server() {
    local node=$1 address=$NET.1${1: -1} dir=$RUN/$1
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
        default_type text/plain;
        location = / { return 200 "from $address\n"; }
        location = /big { root $dir; }
    }
}
CONF
    spawn "$node" nginx -c "$dir/nginx.conf" -p "$dir" -e "$dir/error.log"
    PIDS+=($!)
    wait_until 10 on "$node" curl -sf -o /dev/null "http://$address/" ||
        die "nginx on $node does not answer: $(cat "$dir/error.log")"
    note "$node: nginx answers on $address"
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

[[ports]]
name = "lan"
device = "$DEVICE:eth0"
addresses = ["$DIP/24"]

[[services]]
name = "web"
vip = "$VIP"
port = 80
protocol = "tcp"
scheduler = "rr"
forwarding = "dr"

[[services.servers]]
address = "$NET.12"

[[services.servers]]
address = "$NET.13"
CONF
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
