# shellcheck shell=bash
# Linux kernels as processes: boot, run commands in them, switch off. Sourced after home.sh; RUN is a folder of the
# caller's for its files. `setup.sh` has been run.
# Invariant: UML_PIDS has every kernel that was booted and not yet switched off; uml_stop_all ends them.

declare -A UML_PIDS=() UML_IN=() UML_OUT=()

# Seconds that a kernel may take to boot, and a command in it.
UML_PATIENCE=${UML_PATIENCE:-60}

# uml_memory: a folder for kernels' memory, which is a file: in memory if there is room and code may run from there.
uml_memory() {
    if [[ $(df --output=avail -m /dev/shm 2>/dev/null | tail -n 1) -gt 1024 ]] &&
        ! grep -q ' /dev/shm [^ ]* [^ ]*noexec' /proc/mounts; then
        echo /dev/shm
    else
        echo "$RUN"
    fi
}

# uml_boot NAME NETNS ARGUMENT...: boots a kernel in a network namespace ("" for this one). ARGUMENTs are the kernel's:
# vec0:transport=tap,ifname=TAP,depth=128 gives it an interface. Status 1 when it does not come up; its log is shown.
uml_boot() {
    local name=$1 netns=$2 dir=$RUN/uml-$1 in out enter=()
    shift 2
    rm -rf "$dir"
    mkdir "$dir"
    mkfifo "$dir/in" "$dir/out"
    # Opened for both, so that neither side waits for the other here.
    exec {in}<>"$dir/in" {out}<>"$dir/out"
    if [[ -n $netns ]]; then enter=(ip netns exec "$netns"); fi
    # The kernel log has a console of its own.
    TMPDIR=$(uml_memory) LD_PRELOAD=$PEER_HOME/xstate.so "${enter[@]}" "$PEER_HOME/root/usr/bin/linux.uml" \
        mem=256M root=/dev/root rootfstype=hostfs rootflags=/ ro init="$PEER/init.sh" uml_dir="$dir/" umid=uml \
        con=null con0=null,fd:5 con1=fd:6,fd:7 "$@" PEER="$PEER" PEER_HOME="$PEER_HOME" \
        </dev/null >"$dir/boot.log" 2>&1 5>"$dir/kernel.log" 6<"$dir/in" 7>"$dir/out" {in}>&- {out}>&- &
    UML_PIDS[$name]=$! UML_IN[$name]=$in UML_OUT[$name]=$out
    uml_answer "$name" && return
    cat "$dir/boot.log" "$dir/kernel.log" >&2
    return 1
}

# uml_answer NAME: prints what the kernel's shell prints up to the end of the command. Its status, or 124.
uml_answer() {
    local text status
    IFS= read -r -d $'\036' -t "$UML_PATIENCE" -u "${UML_OUT[$1]}" text || return 124
    read -r -t "$UML_PATIENCE" -u "${UML_OUT[$1]}" status || return 124
    printf '%s' "$text"
    return "$status"
}

# uml_do NAME COMMAND: runs a line of bash in it, prints its output and error output, and has its status.
uml_do() {
    printf '%s\n' "$2" >&"${UML_IN[$1]}"
    uml_answer "$1"
}

# uml_stop NAME: switches it off, by force when it does not hear.
uml_stop() {
    local name=$1 pid=${UML_PIDS[$1]-} in=${UML_IN[$1]-} out=${UML_OUT[$1]-} tries
    [[ -n $pid ]] || return 0
    echo exit >&"$in"
    for ((tries = 0; tries < 100; tries++)); do
        # A zombie has ended.
        [[ $(cut -d ' ' -f 3 "/proc/$pid/stat" 2>/dev/null) == [!Z] ]] || break
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    exec {in}>&- {out}>&-
    unset "UML_PIDS[$name]" "UML_IN[$name]" "UML_OUT[$name]"
}

uml_stop_all() {
    local name
    for name in "${!UML_PIDS[@]}"; do uml_stop "$name"; done
}
