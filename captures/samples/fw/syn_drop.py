"""Samples of FW-SYN-DROP: SYNs to one port vanish while another port of the same host answers."""

from itertools import count

from _craft.network import Connection, Wire, ip
from scapy.layers.inet import ICMP

CLIENT, SERVER, PUBLIC = "10.20.0.15", "198.51.100.20", "203.0.113.9"
BACKOFF = (0.0, 1.0, 3.0, 7.0, 15.0, 31.0)  # RFC 6298 §5 (5.5)

HIT_FRAMES = {"hit": [1, 5, 6, 7, 8, 9], "hit_two_points": {"inside": [4, 5, 6, 7, 8, 9]},
              "hit_pings": [1, 2, 3, 6, 9, 10], "hit_prohibited_to_others": [1, 3, 5, 7],
              "hit_silent_host": list(range(1, 13)), "hit_gone": [8, 9, 10, 11, 12, 13],
              "hit_translated": {"inside": [4, 5, 6, 7, 8, 9]},
              "hit_redirected": [1, 3, 4], "hit_given_up": [1, 5, 6, 7, 8],
              "hit_answer_lost": {"client": [1, 5, 6]}, "hit_reaches_the_server": {"client": [1, 5, 6],
                                                                                   "server": [1, 5, 6]},
              "hit_everywhere": [*range(1, 11), *range(22, 32), *range(43, 53), *range(64, 74)]}
ALSO = ("FW-REJECT",)  # in hit_prohibited_to_others the filter refuses one client aloud


def _neighbour(wire: Wire, at: float = 0.2) -> None:
    """Another port of the same host answers: the host is up and the path is there."""
    other = Connection(wire, CLIENT, 40001, SERVER, 443)
    other.open(at)
    other.close(40.0)


def hit():
    """Six SYNs, back-off, nothing comes back."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF):
        conn.syn(at, again=i > 0)
    _neighbour(wire)
    return wire.sorted()


def hit_pings():
    """No other port was tried, but the host answers pings meanwhile."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF):
        conn.syn(at, again=i > 0)
    for i, at in enumerate((5.0, 12.0)):
        wire.add(at, ip(CLIENT, SERVER) / ICMP(type=8, id=7, seq=i))
        wire.add(at + 0.02, ip(SERVER, CLIENT, 57) / ICMP(type=0, id=7, seq=i))
    return wire.sorted()


def hit_prohibited_to_others():
    """A filter on the way answers one client by ICMP; it says nothing to the other one, whose SYNs vanish."""
    wire = Wire()
    loud, quiet = (Connection(wire, client, 40000, SERVER, 5061) for client in ("10.20.0.16", CLIENT))
    for i, at in enumerate(BACKOFF[:4]):
        quiet.syn(at, again=i > 0)
        number = loud.syn(at + 0.1, again=i > 0)
    wire.icmp_error(7.102, "203.0.113.1", wire.frames[number], type=3, code=13)
    return wire.sorted()


def hit_everywhere():
    """One port of 21 hosts is silent: one finding, with the frames of the first ten."""
    wire = Wire()
    for n in range(21):
        conn = Connection(wire, CLIENT, 40000 + n, f"198.51.100.{100 + n}", 25)
        for i, at in enumerate(BACKOFF[:4]):
            conn.syn(at + n * 0.01, again=i > 0)
    return wire.sorted()


def hit_silent_host():
    """Three ports of a host are tried, and nothing at all is heard of it: one finding, and it may be down."""
    wire = Wire()
    for number, port in enumerate((22, 443, 5061)):
        conn = Connection(wire, CLIENT, 40000 + number, SERVER, port)
        for i, at in enumerate(BACKOFF[:4]):
            conn.syn(at + number * 10.0, again=i > 0)
    return wire.sorted()


def hit_gone():
    """The port answered a minute before; since then nothing is heard of the host."""
    wire = Wire()
    before = Connection(wire, CLIENT, 39999, SERVER, 5061)
    before.open(0.0)
    before.data(0.1, True, b"hello")
    before.data(0.2, False, b"hello")
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF):
        conn.syn(at + 60.0, again=i > 0)
    return wire.sorted()


