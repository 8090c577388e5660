"""Samples of RTP-ONEWAY: a phone and a gateway agree to talk, and one of them is not heard."""

from _craft.network import Wire
from _craft.sip import Dialog, rtcp_report, rtp, sdp

PHONE, GATEWAY, RELAY = "203.0.113.140", "192.0.2.20", "198.51.100.10"
PTIME = 0.09  # eleven packets in a second keep the samples small, and are more than 50 in 5 s

ALSO = ("RTP-LATCH-FAIL",)
"""In ``hit_refused`` the gateway sends to the port in SDP, not to the one that the audio comes from."""
HIT_FRAMES = {
    "hit": [1, 4, 6, 62, 105], "hit_stops": [1, 4, 6, 7, 83, 140, 144], "hit_refused": [1, 4, 6, 7, 96, 203, 204],
    "hit_none": [110, 120, 363], "hit_one_leg": [1, 4, 7, 301], "hit_passed_on": [2, 3, 7, 8, 203, 204],
    "hit_two_points": {"far": [7, 203], "near": [1, 4, 6, 104]},
}


def _call(wire: Wire, seconds: float = 9.0, offer: str = "", answer: str = "", number: int = 1, at: float = 0.0,
          ) -> float:
    """An answered call from phone to gateway; returns the time of the answer."""
    dialog = Dialog(wire, PHONE, GATEWAY, call_id=f"call-{number}@a.example")
    port = 16000 + 100 * number
    answered = dialog.answered(at, offer or sdp(PHONE, port), answer or sdp(GATEWAY, port + 2))
    dialog.bye(answered + seconds)
    return answered


def _forth(wire: Wire, at: float, seconds: float = 8.9, number: int = 1) -> None:
    """What the phone sends."""
    port = 16000 + 100 * number
    rtp(wire, at, PHONE, port, GATEWAY, port + 2, seconds, ssrc=number, size=4, ptime=PTIME)


def _back(wire: Wire, at: float, seconds: float = 8.9, number: int = 1, ptime: float = PTIME, payload: int = 0,
          dport: int = 0) -> None:
    """What the gateway sends."""
    port = 16000 + 100 * number
    rtp(wire, at, GATEWAY, port + 2, PHONE, dport or port, seconds, ssrc=1000 + number, size=4, ptime=ptime,
        payload=payload)


def hit():
    """The phone talks for 8.9 s and hears nothing, as its RTCP says."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    rtcp_report(wire, at + 5, PHONE, 16101, GATEWAY, 16103, ssrc=1, sent=55)
    return wire.sorted()


def hit_stops():
    """Both talk; after 2 s nothing of the gateway arrives any more, and the gateway counts what it sent."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    _back(wire, at + 0.03, 3.5)
    rtcp_report(wire, at + 8.5, GATEWAY, 16103, PHONE, 16101, ssrc=1001, about=1, highest=1090, sent=94)
    return wire.sorted()


