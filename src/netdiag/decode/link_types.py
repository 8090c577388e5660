"""From the frame of any link type to what it carries, in columns.

Link types are LINKTYPE_ values; their layouts are those of tcpdump.org/linktypes.html unless a function names another
source. Each reader takes frame starts and ends and gives where the next header starts, and its EtherType or one of
the small numbers of ``ethertype``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import juniper, llc, ppp, wifi
from netdiag.decode.ethertype import (
    BRIDGED,
    CUT,
    ETHERNET,
    I64,
    IP4,
    IP6,
    LLC,
    LOWEST,
    MPLS,
    PPPOE,
    PPPOE_DISCOVERY,
    REASONS,
    U16,
    UNKNOWN_LINK,
    bounded,
    ip_at,
    skip,
    typed,
)
from netdiag.decode.link_names import NAMES

__all__ = ["DECODED", "ETHERNET", "NAMES", "REASONS", "UNKNOWN_LINK", "strip"]

U32 = npt.NDArray[np.uint32]
Reader = Callable[[Space, I64, I64], tuple[I64, U16]]

_FAMILIES = np.full(256, UNKNOWN_LINK, np.uint16)
"""EtherType by address family: AF_INET; AF_INET6 of Linux, NetBSD and OpenBSD, Solaris, FreeBSD, macOS."""
_FAMILIES[2], _FAMILIES[[10, 24, 26, 28, 30]] = IP4, IP6
_FRAD, _GRE, _GRE6, _NETLINK, _WIFI, _WIFI_PRISM, _WIFI_RADIOTAP = 770, 778, 823, 824, 801, 802, 803
"""ARPHRD_ values (linux/if_arp.h) under which the protocol field of a cooked header is not an EtherType."""
_LLC_FRAME = 0x0004
"""ETH_P_802_2 (linux/if_ether.h): an LLC header follows a cooked header."""
_ATTRIBUTES = 64
"""Attributes followed in one NFLOG frame; the kernel writes at most 20 (NFULA_MAX)."""
_NESTED = 3
"""Headers inside headers (PKTAP in PPI, say) that are followed."""
_START_OF_FRAME = (0xD5, 0xE6, 0x4C, 0x7F, 0xB3)
"""Bytes that end a preamble: the ordinary one, and the starts of preemptible frames (IEEE 802.3br table 99-1)."""


def strip(space: Space, link: int, offset: I64, end: I64, depth: int = 0) -> tuple[I64, U16] | None:
    """Where what follows the link header starts, and its EtherType; None for a link type that is not known.

    ``offset`` and ``end`` are start and captured end of frames of type ``link``. Instead of an EtherType the second
    array can hold ``ETHERNET`` (a MAC header starts there) or a key of ``REASONS`` or ``UNKNOWN_LINK`` (nothing does).
    """
    if link in juniper.LINKS:
        return juniper.strip(space, link, offset, end)
    if link in (_PPI, *_PKTAP):
        return _wrapped(space, link, offset, end, depth)
    reader = _READERS.get(link)
    return reader(space, offset, end) if reader else None


def _ethernet(size: int) -> Reader:
    """A MAC header behind ``size`` bytes."""
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        return bounded(at + size, np.full(len(at), ETHERNET, np.uint16), end)
    return read


def _typed(size: int) -> Reader:
    """An EtherType behind ``size`` bytes, then what it names."""
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        return typed(space.numbers(">u2"), at + size, end)
    return read


def _llc(size: int) -> Reader:
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        return llc.header(space, at + size, end)
    return read


def _always(protocol: int) -> Reader:
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        return bounded(at.copy(), np.full(len(at), protocol, np.uint16), end)
    return read


def _behind(size: int, reader: Callable[[Space, I64, I64], tuple[I64, U16]]) -> Reader:
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        return reader(space, at + size, end)
    return read


def _raw(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    return ip_at(space.array, at.copy(), end)


def _by_family(family: U32) -> U16:
    return _FAMILIES[np.minimum(family, 0xFF)]


def _host_family(space: Space, at: I64) -> U16:
    """A family of four bytes in the order of the capturing host, which the frame does not tell: the order that
    makes it small. Some stacks write two bytes, or an EtherType, in its place.
    """
    value = space.numbers("<u4")[at].astype(np.uint32)
    protocol = _by_family(value)
    odd = np.flatnonzero(protocol == UNKNOWN_LINK)
    if len(odd):
        value = value[odd]
        value = np.where(value > 0xFFFF, value.byteswap(), value)
        value = np.where(value > 0xFFFF, value >> 16, value)
        value = np.where((value & 0xFF == 0) & (value < LOWEST), value >> 8, value)
        protocol[odd] = np.where(value < LOWEST, _by_family(value), value)
    return protocol


def _null(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    after, protocol = bounded(at + 4, _host_family(space, at), end)
    framed = np.flatnonzero(space.numbers(">u2")[at] == 0xFF03)  # PPP in disguise, as Wireshark's packet-null.c has it
    if len(framed):
        after[framed], protocol[framed] = ppp.frame(space, at[framed], end[framed])
    return after, protocol


def _loop(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    return bounded(at + 4, _by_family(space.numbers(">u4")[at]), end)


def _encrypted(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """enc(4): family, index, flags, then the packet in the clear."""
    return bounded(at + 12, _host_family(space, at), end)


def _pflog(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """pflog(4): length, family; the length is without the padding to a multiple of four."""
    size = (space.array[at].astype(np.int64) + 3) // 4 * 4
    return bounded(skip(at, size, end), _by_family(space.array[at + 1].astype(np.uint32)), end)


def _ipnet(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    return bounded(at + 24, _by_family(space.array[at + 1].astype(np.uint32)), end)


def _cooked(kind: int, hardware: int, size: int) -> Reader:
    """Linux cooked capture: offsets of the protocol and of the ARPHRD_ type, bytes of the header."""
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        u2 = space.numbers(">u2")
        protocol, device, after = u2[at + kind].astype(np.uint16), u2[at + hardware], at + size
        odd = np.flatnonzero((protocol < LOWEST) | ((device >= _FRAD) & (device <= _NETLINK)))
        if len(odd):
            after[odd], protocol[odd] = _unusual(space, protocol[odd], device[odd], after[odd], end[odd])
        return bounded(after, protocol, end)
    return read


def _unusual(space: Space, value: U16, device: U32, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows a cooked header whose protocol field may not be an EtherType."""
    protocol = value.copy()
    protocol[value < LOWEST] = LLC
    protocol[np.isin(device, (_GRE, _GRE6)) & (value == BRIDGED)] = ETHERNET
    protocol[device == _NETLINK] = UNKNOWN_LINK
    for mask, reader in (((value == _LLC_FRAME) & (device < _FRAD), llc.header), (device == _FRAD, llc.frame_relay),
                         (device == _WIFI, wifi.frame), (device == _WIFI_PRISM, wifi.prism),
                         (device == _WIFI_RADIOTAP, wifi.radiotap)):
        mine = np.flatnonzero(mask)
        if len(mine):
            at[mine], protocol[mine] = reader(space, at[mine], end[mine])
    return at, protocol


