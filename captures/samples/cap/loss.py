"""Samples of CAP-LOSS: packets that were on the wire and are not in the capture."""

from _craft.network import Connection, Wire
from _craft.rtp import packet
from _craft.sip import rtcp_report, rtp

CLIENT, SERVER, RELAY = "10.20.0.15", "198.51.100.20", "198.51.100.7"
FORTH, BACK = 0x1111, 0x2222
RUN = frozenset(range(100, 106))
"""Six packets in a row, two seconds into a stream."""
MOMENTS = frozenset(n + i for n in (50, 110, 180) for i in range(3))
"""Three gaps of three packets."""

ALSO = ("RTP-LOSS",)
"""Where no receiver speaks against it, the missing packets may have been lost on the way as well."""
HIT_FRAMES = {"hit": [7], "hit_together": [11, 13, 15], "hit_two_points": {"mirror": [6], "server": [6]},
              "hit_rtcp": [101, 102, 146], "hit_both_directions": [101, 102, 215, 216, 349, 350],
              "hit_further_on": {"tap": [1], "server": [101, 102, 103]},
              "hit_behind_a_relay": {"tap": [1], "server": [101, 102, 103]},
              "hit_between": {"tap": [1], "server": [98, 99, 100]},
              "hit_worse_behind": {"tap": [1], "server": [93, 94, 95]},
              "hit_part": {"tap": [1], "server": [40, 41, 42]},
              "hit_again": {"tap": [1], "server": [251, 252, 253]},
              "hit_reported_elsewhere": {"server": [101, 152], "tap": [101]}}


def _transfer(wire: Wire, at: float = 0.0, cport: int = 40000, missing: bool = True) -> Connection:
    """Three requests with their ACKs; the second request is not captured."""
    conn = Connection(wire, CLIENT, cport, SERVER, 443)
    conn.open(at)
    conn.data(at + 0.1, True, b"first")
    if missing:
        conn.cseq += 100
    else:
        conn.segment(at + 0.2, True, "PA", b"x" * 100)
    conn.segment(at + 0.22, False, "A")
    conn.data(at + 0.3, True, b"third")
    return conn


def hit():
    """A request that the server acknowledges, and that is not in the capture."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.data(0.1, True, b"first")
    conn.cseq += 100
    conn.data(0.2, True, b"third")
    conn.data(0.3, True, b"fourth")
    return wire.sorted()


def hit_together():
    """Three connections lack a request at the same moment."""
    wire = Wire()
    conns = [Connection(wire, f"10.20.0.{15 + i}", 40000, SERVER, 443) for i in range(3)]
    for i, conn in enumerate(conns):
        conn.open(i * 0.001)
    for i, conn in enumerate(conns):
        conn.data(0.31 + i * 0.01, True, b"request", 0.0005)
        conn.cseq += 100
    del wire.frames[-6:]
    for i, conn in enumerate(conns):
        conn.data(0.41 + i * 0.01, True, b"request", 0.0005)
    return wire.sorted()


def hit_two_points():
    """The mirror port lacks a request that the server's own capture has."""
    mirror, server = Wire(), Wire()
    _transfer(mirror)
    _transfer(server, missing=False)
    return {"mirror": mirror.sorted(), "server": server.sorted()}


def near_miss_retransmitted():
    """Condition: the bytes never come. The request was lost before the capture point, and is sent again."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.data(0.1, True, b"first")
    conn.cseq += 100
    conn.segment(0.2, True, "PA", b"third")
    conn.segment(0.22, False, "A", ack=conn.cseq - 105)
    conn.segment(0.45, True, "PA", b"x" * 100, seq=conn.cseq - 105)
    conn.segment(0.47, False, "A")
    return wire.sorted()


def near_miss_reordered():
    """Condition: neither before nor after. The capture wrote the ACK before the request."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.segment(0.1, False, "A", ack=conn.cseq + 5)
    conn.segment(0.101, True, "PA", b"first")
    return wire.sorted()


def near_miss_midstream():
    """Condition: bytes from inside the capture. These were sent before it began."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.segment(0.0, False, "A", ack=conn.cseq + 500)
    conn.cseq += 500
    conn.data(0.1, True, b"request")
    return wire.sorted()


def near_miss_reset():
    """Condition: no reset. Its acknowledgment number may be anything."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    conn.data(0.1, True, b"request")
    conn.segment(0.2, False, "RA", ack=conn.cseq + 7000)
    return wire.sorted()


