"""Samples of NAT-TCP-IDLE-DROP: connections that rest longer than a device remembers them."""

from itertools import count

from _craft.network import Connection, Wire

CLIENT, SERVER = "10.20.0.15", "198.51.100.20"
LADDER = (0.0, 0.2, 0.6, 1.4, 3.0)
"""Resendings after the first sending: 200 ms, doubling (RFC 6298 §5.5; Linux TCP_RTO_MIN)."""
REQUEST = b"GET /next"

HIT_FRAMES = {
    "hit": [8, 11, 12, 13, 16, 17],
    "hit_server_speaks": [8, 11, 12, 13, 16, 17],
    "hit_keepalive_in_vain": [8, 11, 15, 16, 17, 20, 21],
    "hit_alone": [5, 6, 7, 8, 9, 10],
    "hit_reset": [5, 6, 7],
    "hit_two_points": {"inside": [8, 11, 12, 13, 16, 17]},
    "hit_nothing_kept": {"inside": [5, 6, 7, 8, 9, 10]},
}


def _pooled(wire: Wire, at: float = 0.0) -> Connection:
    """A connection with one exchange, then silence; the last packet is at ``at`` + 0.12."""
    conn = Connection(wire, CLIENT, 40000, SERVER, 8080)
    conn.open(at)
    conn.data(at + 0.1, True, b"GET /first")
    return conn


def _resend(conn: Connection, at: float, times: tuple[float, ...] = LADDER, from_client: bool = True) -> None:
    conn.segment(at, from_client, "PA", REQUEST)
    for later in times[1:]:
        conn.again(at + later, from_client, REQUEST)


def _busy(wire: Wire, start: float, at: tuple[float, ...]) -> None:
    """Another connection of the same hosts, opened at ``start``, with an exchange at each of ``at``."""
    other = Connection(wire, CLIENT, 40001, SERVER, 8080)
    other.open(start)
    for moment in at:
        other.data(moment, True, b"tick")


def hit():
    """350 s of rest, then five sends of the same data into silence, while another connection works."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12)
    return wire.sorted()


def hit_server_speaks():
    """The same, and it is the server that speaks first after the rest."""
    wire = Wire()
    conn = _pooled(wire)
    other = Connection(wire, CLIENT, 40001, SERVER, 8080)
    other.open(0.05)
    for at in (150.0, 351.0):
        other.data(at, False, b"tick")
    _resend(conn, 350.12, from_client=False)
    return wire.sorted()


def hit_keepalive_in_vain():
    """Keep-alives that nobody answers do not shorten the rest: it was over at the first of them."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (200.0, 400.0, 601.0))
    for at in (300.0, 375.0):
        conn.segment(at, True, "A", seq=conn.cseq - 1)
    _resend(conn, 600.12)
    return wire.sorted()


def hit_alone():
    """Nothing else between the hosts: the peer may as well have crashed."""
    wire = Wire()
    conn = _pooled(wire)
    _resend(conn, 350.12)
    return wire.sorted()


def hit_reset():
    """The first data after the rest draws a reset in the server's name from five routers nearer."""
    wire = Wire()
    conn = _pooled(wire)
    conn.segment(350.12, True, "PA", REQUEST)
    conn.segment(350.121, False, "R", ttl=62)
    return wire.sorted()


def _two_points(leaves: bool, busy: bool = True) -> dict[str, list]:
    """Inside and outside of the device; a rest of 30 s."""
    out = {}
    for name, later in (("inside", 0.0), ("outside", 0.0004)):
        wire = Wire()
        wire.ids = count(100)
        conn = _pooled(wire, later)
        if busy:
            _busy(wire, 0.05 + later, (15.0 + later, 31.0 + later))
        if leaves or name == "inside":
            wire.ids = count(200)
            _resend(conn, 30.12 + later)
        wire.ids = count(300)
        Connection(wire, CLIENT, 40002, SERVER, 8080).open(40.0 + later)
        out[name] = wire.sorted()
    return out


def hit_two_points():
    """A rest of 30 s: too short for any default, but the data enters the device and does not leave it."""
    return _two_points(False)


def hit_nothing_kept():
    """The same, and no other connection outlived the rest: the device may have lost its whole table."""
    return _two_points(False, busy=False)


def near_miss_same_rest():
    """Condition: the rest is longer than those that were survived. A request each 10 s, until the device loses its
    table: the last rest is 2 ms longer than the others, by chance."""
    out = {}
    for name, later in (("inside", 0.0), ("outside", 0.0004)):
        wire = Wire()
        wire.ids = count(100)
        conn = _pooled(wire, later)
        for at in (10.12, 20.12):
            conn.data(at + later, True, b"tick")
        if name == "inside":
            wire.ids = count(200)
            _resend(conn, 30.142)
        wire.ids = count(300)
        Connection(wire, CLIENT, 40002, SERVER, 8080).open(32.0 + later)
        out[name] = wire.sorted()
    return out


def near_miss_two_points_inconclusive():
    """Condition: the data does not leave the device. Here it does, and the rest is too short to judge alone."""
    return _two_points(True)


def near_miss_three_sends():
    """Condition: at least four sends. The capture has one of the three twice."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12, (0.0, 0.0001, 0.2, 0.6))
    return wire.sorted()


def near_miss_short_rest_inconclusive():
    """Condition: the rest is longer than the shortest default. 120 s may be a device with a setting of its own."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (60.0, 121.0))
    _resend(conn, 120.12)
    return wire.sorted()


