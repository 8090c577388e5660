"""Juniper's capture headers: magic, flags, extensions, the cookie of the interface card, then the frame.

There is no specification; the layouts are those that tcpdump (print-juniper.c, by Juniper's own author) and Wireshark
(packet-juniper.c) agree on, and where a header does not name its protocol both guess by the first bytes, as here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import llc, ppp
from netdiag.decode.ethertype import ETHERNET, I64, IP4, IP6, LLC, MPLS, U16, Mask, bounded, ip_at, skip, typed

U8 = npt.NDArray[np.uint8]

_MAGIC = 0x4D4743
_IN, _NO_LINK, _EXTENDED = 0x01, 0x02, 0x80
"""Flags: received, the link header was taken off, extensions follow."""
_MLPPP, _MLFR, _GGSN, _ATM2, _SERVICES, _ATM1, _MONITOR = 130, 131, 133, 135, 136, 137, 164
_PPPOE, _PPPOE_ATM, _ETHER, _PPP, _FRELAY, _CHDLC, _VOICE, _TUNNEL = 167, 168, 178, 179, 180, 181, 183, 200
LINKS = (_MLPPP, _MLFR, _GGSN, _ATM2, _SERVICES, _ATM1, _MONITOR, _PPPOE, _PPPOE_ATM, _ETHER, _PPP, _FRELAY, _CHDLC,
         _VOICE, _TUNNEL)
"""LINKTYPE_JUNIPER_ values that are read."""
_LINK_SERVICE, _ADAPTIVE = 0x54, (0x40, 0x47)
"""First byte of the cookies of the link services card (4 bytes) and of the adaptive services card (8 bytes)."""
_LSQ = {0: IP4, 1: IP6, 2: MPLS}
"""Upper half of byte 5 of an adaptive services cookie: the protocol."""
_PPP_NUMBERS = (0x0021, 0x0023, 0x0057, 0x0281, 0x0283, 0x003D, 0x8021, 0x8023, 0x8057, 0x8281, 0xC021, 0xC023, 0xC223)
"""PPP protocols that a Juniper router speaks, by which headerless PPP is recognised."""
_VOICE_HEADER, _TUNNEL_ESP = 18, 24
"""Bytes before the packet: of the voice card; ESP header and 16 unknown bytes of a secure tunnel."""


def strip(space: Space, link: int, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows the Juniper headers of frames of one of ``LINKS``."""
    flags, payload = _header(space, at, end)
    after, protocol = _payload(space, link, flags, payload, end)
    bare = np.flatnonzero((flags & _NO_LINK) != 0)  # a protocol number of four bytes, which tcpdump does not use either
    if len(bare):
        after[bare], protocol[bare] = ip_at(space.array, payload[bare] + 4, end[bare])
    return bounded(after, protocol, end)


def _header(space: Space, at: I64, end: I64) -> tuple[U8, I64]:
    """Flags, and where the cookie or frame starts. Old releases (JUNOS 6.4) write no header at all."""
    u2, octets = space.numbers(">u2"), space.array
    found = (u2[at].astype(np.uint32) << 8 | octets[at + 2]) == _MAGIC
    flags = np.where(found, octets[at + 3], 0).astype(np.uint8)
    size = np.where(found, 4, 0)
    extended = (flags & _EXTENDED) != 0
    size = np.where(extended, 6 + u2[at + 4].astype(np.int64), size)
    return flags, skip(at, size, end)


def _payload(space: Space, link: int, flags: U8, at: I64, end: I64) -> tuple[I64, U16]:
    if link in (_ETHER, _PPPOE):
        return at.copy(), np.full(len(at), ETHERNET, np.uint16)
    if link == _PPP:
        return ppp.frame(space, at, end)
    if link == _FRELAY:
        return llc.frame_relay(space, at, end)
    if link == _CHDLC:
        return ppp.cisco_hdlc(space, at, end)
    if link == _PPPOE_ATM:
        return typed(space.numbers(">u2"), at, end)
    if link == _VOICE:
        return ip_at(space.array, at + _VOICE_HEADER, end)
    if link in (_SERVICES, _GGSN, _MONITOR):
        return _services(space, link, flags, at, end)
    if link == _TUNNEL:
        outer = at + 14
        return ip_at(space.array, outer + 4 * (space.array[outer] & 0x0F).astype(np.int64) + _TUNNEL_ESP, end)
    if link in (_ATM1, _ATM2):
        return _atm(space, link, flags, at, end)
    return _multilink(space, link, at, end)