def near_miss_challenge():
    """Condition: no answer to a SYN but its SYN-ACK. A server that still has the old connection tells its number."""
    wire = Wire()
    Connection(wire, CLIENT, 40000, SERVER, 443).open(0.0)
    again = Connection(wire, CLIENT, 40000, SERVER, 443, cseq=900_000, sseq=700_000)
    again.syn(30.0)
    again.segment(30.02, False, "A", seq=5001, ack=1001)
    again.segment(30.0201, True, "R", seq=1001)
    again.syn(31.0, again=True)
    again.segment(31.02, False, "SA", options=again.options)
    again.segment(31.0201, True, "A")
    again.data(31.1, True, b"request")
    return wire.sorted()


def near_miss_share():
    """Condition: 0.05 % of the data segments. One of 2001 is less."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443, options=())
    conn.open(0.0)
    for i in range(2000):
        conn.segment(0.1 + i * 0.0001, True, "A", b"x")
    conn.cseq += 1
    conn.segment(0.4, False, "A")
    conn.segment(0.5, True, "A", b"x")
    return wire.sorted()


def _audio(wire: Wire, counted: tuple[int, int], lost: frozenset[int] = RUN, reporter: str = SERVER,
           first: int = 1000, reports: tuple[float, float] = (1.99, 2.99)) -> Wire:
    """Three seconds of audio, and two reports by its receiver."""
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, lost=lost, first=first)
    for at, count in zip(reports, counted, strict=True):
        number = int(at / 0.02)
        rtcp_report(wire, at, reporter, 4001, CLIENT, 4001, ssrc=BACK, about=FORTH, highest=first + number, lost=count)
    return wire


def hit_rtcp():
    """Six packets are missing, and the receiver counts none of them as lost."""
    return _audio(Wire(), (2, 2), first=65_450).sorted()


def hit_further_on():
    """Behind two routers six packets pass that the tap before them lacks."""
    tap, server = Wire(), Wire()
    rtp(tap, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, lost=RUN)
    rtp(server, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, ttl=62)
    return {"tap": tap.sorted(), "server": server.sorted()}


def hit_behind_a_relay():
    """A relay sends on six packets that the tap before it lacks, with a TTL of its own."""
    tap, server = Wire(), Wire()
    rtp(tap, 0.0, CLIENT, 4000, RELAY, 4000, 3.0, ssrc=FORTH, lost=RUN, ttl=60)
    rtp(server, 0.0, RELAY, 4010, SERVER, 4000, 3.0, ssrc=FORTH)
    return {"tap": tap.sorted(), "server": server.sorted()}


def _sent(wire: Wire, at: float = 0.0, seconds: float = 3.0, lost: frozenset[int] = frozenset(), ttl: int = 64,
          first: int = 1000, stamp: int = 0, ends: tuple[str, int, str, int] = (CLIENT, 4000, SERVER, 4000)) -> Wire:
    """A stream of 20 ms packets with the numbers and time stamps that are asked for."""
    for i in range(round(seconds / 0.02)):
        if i not in lost:
            wire.udp(at + i * 0.02, *ends, packet(first + i, stamp + 160 * i, FORTH, data=b"\x7f" * 20), ttl)
    return wire


def _at(point: str, lost: frozenset[int] = frozenset(), ttl: int = 64,
        ends: tuple[str, int, str, int] = (CLIENT, 4000, SERVER, 4000)) -> dict[str, list]:
    """The stream at one point."""
    return {point: _sent(Wire(), lost=lost, ttl=ttl, ends=ends).sorted()}


def hit_between():
    """The phone and the server have what the tap between them lacks; the phone's own capture has most packets."""
    return _at("phone") | _at("tap", RUN, 63) | _at("server", frozenset({30, 31, 32}), 60)


def hit_worse_behind():
    """The tap lacks six packets that the server has, and on the way to the server eight others are lost."""
    return _at("tap", RUN, 63) | _at("server", frozenset(range(20, 28)), 60)


def hit_part():
    """The server captures one second of three, in which the tap lacks six packets."""
    return _at("tap", RUN, 63) | {"server": _at("server", ttl=60)["server"][61:131]}


def hit_again():
    """The numbers that the tap lacks were used before: the stream began anew with them."""
    points = {}
    for point, lost, ttl in (("tap", RUN, 63), ("server", frozenset(), 60)):
        wire = _sent(Wire(), ttl=ttl)
        points[point] = _sent(wire, 3.0, lost=lost, ttl=ttl, stamp=24_000).sorted()
    return points


def near_miss_reflected():
    """Condition: the same way. An echo test sends the packets back, and some are lost on the way back."""
    points, back = {}, (SERVER, 4000, CLIENT, 4000)
    for point, lost, ttls in (("near", RUN, (64, 60)), ("far", frozenset(), (60, 64))):
        points[point] = _sent(_sent(Wire(), ttl=ttls[0]), 0.02, lost=lost, ttl=ttls[1], ends=back).sorted()
    return points


