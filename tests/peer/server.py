"""server.py NAME PORT...: HTTP over TCP and UDP on each port, answering who served whom.

UDP: each datagram is answered from the address that it came to; the answer to `want N` is N bytes long.
TCP: an HTTP request (with a body or without) is answered once it is complete, /N by N bytes; the client closes first.
Anything else is answered line by line.
"""
import selectors
import socket
import sys

NAME = sys.argv[1]
IP_PKTINFO = 8  # linux/in.h
selector = selectors.DefaultSelector()


def show(address):
    host = address[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def listen(kind, port):
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("::", port))
    sock.setblocking(False)
    if kind == socket.SOCK_STREAM:
        sock.listen(512)
        selector.register(sock, selectors.EVENT_READ, accept)
    else:
        selector.register(sock, selectors.EVENT_READ, datagram)


def accept(listener):
    sock, _ = listener.accept()
    sock.setblocking(False)
    received = bytearray()
    selector.register(sock, selectors.EVENT_READ, lambda s: stream(s, received))


def stream(sock, received):
    try:
        data = sock.recv(65536)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if not data:
        selector.unregister(sock)
        sock.close()
        return
    received += data
    text = f"{NAME} peer={show(sock.getpeername())} local={show(sock.getsockname())}"
    if not received.startswith((b"GET ", b"POST ")):
        received.clear()
        sock.sendall(f"{text}\n".encode())
        return
    head, end, body = bytes(received).partition(b"\r\n\r\n")
    fields = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    length = sum(int(value) for name, value in fields if name.lower() == b"content-length")
    if end and len(body) >= length:
        received.clear()
        text += f" body={length}\n" if length else "\n"
        wanted = head.split()[1].removeprefix(b"/")
        if wanted.isdigit():
            text = "y" * int(wanted)
        sock.setblocking(True)
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        sock.setblocking(False)


def datagram(sock):
    data, control, _, peer = sock.recvmsg(65536, 256)
    # The address alone: the interface may be a tunnel's, which no answer takes.
    source = [(level, kind, info[:16] + bytes(4)) for level, kind, info in control if level == socket.IPPROTO_IPV6]
    text = f"{NAME} peer={show(peer)} bytes={len(data)}\n"
    if data.startswith(b"want "):
        text = text.rjust(int(data[5:]), ".")
    sock.sendmsg([text.encode()], source, 0, peer)


for number in map(int, sys.argv[2:]):
    for sort in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        listen(sort, number)
while True:
    for key, _ in selector.select():
        key.data(key.fileobj)