def hit_translated():
    """The filter also translates: outside, SYNs to the other port appear before and after, and none of these."""
    inside, outside = Wire(), Wire()
    conn = Connection(inside, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF):
        conn.syn(at + 0.5, again=i > 0)
    for wire, client, later in ((inside, CLIENT, 0.0), (outside, PUBLIC, 0.0005)):
        for number, at in enumerate((0.2, 35.0)):
            other = Connection(wire, client, 40001 + number, SERVER, 443, cseq=70_000 + number)
            other.open(at + later)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def hit_redirected():
    """The router advises another way (ICMP redirect), and forwards the SYN: that is no answer."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    first = conn.syn(0.0)
    wire.icmp_error(0.001, "10.20.0.1", wire.frames[first], type=5, code=1)
    for at in BACKOFF[1:3]:
        conn.syn(at, again=True)
    return wire.sorted()


def hit_given_up():
    """A client that gives up after a second and tries anew: one or two SYNs each time, and never an answer."""
    wire = Wire()
    for n, at in enumerate((0.0, 5.0, 10.0)):
        conn = Connection(wire, CLIENT, 40000 + 2 * n, SERVER, 5061)
        conn.syn(at)
        if n:
            conn.syn(at + 1.0, again=True)
    _neighbour(wire)
    return wire.sorted()


def hit_answer_lost():
    """Beside the server each SYN is answered; beside the client none is: the answers get lost on the way back."""
    client, server = Wire(), Wire()
    for wire, later, ttl in ((client, 0.0, 64), (server, 0.001, 63)):
        conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
        for i, at in enumerate(BACKOFF[:3]):
            number = conn.syn(at + later, again=i > 0)
            wire.frames[number].payload.ttl = ttl
            if wire is server:
                conn.segment(at + later + 0.0001, False, "SA", seq=conn.sseq, ack=conn.cseq)
        _neighbour(wire, 0.2 + later)
    return {"client": client.sorted(), "server": server.sorted()}


def hit_reaches_the_server():
    """The SYNs are beside the server too, one router on, and nothing answers."""
    client, server = Wire(), Wire()
    for wire, later, ttl in ((client, 0.0, 64), (server, 0.001, 63)):
        conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
        for i, at in enumerate(BACKOFF[:3]):
            number = conn.syn(at + later, again=i > 0)
            wire.frames[number].payload.ttl = ttl
        _neighbour(wire, 0.2 + later)
    return {"client": client.sorted(), "server": server.sorted()}


def near_miss_given_up_once_answered():
    """Condition: the port never answers this client. It gives up twice, and the third try succeeds."""
    wire = Wire()
    for n, at in enumerate((0.0, 5.0)):
        conn = Connection(wire, CLIENT, 40000 + 2 * n, SERVER, 5061)
        conn.syn(at)
        conn.syn(at + 1.0, again=True)
    Connection(wire, CLIENT, 40010, SERVER, 5061).open(10.0)
    return wire.sorted()


def near_miss_at_the_end():
    """Condition: there was time for an answer. The capture ends half a second after the third client's SYN."""
    wire = Wire()
    for n in range(4):
        Connection(wire, CLIENT, 40000 + 2 * n, SERVER, 5061).syn(39.6 + n * 0.1)
    _neighbour(wire)
    return wire.sorted()


def near_miss_given_up_twice():
    """Condition: at least three tries in all. Two connections with one SYN each."""
    wire = Wire()
    for n, at in enumerate((0.0, 5.0)):
        Connection(wire, CLIENT, 40000 + 2 * n, SERVER, 5061).syn(at)
    _neighbour(wire)
    return wire.sorted()


def near_miss_two_syns():
    """Condition: at least three tries. Two SYNs may be a client that gave up early."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    conn.syn(0.0)
    conn.syn(1.0, again=True)
    _neighbour(wire)
    return wire.sorted()


def near_miss_answered_late():
    """Condition: no SYN-ACK. The fourth SYN is answered: loss, not a firewall."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF[:4]):
        conn.syn(at, again=i > 0)
    conn.segment(7.02, False, "SA", options=conn.options)
    conn.segment(7.03, True, "A")
    _neighbour(wire)
    return wire.sorted()


def near_miss_refused():
    """Condition: no RST. A closed port says so."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF[:4]):
        conn.syn(at, again=i > 0)
    conn.segment(7.02, False, "RA", seq=0)
    _neighbour(wire)
    return wire.sorted()


def near_miss_icmp():
    """Condition: no ICMP error. Somebody answers that the host cannot be reached."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    last = 0
    for i, at in enumerate(BACKOFF[:4]):
        last = conn.syn(at, again=i > 0)
    wire.icmp_error(7.05, "203.0.113.1", wire.frames[last], type=3, code=1)
    _neighbour(wire)
    return wire.sorted()


def near_miss_oneway_tap():
    """Condition: the client never acknowledges. Here it does, so it was answered and the tap missed it."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF[:3]):
        conn.syn(at, again=i > 0)
    for at in (3.1, 3.2, 3.3, 3.4):
        conn.segment(at, True, "A", ack=5001 + int(at * 10))
    _neighbour(wire)
    return wire.sorted()


def near_miss_sweep():
    """Condition: no port sweep. A client that tries 21 ports of one host is a scanner."""
    wire = Wire()
    for port in range(21):
        conn = Connection(wire, CLIENT, 40100 + port, SERVER, 7000 + port)
        for i, at in enumerate(BACKOFF[:3]):
            conn.syn(at + port * 0.01, again=i > 0)
    _neighbour(wire)
    return wire.sorted()


def hit_two_points():
    """Inside the SYNs enter the filter, outside they do not leave it; the other port is seen at both."""
    inside, outside = Wire(), Wire()
    conn = Connection(inside, CLIENT, 40000, SERVER, 5061)
    for i, at in enumerate(BACKOFF):
        conn.syn(at + 0.5, again=i > 0)
    for wire, later in ((inside, 0.0), (outside, 0.0005)):
        wire.ids = count(100)  # the same packets at both points keep their identifiers
        _neighbour(wire, 0.2 + later)
    return {"inside": inside.sorted(), "outside": outside.sorted()}
