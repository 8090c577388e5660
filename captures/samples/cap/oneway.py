"""Samples of CAP-ONEWAY: taps that miss one direction of TCP, SIP and media."""

from _craft.network import Connection, Wire
from _craft.sip import Dialog, rtcp_report, rtp, sdp

CLIENT, SERVER = "10.20.0.15", "198.51.100.20"
SEEN, UNSEEN = 0x1111, 0x2222

HIT_FRAMES = {"hit": [2, 4], "hit_server_side": [1, 2], "hit_sip": [1, 2], "hit_sip_responses": [1, 2, 3, 4],
              "hit_rtcp": [51, 102], "hit_two_points": {"half": [2, 4]}}


def _only(wire: Wire, source: str) -> Wire:
    """What a tap shows that misses the packets of the other side."""
    wire.frames = [f for f in wire.frames if f.payload.src == source]
    return wire


def _exchange(wire: Wire, later: float = 0.0, cport: int = 40000) -> Wire:
    """A handshake and three requests with their answers."""
    conn = Connection(wire, CLIENT, cport, SERVER, 443)
    conn.open(later)
    for i in range(3):
        conn.data(later + 0.1 + i * 0.1, True, b"request")
        conn.data(later + 0.15 + i * 0.1, False, b"answer")
    return wire


def hit():
    """The client sends requests and acknowledges answers that are not there."""
    return _only(_exchange(Wire()), CLIENT).sorted()


def hit_server_side():
    """The same, and the tap shows the server only."""
    return _only(_exchange(Wire()), SERVER).sorted()


def hit_two_points():
    """Another point has both directions."""
    return {"whole": _exchange(Wire()).sorted(), "half": _only(_exchange(Wire(), 0.0005), CLIENT).sorted()}


def _call(wire: Wire) -> Dialog:
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.answered(0.0, sdp(CLIENT, 4000), sdp(SERVER, 4000))
    for i in range(4):
        dialog.request(1.0 + i, "INFO", to_tag=True, cseq=2 + i)
        dialog.response(1.01 + i, 200, "OK", "INFO", cseq=2 + i)
    return dialog


def hit_sip():
    """The caller's ACK names the callee's tag, and no response is there."""
    wire = Wire()
    _call(wire)
    return _only(wire, CLIENT).sorted()


def hit_sip_responses():
    """Responses without a request."""
    wire = Wire()
    _call(wire)
    return _only(wire, SERVER).sorted()


def _media(highest: tuple[int, int], about: int = UNSEEN) -> Wire:
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 2.0, ssrc=SEEN)
    for at, number in zip((0.991, 1.991), highest, strict=True):
        rtcp_report(wire, at, CLIENT, 4001, SERVER, 4001, ssrc=SEEN, about=about, highest=number, sent=50)
    return wire


def hit_rtcp():
    """Audio one way, and its sender reports that it receives more and more of a source that is not there."""
    return _media((1050, 1100)).sorted()


def near_miss_few_packets():
    """Condition: at least five packets. Four are too few to tell."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.segment(0.0, True, "S", options=conn.options)
    for i in range(3):
        conn.segment(0.1 + i, True, "A", ack=5001 + 10 * i)
    _exchange(wire, 2.0, 40001)
    return wire.sorted()


def near_miss_ack_stands():
    """Condition: acknowledgment numbers grow. A sender of keep-alives acknowledges the same number again and again."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    for i in range(8):
        conn.segment(i * 1.0, True, "A", ack=5001)
    return wire.sorted()


def near_miss_both_directions():
    """Condition: nothing the other way. Here one packet of the server is seen."""
    wire = _exchange(Wire())
    wire.frames = [f for i, f in enumerate(wire.frames) if f.payload.src == CLIENT or i == 1]
    return wire.sorted()


def near_miss_syns():
    """Condition: the visible side is answered. SYNs that are repeated are not (FW-SYN-DROP)."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    for i, at in enumerate((0.0, 1.0, 3.0, 7.0, 15.0, 31.0)):
        conn.syn(at, again=i > 0)
    return wire.sorted()


def near_miss_invite_repeated():
    """Condition: the dialog goes on. An INVITE that is repeated is not answered."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    for i, at in enumerate((0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)):
        dialog.request(at, "INVITE", body=sdp(CLIENT, 4000), new_branch=i == 0)
    return wire.sorted()


def near_miss_ack_alone():
    """Condition: the INVITE is in the capture. It began between the 200 and its ACK, and nothing is answered since."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "ACK", to_tag=True)
    for i, at in enumerate((1.0, 1.5, 2.5, 4.5, 8.5, 12.5)):
        dialog.request(at, "BYE", to_tag=True, cseq=2, new_branch=i == 0)
    return wire.sorted()


def near_miss_responses_elsewhere():
    """Condition: no response to the dialog at all. Here they come to another port of the client."""
    wire = Wire()
    _call(wire)
    for frame in wire.frames:
        if frame.payload.src == SERVER:
            frame["UDP"].dport = 5070
    return wire.sorted()


def near_miss_telemetry():
    """Condition: something claims to be answered. Datagrams one way are what telemetry is."""
    wire = Wire()
    for i in range(20):
        wire.udp(i * 0.5, CLIENT, 40000, SERVER, 514, b"<34>message %d" % i)
    return wire.sorted()


def near_miss_report_stands():
    """Condition: the report's highest sequence number grows. Here the source stopped before."""
    return _media((1050, 1050)).sorted()


def near_miss_report_about_seen():
    """Condition: the reported source is not seen. This one is, on another flow."""
    wire = _media((1050, 1100))
    rtp(wire, 0.005, SERVER, 6000, CLIENT, 4002, 2.0, ssrc=UNSEEN)
    return wire.sorted()
