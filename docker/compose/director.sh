#!/bin/sh
# Entry point of the lab's director: eth0 belongs to lbd, not to the kernel.
set -eu
ip addr flush dev eth0
exec lbd --config /etc/sluice/lbd.toml
