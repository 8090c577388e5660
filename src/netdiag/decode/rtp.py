"""RTP header fields as columns, and the static payload types.

Sources: RFC 3550 §5.1 (fixed header), RFC 5761 §4 (telling RTCP from RTP on one port),
RFC 3551 tables 4 and 5 (static payload types), RFC 8285 (header extensions).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

HEADER = 12
"""Bytes of the fixed header (RFC 3550 §5.1)."""

RTCP_FIRST, RTCP_LAST = 192, 223
"""Second byte of RTCP packets that share a port with RTP (RFC 5761 §4)."""

_FIXED = np.dtype({
    "names": ["first", "second", "sequence", "timestamp", "ssrc"],
    "formats": ["u1", "u1", ">u2", ">u4", ">u4"],
    "offsets": [0, 1, 2, 4, 8],
    "itemsize": HEADER,
})

STATIC_TYPES: dict[int, tuple[str, int]] = {
    0: ("PCMU", 8000), 3: ("GSM", 8000), 4: ("G723", 8000), 5: ("DVI4", 8000), 6: ("DVI4", 16000), 7: ("LPC", 8000),
    8: ("PCMA", 8000), 9: ("G722", 8000), 10: ("L16", 44100), 11: ("L16", 44100), 12: ("QCELP", 8000), 13: ("CN", 8000),
    14: ("MPA", 90000), 15: ("G728", 8000), 16: ("DVI4", 11025), 17: ("DVI4", 22050), 18: ("G729", 8000),
    25: ("CelB", 90000), 26: ("JPEG", 90000), 28: ("nv", 90000), 31: ("H261", 90000), 32: ("MPV", 90000),
    33: ("MP2T", 90000), 34: ("H263", 90000),
}
"""Payload type to encoding name and clock rate in Hz (RFC 3551 tables 4 and 5). G.722 is 8000 by §4.5.2."""


class RtpHeaders(NamedTuple):
    """Header fields of n packets, one array of length n each."""

    sequence: U16
    timestamp: U32
    ssrc: U32
    payload_type: U8
    marker: Mask
    minimum: U16
    """Bytes that the packet must have by its own header: fixed header, CSRC list and the head of an extension."""

    def take(self, index: npt.NDArray[np.int64]) -> RtpHeaders:
        """The packets at these places, in this order."""
        return RtpHeaders(self.sequence[index], self.timestamp[index], self.ssrc[index], self.payload_type[index],
                          self.marker[index], self.minimum[index])


def headers(data: U8) -> RtpHeaders:
    """Fields of fixed RTP headers; ``data`` has shape (n, 12), one packet a row."""
    fields = np.ascontiguousarray(data).view(_FIXED)[:, 0]
    first = fields["first"]
    second = fields["second"]
    # RFC 3550 §5.1: 4 bytes for each of CC sources; §5.3.1: an extension begins with 4 bytes.
    minimum = HEADER + 4 * (first & 15).astype(np.uint16) + ((first & 16) >> 2)
    return RtpHeaders(
        fields["sequence"].astype(np.uint16), fields["timestamp"].astype(np.uint32), fields["ssrc"].astype(np.uint32),
        (second & 127).astype(np.uint8), second >= 128, minimum.astype(np.uint16),
    )


def looks_rtcp(second: U8) -> Mask:
    """Is this second byte of a version 2 packet the packet type of RTCP rather than marker and payload type of RTP?"""
    return (second >= RTCP_FIRST) & (second <= RTCP_LAST)


def assignable(payload_type: U8) -> Mask:
    """May this payload type carry media (RFC 3551 §6)? 64-95 collide with RTCP (RFC 5761 §4)."""
    return (payload_type < 64) | (payload_type >= 96)


def extension(packet: bytes, number: int) -> bytes | None:
    """Element ``number`` of the header extension (RFC 8285 §4.2, §4.3) of an RTP packet, None where it has none."""
    if len(packet) < HEADER or not packet[0] & 16:
        return None
    at = HEADER + 4 * (packet[0] & 15)
    profile, end = packet[at : at + 2], at + 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    one_byte = profile == b"\xbe\xde"
    if not one_byte and (len(profile) < 2 or int.from_bytes(profile, "big") >> 4 != 0x100):
        return None
    at += 4
    while at < min(end, len(packet)):
        first = packet[at]
        if first == 0:  # padding
            at += 1
            continue
        ident, size, skip = (first >> 4, (first & 15) + 1, 1) if one_byte else (
            first, packet[at + 1] if at + 1 < len(packet) else 0, 2)
        if one_byte and ident == 15:  # RFC 8285 §4.2: stop here
            return None
        if ident == number:
            return packet[at + skip : at + skip + size]
        at += skip + size
    return None
