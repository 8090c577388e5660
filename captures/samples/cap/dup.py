"""Samples of CAP-DUP: packets that are in the capture twice, and packets that were sent twice."""

from _craft.network import START, Connection, Wire
from _craft.sip import Dialog, rtp, sdp

CLIENT, SERVER, PUBLIC = "10.20.0.15", "198.51.100.20", "203.0.113.7"

HIT_FRAMES = {"hit": [1, 2, 3, 4, 5, 6], "hit_routed": [1, 2, 3, 4, 5, 6], "hit_uneven_delay": [1, 2, 3, 4, 5, 6],
              "hit_second_half": [25, 26, 27, 28, 29, 30], "hit_unnumbered": [1, 2, 3, 4, 5, 6],
              "hit_both_kinds": [1, 2, 3, 4, 5, 6]}


def _conversation(number=12):
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    for i in range(number):
        conn.data(0.1 + i * 0.1, True, b"request %d" % i, acked_after=None)
        conn.data(0.13 + i * 0.1, False, b"answer %d" % i, acked_after=None)
    return wire.sorted()


def _copied(frames, delay=lambda n: 0.00002, which=lambda n: True, hops=lambda n: 0):
    """The frames with a copy of the n-th one ``delay(n)`` seconds behind it where ``which(n)``."""
    out = list(frames)
    for n, frame in enumerate(frames):
        if which(n):
            copy = frame.copy()
            copy["IP"].ttl -= hops(n)
            copy.time = float(frame.time) + delay(n)
            if hops(n):
                copy["Ether"].src, copy["Ether"].dst = "02:00:5e:00:00:01", "02:00:5e:00:00:02"
            out.append(copy)
    return sorted(out, key=lambda f: f.time)


def hit():
    """A mirror of both ports of a server's switch path: each packet twice, 20 µs apart."""
    return _copied(_conversation())


def hit_routed():
    """All interfaces of a router: in, and out again with a lower TTL."""
    return _copied(_conversation(), hops=lambda n: 1)


def hit_both_kinds():
    """A router's interfaces, and a mirror that holds half of the packets twice itself."""
    return _copied(_conversation(), hops=lambda n: n % 2)


def hit_uneven_delay():
    """Two taps through queues: the copies come 0 to 3 ms later."""
    return _copied(_conversation(), delay=lambda n: 0.00002 + 0.0015 * (n % 3))


def hit_second_half():
    """The second interface joined in the middle of the file: the delay is steady, but not throughout."""
    return _copied(_conversation(20), which=lambda n: n >= 24)


def _media(identified):
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 0.6)
    frames = wire.sorted()
    if not identified:
        for frame in frames:
            frame["IP"].id = 0
    return frames


def hit_unnumbered():
    """Media without IP identification: a sender that sends all twice looks the same."""
    return _copied(_media(False))


def near_miss_few_of_many():
    """Condition: 30 % of the packets. Every fourth has a copy here."""
    return _copied(_conversation(30), which=lambda n: n % 4 == 0)


def near_miss_few():
    """Condition: ten packets with a copy. Nine of nine are too few."""
    return _copied(_conversation(3))


def near_miss_retransmissions():
    """Condition: the same identification. Here each request is sent again, 3 ms later, as a packet of its own."""
    frames = _copied(_conversation(), delay=lambda n: 0.003)
    for n, frame in enumerate(frames):
        frame["IP"].id = n + 1
    return frames


def near_miss_sip_retransmissions():
    """Condition: within 5 ms. SIP repeats a request after 0.5, 1, 2 and 4 s (T1), here with one identification."""
    wire = Wire()
    for call in range(3):
        dialog = Dialog(wire, CLIENT, SERVER, call_id=f"call-{call}@a.example")
        for again, at in enumerate((0.0, 0.5, 1.5, 3.5, 7.5)):
            dialog.request(call * 0.1 + at, "INVITE", body=sdp(CLIENT, 4000), new_branch=not again)
    for frame in wire.frames:
        frame["IP"].id = 77
    return wire.sorted()


def near_miss_sent_twice():
    """Condition: the same identification. Media sent twice on purpose (RFC 7198), each packet with its own."""
    frames = _copied(_media(True), delay=lambda n: 0.001)
    for n, frame in enumerate(frames):
        frame["IP"].id = n + 1
    return frames


def near_miss_across_nat():
    """Condition: the same addresses. Both sides of a NAT are in the capture, and each shows what the other does not."""
    out = []
    for frame in _conversation():
        copy = frame.copy()
        for field in ("src", "dst"):
            if getattr(copy["IP"], field) == CLIENT:
                setattr(copy["IP"], field, PUBLIC)
        copy["IP"].ttl -= 1
        copy.time = float(frame.time) + 0.00005
        out += [frame, copy]
    return sorted(out, key=lambda f: f.time)


def near_miss_advertisements():
    """Condition: within 5 ms. A router says the same every second, with the same identification."""
    wire = Wire()
    for i in range(30):
        wire.udp(i * 1.0, CLIENT, 1985, "224.0.0.2", 1985, b"\x00\x00\x10\x03\x0a\x64\x00\x00" + b"cisco\0\0\0")
    for frame in wire.frames:
        frame["IP"].id, frame["IP"].ttl = 0, 1
    assert float(wire.frames[0].time) == START
    return wire.sorted()
