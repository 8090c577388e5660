"""Samples of RTP-DTMF-MISMATCH: a phone dials into the menu of a gateway."""

import struct

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, packet
from _craft.sip import Dialog

OURS, THEIRS = {0: "PCMU/8000", 101: "telephone-event/8000"}, {0: "PCMU/8000", 96: "telephone-event/8000"}
HIT_FRAMES = {"hit": [4, 16, 38], "hit_not_agreed": [4, 16, 38], "hit_no_end": [16, 38], "hit_split": [16, 18],
              "hit_info": [6, 7], "hit_info_unanswered": [6, 7, 8], "hit_info_relayed": [10, 11]}
PROXY = "198.51.100.5"


def event(code: int, duration: int, end: bool = False) -> bytes:
    """Payload of RFC 4733 §2.3."""
    return struct.pack(">BBH", code, 10 | end << 7, duration)


class Phone:
    """A stream of PCMU in which keys are pressed."""

    def __init__(self, answer: dict[int, str], number: int, offer: dict[int, str] | None = None) -> None:
        self.wire, self.number, self.i = Wire(), number, 0
        self.start = call(self.wire, 4.0, body(PHONE, PORT, OURS if offer is None else offer, "sendonly"), body(
            GATEWAY, GATEWAY_PORT, answer, "recvonly")) + 0.02

    def send(self, payload: int, stamp: int, data: bytes, lost: bool = False) -> None:
        if not lost:
            self.wire.udp(self.start + self.i * 0.05, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
                1000 + self.i, stamp, 1, payload, data=data))
        self.i += 1

    def talk(self, packets: int) -> None:
        for _ in range(packets):
            self.send(0, 400 * self.i, b"\x7f" * 4)

    def press(self, code: int, ends: int = 3, packets: int = 3, first: int = 0, lost_end: bool = False) -> None:
        stamp = 400 * self.i
        for k in range(packets):
            self.send(self.number, stamp, event(code, first + 400 * (k + 1)))
        for _ in range(ends):
            self.send(self.number, stamp, event(code, first + 400 * packets, True), lost_end)


def _dial(answer: dict[int, str], number: int, **options) -> list:
    phone = Phone(answer, number)
    phone.talk(10)
    for code in (4, 2):
        phone.press(code, **options)
        phone.talk(11)
    return phone.wire.sorted()


def hit():
    """The gateway takes events as 96; the phone sends them as 101, its own number."""
    return _dial(THEIRS, 101)


def hit_not_agreed():
    """The gateway does not take events at all."""
    return _dial({0: "PCMU/8000"}, 101)


def hit_no_end():
    """No packet has the end bit."""
    return _dial(OURS, 101, ends=0, packets=6)


def hit_split():
    """One press: after three packets the same key goes on with a new time stamp, and then it ends."""
    phone = Phone(OURS, 101)
    phone.talk(10)
    phone.press(7, ends=0)
    phone.press(7)
    phone.talk(10)
    return phone.wire.sorted()


def _info(status: int, kind: str = "application/dtmf-relay", sends: int = 1) -> list:
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))
    dialog.cseq += 1
    for i in range(sends):
        dialog.request(at + 1 + i * 0.5, "INFO", to_tag=True, new_branch=not i, extra=f"Content-Type: {kind}\r\n")
    if status:
        dialog.response(at + 1.1, status, "No", "INFO")
    dialog.bye(at + 4)
    return wire.sorted()


def hit_info():
    """The gateway answers 415 to an INFO with a digit."""
    return _info(415)


def hit_info_unanswered():
    """Three sends of an INFO with a digit, and no answer."""
    return _info(0, sends=3)


def hit_info_relayed():
    """A proxy passes the INFO on, and the refusal back: the gateway refuses once."""
    wire = Wire()
    before, behind = Dialog(wire, PHONE, PROXY), Dialog(wire, PROXY, GATEWAY, branches=10)
    behind.request(0.001, "INVITE", body=body(PHONE, PORT))
    behind.response(0.09, 200, "OK", body=body(GATEWAY, GATEWAY_PORT))
    behind.request(0.112, "ACK", to_tag=True)
    before.answered(0.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))
    for hop, asked, answered in ((before, 1.1, 1.106), (behind, 1.101, 1.105)):
        hop.cseq += 1
        hop.request(asked, "INFO", to_tag=True, extra="Content-Type: application/dtmf-relay\r\n")
        hop.response(answered, 415, "Unsupported Media Type", "INFO")
    before.bye(4.0)
    behind.bye(4.001)
    return wire.sorted()


def near_miss_number_of_the_receiver():
    """Condition: a number that the receiver did not give to events. Here the phone uses 96, as it is asked to."""
    return _dial(THEIRS, 96)


def near_miss_no_digit():
    """Condition: digits are sent. The numbers differ, and nobody presses a key."""
    phone = Phone(THEIRS, 101)
    phone.talk(40)
    return phone.wire.sorted()


def near_miss_another_use():
    """Condition: packets of events. What comes with 101 here is longer than an event."""
    phone = Phone(THEIRS, 101)
    phone.talk(10)
    for _ in range(6):
        phone.send(101, 400 * phone.i, b"\x04\x0a\x01\x90more")
    phone.talk(10)
    return phone.wire.sorted()


def near_miss_ends():
    """Condition: no end. Here each event ends, three times."""
    return _dial(OURS, 101)


def near_miss_end_lost():
    """Condition: nothing is missing behind it. Here the three ends are lost."""
    return _dial(OURS, 101, lost_end=True)


def near_miss_stream_ends():
    """Condition: the stream goes on. Here the capture ends while the key is down."""
    phone = Phone(OURS, 101)
    phone.talk(20)
    phone.press(4, ends=0)
    return phone.wire.sorted()


def near_miss_long_press():
    """Condition: the duration is not full. A key held for nine seconds goes on with a new time stamp."""
    phone = Phone(OURS, 101)
    phone.talk(10)
    phone.press(4, ends=0, first=0xFFFF - 1200)
    phone.press(4)
    phone.talk(10)
    return phone.wire.sorted()


def near_miss_info_accepted():
    """Condition: an error. The INFO is answered with 200."""
    return _info(200)


def near_miss_info_other_body():
    """Condition: a digit. An INFO that asks for a video frame is refused."""
    return _info(415, "application/media_control+xml")


def near_miss_info_challenged():
    """Condition: a refusal of the digit. 407 asks for credentials."""
    return _info(407)


def near_miss_info_twice():
    """Condition: three sends. Here the capture has two."""
    return _info(0, sends=2)
