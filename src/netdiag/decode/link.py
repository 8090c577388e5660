"""Link layer: from a frame to its network protocol, in columns; tags and labels on the way become levels of its path.

Link types are LINKTYPE_ values (tcpdump.org/linktypes.html).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import encap, link_types, llc, ppp, tags
from netdiag.decode.ethertype import (
    CUT,
    ETHERNET,
    I64,
    IP4,
    IP6,
    LABELLED,
    LLC,
    LOWEST,
    MPLS,
    PPPOE,
    U16,
    UNKNOWN_LINK,
    ip_at,
)

_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
"""IEEE 802.1Q, 802.1ad and the two older QinQ values."""
_MPLS_MULTICAST = 0x8848
_DEPTH = 16
"""Tags and labels followed in one frame; real stacks are far shorter (practice)."""


class Network(NamedTuple):
    """Where the network header of each frame starts."""

    at: I64
    protocol: U16
    """EtherType, or one of the small numbers of ``ethertype`` that say why there is none."""
    path: U16 | None = None
    """Number of the path of tags and labels; None where no frame has any."""


def decode(space: Space, link: int, offset: I64, captured: npt.NDArray[np.uint32], paths: encap.Paths) -> Network:
    """Network headers of frames of one link type; ``offset`` and ``captured`` of the frames."""
    end = offset + captured
    if link == 1:
        at, protocol = offset + 14, _type_or_length(space.numbers(">u2")[offset + 12])
        old = np.flatnonzero(protocol == LLC)
        if len(old):
            at[old], protocol[old] = llc.header(space, at[old], end[old])
        return follow(space, at, protocol, end, paths)
    found = link_types.strip(space, link, offset, end)
    if found is None:
        return Network(offset, np.full(len(offset), UNKNOWN_LINK, np.uint16))
    return follow(space, *found, end, paths)


def follow(space: Space, at: I64, protocol: U16, end: I64, paths: encap.Paths, path: U16 | None = None) -> Network:
    """Follows Ethernet headers, tags, MPLS labels and PPPoE; ``at`` is behind the EtherType.

    ``at`` and ``protocol`` are changed in place. ``path`` is what the frames are wrapped in already.
    """
    odd = np.flatnonzero((protocol != IP4) & (protocol != IP6))
    if not len(odd):
        return _bounded(at, protocol, end, path)
    u2 = space.numbers(">u2")

    def wrapped(rows: I64, kind: int, ident: npt.NDArray[np.uint32] | None = None) -> None:
        nonlocal path
        if path is None:
            path = np.zeros(len(at), np.uint16)
        path[rows] = paths.extend(path[rows], kind, ident)

    def without_type(rows: I64) -> None:
        length = rows[protocol[rows] == LLC]
        if len(length):
            at[length], protocol[length] = llc.header(space, at[length], end[length])

    def passed(rows: I64, kind: int) -> I64:
        found = tags.READERS[kind](space, at[rows], end[rows])
        good = np.flatnonzero(found.good)
        rows = rows[good]
        at[rows], protocol[rows] = found.after[good], found.protocol[good]
        if found.level is not None and len(rows):
            wrapped(rows, found.level, found.ident[good] if found.ident is not None else None)
        without_type(rows)
        return rows

    for _ in range(_DEPTH):
        if not len(odd):
            break
        kind = protocol[odd]
        ethernet = odd[kind == ETHERNET]
        if len(ethernet):
            protocol[ethernet] = _type_or_length(u2[at[ethernet] + 12])
            at[ethernet] += 14
            without_type(ethernet)
        tag = odd[np.isin(kind, _TAGS)]
        if len(tag):
            number = (u2[at[tag]] & 0xFFF).astype(np.uint32)
            named = number != 0  # VLAN 0 is a priority tag (IEEE 802.1Q §9.6)
            if named.any():
                wrapped(tag[named], encap.VLAN, number[named])
            protocol[tag] = _type_or_length(u2[at[tag] + 2])
            at[tag] += 4
            without_type(tag)
        pppoe = odd[kind == PPPOE]
        if len(pppoe):
            wrapped(pppoe, encap.PPPOE, u2[at[pppoe] + 2].astype(np.uint32))
            at[pppoe], protocol[pppoe] = ppp.protocol(space, at[pppoe] + 6, end[pppoe])
        mpls = odd[(kind == MPLS) | (kind == _MPLS_MULTICAST)]
        if len(mpls):
            bottom = space.array[at[mpls] + 2] & 1  # RFC 3032 §2.1
            at[mpls] += 4
            last = mpls[bottom == 1]
            if len(last):
                wrapped(last, encap.MPLS)
            at[last], protocol[last] = _labelled(space, at[last], end[last])
        others = kind[np.isin(kind, tags.KINDS)]
        more = [passed(odd[kind == one], one) for one in np.unique(others).tolist()] if len(others) else []
        odd = np.concatenate([ethernet, tag, pppoe, mpls, *more])
        odd = odd[at[odd] < end[odd]]
    return _bounded(at, protocol, end, path)


def _labelled(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows the last label: the labels do not say (RFC 3032 §2.2). IP shows its version; an Ethernet pseudowire
    begins with the MAC addresses, or with a control word whose first four bits are 0 (RFC 4448 §4.6), and is taken for
    one only where an IP header, a tag or PPPoE stands where it must.
    """
    u2, octets = space.numbers(">u2"), space.array
    after, protocol = ip_at(octets, at.copy(), end)
    protocol[protocol == UNKNOWN_LINK] = LABELLED
    other = np.flatnonzero(protocol == LABELLED)
    for word in (4, 0) if len(other) else ():
        here = at[other] + word
        kind, version = u2[here + 12], octets[here + 14]
        frame = ((kind == IP4) & (version >> 4 == 4)) | ((kind == IP6) & (version >> 4 == 6))
        frame |= np.isin(kind, _TAGS) | ((kind == PPPOE) & (version == 0x11))
        frame &= (here + 14 < end[other]) & ((octets[at[other]] >> 4 == 0) | (word == 0))
        after[other[frame]], protocol[other[frame]] = here[frame], ETHERNET
        other = other[~frame]
    return after, protocol


def _type_or_length(field: npt.NDArray[np.uint32]) -> U16:
    """IEEE 802.3 §3.2.6: below 0x0600 it is a length, and LLC follows."""
    protocol = field.astype(np.uint16)
    protocol[protocol < LOWEST] = LLC
    return protocol


def _bounded(at: I64, protocol: U16, end: I64, path: U16 | None = None) -> Network:
    protocol[at > end] = CUT
    return Network(at, protocol, path)
