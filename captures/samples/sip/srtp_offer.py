"""Samples of SIP-SRTP-OFFER: a phone that insists on SRTP, and a trunk with other ideas."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog, rtp

PHONE, TRUNK = "203.0.113.10", "198.51.100.20"
KEY = "inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\r\n"
SHA80, SHA32 = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}", f"a=crypto:2 AES_CM_128_HMAC_SHA1_32 {KEY}"
GCM = f"a=crypto:1 AEAD_AES_256_GCM {KEY}"
PRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
SDES, DTLS = "RTP/SAVP", "UDP/TLS/RTP/SAVPF"
HELLO = bytes((22, 254, 253)) + bytes(8) + b"\x00\x20" + bytes((1, 0, 0, 20)) + bytes(28)  # RFC 6347 §4.1, §4.2.2

HIT_FRAMES = {"hit": [1, 3], "hit_plain_to_secure": [1, 3, 5], "hit_other_profile": [1, 3, 5], "hit_profile": [1, 3],
              "hit_secure_answer": [1, 3], "hit_no_key": [1, 3], "hit_no_print": [1, 3], "hit_other_keys": [1, 3],
              "hit_suite": [1, 3], "hit_tag": [1, 3], "hit_actpass": [1, 3], "hit_roles": [1, 3], "hit_dtls": [1, 3, 5],
              "hit_running": [3, 5, 6]}


def _line(port: int, protocol: str = SDES, extra: str = SHA80, formats: tuple[int, ...] = (8,)) -> str:
    return media(port, formats, protocol=protocol, extra=extra)


def _offer(protocol: str = SDES, extra: str = SHA80, formats: tuple[int, ...] = (8,)) -> str:
    return body(PHONE, _line(16000, protocol, extra, formats))


def _answer(protocol: str = SDES, extra: str = SHA80, port: int = 20000) -> str:
    return body(TRUNK, _line(port, protocol, extra))


def _call(wire: Wire, offer: str, answer: str, *, at: float = 0.0, number: int = 1, status: int = 200,
          extra: str = "") -> Dialog:
    dialog = Dialog(wire, PHONE, TRUNK, call_id=f"call-{number}@a.example", branches=number * 20)
    return _again(dialog, at, offer, answer, status, extra)


def _again(dialog: Dialog, at: float, offer: str, answer: str, status: int = 200, extra: str = "") -> Dialog:
    dialog.request(at, "INVITE", body=offer)
    dialog.response(at + 0.01, 100, "Trying")
    dialog.response(at + 0.5, status, "X", body=answer, extra=extra)
    dialog.request(at + 0.51, "ACK", to_tag=True, new_branch=status == 200)
    dialog.cseq += 1
    return dialog


def hit():
    """An offer of SRTP by SDES alone is refused with 488."""
    wire = Wire()
    _call(wire, _offer(), "", status=488)
    return wire.sorted()


def hit_plain_to_secure():
    """An offer of RTP is refused by a trunk that has SRTP alone in another call."""
    wire = Wire()
    _call(wire, _offer("RTP/AVP", ""), "", status=488)
    dialog = Dialog(wire, TRUNK, PHONE, call_id="call-2@a.example", branches=40)
    dialog.answered(5.0, _answer(), _offer())
    return wire.sorted()


def hit_other_profile():
    """The phone offers RTP after the refusal of SRTP, and is accepted."""
    wire = Wire()
    _again(_call(wire, _offer(), "", status=488), 1.0, _offer("RTP/AVP", ""), _answer("RTP/AVP", ""))
    return wire.sorted()


def hit_profile():
    """RTP/SAVP is answered with RTP/AVP."""
    wire = Wire()
    _call(wire, _offer(), _answer("RTP/AVP", ""))
    return wire.sorted()


def hit_secure_answer():
    """RTP/AVP with a=crypto is answered with RTP/SAVP."""
    wire = Wire()
    _call(wire, _offer("RTP/AVP"), _answer())
    return wire.sorted()


def hit_no_key():
    """RTP/SAVP is answered with RTP/SAVP, and without a=crypto."""
    wire = Wire()
    _call(wire, _offer(), _answer(extra=""))
    return wire.sorted()


def hit_no_print():
    """DTLS is offered and answered without a=fingerprint."""
    wire = Wire()
    _call(wire, _offer(DTLS, PRINT + "a=setup:actpass\r\n"), _answer(DTLS, "a=setup:active\r\n"))
    return wire.sorted()


def hit_other_keys():
    """DTLS is offered, SDES answered."""
    wire = Wire()
    _call(wire, _offer(DTLS, PRINT + "a=setup:actpass\r\n"), _answer(DTLS, SHA80))
    return wire.sorted()


def hit_suite():
    """AES_CM_128 is offered, AEAD_AES_256_GCM answered under its tag."""
    wire = Wire()
    _call(wire, _offer(), _answer(extra=GCM))
    return wire.sorted()


def hit_tag():
    """The suite with tag 2 is answered under tag 1."""
    wire = Wire()
    _call(wire, _offer(extra=SHA80 + SHA32), _answer(extra=SHA32.replace("crypto:2", "crypto:1")))
    return wire.sorted()


def hit_actpass():
    """The answer says actpass."""
    wire = Wire()
    _call(wire, _offer(DTLS, PRINT + "a=setup:actpass\r\n"), _answer(DTLS, PRINT + "a=setup:actpass\r\n"))
    return wire.sorted()


def hit_roles():
    """Both sides want to be passive: nobody begins."""
    wire = Wire()
    _call(wire, _offer(DTLS, PRINT + "a=setup:passive\r\n"), _answer(DTLS, PRINT + "a=setup:passive\r\n"))
    return wire.sorted()


def hit_dtls():
    """SDES is agreed, and the trunk begins a DTLS handshake."""
    wire = Wire()
    _call(wire, _offer(), _answer())
    wire.udp(0.6, TRUNK, 20000, PHONE, 16000, HELLO)
    return wire.sorted()


def _change(dialog: Dialog, at: float, offer: str, by_phone: bool = True) -> None:
    """A re-INVITE that is refused with 488; the call goes on."""
    dialog.request(at, "INVITE", from_caller=by_phone, to_tag=True, body=offer)
    dialog.response(at + 0.1, 488, "Not Acceptable Here", to_caller=by_phone)
    dialog.request(at + 0.11, "ACK", from_caller=by_phone, to_tag=True, new_branch=False)
    dialog.cseq += 1
    dialog.bye(at + 20.0)


def hit_running():
    """SDES is agreed; a re-INVITE that offers DTLS is refused."""
    wire = Wire()
    _change(_call(wire, _offer(), _answer()), 10.0, _offer(DTLS, PRINT + "a=setup:actpass\r\n"))
    return wire.sorted()


def near_miss_running():
    """Condition: the other side is not known to speak it. SDES is agreed; a re-INVITE has it too, and another codec."""
    wire = Wire()
    _change(_call(wire, _offer(), _answer()), 10.0, _offer(formats=(18,)))
    return wire.sorted()


def near_miss_running_other_way():
    """Condition: the other side is not known to speak it. The trunk's re-INVITE by SDES is refused by the phone."""
    wire = Wire()
    _change(_call(wire, _offer(), _answer()), 10.0, _answer(), by_phone=False)
    return wire.sorted()


