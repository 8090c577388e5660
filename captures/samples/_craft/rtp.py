"""Media descriptions, RTP packets of any timing, telephone events and full report blocks for samples."""

from __future__ import annotations

import struct
from collections.abc import Callable

from _craft.network import Wire
from _craft.sip import Dialog

PHONE, GATEWAY = "203.0.113.140", "192.0.2.20"
PORT, GATEWAY_PORT = 16100, 16102
PTIME = 0.09
"""Eleven packets in a second keep samples small."""


def body(address: str, port: int, formats: dict[int, str] | None = None, direction: str = "sendrecv", version: int = 1,
         extra: str = "", kind: str = "audio") -> str:
    """An SDP body with one media line: ``formats`` is payload type to rtpmap text."""
    maps = {0: "PCMU/8000"} if formats is None else formats
    lines = "".join(f"a=rtpmap:{n} {name}\r\n" for n, name in maps.items() if name)
    return (f"v=0\r\no=- 100 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
            f"m={kind} {port} RTP/AVP {' '.join(map(str, maps))}\r\n{lines}a={direction}\r\n{extra}")


def call(wire: Wire, seconds: float, offer: str = "", answer: str = "", number: int = 1, at: float = 0.0,
         bye: bool = True, by_caller: bool = True) -> float:
    """An answered call of ``seconds`` from PHONE to GATEWAY; returns the time of the answer.

    Unless SDP is given the phone only sends: one stream keeps samples small, and is no one-way audio.
    """
    dialog = Dialog(wire, PHONE, GATEWAY, call_id=f"call-{number}@a.example")
    shift = 100 * (number - 1)
    answered = dialog.answered(at, offer or body(PHONE, PORT + shift, direction="sendonly"),
                               answer or body(GATEWAY, GATEWAY_PORT + shift, direction="recvonly"))
    if bye:
        dialog.bye(answered + seconds, by_caller)
    return answered


def packet(sequence: int, timestamp: int, ssrc: int, payload: int = 0, marker: bool = False,
           data: bytes = b"\x7f" * 4) -> bytes:
    """One RTP packet (RFC 3550 §5.1)."""
    return struct.pack(">BBHII", 0x80, payload | marker << 7, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + data


def forth(wire: Wire, at: float, seconds: float, *, ssrc: int = 1, back: bool = False, number: int = 1,
          lost: frozenset[int] = frozenset(), late: Callable[[int], float] = lambda i: 0.0, ptime: float = PTIME,
          payload: Callable[[int], int] = lambda i: 0, clock: int = 8000, first: int = 1000, stamp: int = 0,
          size: int = 4, marker: Callable[[int], bool] = lambda i: i == 0, advance: int | None = None,
          sport: int = 0, ttl: int = 64) -> list[int]:
    """A stream from PHONE to GATEWAY, or ``back``; packet ``i`` comes at ``i * ptime + late(i)`` s."""
    shift = 100 * (number - 1)
    ends = ((PHONE, sport or PORT + shift), (GATEWAY, GATEWAY_PORT + shift))
    (src, sp), (dst, dp) = reversed(ends) if back else ends
    step = round(clock * ptime) if advance is None else advance
    return [wire.udp(at + i * ptime + late(i), src, sp, dst, dp, packet(
        first + i, stamp + step * i, ssrc, payload(i), marker(i), b"\x7f" * size), ttl)
        for i in range(round(seconds / ptime)) if i not in lost]


def report(wire: Wire, at: float, *, about: int, lost: int = 0, fraction: float = 0.0, highest: int = 0,
           jitter: int = 0, ssrc: int = 1001, back: bool = True, last_sr: int = 0, delay: float = 0.0,
           sent: int | None = None, ntp: int = 0) -> int:
    """A receiver report from GATEWAY to PHONE (``back``) or the other way; a sender report with ``sent``."""
    ends = ((PHONE, PORT + 1), (GATEWAY, GATEWAY_PORT + 1))
    (src, sp), (dst, dp) = reversed(ends) if back else ends
    block = struct.pack(">IIIIII", about, round(fraction * 256) << 24 | lost & 0xFFFFFF, highest, jitter, last_sr,
                        round(delay * 65536)) if about else b""
    sender = b"" if sent is None else struct.pack(">QIII", ntp << 16, 0, sent, sent * 20)
    words = (4 + len(sender) + len(block)) // 4
    return wire.udp(at, src, sp, dst, dp, struct.pack(
        ">BBHI", 0x80 | bool(block), 201 if sent is None else 200, words, ssrc) + sender + block)


def metrics(wire: Wire, at: float, *, about: int, r: int, mos: float, loss: float = 0.0, discard: float = 0.0,
            ssrc: int = 1001, buffer: int = 60) -> int:
    """An empty receiver report and VoIP metrics (RFC 3611 §4.7) from GATEWAY to PHONE."""
    block = struct.pack(">BBHIBBBBHHHHbbBBBBBBBBHHH", 7, 0, 8, about, round(loss * 256), round(discard * 256), 0, 0, 0,
                        0, 0, 0, 127, 127, 127, 16, r, 127, round(mos * 10), 127, 0x70, 0, buffer, 120, 300)
    return wire.udp(at, GATEWAY, GATEWAY_PORT + 1, PHONE, PORT + 1, struct.pack(
        ">BBHIBBHI", 0x80, 201, 1, ssrc, 0x80, 207, 10, ssrc) + block)
