"""Tunnels over IP and UDP: where the packet inside starts, in columns.

A datagram on a tunnel's port is opened only if the tunnel's header holds together; else it stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import encap, ppp, pseudowire, tags
from netdiag.decode.ethertype import ETHERNET, IP4, IP6, LOWEST, MPLS

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

MAX_DEPTH = 8
"""Tunnels opened inside one another (practice: real ones are two or three deep)."""
_EXTENSIONS = 8
"""GTP-U extension headers followed (practice: TS 29.281 §5.2 defines fewer)."""

_MPLS_IN_UDP = 100
"""A kind for the readers only: its level in the path is MPLS."""
_WCCP = 0x883E
_PORTS = {4789: encap.VXLAN, 8472: encap.VXLAN, 4790: encap.GPE, 6081: encap.GENEVE, 2152: encap.GTP,
          3544: encap.TEREDO, 1701: encap.L2TP, 6080: encap.GUE, 6635: _MPLS_IN_UDP}
"""RFC 7348, the Linux kernel's default for VXLAN (drivers/net/vxlan), draft-ietf-nvo3-vxlan-gpe, RFC 8926,
3GPP TS 29.281, RFC 4380, RFC 2661 and RFC 3931, draft-ietf-intarea-gue, RFC 7510."""
_PROTOCOLS = {4: encap.IPIP, 41: encap.SIX, 47: encap.GRE, 97: encap.ETHERIP, 115: encap.L2TPV3, 137: encap.MPLS}
"""RFC 2003, RFC 4213, RFC 2784, RFC 3378, RFC 3931, RFC 4023."""

BY_PORT = np.zeros(65536, np.uint8)
BY_PROTOCOL = np.zeros(256, np.uint8)
for _number, _kind in _PORTS.items():
    BY_PORT[_number] = _kind + 1
for _number, _kind in _PROTOCOLS.items():
    BY_PROTOCOL[_number] = _kind + 1


@dataclass(slots=True)
class Inside:
    """What a tunnel of one kind carries, for the rows that could be opened."""

    good: Mask
    at: I64
    """Where it starts."""
    protocol: U16
    """EtherType, or ``ethertype.ETHERNET``."""
    ident: U32
    kind: npt.NDArray[np.uint8] | None = None
    """Where the header itself tells more kinds apart (GRE)."""
    exact: Mask | None = None
    """Headers that chance writes too easily: the packet inside must fill the rest (``ip.fills``)."""


def open_kind(space: Space, kind: int, at: I64, end: I64, stop: I64) -> Inside:
    """Headers of one kind at ``at`` (payload of UDP or IP); ``end`` is where the captured payload stops, ``stop`` where
    the packet did on the wire.
    """
    inside = _READERS[kind](space, at, end)
    third = np.flatnonzero((inside.kind == encap.L2TPV3) & inside.good) if inside.kind is not None else ()
    if len(third):
        inside.good[third], inside.at[third] = pseudowire.ethernet(space, inside.at[third], end[third], stop[third])
    # The shortest inner packet is an IPv4 header.
    inside.good &= (inside.at >= at) & (inside.at + 20 <= end)
    return inside


def _by_version(space: Space, at: I64) -> U16:
    """EtherType by the first four bits of an IP header; 0 for neither."""
    version = space.array[at] >> 4
    return np.where(version == 4, IP4, np.where(version == 6, IP6, 0)).astype(np.uint16)


def _none(n: int) -> U32:
    return np.zeros(n, np.uint32)


def _vxlan(space: Space, at: I64, end: I64) -> Inside:
    h = space.gather(at, 8)  # RFC 7348 §5: flags with the I bit, 24 reserved bits, VNI
    vni = h[:, 4:8].copy().view(">u4").reshape(-1) >> 8
    good = (at + 8 <= end) & (h[:, 0] & 0x08 != 0) & (h[:, 7] == 0)
    return Inside(good, at + 8, np.full(len(at), ETHERNET, np.uint16), vni.astype(np.uint32))


def _gpe(space: Space, at: I64, end: I64) -> Inside:
    """draft-ietf-nvo3-vxlan-gpe §3: version 0, bits I and P, not OAM; what is reserved is 0."""
    h = space.gather(at, 8)
    word = h.view(">u4").reshape(-1, 2)
    protocol = np.zeros(len(at), np.uint16)
    for number, ethertype in tags.NSH_CARRIES.items():
        protocol[h[:, 3] == number] = ethertype
    good = (at + 8 <= end) & (word[:, 0] >> 8 == 0x0C0000) & (protocol != 0) & (h[:, 7] == 0)
    return Inside(good, at + 8, protocol, (word[:, 1] >> 8).astype(np.uint32))


def _gue(space: Space, at: I64, end: I64) -> Inside:
    """draft-ietf-intarea-gue §3 and §4: variant 0 with an IP packet and no flag but that of private data, as the Linux
    kernel has it (include/net/gue.h); variant 1 is the IP packet itself, whose version begins with the same bits.
    """
    h = space.gather(at, 4)
    bare = h[:, 0] >> 6 == 1
    words = np.where(bare, 0, (h[:, 0] & 31).astype(np.int64))
    here = np.minimum(at + np.where(bare, 0, 4 + words * 4), end)
    protocol = _by_version(space, here)
    named = np.where(h[:, 1] == 4, IP4, np.where(h[:, 1] == 41, IP6, 0))
    good = (h[:, 0] >> 5 == 0) & (h[:, 2] == 0) & (h[:, 3] <= np.minimum(words, 1)) & (named == protocol)
    return Inside((bare | good) & (protocol != 0), here, protocol, _none(len(at)), exact=np.ones(len(at), np.bool_))


def _geneve(space: Space, at: I64, end: I64) -> Inside:
    h = space.gather(at, 8)  # RFC 8926 §3.4
    protocol = h[:, 2:4].copy().view(">u2").reshape(-1).astype(np.uint16)
    vni = h[:, 4:8].copy().view(">u4").reshape(-1) >> 8
    good = (at + 8 <= end) & (h[:, 0] >> 6 == 0) & np.isin(protocol, (0x6558, IP4, IP6))
    protocol[protocol == 0x6558] = ETHERNET
    return Inside(good, at + 8 + (h[:, 0] & 63).astype(np.int64) * 4, protocol, vni.astype(np.uint32))


def _gtp(space: Space, at: I64, end: I64) -> Inside:
    h = space.gather(at, 12)  # 3GPP TS 29.281 §5.1: version 1, protocol type GTP, message type 255 (G-PDU)
    good = (at + 8 <= end) & (h[:, 0] >> 4 == 3) & (h[:, 1] == 255)
    here = at + np.where(h[:, 0] & 7, 12, 8)
    todo = np.flatnonzero(good & (h[:, 0] & 4 != 0) & (h[:, 11] != 0))
    for _ in range(_EXTENSIONS):
        todo = todo[here[todo] < end[todo]]
        if not len(todo):
            break
        size = space.array[here[todo]].astype(np.int64) * 4  # §5.2.1: length in units of four bytes
        good[todo[size == 0]] = False
        here[todo] += size
        todo = todo[(size > 0) & (here[todo] <= end[todo])]
        todo = todo[space.array[here[todo] - 1] != 0]
    good[todo] = False
    protocol = _by_version(space, np.minimum(here, end))
    return Inside(good & (protocol != 0), here, protocol, _none(len(at)))


def _teredo(space: Space, at: I64, end: I64) -> Inside:
    here = at.copy()
    h = space.gather(here, 4)  # RFC 4380 §5.1.1: authentication, then origin indication, both optional
    signed = (h[:, 0] == 0) & (h[:, 1] == 1)
    here += np.where(signed, 13 + h[:, 2].astype(np.int64) + h[:, 3], 0)
    here = np.minimum(here, end)
    h = space.gather(here, 4)
    here = np.minimum(here + np.where((h[:, 0] == 0) & (h[:, 1] == 0), 8, 0), end)
    good = space.array[here] >> 4 == 6
    return Inside(good, here, np.full(len(at), IP6, np.uint16), _none(len(at)))


def _l2tp(space: Space, at: I64, end: I64) -> Inside:
    word = space.numbers(">u2")
    flags = word[at].astype(np.int64)  # RFC 2661 §3.1: data messages of version 2
    good = (flags & 0xB4FF) == 2  # what is reserved is 0
    here = at + 6 + np.where(flags & 0x4000, 2, 0) + np.where(flags & 0x0800, 4, 0)
    here = np.minimum(here, end)
    here = np.minimum(here + np.where(flags & 0x0200, 2 + word[here].astype(np.int64), 0), end)
    out = _ppp(space, good, here, end)
    out.kind = np.full(len(at), encap.L2TP, np.uint8)
    third = np.flatnonzero(space.numbers(">u4")[at] == 0x30000)  # RFC 3931 §4.1.2.1: data messages of version 3
    if len(third):
        later = _l2tp_3(space, at[third] + 4, end[third])
        out.good[third], out.at[third], out.protocol[third], out.kind[third] = (
            later.good, later.at, later.protocol, encap.L2TPV3)
    return out


def _l2tp_3(space: Space, at: I64, end: I64) -> Inside:
    """RFC 3931 §4.1.1: the session, which is 0 in control messages; ``pseudowire`` finds what is behind it."""
    good = np.asarray(space.numbers(">u4")[at] != 0)
    return Inside(good, at + 4, np.full(len(at), ETHERNET, np.uint16), _none(len(at)),
                  np.full(len(at), encap.L2TPV3, np.uint8))


def _ppp(space: Space, good: Mask, here: I64, end: I64) -> Inside:
    after, protocol = ppp.frame(space, here, end)
    return Inside(good & (protocol >= LOWEST), after, protocol, _none(len(here)))


def _gre(space: Space, at: I64, end: I64) -> Inside:
    h = space.gather(at, 8)
    flags = h[:, 0].astype(np.int64) << 8 | h[:, 1]
    version = flags & 7
    protocol = (h[:, 2].astype(np.uint16) << np.uint16(8)) | h[:, 3]
    checksum, key, sequence = flags & 0x8000 != 0, flags & 0x2000 != 0, flags & 0x1000 != 0  # RFC 2784, RFC 2890
    key_at = at + 4 + np.where(checksum, 4, 0)
    ident = np.where(key & (version == 0), space.numbers(">u4")[key_at], 0).astype(np.uint32)
    here = key_at + np.where(key, 4, 0) + np.where(sequence, 4, 0)
    good = (at + 4 <= end) & (flags & 0x4000 == 0) & (here <= end)
    here = np.minimum(here, end)
    kind = np.full(len(at), encap.GRE, np.uint8)
    out = Inside(good, here, protocol, ident, kind)

    pptp = np.flatnonzero((version == 1) & (protocol == 0x880B))  # RFC 2637 §4.1: an acknowledgment may follow
    if len(pptp):
        start = np.minimum(here[pptp] + np.where(flags[pptp] & 0x80, 4, 0), end[pptp])
        ppp = _ppp(space, good[pptp], start, end[pptp])
        out.good[pptp], out.at[pptp], out.protocol[pptp], kind[pptp] = ppp.good, ppp.at, ppp.protocol, encap.PPTP
    out.good &= (version == 0) | (kind == encap.PPTP)
    # WCCP: IPv4, in version 2 behind four bytes (draft-mclaggan-wccp-v2rev1, net/ipv4/gre_demux.c of Linux).
    redirected = np.flatnonzero((protocol == _WCCP) & (flags == 0))
    if len(redirected):
        first, last = space.array[here[redirected]], end[redirected]
        out.at[redirected] += np.where((first >> 4 == 4) & (first & 15 >= 5), 0, 4)
        protocol[redirected] = _by_version(space, np.minimum(out.at[redirected], last))
        out.good[redirected] &= protocol[redirected] == IP4
    known = np.isin(protocol, (IP4, IP6, MPLS, tags.NSH))
    ethernet = np.isin(protocol, (0x6558, 0x88BE, 0x22EB))
    # ERSPAN (draft-foschiano-erspan §4): type I has no header and no GRE sequence, II has 8 bytes, III has 12 or 20.
    mirrored = np.flatnonzero(((protocol == 0x88BE) | (protocol == 0x22EB)) & (version == 0))
    if len(mirrored):
        e = space.gather(here[mirrored], 12)
        third = protocol[mirrored] == 0x22EB
        bare = ~third & ~sequence[mirrored]
        session = ((e[:, 2].astype(np.uint32) << np.uint32(8)) | e[:, 3]) & np.uint32(0x3FF)
        out.good[mirrored] &= bare | (e[:, 0] >> 4 == np.where(third, 2, 1))
        out.ident[mirrored] = np.where(bare, 0, session)
        out.at[mirrored] += np.where(bare, 0, np.where(third, np.where(e[:, 11] & 1, 20, 12), 8))
        kind[mirrored] = encap.ERSPAN
    out.good &= known | ethernet | (kind == encap.PPTP)
    out.protocol[ethernet] = ETHERNET
    if len(mirrored):
        carried = np.where(third, e[:, 10] >> 2 & 31, 0)  # type III names what it carries: Ethernet, or 2 for IP
        bare_ip = mirrored[carried == 2]
        out.protocol[bare_ip] = _by_version(space, np.minimum(out.at[bare_ip], end[bare_ip]))
        out.good[mirrored] &= (carried == 0) | ((carried == 2) & (out.protocol[mirrored] != 0))
    return out


def _ip_in_ip(space: Space, at: I64, end: I64) -> Inside:
    protocol = _by_version(space, at)
    return Inside(protocol != 0, at.copy(), protocol, _none(len(at)))


def _etherip(space: Space, at: I64, end: I64) -> Inside:
    good = space.numbers(">u2")[at] == 0x3000  # RFC 3378 §3: version 3, the rest zero
    return Inside(np.asarray(good, np.bool_), at + 2, np.full(len(at), ETHERNET, np.uint16), _none(len(at)))


def _mpls_in_ip(space: Space, at: I64, end: I64) -> Inside:
    return Inside(np.ones(len(at), np.bool_), at.copy(), np.full(len(at), MPLS, np.uint16), _none(len(at)))


def _mpls_in_udp(space: Space, at: I64, end: I64) -> Inside:
    """RFC 7510 §3: a stack of labels, which most bytes are."""
    out = _mpls_in_ip(space, at, end)
    out.kind, out.exact = np.full(len(at), encap.MPLS, np.uint8), out.good.copy()
    return out


_READERS: dict[int, Callable[[Space, I64, I64], Inside]] = {
    encap.VXLAN: _vxlan, encap.GENEVE: _geneve, encap.GTP: _gtp, encap.TEREDO: _teredo, encap.L2TP: _l2tp,
    encap.GRE: _gre, encap.IPIP: _ip_in_ip, encap.SIX: _ip_in_ip, encap.ETHERIP: _etherip, encap.MPLS: _mpls_in_ip,
    encap.GPE: _gpe, encap.GUE: _gue, encap.L2TPV3: _l2tp_3, _MPLS_IN_UDP: _mpls_in_udp,
}
