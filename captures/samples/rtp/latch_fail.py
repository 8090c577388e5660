"""Samples of RTP-LATCH-FAIL: a relay gets audio from one place and sends its own to another."""

from _craft.network import Wire
from _craft.sip import Dialog, rtcp_report, rtp, sdp

NAT, PHONE, RELAY = "203.0.113.27", "10.20.0.15", "198.51.100.10"
SAID, MAPPED, MOVED, PORT = 16418, 46481, 52077, 30008
STRANGER = ("192.0.2.66", 40004)
PTIME = 0.09
"""Eleven packets in a second keep samples small."""

ALSO = ("SIP-ALG-REWRITE",)
"""In ``hit_two_points`` Via and Contact name the NAT outside and the phone inside, and SDP does not follow."""
HIT_FRAMES = {"hit": [1, 6, 7, 118, 203, 204], "hit_wrong_port": [1, 6, 7, 96, 203, 204],
              "hit_moved": [1, 7, 8, 75, 162, 253, 268, 270], "hit_stranger": [1, 7, 52, 53, 250, 251],
              "hit_two_points": {"relay": [1, 6, 7, 202, 203]}}


def _call(wire: Wire, address: str = PHONE, source: str = NAT, relay: str = RELAY, seconds: float = 9.0,
          extra: str = "") -> float:
    dialog = Dialog(wire, source, relay, cport=32742)
    at = dialog.answered(0.0, sdp(address, SAID, extra=extra), sdp(relay, PORT))
    dialog.bye(at + seconds)
    return at


def _heard(wire: Wire, at: float, seconds: float = 8.9, source: str = NAT, port: int = MAPPED, relay: str = RELAY,
           ssrc: int = 1, first: int = 1000) -> None:
    """Audio of the phone as it arrives at the relay."""
    rtp(wire, at + 0.02, source, port, relay, PORT, seconds, ssrc=ssrc, size=4, ptime=PTIME, first=first)


def _sent(wire: Wire, at: float, seconds: float = 8.9, to: str = PHONE, port: int = SAID, relay: str = RELAY,
          first: int = 1000) -> list:
    """Audio of the relay."""
    return rtp(wire, at + 0.01, relay, PORT, to, port, seconds, ssrc=2, size=4, ptime=PTIME, first=first)


def hit():
    """The relay obeys the private address of the SDP; the phone's RTCP reports no reception."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at)
    _heard(wire, at)
    rtcp_report(wire, at + 5, NAT, 26454, RELAY, PORT + 1, ssrc=1, sent=55)
    return wire.sorted()


def hit_wrong_port():
    """SDP has the public address with a port that the translator has not mapped; ICMP says so."""
    wire = Wire()
    at = _call(wire, NAT)
    frames = _sent(wire, at, to=NAT)
    _heard(wire, at)
    wire.icmp_error(at + 4.0, NAT, wire.frames[frames[40]])
    return wire.sorted()


def hit_moved():
    """After 3 s the translator maps another port; the relay keeps to the old one, the reports stand still."""
    wire = Wire()
    at = _call(wire, seconds=12.0)
    _sent(wire, at, 0.09)
    _sent(wire, at + 0.09, 11.7, NAT, MAPPED, first=1001)
    _heard(wire, at, 3.06)
    _heard(wire, at + 3.06, 8.82, port=MOVED, first=1034)
    for t in (7.0, 11.0):
        rtcp_report(wire, at + t, NAT, MOVED + 1, RELAY, PORT + 1, ssrc=1, about=2, highest=1033)
    return wire.sorted()


def hit_stranger():
    """After 2 s four packets of another stream arrive, and the relay sends there from then on."""
    wire = Wire()
    at = _call(wire, seconds=11.0)
    _sent(wire, at, 0.09)
    _sent(wire, at + 0.09, 1.98, NAT, MAPPED, first=1001)
    _heard(wire, at, 10.9)
    rtp(wire, at + 2.0, *STRANGER, RELAY, PORT, 0.36, ssrc=3, size=4, ptime=PTIME)
    _sent(wire, at + 2.07, 8.8, *STRANGER, first=1023)
    return wire.sorted()


def hit_two_points():
    """The relay's packets are not on the phone's side of the translator; the phone's are at both."""
    lan, relay = Wire(), Wire()
    dialog = Dialog(lan, PHONE, RELAY)
    at = dialog.answered(0.0, sdp(PHONE, SAID), sdp(RELAY, PORT))
    dialog.bye(at + 9.0)
    _heard(lan, at - 0.001, source=PHONE, port=SAID)
    at = _call(relay)
    _sent(relay, at)
    _heard(relay, at)
    return {"lan": lan.sorted(), "relay": relay.sorted()}


def near_miss_learned():
    """Condition: the relay does not send to where it hears from. After 90 packets it does."""
    wire = Wire()
    at = _call(wire, seconds=10.0)
    _sent(wire, at, 8.1)
    _sent(wire, at + 8.1, 1.8, NAT, MAPPED, first=1090)
    _heard(wire, at, 9.9)
    return wire.sorted()


def near_miss_few():
    """Condition: 50 packets later than 3 s after the audio came. Of 72 packets 39 are."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at, 6.5)
    _heard(wire, at)
    return wire.sorted()


def near_miss_ice():
    """Condition: no ICE, whose checks choose the place (RFC 8839 §4.2.1)."""
    wire = Wire()
    at = _call(wire, extra="a=candidate:1 1 UDP 2130706431 10.20.0.15 16418 typ host\r\na=ice-ufrag:abcd\r\n")
    _sent(wire, at)
    _heard(wire, at)
    return wire.sorted()


def near_miss_new_ssrc():
    """Condition: the audio comes from another place. Here only its SSRC is new, as after music on hold."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at, 0.09)
    _sent(wire, at + 0.09, 8.8, NAT, MAPPED, first=1001)
    _heard(wire, at, 3.06)
    _heard(wire, at + 3.06, 5.8, ssrc=7)
    return wire.sorted()


