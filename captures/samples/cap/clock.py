"""Samples of CAP-CLOCK: two capture points around a router, clocks that are set back, senders that tell the time."""

import math
import random
import struct

from _craft.network import START, Connection, Wire
from _craft.sip import rtp

CLIENT, SERVER, OTHER = "10.20.0.15", "198.51.100.20", "198.51.100.21"
WAY = 0.001
"""Seconds between the two points."""

SEED = 8
"""Of random ways that seem to drift alike in both directions."""

HIT_FRAMES = {
    "hit": [23, 24],
    "hit_set_back_media": [50, 51],
    "hit_set_back_unnumbered": [10, 11],
    "hit_senders": [1, 2, 39, 40],
    "hit_two_points": {"inside": [1, 62], "outside": [1, 62]},
    "hit_second": {"inside": [1, 62], "outside": [1, 62]},
    "hit_bridged": {"inside": [1, 62], "outside": [1, 62]},
    "hit_one_direction": {"near": [1, 60], "far": [1, 60]},
    "hit_drifting": {"inside": [1, 122], "outside": [1, 122]},
    "hit_set_during": {"inside": [1, 66], "outside": [1, 66]},
    "hit_wandering": {"inside": [1, 122], "outside": [1, 122]},
}


def _requests(number, every=0.5):
    """A connection with ``number`` requests; three frames each, two in the handshake besides."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443)
    conn.open(0.0)
    for i in range(number):
        conn.data(0.1 + i * every, True, b"request", acked_after=None)
        conn.data(0.13 + i * every, False, b"answer", acked_after=None)
    wire.frames = wire.frames[:2] + wire.frames[3:]
    return wire


def _two_points(wire, clock, way=lambda at, out: WAY, hops=1):
    """The frames of ``wire`` at both sides of a router; the outside clock shows ``clock(at)``."""
    inside, outside = [], []
    for frame in wire.sorted():
        at, out = float(frame.time) - START, frame["IP"].src == CLIENT
        far = frame.copy()
        near = frame
        (far if out else near)["IP"].ttl -= hops
        delay = way(at, out)
        near.time = START + at + (0 if out else delay)
        far.time = START + clock(at + (delay if out else 0))
        inside.append(near)
        outside.append(far)
    return {"inside": sorted(inside, key=lambda f: f.time), "outside": sorted(outside, key=lambda f: f.time)}


def hit_two_points():
    """One machine writes local time instead of UTC: one hour, and 0.2 s besides."""
    return _two_points(_requests(30), lambda at: at + 3600.2)


def hit_second():
    """A clock without NTP, 1.5 s behind."""
    return _two_points(_requests(30), lambda at: at - 1.5)


def hit_bridged():
    """The device between is a bridge: the hops do not tell the directions apart."""
    return _two_points(_requests(30), lambda at: at + 1.5, hops=0)


def _queries(clock):
    """DNS queries one way; the answers take another one."""
    wire = Wire()
    for n in range(60):
        wire.udp(n * 0.02, CLIENT, 41000 + n, SERVER, 53, struct.pack(">HHHHHH", 7 + n, 0x100, 1, 0, 0, 0)
                 + b"\x03www\x07example\x00\x00\x01\x00\x01")
    points = _two_points(wire, clock)
    return {"near": points["inside"], "far": points["outside"]}


def hit_one_direction():
    """Queries one way only: four seconds are longer than any way."""
    return _queries(lambda at: at + 4.0)


def hit_drifting():
    """1000 ppm in 60 s: 60 ms at the end, gained in both directions alike."""
    return _two_points(_requests(60, 1.0), lambda at: at * 1.001)


def hit_set_during():
    """NTP sets one clock by 60 ms; before it was right."""
    return _two_points(_requests(60, 1.0), lambda at: at + (0.06 if at > 31.5 else 0.0))


def near_miss_small_step():
    """Condition: a step of 20 ms or more. 8 ms are what a clock that is held by NTP may move."""
    return _two_points(_requests(60, 1.0), lambda at: at + (0.008 if at > 31.5 else 0.0))


def hit_wandering():
    """A virtual machine whose clock swings by 40 ms: no offset and drift fit both directions."""
    return _two_points(_requests(60, 1.0), lambda at: at + 0.04 * math.cos(at * math.pi / 15))


def near_miss_same_clock():
    """Condition: the clocks differ. Both points are on one machine here."""
    return _two_points(_requests(30), lambda at: at)


def near_miss_offset_within_ntp():
    """Condition: more than 100 ms apart. These are 40 ms apart."""
    return _two_points(_requests(30), lambda at: at + 0.04)


def near_miss_few_matches_inconclusive():
    """Condition: 50 packets seen at both. These are 22, one hour apart."""
    return _two_points(_requests(10), lambda at: at + 3600)


def near_miss_few_matches():
    """Condition: few packets that look apart. These 22 look alike, which nobody has to look into."""
    return _two_points(_requests(10), lambda at: at)


def near_miss_another_time_inconclusive():
    """Condition: the captures overlap in time. Nothing is in both, and by the clocks one was made a day later."""
    inside = _two_points(_requests(30), lambda at: at)["inside"]
    outside = _two_points(_requests(10), lambda at: at + 86400)["outside"]
    for frame in outside:
        frame["TCP"].seq += 77_000_000
    return {"inside": inside, "outside": outside}


def near_miss_nothing_common():
    """Condition: something is in both. Two captures of one time that share no packet compare nothing."""
    points = near_miss_another_time_inconclusive()
    for frame in points["outside"]:
        frame.time -= 86400
    return points


def near_miss_satellite():
    """Condition: the offset is longer than a way may be. Queries one way, 0.7 s later: perhaps a satellite."""
    return _queries(lambda at: at + 0.7)


def near_miss_growing_queue():
    """Condition: both directions gain. Here the way out alone becomes 60 ms longer in 60 s, as in a queue."""
    return _two_points(_requests(60, 1.0), lambda at: at, way=lambda at, out: WAY * (1 + at) if out else WAY)


def near_miss_growing_queues():
    """Condition: both directions gain. Here both ways become 60 ms longer, so that one gains and one loses."""
    return _two_points(_requests(60, 1.0), lambda at: at, way=lambda at, out: WAY * (1 + at))


def near_miss_longer_route():
    """Condition: both directions change in the same sense. Both ways become 60 ms longer at 31.5 s."""
    return _two_points(_requests(60, 1.0), lambda at: at, way=lambda at, out: WAY + (0.06 if at > 31.5 else 0.0))


def near_miss_jitter():
    """Condition: the change stands out of the scatter. Ways of 1 to 60 ms, at random."""
    ways = random.Random(SEED)
    return _two_points(_requests(60, 0.1), lambda at: at, way=lambda at, out: WAY + ways.random() * 0.06)


def near_miss_slow_drift():
    """Condition: more than 200 ppm. 50 ppm are a crystal's."""
    return _two_points(_requests(60, 1.0), lambda at: at * 1.00005)