def near_miss_short_rest_alone():
    """Condition: a short rest says nothing when no other connection shows that the path was alive."""
    wire = Wire()
    conn = _pooled(wire)
    _resend(conn, 120.12)
    return wire.sorted()


def near_miss_answered():
    """Condition: the other side is not heard any more. The fifth send is acknowledged: loss."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12)
    conn.segment(353.2, False, "A")
    return wire.sorted()


def near_miss_reset_by_peer():
    """Condition: no reset of the peer. It has forgotten the connection itself, and says so at the fifth send."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12)
    conn.segment(353.2, False, "R")
    return wire.sorted()


def near_miss_icmp():
    """Condition: no ICMP error. A router says that the host cannot be reached."""
    wire = Wire()
    conn = _pooled(wire)
    _resend(conn, 350.12)
    wire.icmp_error(353.5, "203.0.113.1", wire.frames[-1], type=3, code=1)
    return wire.sorted()


def near_miss_duplicates():
    """Condition: waits of a sender. Five copies within two milliseconds are the capture's."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12, (0.0, 0.0001, 0.0003, 0.0008, 0.002))
    return wire.sorted()


def near_miss_even_waits():
    """Condition: growing waits. TCP does not resend at even intervals; a generator of traffic does."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    _resend(conn, 350.12, (0.0, 1.0, 2.0, 3.0, 4.0))
    return wire.sorted()


def near_miss_window_closed():
    """Condition: the receiver had not closed its window. It was full, and still is."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    conn.segment(0.2, False, "A", window=0)
    _resend(conn, 350.2)
    return wire.sorted()


def near_miss_longer_rest_survived():
    """Condition: no longer rest was survived between the same hosts. Another connection rested 400 s and went on."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (1.0, 401.0))
    _resend(conn, 400.0)
    return wire.sorted()


def near_miss_path_down():
    """Condition: other connections of the hosts work. A new one fails at the same time: host or path is down."""
    wire = Wire()
    conn = _pooled(wire)
    _resend(conn, 350.12)
    other = Connection(wire, CLIENT, 40001, SERVER, 8080)
    for i, at in enumerate((350.3, 351.3, 353.0)):
        other.syn(at, again=i > 0)
    return wire.sorted()


def near_miss_gone_for_good():
    """Condition: other connections of the hosts work. A new one fails soon afterwards, and nothing is heard again."""
    wire = Wire()
    conn = _pooled(wire)
    _resend(conn, 350.12)
    other = Connection(wire, CLIENT, 40001, SERVER, 8080)
    for i, at in enumerate((354.0, 355.0, 357.0)):
        other.syn(at, again=i > 0)
    return wire.sorted()


def near_miss_all_stop():
    """Condition: the path is alive. A connection with a request each 10 s dies at the same time: an outage."""
    wire = Wire()
    conn = _pooled(wire)
    busy = Connection(wire, CLIENT, 40001, SERVER, 8080)
    busy.open(0.05)
    for tick in range(1, 36):
        busy.data(tick * 10.0, True, b"tick")
    _resend(conn, 352.0)
    _resend(busy, 360.01, (0.0, 0.2, 0.6, 1.4, 3.0))
    return wire.sorted()


def near_miss_keepalive_answered():
    """Condition: a rest. Keep-alives each minute were answered."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (150.0, 351.0))
    for at in (60.0, 120.0, 180.0, 240.0, 300.0):
        conn.segment(at, True, "A", seq=conn.cseq - 1)
        conn.segment(at + 0.02, False, "A")
    _resend(conn, 350.12)
    return wire.sorted()


def near_miss_no_rest():
    """Condition: a rest. The data fails half a second after the last answer."""
    wire = Wire()
    conn = _pooled(wire)
    _busy(wire, 0.05, (0.4, 0.7, 1.0))
    _resend(conn, 0.6)
    return wire.sorted()


def near_miss_peer_resets():
    """Condition: the reset comes from elsewhere. This one has passed as many routers as the server's packets."""
    wire = Wire()
    conn = _pooled(wire)
    conn.segment(350.12, True, "PA", REQUEST)
    conn.segment(350.141, False, "R", ttl=57)
    return wire.sorted()


def near_miss_reset_without_rest():
    """Condition: a rest before the foreign reset. One that cuts into traffic is injected (FW-RST-INJECT)."""
    wire = Wire()
    conn = _pooled(wire)
    conn.data(300.0, True, REQUEST)
    conn.segment(310.0, True, "PA", REQUEST)
    conn.segment(310.001, False, "R", ttl=62)
    return wire.sorted()


def near_miss_answer_before_reset():
    """Condition: the foreign reset is the only answer. The server had acknowledged before it."""
    wire = Wire()
    conn = _pooled(wire)
    conn.data(350.12, True, REQUEST)
    conn.segment(350.2, False, "R", ttl=62)
    return wire.sorted()


def near_miss_reset_unasked():
    """Condition: somebody spoke after the rest. A reset that comes by itself is LB-IDLE-RST."""
    wire = Wire()
    conn = _pooled(wire)
    conn.segment(350.12, False, "R", ttl=62)
    return wire.sorted()
