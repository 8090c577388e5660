"""Records the captures of this folder anew: two Linux TCP stacks in network namespaces, a bad wire between them.

``python captures/samples/tcp_stack/recorded/record.py [NAME…]``, as root, with iproute2, ethtool, tcpdump and
editcap. The wire is a third namespace that copies frames and loses, delays, repeats and reorders some.
TCP packets are cut to 100 bytes: the tests look at headers. What a run records differs in detail from the last.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netdiag.lab.topology import Lab, Node

HERE = Path(__file__).parent
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
CUT = 100
"""Bytes kept of each frame with TCP."""

WIRE = """
import heapq, random, select, socket, sys, time
rules = [list(map(float, a.split(","))) for a in sys.argv[1:]]
random.seed(11)
ends = []
for name in ("left", "right"):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3 << 8)  # htons(ETH_P_ALL)
    s.bind((name, 0))
    s.setsockopt(263, 1, __import__("struct").pack("iHH8s", socket.if_nametoindex(name), 1, 0, b""))  # promiscuous
    ends.append(s)
queue, number = [], 0
print("ready")
while True:
    wait = max(queue[0][0] - time.monotonic(), 0) if queue else None
    for s in select.select(ends, [], [], wait)[0]:
        side = ends.index(s)
        delay, loss, repeat, late, again = rules[side]
        frame, where = s.recvfrom(65536)
        # SYNs and neighbour discovery always get through: one of them lost would cost a second of nothing.
        spare = frame[12:14] == b"\\x08\\x06" or frame[20] == 58 or (frame[23] == 6 and frame[47] & 2)
        if where[2] == 4 or (random.random() < loss and not spare):  # PACKET_OUTGOING: our own
            continue
        for turn in range(1 + (random.random() < repeat and not spare)):
            extra = again * turn + (delay / 2 if random.random() < late and not spare else 0)
            number += 1
            heapq.heappush(queue, (time.monotonic() + (delay + extra) / 1000, number, 1 - side, frame))
    while queue and queue[0][0] <= time.monotonic():
        _, _, side, frame = heapq.heappop(queue)
        ends[side].send(frame)
"""

SINK = """
import socket, sys, time
wait, limit, rest = float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if limit:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit)
s.bind(("10.77.0.2", 8900)); s.listen(5)
print("ready")
while True:
    c, _ = s.accept()
    time.sleep(wait)
    try:
        while c.recv(20000):
            time.sleep(rest)
        c.send(b"done")
    except ConnectionResetError:
        pass
    c.close()
"""

SOURCE = """
import socket, sys
size, turns, isn = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for turn in range(turns):
    s = socket.socket()
    if isn:  # tcp(7), net/ipv4/tcp.c: a send sequence set in repair mode is kept by connect()
        s.setsockopt(socket.IPPROTO_TCP, 19, 1)
        s.setsockopt(socket.IPPROTO_TCP, 20, 2)
        s.setsockopt(socket.IPPROTO_TCP, 21, isn.to_bytes(4, sys.byteorder))
        s.setsockopt(socket.IPPROTO_TCP, 19, 0)
    s.connect(("10.77.0.2", 8900))
    s.sendall(bytes(size)); s.shutdown(socket.SHUT_WR)
    while s.recv(100):
        pass
    s.close()
"""

IDLE = """
import socket, struct, sys, time
def connect(port, alive=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("10.77.0.1", 40000))
    if alive:
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 9)):
            s.setsockopt(socket.IPPROTO_TCP, option, value)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.connect(("10.77.0.2", port))
    return s
s = connect(8900, True); s.send(b"hello"); time.sleep(4.5)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
for turn in range(3):
    s = connect(8900); s.send(b"again"); time.sleep(0.05)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
    time.sleep(0.1)
try:
    connect(8901)
except ConnectionRefusedError:
    pass
"""

BIG = """
import random, socket, sys, time
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for size in (2000, 3000, 1200, 5000) * 3:
    data = bytes(8) + random.randbytes(size - 8)
    four.sendto(data, ("10.77.0.2", 9))
    six.sendto(data, ("2001:db8:77::2", 9))
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Way:
    """What happens to frames in one direction: delay in ms, and the share that is lost, repeated, or held back."""

    delay: float = 0
    loss: float = 0
    repeat: float = 0
    late: float = 0
    """Held back by half a delay."""
    again: float = 0
    """How much later the repeated frame follows, ms."""


def transfer(client: Node, server: Node, size: int, turns: int = 1, isn: int = 0, wait: float = 0, limit: int = 0,
             rest: float = 0) -> None:
    server.python(SINK, str(wait), str(limit), str(rest), ready="ready")
    client.python(SOURCE, str(size), str(turns), str(isn)).wait(60)


def keep_alive_and_reuse(client: Node, server: Node) -> None:
    server.python(SINK, "0", "0", "0", ready="ready")
    client.python(IDLE).wait(60)


def fragments(client: Node, server: Node) -> None:
    for node, address in ((client, "2001:db8:77::1/64"), (server, "2001:db8:77::2/64")):
        node.sysctl("net/ipv6/conf/eth0/disable_ipv6", 0)
        node.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])
    client.python(BIG).wait(60)


Run = Callable[[Node, Node], None]
SCENARIOS: dict[str, tuple[Way, Way, Run]] = {
    "loss": (Way(10, 0.04), Way(10, 0.02), lambda c, s: transfer(c, s, 150_000, 3)),
    "reorder": (Way(8, repeat=0.03, late=0.1), Way(2), lambda c, s: transfer(c, s, 200_000, 2)),
    "zero_window": (Way(5), Way(5), lambda c, s: transfer(c, s, 150_000, wait=3, limit=8192, rest=0.1)),
    "wrap": (Way(10, 0.03, late=0.05), Way(10), lambda c, s: transfer(c, s, 150_000, isn=2**32 - 60_000)),
    "keep_alive_and_reuse": (Way(1), Way(1), keep_alive_and_reuse),
    "fragments": (Way(2, 0.05, 0.15, 0.3, 7), Way(2), fragments),
}
AT_BOTH = ("loss",)
"""Recorded at the sender as well: what is a retransmission there is a gap, or nothing, at the receiver."""


def record(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Lab(Path(folder)) as lab:
            client, wire, server = lab.node("client"), lab.node("wire"), lab.node("server")
            lab.link(client, "eth0", f"{CLIENT}/24", wire, "left", "10.77.1.1/32")
            lab.link(wire, "right", "10.77.1.2/32", server, "eth0", f"{SERVER}/24")
            there, back, run = SCENARIOS[name]
            rules = [f"{w.delay},{w.loss},{w.repeat},{w.late},{w.again}" for w in (there, back)]
            wire.python(WIRE, *rules, ready="ready")
            lab.capture(server, "eth0", "receiver")
            if name in AT_BOTH:
                lab.capture(client, "eth0", "sender")
            run(client, server)
        for point in lab.recorders:
            tail = f".{point}" if name in AT_BOTH else ""
            cut = "65535" if name == "fragments" else str(CUT)
            subprocess.run(["editcap", "-F", "nsecpcap", "-s", cut, f"{folder}/{point}.pcap",
                            str(HERE / f"{name}{tail}.pcap")], check=True)


if __name__ == "__main__":
    for one in sys.argv[1:] or list(SCENARIOS):
        record(one)
        print(one)
