"""Link layer: from a frame to its network protocol, in columns; tags and labels on the way become levels of its path.

Link types are LINKTYPE_ values (tcpdump.org/linktypes.html).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import encap

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]

IP4, IP6 = 0x0800, 0x86DD
ARP = 0x0806
_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
"""IEEE 802.1Q, 802.1ad and the two older QinQ values."""
MPLS_TYPE = 0x8847
ETHERNET_INSIDE = 3
"""In place of an EtherType: an Ethernet header follows."""
_PPPOE, _MPLS_MULTICAST = 0x8864, 0x8848
_DEPTH = 16
"""Tags and labels followed in one frame; real stacks are far shorter (practice)."""

NAMES = {
    0: "NULL", 1: "ETHERNET", 12: "RAW", 14: "RAW", 101: "RAW", 105: "IEEE802_11", 108: "LOOP", 113: "LINUX_SLL",
    127: "IEEE802_11_RADIOTAP", 228: "IPV4", 229: "IPV6", 239: "NFLOG", 276: "LINUX_SLL2", 6: "IEEE802_5", 9: "PPP",
    50: "PPP_HDLC", 51: "PPP_ETHER", 147: "USER0", 149: "USER2", 187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX",
    192: "PPI", 195: "IEEE802_15_4_WITHFCS", 220: "USB_LINUX_MMAPPED", 249: "USBPCAP", 251: "BLUETOOTH_LE_LL",
    252: "WIRESHARK_UPPER_PDU", 253: "NETLINK", 258: "PKTAP",
}
"""Names of link types, for the report of what could not be decoded."""
DECODED = (0, 1, 12, 14, 101, 108, 113, 228, 229, 276)
"""Link types that ``decode`` understands."""
_FAMILY6 = (10, 24, 28, 30)
"""AF_INET6 of Linux, NetBSD, FreeBSD and macOS in LINKTYPE_NULL."""


@dataclass(slots=True)
class Network:
    """Where the network header of each frame starts."""

    at: I64
    protocol: U16
    """EtherType; 0 where the frame is too short, 1 where the link type is unknown, 2 for 802.3 with LLC."""
    path: U16 | None = None
    """Number of the path of tags and labels; None where no frame has any."""


CUT, UNKNOWN_LINK, LLC = 0, 1, 2


def decode(space: Space, link: int, offset: I64, captured: npt.NDArray[np.uint32], paths: encap.Paths) -> Network:
    """Network headers of frames of one link type; ``offset`` and ``captured`` of the frames."""
    u2 = space.numbers(">u2")
    end = offset + captured
    if link == 1:
        return follow(space, offset + 14, _type_or_length(u2[offset + 12]), end, paths)
    if link == 113:
        return follow(space, offset + 16, u2[offset + 14].astype(np.uint16), end, paths)
    if link == 276:
        return follow(space, offset + 20, u2[offset].astype(np.uint16), end, paths)
    if link in (0, 108):
        family = space.numbers(">u4" if link == 108 else "<u4")[offset]
        swapped = family.byteswap()
        family = np.where(family > 0xFFFF, swapped, family)  # written by a host of the other byte order
        protocol = np.where(family == 2, IP4, np.where(np.isin(family, _FAMILY6), IP6, UNKNOWN_LINK)).astype(np.uint16)
        return _bounded(offset + 4, protocol, end)
    if link in (12, 14, 101, 228, 229):
        version = space.array[offset] >> 4
        protocol = np.where(version == 4, IP4, np.where(version == 6, IP6, UNKNOWN_LINK)).astype(np.uint16)
        return _bounded(offset.copy(), protocol, end)
    return Network(offset, np.full(len(offset), UNKNOWN_LINK, np.uint16))


def follow(space: Space, at: I64, protocol: U16, end: I64, paths: encap.Paths, path: U16 | None = None) -> Network:
    """Follows Ethernet headers, VLAN tags, MPLS labels and PPPoE; ``at`` is behind the EtherType.

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

    ethernet = odd[protocol[odd] == ETHERNET_INSIDE]
    if len(ethernet):
        protocol[ethernet] = _type_or_length(u2[at[ethernet] + 12])
        at[ethernet] += 14
    for _ in range(_DEPTH):
        if not len(odd):
            break
        kind = protocol[odd]
        tag = odd[np.isin(kind, _TAGS)]
        if len(tag):
            number = (u2[at[tag]] & 0xFFF).astype(np.uint32)
            named = number != 0  # VLAN 0 is a priority tag (IEEE 802.1Q §9.6)
            if named.any():
                wrapped(tag[named], encap.VLAN, number[named])
            protocol[tag] = _type_or_length(u2[at[tag] + 2])
            at[tag] += 4
        pppoe = odd[kind == _PPPOE]
        if len(pppoe):
            wrapped(pppoe, encap.PPPOE, u2[at[pppoe] + 2].astype(np.uint32))
            ppp = u2[at[pppoe] + 6]
            protocol[pppoe] = np.where(ppp == 0x21, IP4, np.where(ppp == 0x57, IP6, LLC))  # RFC 1661 protocol numbers
            at[pppoe] += 8
        mpls = odd[(kind == MPLS_TYPE) | (kind == _MPLS_MULTICAST)]
        if len(mpls):
            bottom = space.array[at[mpls] + 2] & 1  # RFC 3032 §2.1
            at[mpls] += 4
            last = mpls[bottom == 1]
            if len(last):
                wrapped(last, encap.MPLS)
            version = space.array[at[last]] >> 4
            protocol[last] = np.where(version == 4, IP4, np.where(version == 6, IP6, LLC))
        odd = np.concatenate([tag, pppoe, mpls])
        odd = odd[at[odd] < end[odd]]
    return _bounded(at, protocol, end, path)


def _type_or_length(field: npt.NDArray[np.uint32]) -> U16:
    """IEEE 802.3 §3.2.6: below 0x0600 it is a length, and LLC follows."""
    protocol = field.astype(np.uint16)
    protocol[protocol < 0x0600] = LLC
    return protocol


def _bounded(at: I64, protocol: U16, end: I64, path: U16 | None = None) -> Network:
    protocol[at > end] = CUT
    return Network(at, protocol, path)