def near_miss_two_receivers():
    """Condition: one end, with its port, stays the same. A relay sends the audio to the peer and to a recorder."""
    return (_at("peer", ttl=60, ends=(RELAY, 6000, SERVER, 4000))
            | _at("recorder", RUN, 63, (RELAY, 6002, "198.51.100.9", 4000)))


def near_miss_around():
    """Condition: one end, with its port, stays the same. A relay sends the audio past another one and then on."""
    return (_at("between", ttl=62, ends=(RELAY, 6000, "198.51.100.9", 4000))
            | _at("peer", RUN, 64, (RELAY, 6010, SERVER, 4000)))


def near_miss_routed_copies():
    """Condition: the point is on the way. Copies that are routed to a sensor lose hops in both directions."""
    points = {}
    for point, lost, ttls in (("sensor", frozenset(), (62, 58)), ("wan", RUN, (63, 60))):
        wire = _sent(Wire(), lost=lost, ttl=ttls[0])
        rtp(wire, 0.0, SERVER, 4000, CLIENT, 4000, 3.0, ssrc=BACK, ttl=ttls[1])
        points[point] = wire.sorted()
    return points


def near_miss_new_route():
    """Condition: TTL of the same packets. The tap comes first; the route before it grew when the server's capture
    was over."""
    tap = _sent(_sent(Wire(), seconds=1.0, ttl=62), 1.0, 2.0, ttl=50, first=1050, stamp=8000)
    return {"tap": tap.sorted(), "server": _sent(Wire(), seconds=1.0, lost=frozenset(range(10, 16)), ttl=60).sorted()}


def near_miss_another_call():
    """Condition: the same packets. Another phone uses the same SSRC and numbers, with other time stamps."""
    other = _sent(Wire(), ttl=60, stamp=7000, ends=("10.20.0.16", 4000, SERVER, 4000))
    return _at("tap", RUN, 63) | {"server": other.sorted()}


def near_miss_many_calls():
    """Condition: one such stream there. Two calls from behind a NAT have one SSRC and the same packets."""
    server = Wire()
    for port in (40000, 40001):
        _sent(server, ttl=60, ends=("192.0.2.9", port, SERVER, 4000))
    return _at("tap", RUN, 63) | {"server": server.sorted()}


def near_miss_reports_go_on():
    """Condition: missing between captured packets. The server's reports go on when this capture is over."""
    gone = frozenset(range(60, 66))
    server = _audio(Wire(), (6, 6), lost=gone, reports=(1.5, 2.99))
    return {"tap": _sent(Wire(), seconds=2.0, lost=gone).sorted(), "server": server.sorted()}


def near_miss_renumbered():
    """Condition: missing, not never sent. After hold numbers and time stamps go on elsewhere; the receiver knows."""
    wire = _sent(_sent(Wire(), seconds=1.0), 3.0, 1.0, first=1750, stamp=0x51000000)
    for at, highest in ((0.5, 1024), (3.99, 1799)):
        rtcp_report(wire, at, SERVER, 4001, CLIENT, 4001, ssrc=BACK, about=FORTH, highest=highest)
    return wire.sorted()


def near_miss_reports_of_another_call():
    """Condition: one reporter. Two calls have one SSRC, and the six packets are lost for the receiver of one."""
    wire = _sent(_sent(Wire(), lost=RUN), first=9000, ends=(CLIENT, 4002, SERVER, 4002))
    for reporter, port, first, counts in ((BACK, 4001, 1000, (0, 6)), (BACK + 1, 4003, 9000, (0, 0))):
        for at, number, count in zip((1.99, 2.99), (99, 149), counts, strict=True):
            rtcp_report(wire, at, SERVER, port, CLIENT, port, ssrc=reporter, about=FORTH, highest=first + number,
                        lost=count)
    return wire.sorted()


def hit_reported_elsewhere():
    """The tap lacks six packets; the reports of their receiver, which counts none, are only seen at the server."""
    tap, server = Wire(), _audio(Wire(), (0, 0), lost=frozenset())
    rtp(tap, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, lost=RUN)
    return {"tap": tap.sorted(), "server": server.sorted()}


def near_miss_before():
    """Condition: the point that has them comes later. Here it comes before two routers: they were lost between."""
    tap, server = Wire(), Wire()
    rtp(tap, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH)
    rtp(server, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, lost=RUN, ttl=62)
    return {"tap": tap.sorted(), "server": server.sorted()}


