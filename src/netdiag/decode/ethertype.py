"""What a link header says follows it: EtherTypes, and the few values below 0x0600 that are none.

EtherTypes: IEEE 802 numbers (IANA ieee-802-numbers). Lengths and Linux-internal types (below 0x0600) never leave
the link layer, so these small numbers are free for what has no EtherType.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

IP4, IP6, ARP = 0x0800, 0x86DD, 0x0806
MPLS, PPPOE_DISCOVERY, PPPOE, BRIDGED = 0x8847, 0x8863, 0x8864, 0x6558
"""``BRIDGED`` is Transparent Ethernet Bridging, as GRE carries frames (RFC 1701)."""
LOWEST = 0x0600
"""Smaller values of an EtherType field are lengths (IEEE 802.3 §3.2.6)."""

CUT, UNKNOWN_LINK, LLC, ETHERNET, PROTECTED, NO_DATA, AGGREGATE, PIECE, LABELLED = range(9)
REASONS = {
    CUT: "frame too short for a network header",
    LLC: "802.3 with LLC, or PPP that is not IP",
    PROTECTED: "802.11 data that is encrypted",
    NO_DATA: "802.11 management or control frame",
    AGGREGATE: "802.11 A-MSDU with several packets in one frame",
    PIECE: "802.11 fragment other than the first",
    LABELLED: "MPLS that carries neither IP nor Ethernet",
}
"""Why a frame has no network header; of ``UNKNOWN_LINK`` the link type is the reason, and ``ETHERNET`` says that a
whole Ethernet header comes next.
"""


def skip(at: I64, size: I64 | int, end: I64) -> I64:
    """``at + size``, but never beyond one byte behind ``end``: sizes come from the wire."""
    out: I64 = np.minimum(at + size, end + 1)
    return out


def bounded(at: I64, protocol: U16, end: I64) -> tuple[I64, U16]:
    """The pair itself, with ``CUT`` where what was read to get there lies behind the captured bytes."""
    protocol[at > end] = CUT
    return at, protocol


def by_version(first: npt.NDArray[np.uint8]) -> U16:
    """EtherType by the first byte of an IP header; ``UNKNOWN_LINK`` where it is none."""
    version = first >> 4
    return np.where(version == 4, IP4, np.where(version == 6, IP6, UNKNOWN_LINK)).astype(np.uint16)


def ip_at(octets: npt.NDArray[np.uint8], at: I64, end: I64) -> tuple[I64, U16]:
    """An IP header that names itself by its version."""
    protocol = by_version(octets[at])
    protocol[at >= end] = CUT
    return at, protocol


def typed(numbers: npt.NDArray[np.uint32], at: I64, end: I64) -> tuple[I64, U16]:
    """What stands behind the two-byte EtherType at ``at``; lengths become ``LLC``."""
    protocol = numbers[at].astype(np.uint16)
    protocol[protocol < LOWEST] = LLC
    return bounded(at + 2, protocol, end)
