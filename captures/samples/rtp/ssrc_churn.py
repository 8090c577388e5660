"""Samples of RTP-SSRC-CHURN: what reaches the gateway's port from phones."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, forth, packet
from _craft.sip import Dialog

OTHER = "203.0.113.150"
HIT_FRAMES = {"hit": [6, 12, 85, 91], "hit_ended": [6, 31, 70, 78], "hit_changes": [6, 28, 50, 72],
              "hit_both_ways": [6, 7, 48, 49]}


def _stray(wire: Wire, at: float, seconds: float, *, ssrc: int = 2, payload: int = 0, first: int = 7000,
           source: str = OTHER) -> None:
    """Another host sends to the gateway's port."""
    for i in range(round(seconds / 0.09)):
        wire.udp(at + i * 0.09, source, PORT, GATEWAY, GATEWAY_PORT, packet(first + i, 720 * i, ssrc, payload))


def _call(seconds: float = 6.0, offer: str = "", answer: str = "") -> tuple[Wire, float]:
    wire = Wire()
    return wire, call(wire, seconds, offer, answer)


def hit():
    """Two hosts talk to the gateway's port for four seconds."""
    wire, at = _call()
    forth(wire, at + 0.02, 3.9)
    _stray(wire, at + 0.5, 3.9)
    return wire.sorted()


def hit_ended():
    """A call ends, its phone sends on, and the gateway gives the port to the next call."""
    wire = Wire()
    at = call(wire, 1.0, body(OTHER, PORT, direction="sendonly"), number=1)
    _stray(wire, at + 0.02, 3.4)
    dialog = Dialog(wire, PHONE, GATEWAY, call_id="call-2@a.example")
    later = dialog.answered(at + 1.5, body(PHONE, PORT, direction="sendonly"),
                            body(GATEWAY, GATEWAY_PORT, direction="recvonly"))
    forth(wire, later + 0.02, 2.5)
    dialog.bye(later + 3)
    return wire.sorted()


def hit_changes():
    """Four streams, two seconds each, and no offer but the first."""
    wire, at = _call(9.0)
    for i in range(4):
        forth(wire, at + 0.02 + 2 * i, 1.98, ssrc=i + 1, first=5000 * i)
    return wire.sorted()


def hit_both_ways():
    """Both ends chose the same SSRC."""
    wire, at = _call(3.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))
    forth(wire, at + 0.02, 2.0)
    forth(wire, at + 0.03, 2.0, back=True, first=9000, stamp=77)
    return wire.sorted()


def near_miss_one_change():
    """Condition: three new SSRCs a minute. Here one, as music on hold gives."""
    wire, at = _call(9.0)
    for i in range(2):
        forth(wire, at + 0.02 + 2 * i, 1.98, ssrc=i + 1, first=5000 * i)
    return wire.sorted()