def _services(space: Space, link: int, flags: U8, at: I64, end: I64) -> tuple[I64, U16]:
    """A cookie of 8 bytes (tcpdump), or as Wireshark has it: of GGSN cards 4, of others 12 sent and 16 received."""
    after = at + 8
    if link != _MONITOR:
        other = at + (4 if link == _GGSN else np.where((flags & _IN) != 0, 16, 12))
        after = np.where(_looks_like_ip(space.array[other]) & ~_whole(space, after, end), other, after)
    return ip_at(space.array, after, end)


def _whole(space: Space, at: I64, end: I64) -> Mask:
    """Is there an IP header at ``at`` whose length fits the frame?"""
    u2 = space.numbers(">u2")
    version = space.array[at] >> 4
    size = np.where(version == 6, u2[at + 4].astype(np.int64) + 40, u2[at + 2])
    good: Mask = _looks_like_ip(space.array[at]) & (size >= 20) & (at + size <= end)
    return good


def _looks_like_ip(first: U8) -> Mask:
    out: Mask = ((first >= 0x45) & (first <= 0x4F)) | (first >> 4 == 6)
    return out


def _atm(space: Space, link: int, flags: U8, at: I64, end: I64) -> tuple[I64, U16]:
    """A cookie, then LLC, Ethernet (RFC 2684 bridged), PPP, Cisco's NLPID or bare IP."""
    octets, u2 = space.array, space.numbers(">u2")
    if link == _ATM1:
        after, cell = at + 4, octets[at] == 0x80
        bridged = np.zeros(len(at), np.bool_)
    else:
        after, cell = at + 8, (octets[at + 7] & 0x70) != 0
        bridged = ((flags & _IN) == 0) & ((octets[at + 3] & 0x3F) != 0)
    later, protocol = ip_at(octets, after.copy(), end)
    nlpid = np.flatnonzero(octets[after] == 0x03)
    later[nlpid], protocol[nlpid] = llc.nlpid(space, after[nlpid] + 1, end[nlpid])
    if link == _ATM2:
        point = np.flatnonzero(np.isin(u2[after], _PPP_NUMBERS))
        later[point], protocol[point] = ppp.protocol(space, after[point], end[point])
    later[bridged], protocol[bridged] = after[bridged], ETHERNET
    linked = np.flatnonzero(np.isin(u2[after], (0xAAAA, 0xFEFE)) & (octets[after + 2] == 0x03))
    later[linked], protocol[linked] = llc.header(space, after[linked], end[linked])
    protocol[cell] = LLC
    return bounded(later, protocol, end)


def _multilink(space: Space, link: int, at: I64, end: I64) -> tuple[I64, U16]:
    """PPP or Frame Relay bundles: the cookie tells the protocol, or how long it is."""
    octets, u2 = space.array, space.numbers(">u2")
    first = octets[at]
    adaptive = np.isin(first, _ADAPTIVE)
    size = np.where(adaptive, 8, np.where(first == _LINK_SERVICE, 4, 0))
    after = at + size
    if link == _MLPPP:
        headed = (size == 0) & (u2[at] != 0xFF03) & ~np.isin(u2[at], _PPP_NUMBERS)
        later, protocol = ppp.frame(space, after + 2 * headed, end)
    else:
        # A bundle number of two bytes where there is no cookie, then unnumbered information and the NLPID.
        start = after + 2 * (size == 0)
        start = start + (octets[start] == 0) * 1
        later, protocol = llc.nlpid(space, start + 1, end)
        protocol[octets[start] != 0x03] = LLC
    named = octets[at + 5] >> 4
    for number, ethertype in _LSQ.items():
        mine = adaptive & (named == number)
        later[mine], protocol[mine] = after[mine], ethertype
    protocol[adaptive & (named > 2)] = LLC
    return bounded(later, protocol, end)
