"""SIP dialogs and the RTP of G.711 calls."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from frames import address, dotted, udp
from records import RECORD, Batch, Packet, sort_batch

MEDIA_PACKETS = 909
"""Per direction and call: 18.2 s of 20 ms packets."""
CALL_US = 18_500_000
LOSS, REORDER = 0.01, 0.005


@dataclass(frozen=True, slots=True)
class Dialog:
    number: int
    begin: int
    caller: int
    callee: int
    caller_port: int
    callee_port: int

    @property
    def busy(self) -> bool:
        return self.number % 11 == 10


def dialog_of(number: int, begin: int) -> Dialog:
    return Dialog(number, begin, address(10, 1, number >> 8 & 255, number & 255),
                  address(10, 2, number * 7 >> 8 & 63, number & 255),
                  10000 + 2 * (number % 20000), 10002 + 2 * (number * 3 % 20000))


def sdp(ip_text: str, port: int, number: int) -> str:
    return (f"v=0\r\no=- {number} 1 IN IP4 {ip_text}\r\ns=-\r\nc=IN IP4 {ip_text}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n")


def signalling(d: Dialog) -> list[Packet]:
    """INVITE to 200 to BYE; every eleventh call is answered 486."""
    n, caller, callee = d.number, dotted(d.caller), dotted(d.callee)
    call_id = f"{n:08x}-{n * 2654435761 & 0xFFFFFFFF:08x}@{caller}"
    branch = f"z9hG4bK{n * 40503 & 0xFFFFFF:06x}{n:x}"
    from_ = f'From: "Caller {n % 977}" <sip:caller{n % 977}@{caller}>;tag=ft{n:x}\r\n'
    methods = "INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, PRACK, UPDATE"

    def tail(tag: str, cseq: str, contact: str, agent: str, body: str) -> str:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (f"{from_}To: <sip:user{n % 9973}@{callee}>{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n"
                f"Contact: <sip:{contact}>\r\n{agent}\r\nAllow: {methods}\r\n"
                f"Supported: replaces, norefersub, timer, outbound, path\r\n{kind}"
                f"Content-Length: {len(body)}\r\n\r\n{body}")

    def request(method: str, cseq: int, suffix: str, tag: str, body: str = "") -> bytes:
        text = (f"{method} sip:user{n % 9973}@{callee}:5060 SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {caller}:5060;branch={branch}{suffix};rport\r\nMax-Forwards: 70\r\n")
        contact = f"caller{n % 977}@{caller}:5060;transport=udp"
        text += tail(tag, f"{cseq} {method}", contact, "User-Agent: Bench Phone 1.0", body)
        return udp(d.caller, d.callee, 5060, 5060, text.encode())

    def response(status: str, cseq: str, suffix: str, tag: str, body: str = "") -> bytes:
        text = (f"SIP/2.0 {status}\r\n"
                f"Via: SIP/2.0/UDP {caller}:5060;branch={branch}{suffix};rport=5060;received={caller}\r\n"
                f"Record-Route: <sip:{callee};lr;ftag=ft{n:x}>\r\n")
        text += tail(tag, cseq, f"user{n % 9973}@{callee}:5060", "Server: Bench PBX 1.0", body)
        return udp(d.callee, d.caller, 5060, 5060, text.encode())

    tag, t = f";tag=tt{n:x}", d.begin
    packets = [(t, request("INVITE", 1, "", "", sdp(caller, d.caller_port, n))),
               (t + 5_000, response("100 Trying", "1 INVITE", "", "")),
               (t + 60_000, response("180 Ringing", "1 INVITE", "", tag))]
    if d.busy:
        return [*packets, (t + 90_000, response("486 Busy Here", "1 INVITE", "", tag)),
                (t + 95_000, request("ACK", 1, "", tag))]
    return [*packets, (t + 200_000, response("200 OK", "1 INVITE", "", tag, sdp(callee, d.callee_port, n))),
            (t + 210_000, request("ACK", 1, "a", tag)), (t + CALL_US, request("BYE", 2, "b", tag)),
            (t + CALL_US + 8_000, response("200 OK", "2 BYE", "b", tag))]


def media(d: Dialog, rng: np.random.Generator) -> Batch:
    """Both directions of a G.711 call: 1 % lost, 0.5 % late by 25 ms, about 2 ms of jitter."""
    times, frames = [], []
    for direction in (0, 1):
        ends = (d.caller, d.callee, d.caller_port, d.callee_port)
        source, destination, sport, dport = ends if direction == 0 else (ends[1], ends[0], ends[3], ends[2])
        rtp = struct.pack(">BBHII", 0x80, 0, 0, 0, 0x10000000 + d.number * 2 + direction)
        n = MEDIA_PACKETS
        rows = np.empty((n, RECORD + 214), np.uint8)
        rows[:, RECORD:] = np.frombuffer(udp(source, destination, sport, dport, rtp + rng.bytes(160)), np.uint8)
        at = RECORD + 42
        sequence = (int(rng.integers(65536)) + np.arange(n)) % 65536
        timestamp = (int(rng.integers(2**32)) + 160 * np.arange(n)) % 2**32
        rows[:, at + 2 : at + 4] = sequence.astype(">u2").view(np.uint8).reshape(-1, 2)
        rows[:, at + 4 : at + 8] = timestamp.astype(">u4").view(np.uint8).reshape(-1, 4)
        rows[0, at + 1] |= 0x80
        ts = d.begin + 220_000 + 20_000 * np.arange(n) + np.abs(rng.normal(0, 2_000, n)).astype(np.int64)
        ts[rng.random(n) < REORDER] += 25_000
        kept = rng.random(n) >= LOSS
        kept[[0, -1]] = True
        times.append(ts[kept])
        frames.append(rows[kept])
    ts = np.concatenate(times)
    return sort_batch(ts, np.full(len(ts), RECORD + 214, np.int64), np.concatenate(frames).reshape(-1))