def near_miss_offers():
    """Condition: without a new offer. Each new source has its re-INVITE."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, body(PHONE, PORT, direction="sendonly"), body(
        GATEWAY, GATEWAY_PORT, direction="recvonly"))
    for i in range(4):
        if i:
            dialog.cseq += 1
            dialog.request(at + 2 * i - 0.1, "INVITE", to_tag=True, body=body(
                PHONE, PORT, direction="sendonly", version=i + 1))
            dialog.response(at + 2 * i - 0.05, 200, "OK", body=body(
                GATEWAY, GATEWAY_PORT, direction="recvonly", version=i + 1))
            dialog.request(at + 2 * i - 0.04, "ACK", to_tag=True)
        forth(wire, at + 0.02 + 2 * i, 1.8, ssrc=i + 1, first=5000 * i)
    dialog.bye(at + 9)
    return wire.sorted()


def near_miss_slowly():
    """Condition: in one minute. Four streams, 35 s each, in slow packets."""
    wire, at = _call(145.0)
    for i in range(4):
        forth(wire, at + 0.02 + 35 * i, 34.0, ssrc=i + 1, first=5000 * i, ptime=1.0)
    return wire.sorted()


def near_miss_relieved():
    """Condition: ten turns. The second stream begins while the first one ends."""
    wire, at = _call()
    forth(wire, at + 0.02, 2.0)
    _stray(wire, at + 1.7, 2.0)
    return wire.sorted()


def near_miss_long_turns():
    """Condition: turns within 200 ms. Two slow streams, 250 ms from each other."""
    wire, at = _call(12.0)
    forth(wire, at + 0.02, 10.0, ptime=0.5)
    for i in range(20):
        wire.udp(at + 0.27 + i * 0.5, OTHER, PORT, GATEWAY, GATEWAY_PORT, packet(7000 + i, 4000 * i, 2))
    return wire.sorted()


def near_miss_announced():
    """Condition: not announced. SDP names both sources (RFC 5576)."""
    extra = "a=ssrc:1 cname:a@a.example\r\na=ssrc:2 cname:a@a.example\r\n"
    wire, at = _call(6.0, body(PHONE, PORT, direction="sendonly", extra=extra))
    forth(wire, at + 0.02, 3.9)
    _stray(wire, at + 0.5, 3.9, source=PHONE)
    return wire.sorted()


def near_miss_no_signalling():
    """Condition: the sources are those of two hosts, or signalling was captured. One host may have announced both."""
    wire = Wire()
    forth(wire, 0.02, 3.9)
    _stray(wire, 0.5, 3.9, source=PHONE)
    return wire.sorted()


def near_miss_bundle():
    """Condition: one media line at the port. Here two share it (RFC 9143)."""
    second = f"m=audio {GATEWAY_PORT} RTP/AVP 0\r\na=recvonly\r\n"
    wire, at = _call(6.0, body(PHONE, PORT, direction="sendonly", extra=second.replace(str(GATEWAY_PORT), str(PORT))
                               .replace("recvonly", "sendonly")),
                     body(GATEWAY, GATEWAY_PORT, direction="recvonly", extra=second))
    forth(wire, at + 0.02, 3.9)
    _stray(wire, at + 0.5, 3.9, source=PHONE)
    return wire.sorted()


def near_miss_other_payload_type():
    """Condition: one payload type. Events of the same phone come as a stream of their own."""
    formats = {0: "PCMU/8000", 101: "telephone-event/8000"}
    wire, at = _call(6.0, body(PHONE, PORT, formats, "sendonly"), body(GATEWAY, GATEWAY_PORT, formats, "recvonly"))
    forth(wire, at + 0.02, 3.9)
    _stray(wire, at + 0.5, 3.9, payload=101, source=PHONE)
    return wire.sorted()


def near_miss_video():
    """Condition: audio. Cameras of one sender have an SSRC each."""
    formats = {97: "H264/90000"}
    wire, at = _call(6.0, body(PHONE, PORT, formats, "sendonly", kind="video"),
                     body(GATEWAY, GATEWAY_PORT, formats, "recvonly", kind="video"))
    forth(wire, at + 0.02, 3.9, payload=lambda i: 97, clock=90000)
    _stray(wire, at + 0.5, 3.9, payload=97, source=PHONE)
    return wire.sorted()


def near_miss_multicast():
    """Condition: one receiver. Two hosts page to a multicast group."""
    wire = Wire()
    for i in range(43):
        for ssrc, source in ((1, PHONE), (2, OTHER)):
            wire.udp(i * 0.09 + ssrc * 0.01, source, PORT, "239.1.2.3", GATEWAY_PORT, packet(
                1000 * ssrc + i, 720 * i, ssrc))
    return wire.sorted()


def near_miss_echo():
    """Condition: unrelated numbers. An echo test returns each packet as it is."""
    wire, at = _call(3.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))
    forth(wire, at + 0.02, 2.0)
    forth(wire, at + 0.03, 2.0, back=True)
    return wire.sorted()
