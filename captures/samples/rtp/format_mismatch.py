"""Samples of RTP-FORMAT-MISMATCH: what a phone sends, and what the gateway asked for."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, forth, packet
from _craft.sip import Dialog

OFFER, ANSWER = {97: "iLBC/8000", 0: "PCMU/8000"}, {98: "iLBC/8000"}
HIT_FRAMES = {"hit": [4, 6, 27], "hit_after_change": [25, 33, 48], "hit_clock": [6, 65],
              "hit_as_events": [4, 6, 27], "hit_digits_too": [4, 6, 92]}


def _call(formats: dict[int, str], answer: dict[int, str], seconds: float = 2.5) -> tuple[Wire, float]:
    wire = Wire()
    return wire, call(wire, seconds, body(PHONE, PORT, formats, "sendonly"), body(
        GATEWAY, GATEWAY_PORT, answer, "recvonly"))


def hit():
    """The gateway numbers iLBC 98; the phone sends it as 97, its own number."""
    wire, at = _call(OFFER, ANSWER)
    forth(wire, at + 0.02, 2.0, payload=lambda i: 97)
    return wire.sorted()


def _change(status: int, answer: dict[int, str]) -> Wire:
    """After 1.5 s the phone offers PCMA instead of PCMU; the stream goes on as PCMU."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, body(PHONE, PORT, direction="sendonly"), body(
        GATEWAY, GATEWAY_PORT, direction="recvonly"))
    forth(wire, at + 0.02, 3.6)
    dialog.cseq += 1
    dialog.request(at + 1.5, "INVITE", to_tag=True, body=body(PHONE, PORT, {8: "PCMA/8000"}, "sendonly", version=2))
    dialog.response(at + 1.6, status, "OK" if status == 200 else "Not Acceptable Here", body=body(
        GATEWAY, GATEWAY_PORT, answer, "recvonly", version=2) if answer else "")
    dialog.request(at + 1.61, "ACK", to_tag=True)
    dialog.bye(at + 4)
    return wire


def hit_after_change():
    """The gateway accepts, and the phone never changes."""
    return _change(200, {8: "PCMA/8000"}).sorted()


def hit_clock():
    """G.722 with time stamps of 16000 Hz."""
    wire, at = _call({9: "G722/8000"}, {9: "G722/8000"}, 5.5)
    forth(wire, at + 0.02, 5.4, payload=lambda i: 9, clock=16000)
    return wire.sorted()


def _numbers(size: int) -> list:
    """iLBC is 96 and events are 101 to the phone, 98 and 96 to the gateway; the phone sends 96."""
    wire, at = _call({96: "iLBC/8000", 101: "telephone-event/8000"}, {98: "iLBC/8000", 96: "telephone-event/8000"})
    forth(wire, at + 0.02, 2.0, payload=lambda i: 96, size=size)
    return wire.sorted()


def hit_as_events():
    """Audio, with the number that the gateway gave to events."""
    return _numbers(50)


def hit_digits_too():
    """Opus and events with the phone's own numbers: the gateway gave the one to events, and knows nothing of the other.
    """
    opus, events = "opus/48000/2", "telephone-event/8000"
    wire, at = _call({96: opus, 101: events}, {98: opus, 96: events}, 9.0)
    for i in range(87):
        wire.udp(at + 0.02 + i * 0.09, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
            1000 + i, 4320 * i, 1, 96, data=b"\x7f" * 20))
    for i, event in enumerate((b"\x05\x0a\x01\x40", b"\x05\x8a\x02\x80", b"\x05\x8a\x02\x80")):
        wire.udp(at + 0.02 + (87 + i) * 0.09, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
            1087 + i, 4320 * 87, 1, 101, data=event))
    return wire.sorted()


def near_miss_real_events():
    """Condition: longer than an event. Four bytes may be one, and the number is the gateway's for it."""
    return _numbers(4)


def near_miss_another_line():
    """Condition: one media line. 96 is video to the phone, and events to the gateway's audio line."""
    video = "m=video 16200 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=sendonly\r\n"
    theirs = "m=video 16202 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=recvonly\r\n"
    wire, event = Wire(), "telephone-event/8000"
    at = call(wire, 2.5, body(PHONE, PORT, {0: "PCMU/8000", 101: event}, "sendonly", extra=video), body(
        GATEWAY, GATEWAY_PORT, {0: "PCMU/8000", 96: event}, "recvonly", extra=theirs))
    for i in range(60):
        wire.udp(at + 0.02 + i / 25, PHONE, 16200, GATEWAY, 16202, packet(i, 3600 * i, 7, 96, data=b"\x10" * 200))
    return wire.sorted()


