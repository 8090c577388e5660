"""Samples of SIP-SDP-OA-BROKEN: an element that writes wrong answers."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog, rtp

PHONE, TRUNK, OTHER = "203.0.113.10", "198.51.100.20", "198.51.100.21"
AUDIO, VIDEO = media(16000, (0, 8)), media(16002, (99,), kind="video")
RELIABLE = "Require: 100rel\r\nRSeq: 1\r\n"

HIT_FRAMES = {"hit": [1, 3], "hit_order": [1, 3], "hit_codec": [1, 3], "hit_no_answer": [1, 3],
              "hit_no_ack_sdp": [3, 4], "hit_payload_type": [1, 5], "hit_version": [1, 5], "hit_second_answer": [3, 6],
              "hit_stays": [3, 155], "hit_second_2xx": [3, 4], "hit_fork": [1, 5]}


def _dialog(wire: Wire, offer: str) -> Dialog:
    dialog = Dialog(wire, PHONE, TRUNK)
    dialog.request(0.0, "INVITE", body=offer)
    dialog.response(0.01, 100, "Trying")
    return dialog


def _answered(wire: Wire, offer: str, answer: str) -> Dialog:
    dialog = _dialog(wire, offer)
    dialog.response(1.0, 200, "OK", body=answer)
    dialog.request(1.01, "ACK", to_tag=True)
    dialog.cseq += 1
    return dialog


def _again(dialog: Dialog, at: float, offer: str, answer: str, *, status: int = 200) -> None:
    """A re-INVITE."""
    dialog.request(at, "INVITE", to_tag=True, body=offer)
    dialog.response(at + 0.1, status, "X", body=answer)
    dialog.request(at + 0.2, "ACK", to_tag=True, new_branch=status == 200)
    dialog.cseq += 1


def _prack(dialog: Dialog, at: float, offer: str = "", answer: str = "") -> None:
    branches, dialog.branches = dialog.branches, dialog.branches + 50
    dialog.request(at, "PRACK", to_tag=True, cseq=2, body=offer, extra=f"RAck: 1 {dialog.cseq} INVITE\r\n")
    dialog.response(at + 0.01, 200, "OK", "PRACK", cseq=2, body=answer)
    dialog.branches = branches


def hit():
    """Audio and video are offered, and one line is answered."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO, VIDEO), body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def hit_order():
    """The answer has video first."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO, VIDEO), body(TRUNK, media(20002, (99,), kind="video"), media(20000, (0,))))
    return wire.sorted()


def hit_codec():
    """PCMU and PCMA are offered, G.729 is answered."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(20000, (18,))))
    return wire.sorted()


def hit_no_answer():
    """A 200 without SDP to an INVITE with an offer."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO), "")
    return wire.sorted()


def hit_no_ack_sdp():
    """An INVITE without SDP; the 200 offers, the ACK has no answer."""
    wire = Wire()
    _answered(wire, "", body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def hit_payload_type():
    """97 is iLBC first, and AMR in the re-INVITE."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, media(16000, (97, 0))), body(TRUNK, media(20000, (97,))))
    _again(dialog, 5.0, body(PHONE, media(16000, (97, 0), names={97: "AMR/8000"}), version=2),
           body(TRUNK, media(20000, (0,)), version=2))
    return wire.sorted()


