"""TCP and UDP headers, and what the first bytes of the payload look like, in columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space

I64 = npt.NDArray[np.int64]

_HEADER = np.dtype({
    "names": ["sport", "dport", "length", "seq", "ack", "offset", "flags", "window", "b0", "b1", "w0", "w1"],
    "formats": [">u2", ">u2", ">u2", ">u4", ">u4", "u1", "u1", ">u2", "u1", "u1", "<u4", "<u4"],
    "offsets": [0, 2, 4, 4, 8, 12, 13, 14, 8, 9, 8, 12], "itemsize": 20,
})
"""TCP (RFC 9293 §3.1) and UDP (RFC 768) over one another; b0, b1, w0, w1 are the first bytes of a UDP payload."""

NONE, SIP, RTP, TLS, STUN, DNS, DTLS, KEEPALIVE, HEP, HTTP = range(10)

_METHODS = ("INVITE", "ACK ", "BYE ", "CANCEL", "REGISTER", "OPTIONS", "SUBSCRIBE", "NOTIFY", "REFER", "MESSAGE",
            "INFO ", "UPDATE", "PRACK", "PUBLISH", "SIP/2.0")
"""Methods of the IANA SIP registry, and a response."""
_SIP_STARTS = np.array(sorted({int.from_bytes(m[:4].encode(), "little") for m in _METHODS}), np.uint32)
_COOKIE = int.from_bytes(b"\x21\x12\xa4\x42", "little")
"""RFC 8489 §5."""
_HEP = int.from_bytes(b"HEP3", "little")
_GET = int.from_bytes(b"GET ", "little")
_BLANK = np.zeros(256, bool)
_BLANK[[0, 10, 13]] = True


class Transport(NamedTuple):
    """Ports, payload place and a guess at its kind for TCP and UDP rows of a batch."""

    good: npt.NDArray[np.bool_]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    at: I64
    size: I64
    """Payload on the wire."""
    kind: npt.NDArray[np.uint8]
    seq: npt.NDArray[np.uint32]
    ack: npt.NDArray[np.uint32]
    window: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.uint8]
    header: npt.NDArray[np.uint8]


def decode(space: Space, at: I64, end: I64, size: I64, tcp: npt.NDArray[np.bool_],
           whole: npt.NDArray[np.bool_]) -> Transport:
    """Headers at ``at`` of rows that are TCP or UDP; ``size`` is IP's payload on the wire, ``end`` the captured end.

    ``whole`` is False for pieces of datagrams, whose payload is not looked at.
    """
    h = space.gather(at, 20).view(_HEADER).reshape(-1)
    length = h["length"].astype(np.int64)
    # Ports are there as soon as four bytes are; a header that was cut by the snap length is not a wrong one.
    sound = (length >= 8) | (length == 0)
    wire = np.where((length == 0) | ~whole, size, np.minimum(length, size))
    header = np.full(len(at), 8, np.int64)
    if tcp.any():  # media comes in whole blocks without any TCP
        offset = (h["offset"] >> 4).astype(np.int64) * 4
        header = np.where(tcp, offset, header)
        sound = np.where(tcp, (offset >= 20) & (offset <= np.maximum(size, 20)), sound)
        wire = np.where(tcp, size, wire)
    good = (at + 8 <= end) & sound
    payload = np.maximum(wire - header, 0)
    start = np.minimum(at + header, np.maximum(end, at))
    captured = np.minimum(payload, np.maximum(end - start, 0))
    kind = udp_kind(h, captured)
    kind[~whole | tcp] = NONE
    rows = np.flatnonzero(tcp & whole & (captured >= 4))
    if len(rows):
        kind[rows] = tcp_kind(space, start[rows])
    dns = (h["sport"] == 53) | (h["dport"] == 53)
    kind[dns & whole & (captured >= 2)] = DNS
    return Transport(good, h["sport"].astype(np.uint16), h["dport"].astype(np.uint16), start, payload, kind,
                     h["seq"].astype(np.uint32), h["ack"].astype(np.uint32), h["window"].astype(np.uint16),
                     h["flags"], header.astype(np.uint8))


def datagram_kind(space: Space, at: I64, captured: I64) -> npt.NDArray[np.uint8]:
    """What datagrams with payload at ``at`` look like."""
    return udp_kind(space.gather(at - 8, 20).view(_HEADER).reshape(-1), captured)


def udp_kind(h: npt.NDArray[np.void], captured: I64) -> npt.NDArray[np.uint8]:
    """What UDP payloads look like; of ``h`` the fields b0, b1, w0 and w1 are used."""
    b0, w0 = h["b0"], h["w0"]
    kind = np.zeros(len(h), np.uint8)
    kind[(b0 >> 6 == 2) & (captured >= 8)] = RTP
    rest = np.flatnonzero((kind == NONE) & (captured > 0))
    if len(rest):
        b0, w0, have = b0[rest], w0[rest], captured[rest]
        b1 = h["b1"][rest]
        value = np.zeros(len(rest), np.uint8)
        value[(b0 >= 20) & (b0 <= 25) & (b1 == 254) & (have >= 13)] = DTLS  # RFC 9147 §4.1, RFC 7983 §7
        value[(b0 >> 6 == 0) & (h["w1"][rest] == _COOKIE) & (have >= 20)] = STUN
        value[np.isin(w0, _SIP_STARTS) & (have >= 12)] = SIP
        value[(w0 == _HEP) & (have >= 12)] = HEP
        bytes4 = w0.copy().view(np.uint8).reshape(-1, 4)
        blank = _BLANK[bytes4] | (np.arange(4) >= have[:, None])
        value[(have <= 4) & blank.all(axis=1)] = KEEPALIVE
        kind[rest] = value
    return kind


def tcp_kind(space: Space, start: I64) -> npt.NDArray[np.uint8]:
    """What TCP payloads of four bytes or more look like."""
    head = space.gather(start, 4)
    word = head.view("<u4").reshape(-1)
    kind = np.zeros(len(start), np.uint8)
    kind[(head[:, 0] >= 20) & (head[:, 0] <= 23) & (head[:, 1] == 3) & (head[:, 2] <= 4)] = TLS
    kind[np.isin(word, _SIP_STARTS)] = SIP
    kind[word == _GET] = HTTP
    return kind
