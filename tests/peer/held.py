"""held.py PORT TARGET...: connections of one client that last, each from a source port of its own, from PORT on.

TARGET is tcp:HOST:PORT or udp:HOST:PORT. For each line on stdin every connection sends a line and waits for its answer;
then what each heard is printed, `tcp 30001 10.20.0.100:80 rs1`, or why it heard nothing, and `done`. A line `more
TARGET...` opens further ones first, `close N` closes the first N and says nothing. Ends with stdin.
"""
import socket
import sys

number = int(sys.argv[1])
held = []


def connect(target):
    global number
    kind, _, rest = target.partition(":")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", number))
    sock.settimeout(8)
    held.append([kind, number, rest, sock, ""])
    number += 1
    try:
        sock.connect((host, int(port)))
    except OSError as error:
        held[-1][4] = f"connect: {error}"


def say(one):
    kind, own, target, sock, fault = one
    if fault:
        return fault
    try:
        sock.sendall(b"hello\n")
        # a datagram may be lost while addresses move
        return sock.recv(2048).decode().split()[0]
    except OSError as error:
        return f"failed: {error}"


for word in sys.argv[2:]:
    connect(word)
for line in sys.stdin:
    words = line.split()
    if words[:1] == ["more"]:
        for word in words[1:]:
            connect(word)
    if words[:1] == ["close"]:
        for one in held[: int(words[1])]:
            one[3].close()
        del held[: int(words[1])]
        print("done", flush=True)
        continue
    for one in held:
        print(one[0], one[1], one[2], say(one))
    print("done", flush=True)
