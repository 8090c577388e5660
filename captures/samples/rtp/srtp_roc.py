"""Samples of RTP-SRTP-ROC: a phone whose sequence number wraps."""

from collections.abc import Callable

from _craft.network import Wire
from _craft.rtp import report
from _craft.srtp import ALICE, GATE, GATEWAY, GATEWAY_PORT, PHONE, PORT, Key, call, described, offered, talk

NEW = Key("alice again")

HIT_FRAMES = {"hit": [1, 25, 26], "hit_reset": [1, 39, 41, 43], "hit_moved": [1, 39, 41, 43], "hit_late": [1, 6],
              "hit_receiver": [38, 89, 255], "hit_receiver_unknown": [38, 89, 255],
              "hit_released": [18, 19, 34, 35, 47, 48], "hit_twice": [18, 19, 34, 35],
              "hit_nat": {"inside": [1, 25, 26], "outside": [1, 25, 26]}}


def _call(first: int, roc: Callable[[int], int] | None = None, seconds: float = 3.6, key: Key = ALICE) -> list:
    wire = Wire()
    _, answered = call(wire, seconds + 1, described(PHONE, PORT, key.line()),
                       described(GATEWAY, GATEWAY_PORT, Key("gateway", key.suite).line(), "recvonly"))
    talk(wire, answered + 0.05, seconds, key, first=first, roc=roc)
    return wire.sorted()


def hit():
    """The phone goes on with the count 0 behind the wrap."""
    return _call(65516, lambda n: 0)


def hit_nat():
    """The same phone before and behind a NAT that keeps ports, whose outside its descriptions name."""
    points = {"inside": hit(), "outside": hit()}
    for frame in points["inside"]:
        layer = frame["IP"]
        for end in ("src", "dst"):
            if getattr(layer, end) == PHONE:
                setattr(layer, end, "192.168.1.5")
    return points


def _again(reset: bool, key: Key = ALICE, port: int = PORT, peer: int = GATEWAY_PORT, ssrc: int = 1,
           first: int = 65516, next_roc: int | None = None) -> list:
    """Three seconds, a re-INVITE, two seconds more."""
    wire = Wire()
    dialog, answered = call(wire, 6)
    before = talk(wire, answered + 0.05, 3.06, first=first)
    offered(dialog, answered + 3.1, described(PHONE, port, key.line(), version=2),
            described(GATEWAY, peer, GATE.line(), "recvonly", version=2))
    behind = first + len(before) if ssrc == 1 else 100
    count = 0 if reset else None
    count = next_roc if next_roc is not None else count
    scratch = Wire()
    talk(scratch, answered + 3.3, 1.8, key, first=behind, ssrc=ssrc, roc=None if count is None else lambda n: count)
    for frame in scratch.sorted():
        wire.udp(frame.time - 1_767_225_600.0, PHONE, port, GATEWAY, peer, bytes(frame)[42:])
    return wire.sorted()


def hit_reset():
    """One wrap, then a re-INVITE without any change: the phone counts from 0 again."""
    return _again(True)


def hit_moved():
    """The gateway moves to another port; the phone keeps its own address and key, and counts from 0 again."""
    return _again(True, peer=GATEWAY_PORT + 2)


def hit_late():
    """The first packet of the call has the count 2: a relay joins a stream that has run for an hour."""
    return _call(20000, lambda n: 2)


def _reported(stuck: int | None, known: bool = True, seconds: float = 5.0, before: tuple[int, ...] = (10, 20),
              after: int = 2) -> list:
    """Reports behind the wrap name ``stuck``, or the number just received. The wrap comes after 0.6 s."""
    wire = Wire()
    session = "UNENCRYPTED_SRTCP" if known else "UNAUTHENTICATED_SRTP UNENCRYPTED_SRTCP"
    _, answered = call(wire, seconds + 1, described(PHONE, PORT, ALICE.line(session=session)),
                       described(GATEWAY, GATEWAY_PORT, GATE.line(session=session), "recvonly"))
    start = answered + 0.05
    talk(wire, start, seconds, first=65506, ptime=0.02)
    for i in before:
        report(wire, start + i * 0.02 + 0.01, about=1, highest=65506 + i)
    for i in range(after):
        at = 1.61 + (seconds - 1.7) * (i if after > 1 else 1)
        report(wire, start + at, about=1, highest=65506 + int(at / 0.02) if stuck is None else stuck)
    return wire.sorted()


def hit_receiver():
    """The gateway's reports stand still behind the wrap, and the tags fit the right count."""
    return _reported(65535)


def hit_receiver_unknown():
    """The same where no tag was agreed: nobody knows how the phone counts."""
    return _reported(65535, known=False)