def near_miss_same_ttl():
    """Condition: the point that has them comes later. Nothing tells which one comes first."""
    tap, server = Wire(), Wire()
    rtp(tap, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH)
    rtp(server, 0.0, CLIENT, 4000, SERVER, 4000, 3.0, ssrc=FORTH, lost=RUN)
    return {"tap": tap.sorted(), "server": server.sorted()}


def near_miss_relay_lost_them():
    """Condition: the point that has them comes later. It comes before the relay, and its TTL is lower."""
    tap, server = Wire(), Wire()
    rtp(tap, 0.0, CLIENT, 4000, RELAY, 4000, 3.0, ssrc=FORTH, ttl=60)
    rtp(server, 0.0, RELAY, 4010, SERVER, 4000, 3.0, ssrc=FORTH, lost=RUN)
    return {"tap": tap.sorted(), "server": server.sorted()}


def near_miss_rtcp_counts_them():
    """Condition: the receiver has them. Here it counts six lost packets as well."""
    return _audio(Wire(), (2, 8)).sorted()


def near_miss_rtcp_counts_most():
    """Condition: five packets more than the receiver lacks. Here two."""
    return _audio(Wire(), (2, 6)).sorted()


def near_miss_lost_before_the_reports():
    """Condition: missing between two reports. These were missing before the first one, which may begin late."""
    return _audio(Wire(), (0, 0), lost=frozenset(range(20, 26))).sorted()


def near_miss_restart_between_the_reports():
    """Condition: one sequence. The sender began a new one, and nothing is missing between its parts."""
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 2.0, ssrc=FORTH, lost=frozenset(range(20, 26)))
    rtp(wire, 2.0, CLIENT, 4000, SERVER, 4000, 1.0, ssrc=FORTH, first=20_000)
    for at, highest in ((1.99, 1099), (2.99, 20_049)):
        rtcp_report(wire, at, SERVER, 4001, CLIENT, 4001, ssrc=BACK, about=FORTH, highest=highest)
    return wire.sorted()


def near_miss_another_reports():
    """Condition: the report is by the destination of the stream. A recorder next to the sender lacks nothing."""
    return _audio(Wire(), (2, 2), reporter="10.20.0.16").sorted()


def _call(wire: Wire, forth: frozenset[int] = MOMENTS, back: frozenset[int] = MOMENTS) -> Wire:
    """Audio in both directions for five seconds."""
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 5.0, ssrc=FORTH, lost=forth)
    rtp(wire, 0.003, SERVER, 4000, CLIENT, 4000, 5.0, ssrc=BACK, lost=back)
    return wire


def hit_both_directions():
    """Both directions miss packets at the same three moments."""
    return _call(Wire()).sorted()


def near_miss_one_direction():
    """Condition: both directions. Only one has gaps."""
    return _call(Wire(), back=frozenset()).sorted()


def near_miss_two_moments():
    """Condition: three moments. A link that failed twice looks the same."""
    return _call(Wire(), frozenset({50, 110, 180}), frozenset({50, 110, 220})).sorted()


def near_miss_same_direction():
    """Condition: both directions. Two streams of one sender share their way, and its losses."""
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 5.0, ssrc=FORTH, lost=MOMENTS)
    rtp(wire, 0.003, CLIENT, 4000, SERVER, 4000, 5.0, ssrc=BACK, lost=MOMENTS)
    return wire.sorted()


def near_miss_restarts():
    """Condition: gaps, not restarts. Both senders begin a new sequence at the same eight moments (hold and resume)."""
    wire = Wire()
    for i in range(9):
        for at, src, dst, ssrc, lost in ((i, CLIENT, SERVER, FORTH, 10), (i + 0.003, SERVER, CLIENT, BACK, 30)):
            rtp(wire, at, src, 4000, dst, 4000, 1.0, ssrc=ssrc, first=1000 + 5000 * i, size=1,
                lost=frozenset({lost} if i < 3 else ()))
    return wire.sorted()


def near_miss_other_moments():
    """Condition: the same moments. The gaps lie elsewhere in the other direction."""
    return _call(Wire(), back=frozenset(n + 20 for n in MOMENTS)).sorted()


def near_miss_by_chance():
    """Condition: more than chance gives. Both directions lose every fourth packet, so that some gaps must coincide."""
    return _call(Wire(), frozenset(range(10, 240, 4)), frozenset(range(11, 240, 4))).sorted()


def near_miss_counted_as_lost():
    """Condition: no receiver counts them. The server reports that it lost them all."""
    wire = _call(Wire())
    rtcp_report(wire, 4.9, SERVER, 4001, CLIENT, 4001, ssrc=BACK, about=FORTH, highest=1244, lost=9)
    return wire.sorted()
