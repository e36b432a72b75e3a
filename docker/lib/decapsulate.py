"""decapsulate.py INTERFACE: unpacks tunnelled packets in this network namespace, for kernels that have no tunnels.

Takes IP in IP (IPv4 and IPv6 inside), GRE and GUE variant 0 (UDP port 6080) to any of the namespace's IPv4 addresses
and hands what is inside to the kernel, out of the TUN interface of that name. Not for real traffic: it looks at one
packet at a time, and takes remote checksum offload (GUE) for granted as done by nobody.
"""
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys

GUE_PORT = 6080
IPPROTO_IPV6, IPPROTO_IPIP, IPPROTO_GRE = 41, 4, 47
# linux/if_tun.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def payload(packet):
    """What an IPv4 packet carries."""
    return packet[(packet[0] & 15) * 4 :]


def gre(message):
    """RFC 2784, RFC 2890: two bytes of flags, the protocol, then 4 bytes for each of checksum, key, sequence."""
    flags = message[0]
    if flags & 0x4F or message[1] & 7:
        return b""
    return message[4 + 4 * ((flags >> 7) + (flags >> 5 & 1) + (flags >> 4 & 1)) :]


def gue(message):
    """draft-ietf-intarea-gue: version and control (3 bits), length in words (5 bits), protocol, flags, options."""
    if message[0] & 0xE0 or message[1] not in (IPPROTO_IPIP, IPPROTO_IPV6):
        return b""
    return message[4 + (message[0] & 31) * 4 :]


def main():
    name = sys.argv[1]
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    # What comes out has addresses whose way back is another interface.
    with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as file:
        file.write("0")
    selector = selectors.DefaultSelector()
    for protocol, inside in ((IPPROTO_IPIP, bytes), (IPPROTO_IPV6, bytes), (IPPROTO_GRE, gre)):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        selector.register(raw, selectors.EVENT_READ, lambda packet, inside=inside: inside(payload(packet)))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", GUE_PORT))
    selector.register(udp, selectors.EVENT_READ, gue)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    while True:
        for key, _ in selector.select():
            try:
                os.write(tun, key.data(key.fileobj.recv(65535)))
            except (IndexError, OSError):
                # Too short to be what it says, or nothing that the kernel takes: as a wire would, say nothing.
                pass


main()