def near_miss_sudden_queue():
    """Condition: both directions change at once. Here the way out becomes 60 ms longer at 30 s, a change of route."""
    return _two_points(_requests(60, 1.0), lambda at: at,
                       way=lambda at, out: WAY + (0.06 if out and at > 31.5 else 0.0))


def _set_back(wire, at, by):
    """The capture clock is set back by ``by`` seconds at ``at``; the frames stay in their order."""
    frames = wire.sorted()
    for frame in frames:
        if float(frame.time) - START > at:
            frame.time = float(frame.time) - by
    return frames


def hit():
    """One clock, set back by 2 s while a connection goes on."""
    return _set_back(_requests(30), 5.11, 2.0)


def hit_set_back_media():
    """The same while RTP flows one way: one direction's numbers go on."""
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 4.0)
    return _set_back(wire, 0.99, 1.5)


def _polls(number):
    wire = Wire()
    for i in range(number):
        wire.udp(i * 0.1, CLIENT, 161, SERVER, 161, b"poll %03d" % i)
    return wire


def hit_set_back_unnumbered():
    """Set back by 0.5 s, and then on without a jump, but what flows has no numbers."""
    return _set_back(_polls(40), 0.95, 0.5)


def near_miss_within_a_millisecond():
    """Condition: back by more than 1 ms. Queues of a network card reorder by less."""
    return _set_back(_requests(30), 5.11, 0.0309)