def hit_refused():
    """The gateway's packets go to a closed port of the phone, and ICMP says so; the phone talks from another one."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.02, PHONE, 16900, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=PTIME)
    out = rtp(wire, at + 0.03, GATEWAY, 16102, PHONE, 16100, 8.9, ssrc=1001, size=4, ptime=PTIME)
    wire.icmp_error(at + 4.0, PHONE, wire.frames[out[43]])
    return wire.sorted()


def hit_none():
    """Three calls with the gateway have audio both ways, the fourth has none at all."""
    wire = Wire()
    for number in (1, 2, 3):
        at = _call(wire, number=number, at=number * 0.5)
        _forth(wire, at + 0.02, 5.0, number)
        _back(wire, at + 0.03, 5.0, number)
    _call(wire, number=4, at=2.5, offer=sdp("203.0.113.150", 16400))
    return wire.sorted()


def hit_two_points():
    """The gateway's packets leave the relay's side and are not on the phone's side; the phone's are at both."""
    near, far = Wire(), Wire()
    for wire, later in ((near, 0.0), (far, 0.001)):
        at = _call(wire)
        _forth(wire, at + 0.02 + later)
    _back(far, 0.14)
    return {"far": far.sorted(), "near": near.sorted()}


def hit_one_leg():
    """A relay with both legs at this tap: the gateway is heard by the relay, which forwards nothing to the phone."""
    wire = Wire()
    outer = Dialog(wire, PHONE, RELAY)
    inner = Dialog(wire, RELAY, GATEWAY, branches=10)
    outer.request(0.0, "INVITE", body=sdp(PHONE, 16100))
    inner.request(0.01, "INVITE", body=sdp(RELAY, 30010))
    inner.response(0.1, 200, "OK", body=sdp(GATEWAY, 16102))
    outer.response(0.11, 200, "OK", body=sdp(RELAY, 30008))
    outer.request(0.12, "ACK", to_tag=True)
    inner.request(0.13, "ACK", to_tag=True)
    rtp(wire, 0.15, PHONE, 16100, RELAY, 30008, 8.9, ssrc=1, size=4, ptime=PTIME)
    rtp(wire, 0.16, RELAY, 30010, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=PTIME)
    rtp(wire, 0.17, GATEWAY, 16102, RELAY, 30010, 8.9, ssrc=1001, size=4, ptime=PTIME)
    outer.bye(9.2)
    return wire.sorted()


def hit_passed_on():
    """A B2BUA with a call on each side: the gateway sends it nothing, so that it has nothing for the phone."""
    wire = Wire()
    outer = Dialog(wire, PHONE, RELAY)
    inner = Dialog(wire, RELAY, GATEWAY, call_id="call-2@b2bua.example")
    outer.request(0.0, "INVITE", body=sdp(PHONE, 16100))
    inner.request(0.01, "INVITE", body=sdp(RELAY, 30010))
    inner.response(0.1, 200, "OK", body=sdp(GATEWAY, 16102))
    outer.response(0.11, 200, "OK", body=sdp(RELAY, 30008))
    outer.request(0.12, "ACK", to_tag=True)
    inner.request(0.13, "ACK", to_tag=True)
    rtp(wire, 0.15, PHONE, 16100, RELAY, 30008, 8.9, ssrc=1, size=4, ptime=PTIME)
    rtp(wire, 0.16, RELAY, 30010, GATEWAY, 16102, 8.9, ssrc=2, size=4, ptime=PTIME)
    outer.bye(9.2)
    inner.bye(9.21)
    return wire.sorted()


def near_miss_two_way():
    """Condition: nothing goes to one side. Here both are heard."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    _back(wire, at + 0.03)
    return wire.sorted()


def near_miss_other_port():
    """Condition: packets count for a receiver by its SDP address. The phone may send from another port."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.02, PHONE, 16900, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=PTIME)
    _back(wire, at + 0.03)
    return wire.sorted()


def near_miss_learned():
    """Condition: packets count for a receiver where it sends from. The gateway learns the port and ignores the SDP."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.02, PHONE, 16900, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=PTIME)
    rtp(wire, at + 0.1, GATEWAY, 16104, PHONE, 16900, 8.8, ssrc=1001, size=4, ptime=PTIME)
    return wire.sorted()


def near_miss_announcement():
    """Condition: both sides agreed to send and receive. Here the phone only listens."""
    wire = Wire()
    at = _call(wire, offer=sdp(PHONE, 16100, "recvonly"), answer=sdp(GATEWAY, 16102, "sendonly"))
    _back(wire, at + 0.03)
    return wire.sorted()


def near_miss_hold():
    """Condition: the direction at that time counts. After 1 s a re-INVITE puts the gateway on hold, with music."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, sdp(PHONE, 16100), sdp(GATEWAY, 16102))
    dialog.cseq += 1
    dialog.request(at + 1, "INVITE", to_tag=True, body=sdp(PHONE, 16100, "sendonly", version=2))
    dialog.response(at + 1.1, 200, "OK", body=sdp(GATEWAY, 16102, "recvonly", version=2))
    dialog.request(at + 1.11, "ACK", to_tag=True)
    _forth(wire, at + 0.02, 11.0)
    _back(wire, at + 0.03, 1.0)
    dialog.bye(at + 11.2)
    return wire.sorted()


def near_miss_hold_old_style():
    """Condition: the address is one to send to. c=0.0.0.0 is hold (RFC 3264 §8.4)."""
    wire = Wire()
    at = _call(wire, offer=sdp("0.0.0.0", 16100))
    _forth(wire, at + 0.02)
    return wire.sorted()


def near_miss_ice():
    """Condition: no ICE. c= is only a default then, and the audio goes to a candidate."""
    ice = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n"
    wire = Wire()
    at = _call(wire, offer=sdp(PHONE, 16100, extra=ice), answer=sdp(GATEWAY, 16102, extra=ice))
    _forth(wire, at + 0.02)
    return wire.sorted()


def near_miss_fax():
    """Condition: audio is still agreed. After 1 s the call turns into T.38; the phone's last audio trails."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, sdp(PHONE, 16100), sdp(GATEWAY, 16102))
    dialog.cseq += 1
    fax = [sdp(a, 0, version=2, extra=f"m=image {p} udptl t38\r\n") for a, p in ((PHONE, 16110), (GATEWAY, 16112))]
    dialog.request(at + 1, "INVITE", to_tag=True, body=fax[0])
    dialog.response(at + 1.1, 200, "OK", body=fax[1])
    dialog.request(at + 1.11, "ACK", to_tag=True)
    _forth(wire, at + 0.02, 11.0)
    dialog.bye(at + 11.2)
    return wire.sorted()