def near_miss_agreed():
    """Condition: something does not fit. Suite 2 of two is taken under its tag, in lower case."""
    wire = Wire()
    _call(wire, _offer(extra=SHA80 + SHA32), _answer(extra=SHA32.replace("AES_CM", "aes_cm")))
    return wire.sorted()


def near_miss_two_lines():
    """Condition: the line is accepted. SRTP and RTP are offered, the SRTP line is refused with port 0."""
    wire = Wire()
    _call(wire, body(PHONE, _line(16000), _line(16002, "RTP/AVP")),
          body(TRUNK, _line(0, "RTP/AVP", ""), _line(20002, "RTP/AVP", "")))
    return wire.sorted()


def near_miss_both_refused():
    """Condition: an offer of one kind alone. SRTP and RTP are offered and refused together, for whatever reason."""
    wire = Wire()
    _call(wire, body(PHONE, _line(16000), _line(16002, "RTP/AVP", "")), "", status=488)
    return wire.sorted()


def near_miss_closed_line():
    """Condition: the line is offered. It has port 0 in the offer, and the answer does not care for its profile."""
    wire = Wire()
    _call(wire, body(PHONE, _line(0), _line(16002, "RTP/AVP", "")),
          body(TRUNK, _line(20000, "RTP/AVP", ""), _line(20002, "RTP/AVP", "")))
    return wire.sorted()