def near_miss_returns():
    """Condition: nothing comes from the address in SDP. Here packets do, so it is reached (VPN)."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at)
    _heard(wire, at)
    _heard(wire, at, source=PHONE, port=SAID, ssrc=9)
    return wire.sorted()


def near_miss_two_ways_in():
    """Condition: the stream comes no longer from the old place. Here the same stream takes two ways."""
    wire = Wire()
    at = _call(wire, seconds=12.0)
    _sent(wire, at, 0.09)
    _sent(wire, at + 0.09, 11.7, NAT, MAPPED, first=1001)
    _heard(wire, at, 11.7)
    _heard(wire, at + 3.06, 8.82, port=MOVED, first=1034)
    return wire.sorted()


def near_miss_both_named():
    """Condition: SDP does not name where the audio comes from. Here it does: the phone has offered a second place."""
    wire = Wire()
    dialog = Dialog(wire, NAT, RELAY, cport=32742)
    at = dialog.answered(0.0, sdp("10.20.0.99", SAID), sdp(RELAY, PORT))
    dialog.cseq += 1
    dialog.request(at + 0.2, "INVITE", body=sdp(PHONE, SAID, version=2), to_tag=True)
    dialog.response(at + 0.25, 200, "OK", body=sdp(RELAY, PORT))
    dialog.request(at + 0.26, "ACK", to_tag=True)
    dialog.bye(at + 9.0)
    _sent(wire, at + 0.2, 8.7)
    _heard(wire, at, source="10.20.0.99", port=SAID)
    return wire.sorted()


def near_miss_other_port():
    """Condition: an inside address, or something that shows that it is not reached. Here only the port differs."""
    wire = Wire()
    at = _call(wire, NAT)
    _sent(wire, at, to=NAT)
    _heard(wire, at)
    return wire.sorted()


def near_miss_closed_at_the_end():
    """Condition: ICMP says it before the last second. Here the phone has closed the port that it received at."""
    wire = Wire()
    at = _call(wire, NAT)
    frames = _sent(wire, at, to=NAT)
    _heard(wire, at)
    wire.icmp_error(at + 8.7, NAT, wire.frames[frames[96]])
    return wire.sorted()


def near_miss_private_relay():
    """Condition: the relay is in another realm. Two private networks are often one company's."""
    wire, relay = Wire(), "192.168.7.9"
    at = _call(wire, relay=relay)
    _sent(wire, at, relay=relay)
    _heard(wire, at, relay=relay)
    return wire.sorted()


def near_miss_same_realm():
    """Condition: the signalling comes from another realm. Here it comes from the private network itself."""
    wire = Wire()
    at = _call(wire, source="10.20.0.1")
    _sent(wire, at)
    _heard(wire, at, source="10.20.0.77")
    return wire.sorted()


def near_miss_reports_reception():
    """Condition: the receiver's reports do not say that it hears. Here the highest number goes up."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at)
    _heard(wire, at)
    for t, highest in ((4.0, 1040), (8.0, 1085)):
        rtcp_report(wire, at + t, NAT, 26454, RELAY, PORT + 1, ssrc=1, about=2, highest=highest)
    return wire.sorted()


def near_miss_one_report():
    """Condition: two reports whose highest number stays the same. One alone says that something arrived."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at)
    _heard(wire, at)
    rtcp_report(wire, at + 5.0, NAT, 26454, RELAY, PORT + 1, ssrc=1, about=2, highest=1050)
    return wire.sorted()


def near_miss_fork():
    """Condition: no SDP names the stranger. Here it is the answered branch of a fork; the other one goes on."""
    wire, one, two = Wire(), "203.0.113.50", "203.0.113.51"
    dialog = Dialog(wire, RELAY, "192.0.2.5")
    dialog.request(0.0, "INVITE", body=sdp(RELAY, PORT))
    dialog.response(0.1, 183, "Session Progress", body=sdp(one, SAID))
    dialog.response(0.2, 200, "OK", body=sdp(two, SAID))
    dialog.request(0.21, "ACK", to_tag=True)
    dialog.bye(9.2)
    _heard(wire, 0.1, source=one, port=SAID)
    _heard(wire, 0.2, source=two, port=SAID, ssrc=3)
    _sent(wire, 0.2, to=two)
    return wire.sorted()


def near_miss_unknown_place():
    """Condition: something came from there. Nobody knows this place: it was learned before, or is another device."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at, to="10.20.0.99", port=STRANGER[1])
    _heard(wire, at)
    return wire.sorted()


def near_miss_public_address():
    """Condition: the address obeyed is an inside one. A public one in SDP from inside is what the outside needs."""
    wire, relay = Wire(), "10.30.0.9"
    at = _call(wire, "203.0.113.99", PHONE, relay)
    _sent(wire, at, to="203.0.113.99", relay=relay)
    _heard(wire, at, source=PHONE, relay=relay)
    return wire.sorted()


def near_miss_transfer():
    """Condition: the real side talks on. Here it ends as the other begins, as behind a B2BUA that transfers."""
    wire = Wire()
    at = _call(wire)
    _sent(wire, at, 0.09)
    _sent(wire, at + 0.09, 1.98, NAT, MAPPED, first=1001)
    _heard(wire, at, 2.0)
    rtp(wire, at + 2.0, *STRANGER, RELAY, PORT, 6.9, ssrc=3, size=4, ptime=PTIME)
    _sent(wire, at + 2.07, 6.8, *STRANGER, first=1023)
    return wire.sorted()