def near_miss_early_media():
    """Condition: counted from the answer on. An announcement before it is early media; afterwards nobody speaks."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    dialog.request(0.0, "INVITE", body=sdp(PHONE, 16100))
    dialog.response(0.05, 183, "Session Progress", body=sdp(GATEWAY, 16102))
    dialog.response(9.0, 200, "OK", body=sdp(GATEWAY, 16102))
    dialog.request(9.01, "ACK", to_tag=True)
    _back(wire, 0.1, 8.8)
    dialog.bye(18.0)
    return wire.sorted()


def near_miss_short():
    """Condition: 5 s to look at, 3 s after the answer. This call lasts 7.5 s."""
    wire = Wire()
    at = _call(wire, 7.5)
    _forth(wire, at + 0.02, 7.4)
    return wire.sorted()


def near_miss_sparse():
    """Condition: at least 50 packets in 5 s. A few do not say that anybody talks."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.02, PHONE, 16100, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=0.12)
    return wire.sorted()


def near_miss_ends_late():
    """Condition: silent for 5 s. Here the gateway stops 4.8 s before the end."""
    wire = Wire()
    at = _call(wire)
    rtp(wire, at + 0.02, PHONE, 16900, GATEWAY, 16102, 8.9, ssrc=1, size=4, ptime=PTIME)
    _back(wire, at + 0.03, 4.23)
    return wire.sorted()


def near_miss_muted():
    """Condition: RTCP of the silent side does not say that it sends nothing. A muted phone reports reception only."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    rtcp_report(wire, at + 5, GATEWAY, 16103, PHONE, 16101, ssrc=1001, about=1, highest=1050)
    return wire.sorted()


def near_miss_comfort_noise():
    """Condition: no comfort noise. The gateway sends payload type 13 once, and saves the silence (RFC 3389)."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    _back(wire, at + 0.03, 0.3, payload=13)
    return wire.sorted()


def near_miss_pauses():
    """Condition: the stream ran without pauses before it ended. This one saves silence as codecs with DTX do."""
    wire = Wire()
    at = _call(wire, 11.0)
    _forth(wire, at + 0.02, 10.9)
    for start in (0.0, 1.5, 3.0, 4.5):
        rtp(wire, at + 0.03 + start, GATEWAY, 16102, PHONE, 16100, 0.36, ssrc=1001, size=4, ptime=PTIME,
            first=1000 + int(start * 10))
    return wire.sorted()


def near_miss_heard_elsewhere():
    """Condition: RTCP of the deaf side does not report reception. Here audio reaches it past this tap."""
    wire = Wire()
    at = _call(wire)
    _forth(wire, at + 0.02)
    rtcp_report(wire, at + 5, PHONE, 16101, GATEWAY, 16103, ssrc=1, about=1001, highest=1050, sent=55)
    return wire.sorted()


def _audible(wire: Wire, calls: int) -> None:
    for number in range(1, calls + 1):
        at = _call(wire, number=number, at=number * 0.5)
        _forth(wire, at + 0.02, 5.0, number)
        _back(wire, at + 0.03, 5.0, number)


def near_miss_none_on_hold():
    """Condition: silence both ways counts where both sides agreed to talk. This call is on hold."""
    wire = Wire()
    _audible(wire, 3)
    _call(wire, number=4, at=2.5, answer=sdp(GATEWAY, 16402, "inactive"))
    return wire.sorted()


def near_miss_none_short():
    """Condition: silence both ways lasts 8 s. This call lasts 4 s."""
    wire = Wire()
    _audible(wire, 3)
    _call(wire, 4.0, number=4, at=2.5)
    return wire.sorted()


def near_miss_none_few_calls():
    """Condition: three calls of the host have audio here. Two do not say what is usual."""
    wire = Wire()
    _audible(wire, 2)
    _call(wire, number=4, at=2.5)
    return wire.sorted()


def near_miss_silence_is_usual():
    """Condition: nearly all other calls of the host have audio here. Here two of five have none."""
    wire = Wire()
    _audible(wire, 3)
    for number in (4, 5):
        _call(wire, number=number, at=number * 0.5)
    return wire.sorted()


def near_miss_inconclusive_signalling_only():
    """Condition: RTP of some call was captured. Here there is signalling only."""
    wire = Wire()
    _call(wire)
    return wire.sorted()
