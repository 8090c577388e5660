"""Samples of SIP-EARLY-MEDIA-SILENT: a firewall opens the media path only with the 200."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog, rtp

PHONE, GATEWAY, RELAY, OTHER = "203.0.113.10", "198.51.100.20", "198.51.100.40", "198.51.100.21"
ROUTER = "203.0.113.1"

HIT_FRAMES = {"hit": [3, 6], "hit_fails": [158], "hit_alone": [158], "hit_other_port": [3, 4], "hit_far_leg": [5, 7],
              "hit_icmp": [3, 4, 5], "hit_two_points": {"gateway": [4], "phone": [3]}}
ALSO = ("FW-REJECT",)  # hit_icmp: the router's rule is the mechanism


def _progress(wire: Wire, at: float = 0.0, *, status: int = 183, extra: str = "", answer: str = "",
              offer: str = "", number: int = 1) -> Dialog:
    dialog = Dialog(wire, PHONE, GATEWAY, call_id=f"call-{number}@a.example", branches=number * 20)
    dialog.request(at, "INVITE", body=offer or body(PHONE, media(16000)))
    dialog.response(at + 0.01, 100, "Trying")
    dialog.response(at + 0.5, status, "X", body=answer or body(GATEWAY, media(20000)), extra=extra)
    return dialog


def _answer(dialog: Dialog, at: float, status: int = 200) -> None:
    dialog.response(at, status, "X", body=body(GATEWAY, media(20000)) if status == 200 else "")
    dialog.request(at + 0.01, "ACK", to_tag=True, new_branch=status == 200)


def _heard(wire: Wire, at: float, seconds: float = 0.5, to: str = PHONE, port: int = 16000, source: str = GATEWAY,
           sport: int = 20000, first: int = 1000) -> None:
    rtp(wire, at, source, sport, to, port, seconds, size=4, first=first)


def _talks(wire: Wire, at: float, seconds: float = 0.5) -> None:
    """The caller's own audio."""
    rtp(wire, at, PHONE, 16000, GATEWAY, 20000, seconds, size=4, ssrc=0x77)


def _other_call(wire: Wire, at: float = 0.0) -> None:
    """A call whose audio is seen, of the same gateway."""
    Dialog(wire, OTHER, GATEWAY, call_id="call-9@a.example", branches=180).answered(
        at, body(OTHER, media(17000)), body(GATEWAY, media(21000)))
    _heard(wire, at + 0.2, 3.0, OTHER, 17000, sport=21000)


def hit():
    """183 with SDP, silence for six seconds, the 200, and audio in both directions right after it."""
    wire = Wire()
    dialog = _progress(wire)
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    _talks(wire, 6.61)
    dialog.bye(10.0)
    return wire.sorted()


def hit_fails():
    """The announcement of a 404 is not heard; the audio of another call is seen."""
    wire = Wire()
    _other_call(wire)
    _answer(_progress(wire, 5.0), 15.0, 404)
    return wire.sorted()


def hit_alone():
    """The caller hangs up after nine seconds of silence."""
    wire = Wire()
    _other_call(wire)
    dialog = _progress(wire, 5.0)
    dialog.request(14.0, "CANCEL", new_branch=False)
    dialog.response(14.01, 200, "OK", "CANCEL")
    _answer(dialog, 14.02, 487)
    return wire.sorted()


def hit_other_port():
    """The announcement goes to port 16010; 16000 was offered."""
    wire = Wire()
    dialog = _progress(wire)
    _heard(wire, 0.6, 2.0, port=16010)
    _answer(dialog, 8.0, 486)
    return wire.sorted()


def hit_far_leg():
    """The gateway's audio reaches a relay, which does not pass it on."""
    wire = Wire()
    outer = Dialog(wire, PHONE, RELAY)
    outer.request(0.0, "INVITE", body=body(PHONE, media(16000)))
    outer.response(0.01, 100, "Trying")
    inner = Dialog(wire, RELAY, GATEWAY, branches=20)
    inner.request(0.02, "INVITE", body=body(RELAY, media(30000)))
    inner.response(0.03, 100, "Trying")
    inner.response(0.5, 183, "Session Progress", body=body(GATEWAY, media(20000)))
    outer.response(0.51, 183, "Session Progress", body=body(RELAY, media(30002)))
    _heard(wire, 0.6, 5.0, RELAY, 30000)
    for dialog, at in ((inner, 8.0), (outer, 8.01)):
        _answer(dialog, at, 486)
    return wire.sorted()


def hit_icmp():
    """The caller's router rejects the audio until the answer."""
    wire = Wire()
    dialog = _progress(wire)
    _heard(wire, 0.6, 6.0)
    wire.icmp_error(0.61, ROUTER, wire.frames[3].payload, 3, 13)
    _answer(dialog, 6.7)
    return wire.sorted()


def hit_two_points():
    """The audio leaves the gateway, and is not seen next to the phone."""
    far, near = Wire(), Wire()
    for wire in (far, near):
        dialog = _progress(wire)
        if wire is far:
            _heard(wire, 0.6, 2.0)
        else:
            _talks(wire, 0.6, 0.4)
        _answer(dialog, 6.5, 486)
    return {"gateway": far.sorted(), "phone": near.sorted()}


