"""Samples of CAP-SNAPLEN: frames that are shorter in the file than they were on the wire."""

from _craft.network import Connection, Wire
from _craft.sip import Dialog, sdp
from scapy.layers.l2 import Ether
from scapy.packet import Raw

CLIENT, SERVER = "10.20.0.15", "198.51.100.20"

HIT_FRAMES = {"hit": [4, 6], "hit_sip": [1, 2, 3], "hit_transport_header": [1, 2, 3], "hit_ip_header": [1, 2, 3]}


def _cut(frames: list, length: int) -> list:
    """What a snap length of ``length`` leaves."""
    out = []
    for frame in frames:
        data = bytes(frame)
        short = Raw(data[:length])
        short.time, short.wirelen = frame.time, len(data)
        out.append(short)
    return out


def _exchange(size: int = 300) -> list:
    """A handshake, a request and its answer."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.data(0.1, True, b"q" * size)
    conn.segment(0.2, False, "PA", b"a" * size)
    return wire.sorted()


def hit():
    """`tcpdump -s 96`: headers are whole, data is not."""
    return _cut(_exchange(), 96)


def hit_sip():
    """A call whose messages end before their SDP."""
    wire = Wire()
    call = Dialog(wire, CLIENT, SERVER)
    call.request(0.0, "INVITE", body=sdp(CLIENT, 4000))
    call.response(1.0, 200, "OK", body=sdp(SERVER, 5000))
    call.request(1.1, "ACK", to_tag=True)
    return _cut(wire.sorted(), 256)


def hit_transport_header():
    """40 bytes: addresses are there, TCP is not whole."""
    return _cut(_exchange(), 40)


def hit_ip_header():
    """24 bytes: not even the addresses are there."""
    return _cut(_exchange(), 24)


def near_miss_fits():
    """Condition: shorter than on the wire. Frames as long as the snap length are whole."""
    frames = _exchange()
    return _cut(frames, max(len(bytes(f)) for f in frames))


def near_miss_padding():
    """Condition: the IP packet is cut. These frames have lost a part of their padding only."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.close(0.1)
    padded = []
    for frame in wire.sorted():
        longer = Raw(bytes(frame) + bytes(20))
        longer.time = frame.time
        padded.append(longer)
    return _cut(padded, 80)


def near_miss_false_length():
    """Condition: the file says that the frame was longer. Here only the IP header does, which may be damaged."""
    frames = _exchange()
    frames[3].payload.len = 1400
    return frames


def near_miss_not_ip():
    """Condition: an IP packet. What was cut here is a frame of the Link Layer Discovery Protocol."""
    frames = _exchange()
    other = Ether(src="02:00:00:00:00:01", dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(400))
    other.time = frames[0].time + 0.05
    return sorted([*frames, *_cut([other], 96)], key=lambda f: f.time)