def _nflog(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Family, version, group, then attributes in the byte order of the capturing host up to the payload (number 9)."""
    octets = space.array
    after = end + 1
    hardware = np.zeros(len(at), np.uint16)
    field = at + 4
    big = octets[at + 6] == 0  # of the first attribute's number one byte is zero
    found = np.zeros(len(at), np.bool_)
    going = np.arange(len(at))
    for _ in range(_ATTRIBUTES):
        going = going[field[going] + 4 <= end[going]]
        if not len(going):
            break
        here = field[going]
        raw = space.numbers("<u4")[here].astype(np.uint32)
        size = np.where(big[going], (octets[here].astype(np.int64) << 8) + octets[here + 1], raw & 0xFFFF)
        number = np.where(big[going], octets[here + 3], octets[here + 2])
        hardware[going[number == 1]] = space.numbers(">u2")[here[number == 1] + 4]
        found[going[number == 9]] = True
        after[going[number == 9]] = here[number == 9] + 4
        keep = (number != 9) & (size >= 4)
        field[going] = skip(here, (size + 3) // 4 * 4, end[going])
        going = going[keep]
    family = octets[at].astype(np.uint32)
    protocol = _by_family(family)
    other = (protocol == UNKNOWN_LINK) & (hardware >= LOWEST)  # bridge and netdev hooks: the EtherType is noted
    protocol[other] = hardware[other]
    protocol[~found] = UNKNOWN_LINK
    after[~found] = end[~found]
    protocol[at + 4 > end] = CUT
    return bounded(after, protocol, end)


def _pppoe(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """The PPPoE header itself comes next; its code is 0 in session frames (RFC 2516 §4)."""
    protocol = np.where(space.array[at + 1] == 0, PPPOE, PPPOE_DISCOVERY).astype(np.uint16)
    protocol[at + 2 > end] = CUT
    return at.copy(), protocol


def _preamble(size: int) -> Reader:
    """``size`` bytes, up to seven bytes 0x55, the start of frame, then a MAC header."""
    def read(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
        octets, here = space.array, at + size
        for _ in range(7):
            here = here + (octets[here] == 0x55)
        protocol = np.where(np.isin(octets[here], _START_OF_FRAME), ETHERNET, UNKNOWN_LINK).astype(np.uint16)
        return bounded(here + 1, protocol, end)
    return read


def _classical_atm(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Classical IP over ATM on Linux: LLC (RFC 2684), or bare IP where the circuit has no LLC."""
    after, protocol = ip_at(space.array, at.copy(), end)
    headed = np.flatnonzero(space.numbers(">u2")[at] == 0xAAAA)
    after[headed], protocol[headed] = llc.header(space, at[headed], end[headed])
    return after, protocol


def _infiniband(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """A global routing header of 40 bytes, EtherType and two reserved bytes (RFC 4391 §6, tcpdump's print-ipoib.c)."""
    after, protocol = typed(space.numbers(">u2"), at + 40, end)
    return bounded(after + 2, protocol, end)


def _wrapped(space: Space, link: int, at: I64, end: I64, depth: int) -> tuple[I64, U16]:
    """PPI and PKTAP: a header that names the link type of what it is put in front of."""
    if link == _PPI:
        size = space.numbers("<u2")[at + 2].astype(np.int64)
        inner, good = space.numbers("<u4")[at + 4], size >= 8
    else:
        second = (space.numbers("<u4")[at + 36] & 0x80000) != 0  # flag of the second version, at one place in both
        size = np.where(second, space.array[at], space.numbers("<u4")[at]).astype(np.int64)
        inner = np.where(second, space.numbers("<u2")[at + 6], space.numbers("<u4")[at + 8])
        good = second | ((size >= 108) & (space.numbers("<u4")[at + 4] == 1))
    start = skip(at, np.maximum(size, 8), end)
    after, protocol = start.copy(), np.full(len(at), UNKNOWN_LINK, np.uint16)
    kinds = np.unique(inner[good]).tolist() if depth < _NESTED else []
    for kind in kinds[:_KINDS]:
        mine = np.flatnonzero(good & (inner == kind))
        got = _ethernet(0)(space, start[mine], end[mine]) if kind == 1 else strip(
            space, int(kind), start[mine], end[mine], depth + 1)
        if got:
            after[mine], protocol[mine] = got
    return bounded(after, protocol, end)


_PPI, _PKTAP = 192, (258, 149)
"""149 is LINKTYPE_USER2, which macOS used for PKTAP before it had a number."""
_KINDS = 64
"""Different inner link types followed in one batch: real captures have a handful."""

_READERS: dict[int, Reader] = {
    0: _null, 6: llc.token_ring, 9: ppp.frame, 10: llc.fddi, 12: _raw, 14: _raw, 50: ppp.hdlc, 51: _pppoe,
    100: _llc(0), 101: _raw, 104: ppp.cisco_hdlc, 105: wifi.frame, 106: _classical_atm, 107: llc.frame_relay,
    108: _loop, 109: _encrypted, 113: _cooked(14, 2, 16), 117: _pflog, 119: wifi.prism,
    122: _llc(16),  # RFC 2625 §3
    127: wifi.radiotap, 138: _typed(16), 163: wifi.avs, 166: ppp.directed, 204: ppp.directed,
    205: _behind(1, ppp.cisco_hdlc), 206: _behind(1, llc.frame_relay), 219: _always(MPLS), 226: _ipnet, 228: _raw,
    229: _raw, 239: _nflog, 240: _ethernet(4), 241: _preamble(4), 242: _infiniband, 274: _preamble(0),
    276: _cooked(0, 8, 20), 281: _typed(16), 282: _ethernet(4), 284: _typed(16), 285: _typed(20),
}
DECODED: frozenset[int] = frozenset({1, _PPI, _PKTAP[0], *juniper.LINKS, *_READERS})
"""Link types whose frames are taken apart; Ethernet is ``link``'s own."""
