"""Samples of RTP-SDP-UNREACHABLE: a phone behind NAT writes its private address into SDP, and a relay obeys."""

from _craft.network import Wire
from _craft.sip import Dialog, rtcp_report, rtp, sdp

NAT, PHONE, RELAY = "203.0.113.27", "10.20.0.15", "198.51.100.10"
PTIME = 0.09

ALSO = ("RTP-LATCH-FAIL", "SIP-ALG-REWRITE")
"""The relay does not follow the phone's audio. In ``hit_two_points`` Via and Contact name the NAT outside and the phone
inside, and SDP does not follow."""
HIT_FRAMES = {"hit": [1, 6, 7, 118, 203], "hit_two_points": {"relay": [1, 6, 7, 202]}}


def _call(wire: Wire, address: str = PHONE, source: str = NAT, relay: str = RELAY, extra: str = "") -> float:
    dialog = Dialog(wire, source, relay, cport=32742)
    at = dialog.answered(0.0, sdp(address, 16418, extra=extra), sdp(relay, 30008))
    dialog.bye(at + 9.0)
    return at


def _stray(wire: Wire, at: float, address: str = PHONE, relay: str = RELAY, seconds: float = 8.9) -> None:
    rtp(wire, at + 0.01, relay, 30008, address, 16418, seconds, ssrc=2, size=4, ptime=PTIME)


def _phone(wire: Wire, at: float, source: str = NAT, sport: int = 46481, relay: str = RELAY) -> None:
    rtp(wire, at + 0.02, source, sport, relay, 30008, 8.9, ssrc=1, size=4, ptime=PTIME)


def hit():
    """The relay sends to 10.20.0.15, the phone's audio comes from the NAT, its RTCP reports no reception."""
    wire = Wire()
    at = _call(wire)
    _stray(wire, at)
    _phone(wire, at)
    rtcp_report(wire, at + 5, NAT, 26454, RELAY, 30009, ssrc=1, sent=55)
    return wire.sorted()


def hit_two_points():
    """The relay's packets are not on the phone's side of the NAT; the phone's are at both."""
    lan, relay = Wire(), Wire()
    dialog = Dialog(lan, PHONE, RELAY)
    at = dialog.answered(0.0, sdp(PHONE, 16418), sdp(RELAY, 30008))
    dialog.bye(at + 9.0)
    _phone(lan, at - 0.001, PHONE, 16418)
    at = _call(relay)
    _stray(relay, at)
    _phone(relay, at)
    return {"lan": lan.sorted(), "relay": relay.sorted()}


def near_miss_learned():
    """Condition: the sender does not turn to another destination. After 60 packets it has learned the real one."""
    wire = Wire()
    at = _call(wire)
    _stray(wire, at, seconds=5.4)
    _phone(wire, at)
    rtp(wire, at + 5.5, RELAY, 30008, NAT, 46481, 3.4, ssrc=2, first=1060, size=4, ptime=PTIME)
    return wire.sorted()


def near_miss_few():
    """Condition: 50 packets. Learning takes a few, and then the sender stops for another reason."""
    wire = Wire()
    at = _call(wire)
    _stray(wire, at, seconds=4.0)
    _phone(wire, at)
    return wire.sorted()


def near_miss_ice():
    """Condition: no ICE, where c= is only a default (RFC 8839 §4.2.1)."""
    wire = Wire()
    at = _call(wire, extra="a=candidate:1 1 UDP 2130706431 10.20.0.15 16418 typ host\r\na=ice-ufrag:abcd\r\n")
    _stray(wire, at)
    _phone(wire, at)
    return wire.sorted()


def near_miss_returns():
    """Condition: nothing comes from the address. Here it answers, so there is a route (VPN)."""
    wire = Wire()
    at = _call(wire)
    _stray(wire, at)
    _phone(wire, at, PHONE, 16418)
    return wire.sorted()


def near_miss_private_sender():
    """Condition: the sender is in another realm. Two private networks are often one company's."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.01, "192.168.7.9", 30008, PHONE, 16418, 8.9, ssrc=2, size=4, ptime=PTIME)
    _phone(wire, at)
    return wire.sorted()


def near_miss_same_realm():
    """Condition: the signalling comes from another realm. Here it comes from the private network itself, unchanged."""
    wire = Wire()
    at = _call(wire, source=PHONE)
    _stray(wire, at)
    return wire.sorted()


def near_miss_public_address():
    """Condition: the address is private. A public one in SDP from inside is what the outside needs."""
    wire, relay = Wire(), "10.30.0.9"
    at = _call(wire, "203.0.113.99", PHONE, relay)
    _stray(wire, at, "203.0.113.99", relay)
    _phone(wire, at, PHONE, relay=relay)
    return wire.sorted()


def near_miss_reports_reception():
    """Condition: RTCP of the receiver does not report reception. Here it does, so the packets arrive."""
    wire = Wire()
    at = _call(wire)
    _stray(wire, at)
    _phone(wire, at)
    rtcp_report(wire, at + 5, NAT, 26454, RELAY, 30009, ssrc=1, about=2, highest=1050, sent=55)
    return wire.sorted()
