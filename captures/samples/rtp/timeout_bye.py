"""Samples of RTP-TIMEOUT-BYE: a gateway and phones whose audio stops."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, forth, report
from _craft.sip import Dialog

HIT_FRAMES = {"hit": [16, 17], "hit_same_silence": [16, 34, 52, 53, 55, 57]}


def _call(wire: Wire, at: float = 0.0, silence: float = 30.0, number: int = 1, reason: str = "", media: float = 1.0,
          by_caller: bool = False, expires: int = 0, rtcp: bool = False) -> None:
    """The phone talks for ``media`` s; ``silence`` s later one side releases the call."""
    dialog = Dialog(wire, PHONE, GATEWAY, call_id=f"call-{number}@a.example")
    shift = 100 * (number - 1)
    dialog.request(at, "INVITE", body=body(PHONE, PORT + shift, direction="sendonly"))
    dialog.response(at + 0.1, 200, "OK", body=body(GATEWAY, GATEWAY_PORT + shift, direction="recvonly"),
                    extra=f"Session-Expires: {expires};refresher=uas\r\n" if expires else "")
    dialog.request(at + 0.11, "ACK", to_tag=True)
    sent = forth(wire, at + 0.12, media, number=number, ssrc=number) if media else []
    last = at + 0.12 + (len(sent) - 1) * 0.09 if sent else at + 0.1
    if rtcp:
        for i in range(5):
            report(wire, last + 5 * (i + 1), about=0, ssrc=number, back=False, sent=len(sent))
    dialog.cseq += 1
    dialog.request(last + silence, "BYE", from_caller=by_caller, to_tag=True,
                   extra=f"Reason: {reason}\r\n" if reason else "")
    dialog.response(last + silence + 0.01, 200, "OK", "BYE", to_caller=by_caller)


def hit():
    """The gateway says why it releases the call."""
    wire = Wire()
    _call(wire, reason='Q.850;cause=31;text="RTP Timeout"', media=1.17)
    return wire.sorted()


def _three(silences=(30.0, 30.4, 29.8), **options) -> list:
    wire = Wire()
    for i, silence in enumerate(silences):
        _call(wire, 3.0 * i, silence, i + 1, media=1.17 if i == 0 else 1.35, **options)
    return wire.sorted()


def hit_same_silence():
    """Three calls are released 30 s after the last packet."""
    return _three()


def near_miss_other_reason():
    """Condition: the Reason names a media timer. Here somebody hung up, in one call."""
    wire = Wire()
    _call(wire, reason='Q.850;cause=16;text="Normal call clearing"')
    return wire.sorted()


def near_miss_two_calls():
    """Condition: three calls with one silence."""
    return _three((30.0, 30.4))


def near_miss_few_of_many():
    """Condition: half of the calls that end in silence. Three of eight are alike by chance."""
    return _three((20.0, 24.0, 28.0, 30.0, 30.5, 31.0, 36.0, 44.0))


def near_miss_different_silences():
    """Condition: the same silence. People hang up after 22, 30 and 41 s."""
    return _three((22.0, 30.0, 41.0))


def near_miss_short_silence():
    """Condition: 15 s. Three calls end 10 s after the last packet."""
    return _three((10.0, 10.1, 10.2))


def near_miss_rtcp():
    """Condition: no RTCP either. Here it goes on until 5 s before the end."""
    return _three(rtcp=True)


def near_miss_other_side():
    """Condition: the side that hears nothing releases. Here the phones do, which never expected any media later."""
    wire = Wire()
    for i in range(3):
        _call(wire, 3.0 * i, 30.0, i + 1, by_caller=True, media=1.0 + 2 * i)
    return wire.sorted()


def near_miss_session_timer():
    """Condition: not the session timer. The calls end 90 s after their answer, as Session-Expires says."""
    wire = Wire()
    for i in range(3):
        _call(wire, 3.0 * i, 88.9, i + 1, expires=90)
    return wire.sorted()


def near_miss_no_media():
    """Condition: media of the call was captured. Three calls of 30 s without any RTP here."""
    wire = Wire()
    for i in range(3):
        _call(wire, 3.0 * i, 30.0, i + 1, media=0.0)
    return wire.sorted()
