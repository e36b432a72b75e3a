# shellcheck shell=bash disable=SC2034 # used by the scripts that source this
# Installs what a fresh Debian 12 lacks, and builds. Sourced after say.sh; ROOT is the repository.
# Invariant: what is there already is not touched, and no service is started by an installation.

# What the build needs.
BUILD_PACKAGES=(libdpdk-dev libclang-dev gcc libc6-dev pkg-config ca-certificates)
# What the lab in network namespaces needs: PMDs come with libdpdk-dev's dependencies.
LAB_PACKAGES=(iproute2 ethtool nginx-light curl iputils-arping iputils-ping procps util-linux jq python3-minimal)
# What the end-to-end tests need beside the lab.
TEST_PACKAGES=(tcpdump wrk iperf3 keepalived etcd-server openssh-server openssh-client bird2)
# What the suites of lb-bench need beside the build.
BENCH_PACKAGES=(valgrind dpdk-dev haproxy libnginx-mod-stream nftables wrk)

# missing_packages NAME...: prints the packages that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

# apt_install NAME...: installs with visible progress, starting no service.
apt_install() {
    [[ $EUID -eq 0 ]] || die "packages are missing ($*): run as root, or install them by hand"
    command -v apt-get >/dev/null || die "packages are missing ($*) and there is no apt-get: install them by hand"
    note "apt-get install $*"
    # invoke-rc.d asks policy-rc.d; 101 means "do not start". A policy of the machine's own is kept.
    local policy=/usr/sbin/policy-rc.d own_policy=no status=0
    if [[ ! -e $policy ]]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    {
        apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove "$@"
    } || status=$?
    if [[ $own_policy == yes ]]; then rm -f "$policy"; fi
    [[ $status -eq 0 ]] || die "apt-get could not install $*"
    # A package that was just installed must not start at the next boot either.
    local name
    for name in "$@"; do
        case $name in nginx-light) name=nginx ;; etcd-server) name=etcd ;; *) continue ;; esac
        if [[ -d /run/systemd/system ]]; then systemctl disable -q "$name" || true; fi
    done
}

# need_packages NAME...: installs those of the packages that are missing.
need_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if [[ ${#missing[@]} -gt 0 ]]; then apt_install "${missing[@]}"; fi
}

# version_at_least HAVE WANT
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# rust_wanted: the oldest toolchain that builds the workspace, from its Cargo.toml.
rust_wanted() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

# rust_found: whether a cargo and rustc that are new enough are on PATH or where rustup puts them.
rust_found() {
    local dir version
    for dir in "" "${CARGO_HOME:-$HOME/.cargo}/bin:"; do
        # From the repository, so that a rustup override for it counts.
        version=$(cd "$ROOT" && PATH=$dir$PATH rustc --version 2>/dev/null | cut -d ' ' -f 2)
        if [[ -n $version ]] && version_at_least "$version" "$(rust_wanted)" && PATH=$dir$PATH cargo --version >/dev/null 2>&1; then
            PATH=$dir$PATH
            return 0
        fi
    done
    return 1
}

# need_rust: puts a new enough cargo on PATH. Debian 12's `cargo` is 0.66 (Rust 1.63); its security suite has a
# current one as `cargo-web`, kept there for browsers.
need_rust() {
    rust_found && return
    local wanted candidate
    wanted=$(rust_wanted)
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -q
        candidate=$(apt-cache policy rustc-web | sed -n 's/^ *Candidate: //p')
        if [[ -n $candidate && $candidate != "(none)" ]] && version_at_least "$candidate" "$wanted"; then
            if [[ $(dpkg-query -W -f '${db:Status-Status}' rustc 2>/dev/null) == installed ]]; then
                die "Debian's rustc is older than $wanted and stands in the way of cargo-web: apt-get remove rustc cargo"
            fi
            apt_install cargo-web rustc-web
            rust_found && return
        fi
    fi
    die "no Rust >= $wanted here (rustc $(rustc --version 2>/dev/null | cut -d ' ' -f 2)): install it with rustup," \
        "or on Debian 12 enable the bookworm-security suite and install cargo-web"
}

# build_release: builds lbd and lbctl with cargo's own progress. Afterwards BIN is the folder they are in.
build_release() {
    BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release
    cargo build --manifest-path "$ROOT/Cargo.toml" --locked --release -p lb-control --features dpdk --bin lbd --bin lbctl ||
        die "the build failed"
}