def near_miss_next_call():
    """Condition: during the call. The next one uses the same ports, SSRC and numbering, and another codec."""
    wire = Wire()
    for n, kind, name in ((0, 0, "PCMU/8000"), (1, 8, "PCMA/8000")):
        at = call(wire, 2.1, body(PHONE, PORT, {kind: name}, "sendonly"), body(
            GATEWAY, GATEWAY_PORT, {kind: name}, "recvonly"), n + 1, 2.3 * n)
        forth(wire, at + 0.02, 2.0, payload=lambda i, kind=kind: kind, first=1000 + 22 * n, stamp=720 * 22 * n)
    return wire.sorted()


def near_miss_number_of_the_receiver():
    """Condition: the number is not in the receiver's list. Here the phone uses the gateway's."""
    wire, at = _call(OFFER, ANSWER)
    forth(wire, at + 0.02, 2.0, payload=lambda i: 98)
    return wire.sorted()


def near_miss_two_codecs():
    """Condition: the list of the receiver, not the common one. Each side sends what the other asked for."""
    wire = Wire()
    at = call(wire, 2.5, body(PHONE, PORT, {0: "PCMU/8000"}), body(GATEWAY, GATEWAY_PORT, {8: "PCMA/8000"}))
    forth(wire, at + 0.02, 2.0, payload=lambda i: 8)
    forth(wire, at + 0.03, 2.0, back=True, ssrc=2)
    return wire.sorted()


def near_miss_few():
    """Condition: ten packets. Nine come with the wrong number."""
    wire, at = _call(OFFER, ANSWER, 4.0)
    forth(wire, at + 0.02, 3.6, payload=lambda i: 97 if i % 4 == 0 and i < 36 else 98)
    return wire.sorted()


def near_miss_for_a_moment():
    """Condition: more than a second. Eleven come within 0.9 s."""
    wire, at = _call(OFFER, ANSWER)
    forth(wire, at + 0.02, 2.0, payload=lambda i: 97 if i < 11 else 98)
    return wire.sorted()


def near_miss_comfort_noise():
    """Condition: media. Comfort noise is ignored by those who do not know it."""
    wire, at = _call({0: "PCMU/8000"}, {0: "PCMU/8000"}, 4.0)
    forth(wire, at + 0.02, 3.6, payload=lambda i: 13 if i % 3 == 2 else 0)
    return wire.sorted()


def near_miss_events():
    """Condition: media. Events with a number of their own are the matter of another pattern."""
    wire, at = _call({0: "PCMU/8000", 101: "telephone-event/8000"}, {0: "PCMU/8000"}, 4.0)
    forth(wire, at + 0.02, 3.6, payload=lambda i: 101 if i % 3 == 2 else 0)
    return wire.sorted()


def near_miss_rtcp_numbers():
    """Condition: no number that RTCP may have. 72 to 76 are RTCP on the same port, read as RTP."""
    wire, at = _call({0: "PCMU/8000"}, {0: "PCMU/8000"}, 4.0)
    forth(wire, at + 0.02, 3.6, payload=lambda i: 95 if i % 3 == 2 else 0)
    return wire.sorted()


def near_miss_refused_offer():
    """Condition: the new description is answered. A refused offer changes nothing, though the gateway repeats it."""
    return _change(488, {}).sorted()


def near_miss_old_kind():
    """Condition: half a second after a change. The phone follows 1.3 s after the answer: nine packets too late."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, body(PHONE, PORT, direction="sendonly"), body(
        GATEWAY, GATEWAY_PORT, direction="recvonly"))
    forth(wire, at + 0.02, 3.6, payload=lambda i: 0 if i < 32 else 8)
    dialog.cseq += 1
    dialog.request(at + 1.4, "INVITE", to_tag=True, body=body(PHONE, PORT, {8: "PCMA/8000"}, "sendonly", version=2))
    dialog.response(at + 1.5, 200, "OK", body=body(GATEWAY, GATEWAY_PORT, {8: "PCMA/8000"}, "recvonly", version=2))
    dialog.request(at + 1.51, "ACK", to_tag=True)
    dialog.bye(at + 4)
    return wire.sorted()


def near_miss_right_clock():
    """Condition: a clock of another rate. G.722 is 8000 Hz in RTP."""
    wire, at = _call({9: "G722/8000"}, {9: "G722/8000"}, 5.5)
    forth(wire, at + 0.02, 5.4, payload=lambda i: 9)
    return wire.sorted()


def near_miss_pauses():
    """Condition: every step, not only the sum. A stream of pauses whose clock stands still adds up to half."""
    wire, at = _call({0: "PCMU/8000"}, {0: "PCMU/8000"}, 6.5)
    forth(wire, at + 0.02, 3.0, late=lambda i: 0.3 * (i // 3), marker=lambda i: i % 3 == 0)
    return wire.sorted()