def near_miss_jump_ahead():
    """Condition: time goes back. Two seconds of silence are no fault of the clock."""
    return _set_back(_requests(30), 5.11, -2.0)


def near_miss_out_of_order():
    """Condition: numbers go on across the step. Here two parts of a capture were joined in the wrong order."""
    frames = _requests(30).sorted()
    return frames[30:] + frames[:30]


def near_miss_two_interfaces():
    """Condition: more numbers go on than back. Two interfaces were written one behind the other: time passes the
    mark, the numbers of one stream go back, and another one happens to go on."""
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 2.0)
    rtp(wire, 0.01, CLIENT, 4010, SERVER, 4010, 0.2, ssrc=0x5678)
    first = wire.sorted()
    again = [frame.copy() for frame in first[20:]]
    for frame in again:
        frame["IP"].id += 1000
        frame.time = float(frame.time) + 0.0003
    late = Wire()
    rtp(late, 0.31, CLIENT, 4010, SERVER, 4010, 0.2, ssrc=0x5678, first=1010)
    rtp(late, 2.0, CLIENT, 4000, SERVER, 4000, 0.4, first=1100)
    return first + sorted(again + late.frames, key=lambda f: f.time)


def near_miss_one_late_packet():
    """Condition: time goes on from there. One packet was written late; behind it time jumps ahead again."""
    frames = _polls(40).sorted()
    return frames[:3] + frames[4:10] + frames[3:4] + frames[10:]


def near_miss_joined():
    """Condition: time passes the old mark. It ends before: two files were joined, the later one first."""
    frames = _polls(40).sorted()
    return frames[20:] + frames[:20]


def _report(wire, at, src, ntp, ssrc):
    """A sender report (RFC 3550 §6.4.1) whose NTP timestamp is ``ntp`` seconds, None for no clock."""
    seconds, fraction = (0, 0) if ntp is None else (int(ntp), int((ntp % 1) * 2**32))
    body = struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, seconds, fraction, round(at * 8000), round(at * 50),
                       round(at * 1000))
    wire.udp(at, src, 5005, CLIENT, 5005, body)


def _senders(*clocks):
    """Senders whose clocks show ``rate * at`` seconds, or nothing, in a report every 5 s."""
    wire = Wire()
    for n, rate in enumerate(clocks):
        for i in range(20):
            at = i * 5.0 + n * 0.7
            ntp = None if rate is None else 3_976_214_400 + n * 1000 + at * rate
            _report(wire, at, f"198.51.100.{20 + n}", ntp, 0x1000 + n)
    return wire.sorted()


def hit_senders():
    """Two senders gain 500 and 530 ppm on the capture: it is the capture that is slow."""
    return _senders(1.0005, 1.00053)


def near_miss_one_sender():
    """Condition: two senders. One alone has a clock of its own."""
    return _senders(1.0005)


def near_miss_opposite_senders():
    """Condition: in the same direction. One gains and one loses."""
    return _senders(1.0005, 0.9995)


def near_miss_most_senders_right():
    """Condition: most of the senders. Two of five gain, the others agree with the capture."""
    return _senders(1.0005, 1.0005, 1.0, 1.0, 1.0)


def near_miss_crystals():
    """Condition: more than 200 ppm. 100 ppm are within what crystals may do."""
    return _senders(1.0001, 1.0001)


def near_miss_no_clock():
    """Condition: the senders have a clock. These two send 0 for want of one."""
    return _senders(None, None)


def near_miss_short_reports():
    """Condition: reports over 30 s at least. These come in 4 s, where jitter decides."""
    wire = Wire()
    for n in range(2):
        for i in range(10):
            at = i * 0.4 + n * 0.1
            _report(wire, at, f"198.51.100.{20 + n}", 3_976_214_400 + at * 1.0005, 0x1000 + n)
    return wire.sorted()
