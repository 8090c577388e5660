"""Samples of RTP-SRTP-AUTH: a phone whose packets its gateway cannot authenticate."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog
from _craft.srtp import ALICE, GATE, GATEWAY, GATEWAY_PORT, PHONE, PORT, Key, call, described, offered, talk

NEW = Key("alice again")
SHORT = "AES_CM_128_HMAC_SHA1_32"
PROXY = "198.51.100.10"

HIT_FRAMES = {"hit": [1, 6, 39], "hit_gcm": [1, 6, 39], "hit_old_key": [1, 17, 43, 68], "hit_peer": [1, 4, 6, 39],
              "hit_tag": [1, 6, 39], "hit_identifier": [1, 6, 39], "hit_plain": [1, 6, 105], "hit_fork": [6, 7, 14, 47],
              "hit_from_a_moment": [1, 29, 61], "hit_two_points": {"near": [1], "far": [1, 6, 39]}}


def _one(key: Key, lines: str = "", answer: Key = GATE) -> list:
    wire = Wire()
    _, answered = call(wire, 4, described(PHONE, PORT, lines or ALICE.line()),
                       described(GATEWAY, GATEWAY_PORT, answer.line(), "recvonly"))
    talk(wire, answered + 0.05, 3.06, key)
    return wire.sorted()


def hit():
    """The tags fit no key of this call."""
    return _one(Key("somebody"))


def hit_gcm():
    """The same with AES-GCM."""
    return _one(Key("somebody", "AEAD_AES_128_GCM"), Key("alice", "AEAD_AES_128_GCM").line(),
                Key("gateway", "AEAD_AES_128_GCM"))


def hit_peer():
    """The phone takes the key of the answer for its own packets."""
    return _one(GATE)


def hit_tag():
    """Tags of 80 bits where 32 were agreed."""
    return _one(ALICE, Key("alice", SHORT).line(), Key("gateway", SHORT))


def hit_identifier():
    """The offer announces a key identifier of two bytes, the packets have none."""
    return _one(ALICE, Key("alice", mki=b"\x00\x07").line())


def hit_plain():
    """The phone sends PCMU as if nothing had been agreed."""
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 2, lambda i: None, size=160, ptime=0.02)
    return wire.sorted()


def hit_from_a_moment():
    """After two seconds the phone goes on with a key that nobody was told."""
    wire = Wire()
    _, answered = call(wire, 8)
    talk(wire, answered + 0.05, 5.04, lambda i: ALICE if i < 23 else NEW)
    return wire.sorted()


def _rekeyed(change: int, key: Key = NEW, seconds: float = 5.4) -> list:
    wire = Wire()
    dialog, answered = call(wire, 8)
    talk(wire, answered + 0.05, seconds, lambda i: ALICE if i < change else key)
    offered(dialog, answered + 1.0, described(PHONE, PORT, NEW.line(), version=2),
            described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly", version=2))
    return wire.sorted()


def hit_old_key():
    """A re-INVITE brings a new key, and five seconds later the packets still have the old one."""
    return _rekeyed(1000)


def _forked(line: str) -> list:
    """Two phones ring; the second one answers. Captured at the proxy, which passes on ``line`` as its key."""
    wire = Wire()
    out = Dialog(wire, GATEWAY, PROXY, call_id="fork@a.example")
    first, second = (Dialog(wire, PROXY, f"203.0.113.14{i}", call_id="fork@a.example", branches=20 * i) for i in (1, 2))
    offer = described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly")
    out.request(0, "INVITE", body=offer)
    first.request(0.01, "INVITE", body=offer)
    second.request(0.02, "INVITE", body=offer)
    early = described("203.0.113.141", PORT, Key("first phone").line())
    first.response(0.1, 183, "Session Progress", body=early)
    out.response(0.11, 183, "Session Progress", body=early)
    second.response(0.2, 200, "OK", body=described("203.0.113.142", PORT, Key("second phone").line()))
    out.response(0.21, 200, "OK", body=described("203.0.113.142", PORT, line))
    out.request(0.22, "ACK", to_tag=True)
    second.request(0.23, "ACK", to_tag=True)
    first.request(0.24, "CANCEL", new_branch=False)
    first.response(0.25, 200, "OK", "CANCEL")
    first.response(0.26, 487, "Request Terminated")
    first.request(0.27, "ACK", to_tag=True, new_branch=False)
    for i, rtp in enumerate(_second()):
        wire.udp(0.3 + 0.09 * i, "203.0.113.142", PORT, GATEWAY, GATEWAY_PORT, rtp)
    return wire.sorted()


def _second() -> list[bytes]:
    scratch = Wire()
    talk(scratch, 0, 3.06, Key("second phone"))
    return [bytes(frame)[42:] for frame in scratch.sorted()]


def hit_fork():
    """The proxy passes on the answer of the second phone with the key of the first."""
    return _forked(Key("first phone").line())


def hit_two_points():
    """A border element changes the key in the offer; what the phone sends fits the one that it wrote itself."""
    points = {}
    for name, key in (("near", ALICE), ("far", Key("border"))):
        wire = Wire()
        _, answered = call(wire, 4, described(PHONE, PORT, key.line()))
        talk(wire, answered + 0.05, 3.06)
        points[name] = wire.sorted()
    return points


def near_miss_fits():
    """Condition: the tags do not fit. Here all do, over a wrap of the sequence number."""
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 3.06, first=65520)
    return wire.sorted()


def near_miss_forked():
    """Condition: another key than the receiver was told. The proxy passes on the key of the phone that answers."""
    return _forked(Key("second phone").line())


def near_miss_change():
    """Condition: more than two seconds after the change. The old key is used for 1.8 s, then the new one."""
    return _rekeyed(31)


def near_miss_early():
    """Condition: an old key, none of later. The phone has the new key 0.5 s before the answer to its offer is seen."""
    return _rekeyed(6)


def near_miss_ahead():
    """Condition: an old key, none of later. The new one is used three seconds before the offer with it."""
    wire = Wire()
    dialog, answered = call(wire, 8)
    talk(wire, answered + 0.05, 5.4, lambda i: ALICE if i < 5 else NEW)
    offered(dialog, answered + 3.5, described(PHONE, PORT, NEW.line(), version=2),
            described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly", version=2))
    return wire.sorted()


def near_miss_few():
    """Condition: five packets. The last four alone do not fit."""
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 3.06, lambda i: ALICE if i < 30 else Key("somebody"))
    return wire.sorted()


def near_miss_four_in_all_inconclusive():
    """Condition: five packets. There are four, and none fits: too few for a fault, and no proof that all is well."""
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 0.4, Key("somebody"))
    return wire.sorted()


def near_miss_some():
    """Condition: four packets of five. Two of three have a wrong tag."""
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 3.06, lambda i: ALICE if i % 3 == 1 else Key("somebody"))
    return wire.sorted()


def near_miss_short_tag():
    """Condition: the agreed tag does not fit. It has 32 bits."""
    key = Key("alice", SHORT)
    return _one(key, key.line(), Key("gateway", SHORT))


def near_miss_identifier():
    """Condition: the agreed identifier is missing. Here the packets have it, one byte before the tag."""
    key = Key("alice", mki=b"\x07")
    return _one(key, key.line())


def near_miss_clear_rtcp():
    """Condition: a tag was agreed for RTP. RTCP alone is not encrypted."""
    return _one(ALICE, ALICE.line(session="UNENCRYPTED_SRTCP"))


def near_miss_suite():
    """Condition: the line that the answer takes. It takes the second of two."""
    wire = Wire()
    key = Key("alice 2", "AEAD_AES_256_GCM")
    _, answered = call(wire, 4, described(PHONE, PORT, ALICE.line() + key.line(2)),
                       described(GATEWAY, GATEWAY_PORT, Key("gateway", "AEAD_AES_256_GCM").line(2), "recvonly"))
    talk(wire, answered + 0.05, 3.06, key)
    return wire.sorted()


def near_miss_refused():
    """Condition: the key in force. That of a re-INVITE which is refused never is."""
    wire = Wire()
    dialog, answered = call(wire, 8)
    talk(wire, answered + 0.05, 5.4)
    dialog.cseq += 1
    dialog.request(answered + 1.0, "INVITE", body=described(PHONE, PORT, NEW.line(), version=2), to_tag=True)
    dialog.response(answered + 1.1, 491, "Request Pending")
    dialog.request(answered + 1.11, "ACK", to_tag=True, new_branch=False)
    return wire.sorted()


def near_miss_taken_over():
    """Condition: no other call agreed on that key for the same port. A second call takes the stream over."""
    wire = Wire()
    _, answered = call(wire, 8)
    talk(wire, answered + 0.05, 5.4, lambda i: ALICE if i < 20 else NEW)
    second = Dialog(wire, PHONE, GATEWAY, call_id="taker@a.example", branches=40)
    second.answered(answered + 1.2, described(PHONE, PORT, NEW.line()),
                    described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly"))
    return wire.sorted()


def near_miss_two_lines():
    """Condition: the key of its own media line. The second line has another one."""
    wire = Wire()
    lines = (media(PORT, protocol="RTP/SAVP", extra="a=sendonly\r\n" + Key("first line").line()),
             media(PORT + 10, protocol="RTP/SAVP", extra="a=sendonly\r\n" + ALICE.line()))
    answers = (media(GATEWAY_PORT + 10, protocol="RTP/SAVP", extra="a=recvonly\r\n" + GATE.line()),
               media(GATEWAY_PORT, protocol="RTP/SAVP", extra="a=recvonly\r\n" + GATE.line()))
    _, answered = call(wire, 4, body(PHONE, *lines), body(GATEWAY, *answers))
    talk(wire, answered + 0.05, 3.06, port=PORT + 10)
    return wire.sorted()


def near_miss_inconclusive_no_tag():
    """Condition: a tag was agreed. Here none was, and there is none."""
    wire = Wire()
    _, answered = call(wire, 4, described(PHONE, PORT, ALICE.line(session="UNAUTHENTICATED_SRTP")))
    talk(wire, answered + 0.05, 3.06, lambda i: None)
    return wire.sorted()


def near_miss_inconclusive_derived():
    """Condition: the keys are known. A derivation rate changes them on the way, and is not followed."""
    return _one(Key("somebody"), ALICE.line(session="KDR=1"))


def near_miss_inconclusive_no_media():
    """Condition: packets were captured."""
    wire = Wire()
    call(wire, 4)
    return wire.sorted()


def near_miss_inconclusive_midstream():
    """Condition: the key in force is known. The call begins before the capture; its re-INVITE tells the next key."""
    return [frame for frame in _rekeyed(12, seconds=1.6) if frame.time > 1_767_225_600.14 and not (
        frame.time > 1_767_225_601.1 and frame["UDP"].sport == PORT)]
