# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# Output shared by docker/lab and tests/run: one headline per step, one verdict per check. Sourced, not run.
# Invariant: FAILURES holds the names of all checks that failed, CHECKS how many were made.

CHECKS=0
FAILURES=()

if [[ -t 1 ]]; then BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'; else BOLD='' RED='' GREEN='' PLAIN=''; fi

# headline TEXT...: starts a step.
headline() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }

# note TEXT...: one line of progress.
note() { printf '   %s\n' "$*"; }

# die TEXT...: ends the script; the message names the object, the value and what to do.
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
    exit 1
}

# show COMMAND...: prints the command as a person would type it, runs it, prints its output.
# Afterwards SHOWN holds the output (stderr too) and SHOWN_STATUS the exit status; never fails itself.
show() {
    printf '%s$ %s%s\n' "$BOLD" "$*" "$PLAIN"
    SHOWN_STATUS=0
    SHOWN=$("$@" 2>&1) || SHOWN_STATUS=$?
    if [[ -n $SHOWN ]]; then printf '%s\n' "$SHOWN"; fi
}

# verdict WHAT STATUS: prints ok or FAIL (status 0 is ok) and remembers it.
verdict() {
    CHECKS=$((CHECKS + 1))
    if [[ $2 -eq 0 ]]; then
        printf '%s   ok%s    %s\n' "$GREEN" "$PLAIN" "$1"
    else
        printf '%s   FAIL%s  %s\n' "$RED" "$PLAIN" "$1"
        FAILURES+=("$1")
    fi
}

# check WHAT COMMAND...: a verdict from a command's exit status; its output is not shown.
check() {
    local what=$1 status=0
    shift
    "$@" >/dev/null 2>&1 || status=$?
    verdict "$what" "$status"
}

# wait_until SECONDS COMMAND...: runs the command every 50 ms until it succeeds. Status 1 after SECONDS.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $deadline ]] || return 1
        sleep 0.05
    done
}
