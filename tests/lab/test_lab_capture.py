"""Recorders lose nothing, in both kinds, and write what other programs can read."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

InLab = Callable[..., str]

pytestmark = pytest.mark.lab

SOURCE = """
import sys
from pathlib import Path
from netdiag.lab import capture
from netdiag.lab.topology import Lab

if sys.argv[2] == "own":
    capture._may_change_groups = lambda: False
count = int(sys.argv[3])
with Lab(Path(sys.argv[1])) as lab:
    a, b = lab.node("a"), lab.node("b")
    lab.link(a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
    for node in (a, b):  # no ARP: the frames are the datagrams and nothing else
        peer = "2" if node is a else "1"
        mac = "02:00:00:00:0" + peer + ":01"
        node.run(["ip", "neigh", "replace", "10.0.0." + peer, "lladdr", mac, "dev", "eth0", "nud", "permanent"])
    echo = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 5000))"
    b.python(echo + chr(10) + "while True: s.sendto(*s.recvfrom(2000))")
    b.wait_port("udp", 5000)
    lab.capture(a, "eth0", "a")
    lab.capture(b, "eth0", "b")
    lab.capture(b, "eth0", "answers", "udp src port 5000")
    lab.capture(b, "any", "any", "udp src port 5000")
    ask = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('10.0.0.2', 5000))" + chr(10)
    ask += "for i in range(%d):" % count + chr(10) + " s.send(b'x' * (i % 1400)); s.recv(2000)"
    a.run([sys.executable, "-c", ask])
"""


@pytest.mark.parametrize("kind", ["tcpdump", "own"])
def test_every_frame_is_recorded_once(in_lab: InLab, tmp_path: Path, kind: str) -> None:
    count = 400
    in_lab(SOURCE, str(tmp_path), kind, str(count))
    for point in ("a", "b"):
        frames = read_nanosecond_pcap(tmp_path / f"{point}.pcap")
        # One question and one answer of the same size each, in order: nothing lost, nothing twice.
        assert [size for _, size in frames] == [42 + i % 1400 for i in range(count) for _ in range(2)]
        times = [time for time, _ in frames]
        assert times == sorted(times)
    answers = [size for _, size in read_nanosecond_pcap(tmp_path / "answers.pcap")]
    assert answers == [42 + i % 1400 for i in range(count)]
    cooked = 16 if kind == "own" else 20  # LINUX_SLL, LINUX_SLL2
    everywhere = read_nanosecond_pcap(tmp_path / "any.pcap", 113 if kind == "own" else 276)
    assert [size for _, size in everywhere] == [size - 14 + cooked for size in answers]


def read_nanosecond_pcap(path: Path, link_type: int = 1) -> list[tuple[int, int]]:
    """(time in ns, original size in bytes) of every frame, read as the format says."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, link_type)
    frames, at = [], 24
    while at < len(data):
        seconds, nanoseconds, kept, size = struct.unpack_from("<IIII", data, at)
        assert kept == size
        assert nanoseconds < 1_000_000_000
        frames.append((seconds * 1_000_000_000 + nanoseconds, size))
        at += 16 + kept
    assert at == len(data)
    return frames