def near_miss_opportunistic():
    """Condition: profiles differ. RTP/AVP with a=crypto is answered with RTP/AVP (RFC 8643); another call has SRTP."""
    wire = Wire()
    _call(wire, _offer("RTP/AVP"), _answer("RTP/AVP", ""))
    _call(wire, _offer(), _answer(), at=5.0, number=2)
    return wire.sorted()


def near_miss_codecs():
    """Condition: not refused for its formats. Warning 305 says so."""
    wire = Wire()
    _call(wire, _offer(), "", status=488, extra='Warning: 305 trunk.example "Incompatible media format"\r\n')
    return wire.sorted()


def near_miss_speaks_it():
    """Condition: the other side is not known to speak it. In another call it answers with SRTP by SDES."""
    wire = Wire()
    _call(wire, _offer(formats=(18,)), "", status=488)
    _call(wire, _offer(), _answer(), at=5.0, number=2)
    return wire.sorted()


def near_miss_plain_unknown():
    """Condition: an offer of RTP is refused by a side known for SRTP alone. Of this one nothing else is known."""
    wire = Wire()
    _call(wire, _offer("RTP/AVP", ""), "", status=488)
    Dialog(wire, PHONE, "198.51.100.21", call_id="call-2@a.example", branches=40).answered(
        5.0, _offer(), body("198.51.100.21", _line(20000)))
    return wire.sorted()


def near_miss_other_codec():
    """Condition: not accepted with the same kind later. The phone offers another codec, still by SDES."""
    wire = Wire()
    _again(_call(wire, _offer(formats=(18,)), "", status=488), 1.0, _offer(), _answer())
    return wire.sorted()


def near_miss_busy():
    """Condition: refused with 415, 488 or 606."""
    wire = Wire()
    _call(wire, _offer(), "", status=486)
    return wire.sorted()


def near_miss_other_means():
    """Condition: the offer has a key by SDES or DTLS. MIKEY (RFC 4567) is not judged."""
    wire = Wire()
    _call(wire, _offer(extra="a=key-mgmt:mikey AQAF\r\n"), _answer(extra="a=key-mgmt:mikey AQEF\r\n"))
    return wire.sorted()


def near_miss_either_key():
    """Condition: no kind of key in common. SDES and DTLS are offered; the answer has DTLS, and its own suite beside."""
    wire = Wire()
    _call(wire, _offer(DTLS, SHA80 + PRINT + "a=setup:actpass\r\n"), _answer(DTLS, PRINT + GCM + "a=setup:active\r\n"))
    wire.udp(0.6, TRUNK, 20000, PHONE, 16000, HELLO)
    return wire.sorted()


def near_miss_roles():
    """Condition: roles collide. The offer is passive, the answer active; the fingerprint stands in the session part."""
    wire = Wire()
    _call(wire, body(PHONE, _line(16000, DTLS, ""), session=PRINT + "a=setup:passive\r\n"),
          body(TRUNK, _line(20000, DTLS, ""), session=PRINT + "a=setup:active\r\n"))
    return wire.sorted()


def near_miss_srtp_follows():
    """Condition: a DTLS ClientHello. What comes is SRTP, another DTLS message, and a ClientHello for another port."""
    wire = Wire()
    _call(wire, _offer(), _answer())
    rtp(wire, 0.6, TRUNK, 20000, PHONE, 16000, 0.2)
    wire.udp(0.9, TRUNK, 20000, PHONE, 16000, HELLO[:13] + b"\x02" + HELLO[14:])
    wire.udp(1.0, TRUNK, 20010, PHONE, 16010, HELLO)
    return wire.sorted()


def near_miss_before():
    """Condition: after the offer. The port was used with DTLS by the call before."""
    wire = Wire()
    wire.udp(0.6, TRUNK, 20000, PHONE, 16000, HELLO)
    _call(wire, _offer(), _answer(), at=5.0)
    return wire.sorted()
