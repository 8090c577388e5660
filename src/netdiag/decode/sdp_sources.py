"""What a session description says about sources that share a port: bundles, SSRCs and MIDs, in linear time."""

from __future__ import annotations

from typing import NamedTuple

from netdiag.decode.sdp import MEDIA_LIMIT

SOURCE_LIMIT = 256
"""SSRCs read of one media section (practice)."""
_MID = b"urn:ietf:params:rtp-hdrext:sdes:mid"


class Sources(NamedTuple):
    """One media section."""

    ssrcs: frozenset[int]
    """a=ssrc (RFC 5576 §4.1)."""
    mid: bytes
    """a=mid (RFC 5888 §4), b"" without one."""
    extension: int
    """Number of the header extension that carries the MID (RFC 8285 §5, RFC 9143 §15.2), 0 without one."""


def bundled(body: bytes) -> bool:
    """Does it group media for one port (a=group:BUNDLE, RFC 9143 §5)?"""
    return b"\na=group:BUNDLE" in body


def sections(body: bytes) -> list[Sources]:
    """Its media sections, in order."""
    return [_sources(text) for text in body.split(b"\nm=", MEDIA_LIMIT + 1)[1 : MEDIA_LIMIT + 1]]


def _sources(text: bytes) -> Sources:
    ssrcs: set[int] = set()
    mid, extension = b"", 0
    number: bytes
    for line in text.split(b"\n"):
        if line.startswith(b"a=ssrc:"):
            number = (line[7:].split(None, 1) or [b""])[0]
            if number.isdigit() and len(number) <= 10 and len(ssrcs) < SOURCE_LIMIT:
                ssrcs.add(int(number))
        elif line.startswith(b"a=mid:"):
            mid = line[6:].strip()
        elif line.startswith(b"a=extmap:"):
            words = line[9:].split()
            number = words[0].partition(b"/")[0] if words else b""
            if len(words) > 1 and words[1] == _MID and number.isdigit() and len(number) <= 3:
                extension = int(number)
    return Sources(frozenset(ssrcs), mid, extension)