def hit_version():
    """The re-INVITE puts on hold, under the version that was there before."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, media(16000, (0, 8), extra="a=sendonly\r\n")), body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def hit_second_answer():
    """A reliable 183 answers one address, the 200 of the same branch another."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))), extra=RELIABLE)
    _prack(dialog, 0.2)
    dialog.response(1.0, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def hit_stays():
    """The 183 was not reliable; after the other 200 the caller's audio still goes to the first address."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    rtp(wire, 0.2, PHONE, 16000, TRUNK, 20000, 6.0, size=4)
    dialog.response(3.205, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    dialog.request(3.215, "ACK", to_tag=True)
    return wire.sorted()


def hit_second_2xx():
    """Two different 200 of one branch."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(1.0, 200, "OK", body=body(TRUNK, media(20000, (0,))))
    dialog.cport = 5070
    dialog.response(1.1, 200, "OK", body=body(TRUNK, media(22000, (0,)), version=2))
    dialog.cport = 5060
    dialog.request(1.2, "ACK", to_tag=True)
    return wire.sorted()


def hit_fork():
    """A 183 of one branch has SDP, the 200 of another has none."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    frame = dialog.response(0.5, 180, "Ringing")
    ok = dialog.response(1.0, 200, "OK")
    for number in (frame, ok):
        load = wire.frames[number].getlayer("Raw")
        load.load = load.load.replace(b"tag=callee1", b"tag=callee2")
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_payload_numbers():
    """Condition: codecs are compared by name. The answer uses other numbers, has fewer formats and one more."""
    wire = Wire()
    _answered(wire, body(PHONE, media(16000, (97, 0, 101))),
              body(TRUNK, media(20000, (98, 18), names={98: "ilbc/8000/1"})))
    return wire.sorted()


def near_miss_refused_line():
    """Condition: the line is accepted. The video is refused with a format that was not offered; then comes a hold."""
    wire = Wire()
    answer = body(TRUNK, media(20000, (8,)), media(0, (98,), kind="video", names={98: "VP8/90000"}))
    dialog = _answered(wire, body(PHONE, AUDIO, VIDEO), answer)
    _again(dialog, 5.0, body(PHONE, AUDIO, VIDEO, session="a=sendonly\r\n", version=2), answer)
    return wire.sorted()


def near_miss_dead_line():
    """Condition: the line is offered. A line with port 0 in the offer stays dead, whatever its type in the answer."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO, media(0, (99,), kind="video")),
              body(TRUNK, media(20000, (8,)), media(20002, (0,))))
    return wire.sorted()


def near_miss_unknown_format():
    """Condition: all formats are known. Payload type 120 has no rtpmap on either side."""
    wire = Wire()
    _answered(wire, body(PHONE, "m=audio 16000 RTP/AVP 0 120\r\n"), body(TRUNK, "m=audio 20000 RTP/AVP 18 120\r\n"))
    return wire.sorted()


