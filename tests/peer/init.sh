#!/bin/bash
# Process 1 of a User-mode Linux that uml.sh boots. Reads commands from the first console, one a line, runs each in
# this shell, and ends what it prints with a record separator, the status and a newline. At the end of the commands
# the machine switches off.
#
# The file tree is that of the machine below, read-only; /run, /tmp/.. stay its own.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock /run/tmp
mount -t devtmpfs devtmpfs /dev
export TMPDIR=/run/tmp
ln -s /proc/self/fd /dev/fd
# PEER and PEER_HOME come from the kernel's command line, as environment.
export LD_LIBRARY_PATH=$PEER_HOME/root/usr/lib/x86_64-linux-gnu:$PEER_HOME/root/lib/x86_64-linux-gnu
PATH=$PEER_HOME/root/sbin:$PEER_HOME/root/usr/sbin:$PATH

# The kernel asks for modules by this program, here and later (a scheduler, for one).
cat >/run/modprobe <<SH
#!/bin/sh
LD_LIBRARY_PATH=$LD_LIBRARY_PATH exec $PEER_HOME/root/sbin/modprobe -q -d $PEER_HOME/root "\$@"
SH
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a ipv6 veth bridge tun ip_vs ipip sit ip_gre ip6_gre ip6_tunnel fou fou6
ip link set lo up

stty -F /dev/tty1 raw -echo
exec <&- >/dev/tty1 2>&1
exec 3</dev/tty1
printf '\0360\n' # ready
while IFS= read -r -u 3 line && [[ $line != exit ]]; do
    eval "$line" </dev/null 3<&-
    printf '\036%d\n' $?
done
# Returns when the console's output has been taken.
stty -F /dev/tty1 raw
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