def _released(waits: tuple[float, ...], packets: tuple[int, ...]) -> list:
    """Calls with a packet every ten seconds that wrap after so many packets, and end so long after it."""
    wire = Wire()
    for i, (wait, before) in enumerate(zip(waits, packets, strict=True)):
        wrap = 0.15 + before * 20
        at = 400.0 * i
        ends = wrap + wait
        call(wire, ends - 0.1, described(PHONE, PORT + 100 * i, ALICE.line(session="UNAUTHENTICATED_SRTP")),
             described(GATEWAY, GATEWAY_PORT + 100 * i, GATE.line(session="UNAUTHENTICATED_SRTP"), "recvonly"),
             at=at, number=i + 1)
        talk(wire, at + 0.15, (before + 1) * 20, first=65536 - before, ptime=20, number=i + 1, ssrc=i + 1)
    return wire.sorted()


def hit_released():
    """Three calls end 7 s after their own wrap, which comes after 240, 160 and 100 s."""
    return _released((7.0, 7.5, 6.0), (12, 8, 5))


def hit_twice():
    """Two of two calls."""
    return _released((7.0, 7.5), (12, 8))


def near_miss_counts():
    """Condition: another count than the receiver's. The phone counts the wrap."""
    return _call(65516)


def near_miss_gcm():
    """Condition: another count than the receiver's. The same with AES-GCM."""
    return _call(65516, key=Key("alice", "AEAD_AES_128_GCM"))


def near_miss_goes_on():
    """Condition: another count behind the re-INVITE. The phone keeps it."""
    return _again(False)


def near_miss_new_key():
    """Condition: the same key. The phone moves to another port with a new key, and begins at 0."""
    return _again(True, NEW, PORT + 2)


def near_miss_old_key():
    """Condition: another count. A new key is agreed behind the wrap, the phone keeps the old one and its count."""
    wire = Wire()
    dialog, answered = call(wire, 7)
    talk(wire, answered + 0.05, 5.4, first=65516)
    offered(dialog, answered + 2.0, described(PHONE, PORT, NEW.line(), version=2),
            described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly", version=2))
    return wire.sorted()


def near_miss_new_source():
    """Condition: the same SSRC. A new one begins at 0."""
    return _again(True, ssrc=2)


def near_miss_few():
    """Condition: five packets. The last four alone have the wrong count."""
    return _call(65516, lambda n: 0 if n >= 65552 else n >> 16)


def near_miss_first_packets():
    """Condition: the count begins above 0. The first packets, right before a wrap, were not captured."""
    return _call(30, lambda n: 1)


def near_miss_pause():
    """Condition: a receiver's count is known. The capture stood still for half an hour, and a wrap went by."""
    wire = Wire()
    _, answered = call(wire, 2010)
    talk(wire, answered + 0.05, 1.0, first=65530, ptime=0.05)
    talk(wire, answered + 2000, 1.0, first=2000, ptime=0.05, roc=lambda n: 2)
    return wire.sorted()


def near_miss_reported():
    """Condition: the receiver stops counting. Its reports go on over the wrap."""
    return _reported(None)


def near_miss_stopped_before():
    """Condition: its reports go up until the wrap. They have stood still for some time."""
    return _reported(65506, before=(10,))


def near_miss_stops_later():
    """Condition: the numbers right before the wrap. The receiver stops some packets behind it."""
    return _reported(65536 + 20)


def near_miss_one_report():
    """Condition: two reports behind the wrap."""
    return _reported(65535, after=1)


def near_miss_few_sent():
    """Condition: two hundred packets that are not counted."""
    return _reported(65535, seconds=3.0)


def near_miss_inconclusive_one_call():
    """Condition: two calls."""
    return _released((7.0,), (12,))


def near_miss_inconclusive_later():
    """Condition: released within 20 s. Three calls go on for 25 s."""
    return _released((25.0, 25.5, 26.0), (14, 16, 18))


def near_miss_inconclusive_short():
    """Condition: soon, beside the time before the wrap. Three calls wrap after 40 to 80 s and end 15 s later."""
    return _released((15.0, 15.5, 16.0), (2, 3, 4))


def near_miss_inconclusive_some():
    """Condition: half of the calls that wrap. Two of five are released soon after it."""
    return _released((7.0, 7.5, 60.0, 70.0, 80.0), (12, 8, 5, 6, 7))


def near_miss_inconclusive_timer():
    """Condition: other times in each call. All are released 247 s after their answer: a timer."""
    return _released((7.0, 7.0, 7.0), (12, 12, 12))


def near_miss_inconclusive_no_media():
    """Condition: packets were captured."""
    wire = Wire()
    call(wire, 4)
    return wire.sorted()
