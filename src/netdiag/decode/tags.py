"""Tags between the MAC addresses and the EtherType of what is carried, other than VLAN tags, and NSH: in columns.

A tag is passed only if its fields hold together; else its EtherType is what is counted. Most of them name ports, groups
or copies of a frame, which each direction has its own, and are no part of a path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import encap
from netdiag.decode.ethertype import ETHERNET, I64, IP4, IP6, MPLS, U16, Mask, typed

U32 = npt.NDArray[np.uint32]

NSH = 0x894F
_META, _MACSEC, _BACKBONE, _VN, _HSR, _PORT = 0x8909, 0x88E5, 0x88E7, 0x8926, 0x892F, 0x893F
NSH_CARRIES = {1: IP4, 2: IP6, 3: ETHERNET, 4: NSH, 5: MPLS}
"""Next protocols of NSH (RFC 8300 §2.2) and of VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe §3, include/net/vxlan.h of
Linux)."""


class Tag(NamedTuple):
    """Tags of one kind."""

    good: Mask
    after: I64
    """Where what follows starts."""
    protocol: U16
    level: int | None = None
    """Kind of its level in the path; None where it is no part of that."""
    ident: U32 | None = None


def _plain(size: int) -> Callable[[Space, I64, I64], Tag]:
    """``size`` bytes without a condition, then the next EtherType."""
    def read(space: Space, at: I64, end: I64) -> Tag:
        return Tag(np.ones(len(at), np.bool_), *typed(space.numbers(">u2"), at + size, end))
    return read


def _meta(space: Space, at: I64, end: I64) -> Tag:
    """Cisco MetaData: version 1, length 1 (in units of 8 bytes, the EtherType behind included), one option."""
    return Tag(np.asarray(space.numbers(">u2")[at] == 0x0101), *typed(space.numbers(">u2"), at + 6, end))


def _macsec(space: Space, at: I64, end: I64) -> Tag:
    """IEEE 802.1AE §9: opened where it protects integrity only (E and C clear); the check value (ICV) stands behind the
    payload, as padding would. With an explicit channel (SC) neither ES nor SCB is set; packet number 0 is not used.
    """
    octets = space.array
    control = octets[at]
    explicit = (control & 0x20) != 0
    good = ((control & 0x8C) == 0) & ~(explicit & ((control & 0x50) != 0)) & (octets[at + 1] < 48)
    good &= space.numbers(">u4")[at + 2] != 0
    return Tag(good, *typed(space.numbers(">u2"), at + np.where(explicit, 14, 6), end))


def _backbone(space: Space, at: I64, end: I64) -> Tag:
    """IEEE 802.1ah §9.7: priority bits, two reserved bits that must be zero, I-SID, then the customer's frame."""
    word = space.numbers(">u4")[at]
    return Tag((word >> 24 & 3) == 0, at + 4, np.full(len(at), ETHERNET, np.uint16), encap.PBB,
               (word & 0xFFFFFF).astype(np.uint32))


def _nsh(space: Space, at: I64, end: I64) -> Tag:
    """RFC 8300 §2.2: version 0, not OAM, a length that fits to the metadata type. Service paths have one direction."""
    h = space.gather(at, 4)
    words, kind = h[:, 1] & 63, h[:, 2] & 15
    good = (h[:, 0] & 0xE0 == 0) & (((kind == 1) & (words == 6)) | ((kind == 2) & (words >= 2)))
    protocol = np.zeros(len(at), np.uint16)
    for number, ethertype in NSH_CARRIES.items():
        protocol[h[:, 3] == number] = ethertype
    return Tag(good & (protocol != 0), at + words.astype(np.int64) * 4, protocol, encap.NSH)


READERS: dict[int, Callable[[Space, I64, I64], Tag]] = {
    _META: _meta, _MACSEC: _macsec, _BACKBONE: _backbone, NSH: _nsh,
    _VN: _plain(4),  # Cisco VN-Tag: virtual interfaces of both ends
    _HSR: _plain(4),  # IEC 62439-3 §5.7: path, size, sequence number
    _PORT: _plain(6),  # IEEE 802.1BR §7.5: channels (E-CID) of both ends
}
KINDS = tuple(READERS)