def near_miss_repeated():
    """Condition: the second answer differs. The 183 and the 200 say the same, under another version."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))), extra=RELIABLE)
    _prack(dialog, 0.2)
    dialog.response(1.0, 200, "OK", body=body(TRUNK, media(20000, (0,)), version=2))
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_unreliable():
    """Condition: the first answer was reliable, or audio stays with it. After an early announcement audio moves on."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    rtp(wire, 0.2, PHONE, 16000, TRUNK, 20000, 2.9, size=4)
    dialog.response(3.0, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    rtp(wire, 3.2, PHONE, 16000, OTHER, 21000, 2.0, size=4, first=1200)
    dialog.request(3.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_moves_late():
    """Condition: none goes to the new address a second later. Audio goes to both for two seconds."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    rtp(wire, 0.2, PHONE, 16000, TRUNK, 20000, 5.0, size=4)
    dialog.response(3.0, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    rtp(wire, 4.2, PHONE, 16000, OTHER, 21000, 2.0, size=4, ssrc=0x4321)
    dialog.request(3.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_no_audio():
    """Condition: audio goes to the first address. None is seen at all."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    dialog.response(3.0, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    dialog.request(3.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_ends_soon():
    """Condition: it goes there for more than a second after. What is on its way is still sent for half a second."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))))
    rtp(wire, 0.2, PHONE, 16000, TRUNK, 20000, 3.3, size=4)
    dialog.response(3.0, 200, "OK", body=body(OTHER, media(21000, (0,)), version=2))
    dialog.request(3.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_static_number():
    """Condition: a dynamic payload type. 18 is G.729 whatever the rtpmap says; a gateway writes G729A later."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, media(16000, (0, 18))), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, media(16000, (0, 18), names={18: "G729A/8000"}), version=2),
           body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def near_miss_forked_numbers():
    """Condition: a payload type of the same branch. Two phones of one kind use 97 each in its own way."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, media(16000, (97, 98))))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (97,))))
    number = dialog.response(1.0, 200, "OK", body=body(TRUNK, media(20000, (97,), names={97: "AMR/8000"})))
    load = wire.frames[number].getlayer("Raw")
    load.load = load.load.replace(b"tag=callee1", b"tag=callee2")
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_forked():
    """Condition: the same To tag. Two phones answer the INVITE, each with its own tag."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))), extra=RELIABLE)
    number = dialog.response(1.0, 200, "OK", body=body(OTHER, media(21000, (0,))))
    load = wire.frames[number].getlayer("Raw")
    load.load = load.load.replace(b"tag=callee1", b"tag=callee2")
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_update_between():
    """Condition: nothing was agreed in between. An offer in the PRACK changed the address before the 200."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))), extra=RELIABLE)
    _prack(dialog, 0.2, body(PHONE, media(16000, (8,)), version=2), body(TRUNK, media(20000, (8,)), version=2))
    dialog.response(1.0, 200, "OK", body=body(TRUNK, media(20000, (8,)), version=2))
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_answered_before():
    """Condition: no response before the 2xx had the answer. The reliable 183 had it."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(0.1, 183, "Session Progress", body=body(TRUNK, media(20000, (0,))), extra=RELIABLE)
    _prack(dialog, 0.2)
    dialog.response(1.0, 200, "OK")
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_other_body():
    """Condition: no body. The 200 carries its description encrypted (S/MIME, RFC 3261 §23)."""
    wire = Wire()
    dialog = _dialog(wire, body(PHONE, AUDIO))
    dialog.response(1.0, 200, "OK", extra="Content-Type: application/pkcs7-mime\r\n")
    dialog.request(1.01, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_no_offer():
    """Condition: a 2xx to a request with an offer. A session refresh without SDP: the 200 offers, the ACK answers."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(20000, (0,))))
    dialog.request(5.0, "INVITE", to_tag=True)
    dialog.response(5.1, 200, "OK", body=body(TRUNK, media(20000, (0,))))
    dialog.request(5.2, "ACK", to_tag=True, body=body(PHONE, AUDIO))
    return wire.sorted()


def near_miss_version_jumps():
    """Condition: the version of an offer fell or stayed. It jumps from 1 to 9, and that of the answer stays."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, media(16000, (0, 8), extra="a=sendonly\r\n"), version=9),
           body(TRUNK, media(20000, (0,), extra="a=recvonly\r\n")))
    return wire.sorted()


def near_miss_unchanged():
    """Condition: the media changed. A session refresh repeats the description with its version; the answer moves."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, AUDIO), body(TRUNK, media(20004, (0,)), version=2))
    return wire.sorted()


def near_miss_transferred():
    """Condition: the same o= identity. Another device took over behind the phone's address."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, media(16000, (97, 0))), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, media(17000, (97, 0), names={97: "AMR/8000"}), origin="10.0.0.7"),
           body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def near_miss_refused_offer():
    """Condition: the offer before was answered. A change of codecs is refused, the old description comes back."""
    wire = Wire()
    dialog = _answered(wire, body(PHONE, media(16000, (97, 0))), body(TRUNK, media(20000, (0,))))
    _again(dialog, 5.0, body(PHONE, media(16000, (97, 18), names={97: "AMR/8000"}), version=2), "", status=491)
    _again(dialog, 9.0, body(PHONE, media(16000, (97, 0), extra="a=sendonly\r\n"), version=2),
           body(TRUNK, media(20000, (0,))))
    return wire.sorted()


def near_miss_line_reused():
    """Condition: the same stream. The line was closed with port 0 and comes back as another stream (RFC 3264 §8.1)."""
    wire = Wire()
    one, answer = media(16004, (97,)), media(20000, (0,))
    dialog = _answered(wire, body(PHONE, AUDIO, one), body(TRUNK, answer, media(20004, (97,))))
    _again(dialog, 5.0, body(PHONE, AUDIO, media(0, (97,)), version=2),
           body(TRUNK, answer, media(0, (97,)), version=2))
    changed = media(16004, (97,), names={97: "AMR/8000"})
    _again(dialog, 9.0, body(PHONE, AUDIO, changed, version=3),
           body(TRUNK, answer, media(20004, (97,), names={97: "AMR/8000"}), version=3))
    return wire.sorted()


def near_miss_all_refused():
    """Condition: something is accepted. A 200 that refuses all media is legal, and another pattern's matter."""
    wire = Wire()
    _answered(wire, body(PHONE, AUDIO), body(TRUNK, media(0, (18,))))
    return wire.sorted()


def near_miss_other_way():
    """Condition: the answer comes on the hop of its offer. A relay answers each side with what that side offered."""
    wire = Wire()
    outer = _dialog(wire, body(PHONE, AUDIO))
    inner = Dialog(wire, TRUNK, OTHER, branches=40)
    inner.request(0.1, "INVITE", body=body(TRUNK, media(30000, (18,))))
    inner.response(0.9, 200, "OK", body=body(OTHER, media(40000, (18,))))
    outer.response(1.0, 200, "OK", body=body(TRUNK, media(30002, (0,))))
    outer.request(1.01, "ACK", to_tag=True)
    return wire.sorted()