def near_miss_heard():
    """Condition: no audio before the answer. The ringback tone is heard from 0.6 s on."""
    wire = Wire()
    dialog = _progress(wire)
    _heard(wire, 0.6, 4.0)
    _answer(dialog, 6.5)
    return wire.sorted()


def near_miss_ringing():
    """Condition: no 180. The phone rings by itself."""
    wire = Wire()
    dialog = _progress(wire)
    dialog.response(0.6, 180, "Ringing")
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_180_with_sdp():
    """Condition: the response is 183. A 180 with SDP lets the phone ring where no audio comes (RFC 3960 §3.2)."""
    wire = Wire()
    dialog = _progress(wire, status=180)
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    _progress(wire, 7.0, number=2)
    return wire.sorted()


def near_miss_short():
    """Condition: four seconds. The call is answered after three."""
    wire = Wire()
    dialog = _progress(wire)
    _answer(dialog, 3.5)
    _heard(wire, 3.6)
    dialog.bye(20.0)
    return wire.sorted()


def near_miss_gated():
    """Condition: no gate. P-Early-Media says that the media are gated (RFC 5009 §8)."""
    wire = Wire()
    dialog = _progress(wire, extra="P-Early-Media: sendrecv,gated\r\n")
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_inactive_gate():
    """Condition: no gate. P-Early-Media is inactive."""
    wire = Wire()
    dialog = _progress(wire, extra="P-Early-Media: inactive\r\n")
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_preconditions():
    """Condition: no preconditions. The 183 reports on resources that are being reserved (RFC 3312)."""
    wire = Wire()
    quality = "a=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\n"
    dialog = _progress(wire, answer=body(GATEWAY, media(20000, extra=quality)))
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_required_preconditions():
    """Condition: no preconditions. Require names the extension."""
    wire = Wire()
    dialog = _progress(wire, extra="Require: precondition\r\n")
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_direction():
    """Condition: the called side sends. Its SDP is recvonly."""
    wire = Wire()
    dialog = _progress(wire, answer=body(GATEWAY, media(20000, extra="a=recvonly\r\n")))
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_ice():
    """Condition: the addresses are those of SDP. With ICE other candidates may be in use."""
    wire = Wire()
    ice = "a=ice-ufrag:F7gI\r\na=candidate:1 1 UDP 2130706431 198.51.100.20 20000 typ host\r\n"
    dialog = _progress(wire, answer=body(GATEWAY, media(20000, extra=ice)))
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_refused_line():
    """Condition: audio is agreed. The 183 refuses the line with port 0."""
    wire = Wire()
    dialog = _progress(wire, answer=body(GATEWAY, media(0)))
    _answer(dialog, 6.5)
    _heard(wire, 6.6)
    return wire.sorted()


def near_miss_no_offer():
    """Condition: the caller offered a port. It offers nothing, so the 183 offers."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    dialog.request(0.0, "INVITE")
    dialog.response(0.5, 183, "Session Progress", body=body(GATEWAY, media(20000)))
    _other_call(wire, 1.0)
    _answer(dialog, 8.0, 486)
    return wire.sorted()


def near_miss_learned_port():
    """Condition: the port is not the one the caller sends from. Behind a NAT the gateway learned it."""
    wire = Wire()
    dialog = _progress(wire)
    rtp(wire, 0.6, PHONE, 16010, GATEWAY, 20000, 0.5, size=4, ssrc=0x77)
    _heard(wire, 0.8, 3.0, port=16010)
    _answer(dialog, 8.0, 486)
    return wire.sorted()


def near_miss_learned_address():
    """Condition: the audio goes nowhere else, or to a relay. It goes to the NAT that the caller is behind."""
    wire = Wire()
    dialog = _progress(wire, offer=body("10.0.0.10", media(16000)))
    rtp(wire, 0.6, PHONE, 40000, GATEWAY, 20000, 0.5, size=4, ssrc=0x77)
    _heard(wire, 0.8, 3.0, port=40000)
    _answer(dialog, 8.0, 486)
    return wire.sorted()


def near_miss_late_icmp():
    """Condition: ICMP errors before the answer. The caller's port is closed when the call is over."""
    wire = Wire()
    dialog = _progress(wire)
    _heard(wire, 0.6, 6.0)
    _answer(dialog, 6.7, 486)
    wire.icmp_error(6.8, ROUTER, wire.frames[3].payload, 3, 13)
    return wire.sorted()


def near_miss_inconclusive_signalling_only():
    """Condition: this point shows media of these hosts. Only signalling is captured."""
    wire = Wire()
    _answer(_progress(wire), 6.5)
    return wire.sorted()


def near_miss_inconclusive_proxy():
    """Condition: this point shows media of these hosts. It is a proxy's; the audio is seen next to the gateway."""
    return {"gateway": hit_two_points()["gateway"], "proxy": near_miss_inconclusive_signalling_only()}
