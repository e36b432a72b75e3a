#!/usr/bin/env bash
# The steps of docker/Dockerfile, run inside its stages.
#   prepare     installs what the build needs
#   build DIR   builds, and lays out in DIR what the image gets
#   runtime     installs the shared libraries and drivers that `build` listed
#   node        installs what the lab's client and real servers need
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=docker/lib/say.sh
source "$ROOT/docker/lib/say.sh"
# shellcheck source=docker/lib/packages.sh
source "$ROOT/docker/lib/packages.sh"

# DPDK loads drivers by itself, so no program's dynamic section names them: buses and pools, the devices of
# `device = ...`, and the NICs and virtual NICs that directors run on.
DRIVERS=(bus_pci bus_vdev bus_auxiliary mempool_ring
    net_af_packet net_af_xdp net_tap net_memif net_ring net_pcap net_null
    net_virtio net_vmxnet3 net_ena net_mlx5 net_i40e net_iavf net_ice net_ixgbe net_e1000 net_igc net_bnxt)

# Where `build` leaves the packages' names for `runtime`.
LIST=usr/local/share/sluice/packages

# packages_of FILE...: the Debian packages that the files are from. Of a library that was in /lib before that
# became a link to /usr/lib, dpkg knows the old name.
packages_of() {
    local file owner
    for file in "$@"; do
        file=$(realpath "$file")
        owner=$(dpkg -S "$file" 2>/dev/null || dpkg -S "${file#/usr}" 2>/dev/null) || die "no package has $file"
        echo "${owner%%:*}"
    done | sort -u
}

case ${1-} in
    prepare)
        need_packages "${BUILD_PACKAGES[@]}"
        need_rust
        ;;
    build)
        need_rust
        build_release
        install -D -t "$2/usr/local/bin" "$BIN/lbd" "$BIN/lbctl"
        ln -s lbctl "$2/usr/local/bin/ipvsadm"
        install -D -m 644 "$ROOT/config/example.toml" "$2/usr/local/share/sluice/example.toml"
        mapfile -t files < <(ldd "$BIN/lbd" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p')
        for driver in "${DRIVERS[@]}"; do
            file=$(find /usr/lib -path "*/librte_$driver.so.*" -type f | head -n 1)
            # Not every release of DPDK has every driver: the bus `auxiliary` came with 21.08, say.
            if [[ -n $file ]]; then files+=("$file"); else note "this DPDK has no $driver"; fi
        done
        packages_of "${files[@]}" >"$2/$LIST"
        ;;
    runtime)
        mapfile -t packages <"/$LIST"
        # iproute2: an interface that lbd takes over must lose the kernel's address.
        need_packages "${packages[@]}" iproute2
        rm -rf /var/lib/apt/lists/*
        ;;
    node)
        need_packages iproute2 ethtool nginx-light curl iputils-arping iputils-ping procps
        rm -rf /var/lib/apt/lists/*
        ;;
    *) die "usage: docker/image.sh prepare | build DIR | runtime | node" ;;
esac
