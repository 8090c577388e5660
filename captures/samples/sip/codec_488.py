"""Samples of SIP-CODEC-488: a trunk that takes G.711 only, and callers that offer something else."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog

PHONE, TRUNK, SECOND = "203.0.113.10", "198.51.100.20", "198.51.100.21"
WARNING = 'Warning: 305 trunk.example "Incompatible media format"\r\n'

HIT_FRAMES = {"hit": [1, 3], "hit_elsewhere": [4, 6, 8], "hit_body": [1, 3], "hit_all_refused": [1, 3],
              "hit_other_offer": [1, 3, 5], "hit_parameters": [1, 3], "hit_alone": [1, 3], "hit_protocol": [1, 3],
              "hit_running": [4, 6, 7], "hit_second_warning": [1, 3]}


def _call(wire: Wire, number: int = 1, at: float = 0.0, callee: str = TRUNK, to: str = "bob") -> Dialog:
    return Dialog(wire, PHONE, callee, call_id=f"call-{number}@a.example", callee_uri=f"sip:{to}@b.example",
                  branches=number * 20)


def _offer(*formats: int, **more) -> str:
    return body(PHONE, media(16000, formats, **more))


def _refused(wire: Wire, offer: str, *, number: int = 1, at: float = 0.0, status: int = 488, extra: str = "",
             answer: str = "", callee: str = TRUNK) -> Dialog:
    dialog = _call(wire, number, callee=callee)
    dialog.request(at, "INVITE", body=offer)
    dialog.response(at + 0.01, 100, "Trying")
    dialog.response(at + 0.05, status, "Not Acceptable Here", body=answer, extra=extra)
    dialog.request(at + 0.06, "ACK", to_tag=True, new_branch=False)
    dialog.cseq += 1
    return dialog


def _fine(wire: Wire, at: float, formats: tuple[int, ...] = (8,), number: int = 5, callee: str = TRUNK,
          offered: tuple[int, ...] = (8, 0), to: str = "carol", **more) -> Dialog:
    """A call that is accepted."""
    dialog = _call(wire, number, callee=callee, to=to)
    dialog.answered(at, _offer(*offered, **more), body(callee, media(20000, formats, **more)))
    return dialog


def hit():
    """488 with Warning 305 to an offer of G.729 and iLBC."""
    wire = Wire()
    _refused(wire, _offer(18, 97, 101), extra=WARNING)
    return wire.sorted()


def hit_second_warning():
    """The first of two Warnings says nothing; the second, in the same line, is about formats."""
    wire = Wire()
    _refused(wire, _offer(18), extra='Warning: 399 trunk.example "See log", 305 trunk.example "No G.729"\r\n')
    return wire.sorted()


def hit_elsewhere():
    """488 without a reason, from a trunk that answers another call with PCMA."""
    wire = Wire()
    dialog = _call(wire, 5, to="carol")
    dialog.request(0.0, "INVITE", body=_offer(0, 8, 101))
    dialog.response(0.02, 100, "Trying")
    dialog.response(0.03, 180, "Ringing")
    _refused(wire, _offer(18, 101), at=1.0)
    dialog.response(2.0, 200, "OK", body=body(TRUNK, media(20000, (8, 101))))
    dialog.request(2.1, "ACK", to_tag=True)
    return wire.sorted()


def hit_body():
    """606 whose own SDP lists what the trunk can do."""
    wire = Wire()
    _refused(wire, _offer(96, 9), status=606, answer=body(TRUNK, media(0, (8, 0))))
    return wire.sorted()


def hit_all_refused():
    """A 200 that refuses the only media line."""
    wire = Wire()
    dialog = _call(wire)
    dialog.request(0.0, "INVITE", body=_offer(18))
    dialog.response(0.01, 100, "Trying")
    dialog.response(1.0, 200, "OK", body=body(TRUNK, media(0, (18,))))
    dialog.request(1.01, "ACK", to_tag=True)
    dialog.bye(5.0)
    return wire.sorted()


def hit_other_offer():
    """The phone offers PCMA after the 488, in the same call, and is accepted."""
    wire = Wire()
    dialog = _refused(wire, _offer(18))
    dialog.answered(1.0, _offer(8), body(TRUNK, media(20000, (8,))))
    return wire.sorted()


def hit_parameters():
    """AMR with octet-align=1 is offered, and the refusal lists AMR in the bandwidth-efficient format."""
    wire = Wire()
    _refused(wire, _offer(98, extra="a=fmtp:98 octet-align=1; mode-set=0,7\r\n"),
             answer=body(TRUNK, media(0, (98,))))
    return wire.sorted()


def hit_alone():
    """488 without any explanation: a suspicion."""
    wire = Wire()
    _refused(wire, _offer(18))
    return wire.sorted()


def hit_protocol():
    """Warning 303: the transport protocol of the media does not suit."""
    wire = Wire()
    _refused(wire, _offer(0, protocol="RTP/AVPF"), extra='Warning: 303 trunk.example "No AVPF"\r\n')
    return wire.sorted()


def _change(dialog: Dialog, offer: str) -> None:
    """A re-INVITE that is refused without a reason."""
    dialog.cseq += 1
    dialog.request(10.0, "INVITE", to_tag=True, body=offer)
    dialog.response(10.1, 488, "Not Acceptable Here")
    dialog.request(10.11, "ACK", to_tag=True, new_branch=False)
    dialog.bye(30.0)


def hit_running():
    """A call has PCMA by SRTP; a re-INVITE offers G.729, by SRTP too, and is refused."""
    wire = Wire()
    crypto = {"protocol": "RTP/SAVP", "extra": "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n"}
    _change(_fine(wire, 0.0, **crypto), _offer(18, **crypto))
    return wire.sorted()


def near_miss_running():
    """Condition: no codec in common. The re-INVITE has the codec of the call, and is refused for something else."""
    wire = Wire()
    _change(_fine(wire, 0.0), _offer(8, 101))
    return wire.sorted()


def near_miss_fax():
    """Condition: not fax or video in a call that goes on. A T.38 offer is refused, the audio remains."""
    wire = Wire()
    dialog = _fine(wire, 0.0)
    dialog.cseq += 1
    dialog.request(10.0, "INVITE", to_tag=True, body=body(PHONE, "m=image 16002 udptl t38\r\n", version=2))
    dialog.response(10.1, 488, "Not Acceptable Here")
    dialog.request(10.11, "ACK", to_tag=True, new_branch=False)
    return wire.sorted()


def near_miss_video():
    """Condition: all media lines are refused. The video of a call is refused, its audio accepted."""
    wire = Wire()
    _call(wire).answered(0.0, body(PHONE, media(16000, (0,)), media(16002, (99,), kind="video")),
                         body(TRUNK, media(20000, (0,)), media(0, (99,), kind="video")))
    return wire.sorted()


def near_miss_nothing_offered():
    """Condition: media were offered. The caller stops its media with port 0, and so does the answer."""
    wire = Wire()
    dialog = _fine(wire, 0.0)
    dialog.cseq += 1
    dialog.request(10.0, "INVITE", to_tag=True, body=body(PHONE, media(0, (8,)), version=2))
    dialog.response(10.1, 200, "OK", body=body(TRUNK, media(0, (8,)), version=2))
    dialog.request(10.11, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_secure():
    """Condition: plain RTP is offered. An offer of SRTP alone is refused without a word about formats."""
    wire = Wire()
    _refused(wire, _offer(18, protocol="RTP/SAVP", extra="a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n"))
    return wire.sorted()


def near_miss_speaks_srtp_alone():
    """Condition: the profiles of both have something in common. In its other calls the trunk has SRTP only."""
    wire = Wire()
    _refused(wire, _offer(18))
    _fine(wire, 5.0, protocol="RTP/SAVP", extra="a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n")
    return wire.sorted()


def near_miss_common_codec():
    """Condition: no codec in common. The trunk takes PCMA in another call; only the packet times differ."""
    wire = Wire()
    _refused(wire, _offer(8, extra="a=ptime:60\r\n"))
    _fine(wire, 30.0)
    return wire.sorted()


def near_miss_other_trunk():
    """Condition: not accepted elsewhere. The same call, the same offer, goes to the second trunk and is answered."""
    wire = Wire()
    _refused(wire, _offer(18))
    dialog = _call(wire, callee=SECOND)
    dialog.cseq = 2
    dialog.branches = 60
    dialog.answered(0.2, _offer(18), body(SECOND, media(20000, (18,))))
    return wire.sorted()


def near_miss_called_again():
    """Condition: not accepted in a new call. The caller places it again through the second trunk, at once."""
    wire = Wire()
    _refused(wire, _offer(18))
    _fine(wire, 2.0, (18,), offered=(18,), callee=SECOND, to="bob")
    return wire.sorted()


def near_miss_busy():
    """Condition: refused with 415, 488 or 606. 486 says nothing about media."""
    wire = Wire()
    _refused(wire, _offer(18), status=486)
    return wire.sorted()


def near_miss_delayed():
    """Condition: something was offered. The trunk refuses an INVITE without SDP."""
    wire = Wire()
    _refused(wire, "")
    return wire.sorted()
