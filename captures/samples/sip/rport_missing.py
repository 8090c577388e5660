"""Samples of SIP-RPORT-MISSING: a phone behind NAT sends requests without rport and never hears the answers."""

from _craft.network import Wire, ip
from _craft.sip import Dialog, sdp
from scapy.layers.inet import UDP
from scapy.packet import Raw

NAT, INSIDE, SERVER = "203.0.113.66", "10.30.0.21", "198.51.100.20"
MAPPED = 33504
OTHERS = (0.0, 0.5, 1.5, 3.5, 7.5)  # RFC 3261 §17.1.2.2, Timer E

HIT_FRAMES = {"hit": list(range(1, 11)), "hit_invite": [1, 2, 3, 4, 5, 6, 7], "hit_ignored": list(range(1, 11)),
              "hit_icmp": [*range(1, 12), 13, 14], "hit_two_points": {"outside": list(range(3, 13))}}


def _message(wire: Wire, at: float, src: str, sport: int, dst: str, dport: int, first: str, via: str, cseq: str,
             call_id: str = "reg-1@a.example", tag: str = "") -> int:
    text = (f"{first}\r\nVia: SIP/2.0/UDP {via}\r\nMax-Forwards: 70\r\nFrom: <sip:100@pbx.example>;tag=r1\r\n"
            f"To: <sip:100@pbx.example>{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n"
            f"Contact: <sip:100@{INSIDE}:5060>\r\nContent-Length: 0\r\n\r\n")
    return wire.udp(at, src, sport, dst, dport, text.encode())


def _exchange(wire: Wire, times: tuple[float, ...] = OTHERS, *, sport: int = MAPPED, to: int = 5060, rport: str = "",
              client: str = NAT, port: str = "", method: str = "REGISTER", replies: tuple[float, ...] | None = None,
              status: int = 200, call_id: str = "reg-1@a.example", at: float = 0.0) -> None:
    """A request sent at ``times`` from ``sport``; each is answered, after 10 ms, to port ``to``."""
    via = f"{INSIDE}{port};branch=z9hG4bK{call_id[:5]}"
    for later in times:
        _message(wire, at + later, client, sport, SERVER, 5060, f"{method} sip:pbx.example SIP/2.0", via + rport,
                 f"1 {method}", call_id)
    for later in times if replies is None else replies:
        _message(wire, at + later + 0.01, SERVER, 5060, client, to, f"SIP/2.0 {status} X",
                 f"{via};received={client}{rport}", f"1 {method}", call_id, ";tag=s1")


def hit():
    """REGISTER from port 33504; its answers go to port 5060."""
    wire = Wire()
    _exchange(wire)
    return wire.sorted()


def hit_invite():
    """An INVITE whose 100 goes astray is repeated."""
    wire = Wire()
    _exchange(wire, (0.0, 0.5, 1.5, 3.5), method="INVITE", status=100, replies=(0.0, 0.5, 1.5))
    return wire.sorted()


def hit_ignored():
    """The Via has rport, and its port is 5070; the server answers there all the same."""
    wire = Wire()
    _exchange(wire, rport=";rport", port=":5070", to=5070)
    return wire.sorted()


def hit_icmp():
    """The NAT says that nobody is at port 5060."""
    wire = Wire()
    _exchange(wire)
    for at in OTHERS:
        response = ip(SERVER, NAT) / UDP(sport=5060, dport=5060) / Raw(b"SIP/2.0 ")
        wire.icmp_error(at + 0.012, NAT, response)
    return wire.sorted()


def hit_two_points():
    """Behind the NAT the answers do not come out, where those to another phone do."""
    outside, inside = Wire(), Wire()
    for wire, client, sport in ((outside, NAT, MAPPED + 1), (inside, "10.30.0.22", 5060)):
        _exchange(wire, (0.0,), client=client, sport=sport, to=sport, rport=";rport", call_id="ping9@a.example")
        _exchange(wire, (0.0,), client=client, sport=sport, to=sport, rport=";rport", call_id="ping8@a.example",
                  at=12.0)
    _exchange(outside, at=1.0)
    _exchange(inside, client=INSIDE, sport=5060, replies=(), at=1.0)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_asymmetric():
    """Condition: repeated after the response. The client sends from a high port and listens on 5060."""
    wire = Wire()
    _exchange(wire, (0.0,))
    return wire.sorted()


def near_miss_one_repeat():
    """Condition: repeated twice after the response. The first answer is lost on the way, or crosses the repetition."""
    wire = Wire()
    _exchange(wire, (0.0, 0.5))
    return wire.sorted()


def near_miss_source_port():
    """Condition: another port than the source port. The NAT kept port 5060, and the answers are lost elsewhere."""
    wire = Wire()
    _exchange(wire, sport=5060)
    return wire.sorted()


def near_miss_not_the_via():
    """Condition: the port of the Via. The answers go to a third port: another fault."""
    wire = Wire()
    _exchange(wire, to=5099)
    return wire.sorted()


def near_miss_provisional():
    """Condition: a final response. A 100 does not stop the repetition of a REGISTER; the 200 does."""
    wire = Wire()
    _exchange(wire, replies=(0.0,), status=100)
    _exchange(wire, (), replies=(7.5,))
    return wire.sorted()


def near_miss_acknowledged():
    """Condition: no ACK. The caller repeats its INVITE while it waits, and acknowledges the answer sent to 5060."""
    wire = Wire()
    _exchange(wire, (0.0, 0.5, 1.5), method="INVITE", replies=(0.0,), status=180)
    _exchange(wire, (), method="INVITE", replies=(3.0,))
    _message(wire, 3.1, NAT, MAPPED, SERVER, 5060, "ACK sip:pbx.example SIP/2.0", f"{INSIDE};branch=z9hG4bKack",
             "1 ACK", tag=";tag=s1")
    return wire.sorted()


def near_miss_elsewhere():
    """Condition: to the client's address. Responses that leave for another host are a question of routing."""
    wire = Wire()
    _exchange(wire, replies=())
    for later in OTHERS:
        _message(wire, later + 0.01, SERVER, 5060, "203.0.113.99", 5060, "SIP/2.0 200 OK",
                 f"{INSIDE};branch=z9hG4bKreg-1", "1 REGISTER", tag=";tag=s1")
    return wire.sorted()


def near_miss_no_response():
    """Condition: answered at all. A call that works stands beside a REGISTER without any response."""
    wire = Wire()
    _exchange(wire, replies=())
    Dialog(wire, NAT, SERVER, cport=33600).answered(9.0, sdp(NAT, 30000), sdp(SERVER, 16000))
    return wire.sorted()
