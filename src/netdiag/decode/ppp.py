"""PPP in its framings, and Cisco HDLC."""

from __future__ import annotations

import numpy as np

from netdiag.capture.space import Space
from netdiag.decode.ethertype import I64, IP4, IP6, LLC, MPLS, U16, bounded, typed

_PROTOCOLS = {0x0021: IP4, 0x0057: IP6, 0x0281: MPLS, 0x0283: MPLS + 1}
"""PPP protocol numbers (IANA ppp-numbers) to EtherTypes."""
_ALL_STATIONS = 0xFF03
"""Address and control bytes in front of the protocol (RFC 1662 §3.1)."""
_CISCO = (0x0F, 0x8F)
"""First byte of Cisco's framing: unicast, multicast (RFC 1547 §4.3.1)."""


def protocol(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows the PPP protocol field at ``at``, of one byte where it is compressed (RFC 1661 §6.5)."""
    first = space.array[at]
    short = (first & 1) == 1
    number = np.where(short, first, space.numbers(">u2")[at])
    out = np.full(len(at), LLC, np.uint16)
    for value, ethertype in _PROTOCOLS.items():
        out[number == value] = ethertype
    return bounded(at + np.where(short, 1, 2), out, end)


def frame(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """PPP, with or without address and control bytes."""
    framed = space.numbers(">u2")[at] == _ALL_STATIONS
    return protocol(space, at + 2 * framed, end)


def directed(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """PPP whose first byte is the direction: instead of the address (LINKTYPE_PPP_PPPD) or in front of it."""
    bare = space.array[at + 1] == 0x03
    after, out = frame(space, at + 1 + bare, end)
    return after, out


def hdlc(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """PPP, or Cisco HDLC where the address byte is Cisco's."""
    after, out = frame(space, at, end)
    cisco = np.flatnonzero(np.isin(space.array[at], _CISCO))
    if len(cisco):
        after[cisco], out[cisco] = cisco_hdlc(space, at[cisco], end[cisco])
    return after, out


def cisco_hdlc(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Address, control, EtherType."""
    return typed(space.numbers(">u2"), at + 2, end)
