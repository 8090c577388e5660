"""SIP messages, SDP bodies and RTP streams for samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from _craft.network import Wire


def sdp(address: str, port: int, direction: str = "sendrecv", payload: int = 0, version: int = 1,
        extra: str = "") -> str:
    """An audio offer or answer with one codec (RFC 8866); ``extra`` lines follow those of the audio."""
    name = {0: "PCMU/8000", 8: "PCMA/8000"}[payload]
    return (f"v=0\r\no=- 100 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {payload}\r\na=rtpmap:{payload} {name}\r\na=ptime:20\r\na={direction}\r\n{extra}")


@dataclass
class Dialog:
    """One INVITE dialog over UDP between two addresses; each method adds a datagram and returns its index."""

    wire: Wire
    caller: str
    callee: str
    cport: int = 5060
    sport: int = 5060
    call_id: str = "call-1@a.example"
    caller_uri: str = "sip:alice@a.example"
    callee_uri: str = "sip:bob@b.example"
    contact: str = ""
    callee_contact: str = ""
    cseq: int = 1
    branches: int = field(default=0)
    callee_tag: str = "callee1"

    def branch(self) -> str:
        return f"z9hG4bK{self.call_id.split('@')[0]}{self.branches}"

    def request(self, at: float, method: str, *, from_caller: bool = True, body: str = "", to_tag: bool = False,
                cseq: int | None = None, new_branch: bool = True, uri: str = "", extra: str = "") -> int:
        if new_branch:
            self.branches += 1
        src, sp, dst, dp = self._path(from_caller)
        tags = ("caller1", self.callee_tag) if from_caller else (self.callee_tag, "caller1")
        uris = (self.caller_uri, self.callee_uri) if from_caller else (self.callee_uri, self.caller_uri)
        number = self.cseq if cseq is None else cseq
        to = f"<{uris[1]}>" + (f";tag={tags[1]}" if to_tag else "")
        contact = (self.contact if from_caller else self.callee_contact) or f"sip:ua@{src}:{sp}"
        content = "Content-Type: application/sdp\r\n" if body else ""
        text = (f"{method} {uri or uris[1]} SIP/2.0\r\nVia: SIP/2.0/UDP {src}:{sp};branch={self.branch()};rport\r\n"
                f"Max-Forwards: 70\r\nFrom: <{uris[0]}>;tag={tags[0]}\r\nTo: {to}\r\nCall-ID: {self.call_id}\r\n"
                f"CSeq: {number} {method}\r\nContact: <{contact}>\r\n{extra}{content}"
                f"Content-Length: {len(body)}\r\n\r\n{body}")
        return self.wire.udp(at, src, sp, dst, dp, text.encode())

    def response(self, at: float, status: int, reason: str, method: str = "INVITE", *, to_caller: bool = True,
                 body: str = "", cseq: int | None = None, extra: str = "", to_tag: bool = True) -> int:
        dst, dp, src, sp = self._path(to_caller)
        tags = ("caller1", self.callee_tag) if to_caller else (self.callee_tag, "caller1")
        uris = (self.caller_uri, self.callee_uri) if to_caller else (self.callee_uri, self.caller_uri)
        number = self.cseq if cseq is None else cseq
        to = f"<{uris[1]}>" + (f";tag={tags[1]}" if to_tag and status > 100 else "")
        contact = (self.callee_contact if to_caller else self.contact) or f"sip:ua@{src}:{sp}"
        content = "Content-Type: application/sdp\r\n" if body else ""
        text = (f"SIP/2.0 {status} {reason}\r\n"
                f"Via: SIP/2.0/UDP {dst}:{dp};branch={self.branch()};rport={dp};received={dst}\r\n"
                f"From: <{uris[0]}>;tag={tags[0]}\r\nTo: {to}\r\nCall-ID: {self.call_id}\r\n"
                f"CSeq: {number} {method}\r\nContact: <{contact}>\r\n{extra}{content}"
                f"Content-Length: {len(body)}\r\n\r\n{body}")
        return self.wire.udp(at, src, sp, dst, dp, text.encode())

    def answered(self, at: float, offer: str, answer: str, ring: float = 0.1, ack: bool = True) -> float:
        """INVITE, 100, 180, 200 and ACK; returns the time of the answer."""
        self.request(at, "INVITE", body=offer)
        self.response(at + 0.01, 100, "Trying")
        self.response(at + 0.05, 180, "Ringing")
        self.response(at + ring, 200, "OK", body=answer)
        if ack:
            self.request(at + ring + 0.01, "ACK", to_tag=True)
        return at + ring

    def bye(self, at: float, by_caller: bool = True) -> None:
        """BYE and its 200."""
        self.cseq += 1
        self.request(at, "BYE", from_caller=by_caller, to_tag=True)
        self.response(at + 0.01, 200, "OK", "BYE", to_caller=by_caller)

    def _path(self, from_caller: bool) -> tuple[str, int, str, int]:
        if from_caller:
            return self.caller, self.cport, self.callee, self.sport
        return self.callee, self.sport, self.caller, self.cport


def rtp(wire: Wire, at: float, src: str, sport: int, dst: str, dport: int, seconds: float, *, ssrc: int = 0x1234,
        payload: int = 0, ptime: float = 0.02, size: int = 20, first: int = 1000, lost: frozenset[int] = frozenset(),
        ttl: int = 64) -> list[int]:
    """An RTP stream (RFC 3550 §5.1) of short packets; ``size`` payload bytes keep samples small."""
    out = []
    for i in range(round(seconds / ptime)):
        if i in lost:
            continue
        header = struct.pack(">BBHII", 0x80, payload | (0x80 if i == 0 else 0), (first + i) & 0xFFFF,
                             (160 * i * round(ptime / 0.02)) & 0xFFFFFFFF, ssrc)
        out.append(wire.udp(at + i * ptime, src, sport, dst, dport, header + b"\x7f" * size, ttl=ttl))
    return out


def rtcp_report(wire: Wire, at: float, src: str, sport: int, dst: str, dport: int, *, ssrc: int,
                about: int | None = None, highest: int = 0, lost: int = 0, fraction: int = 0,
                sent: int | None = None) -> int:
    """An SR (with ``sent`` packets) or RR, with one report block or, without ``about``, none (RFC 3550 §6.4)."""
    block = b"" if about is None else struct.pack(">IIIIII", about, fraction << 24 | lost, highest, 0, 0, 0)
    sender = b"" if sent is None else struct.pack(">IIIII", 0, 0, 0, sent, sent * 20)
    words = (4 + len(sender) + len(block)) // 4
    body = struct.pack(">BBHI", 0x80 | bool(block), 201 if sent is None else 200, words, ssrc) + sender + block
    return wire.udp(at, src, sport, dst, dport, body)


def register(wire: Wire, at: float, phone: str, pport: int, registrar: str, *, aor: str = "sip:100@pbx.example",
             contact: str, call_id: str, cseq: int, expires: int = 3600, status: int = 200, granted: int | None = None,
             instance: str = "") -> tuple[int, int]:
    """A REGISTER and its response, as the registrar's side of a NAT sees them; ``contact`` is what the phone wrote."""
    param = f";+sip.instance=\"<urn:uuid:{instance}>\"" if instance else ""
    head = (f"Via: SIP/2.0/UDP {contact.split('@')[-1]};branch=z9hG4bKreg{call_id}{cseq};rport\r\n"
            f"From: <{aor}>;tag=r{cseq}\r\nTo: <{aor}>{{}}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n")
    request = (f"REGISTER sip:pbx.example SIP/2.0\r\n{head.format('')}Contact: <sip:{contact}>{param}\r\n"
               f"Expires: {expires}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n")
    first = wire.udp(at, phone, pport, registrar, 5060, request.encode())
    lifetime = granted if granted is not None else expires
    shown = f"Contact: <sip:{contact}>;expires={lifetime}\r\n" if status == 200 else ""
    reply = f"SIP/2.0 {status} X\r\n{head.format(';tag=s1')}{shown}Content-Length: 0\r\n\r\n"
    return first, wire.udp(at + 0.01, registrar, 5060, phone, pport, reply.encode())
