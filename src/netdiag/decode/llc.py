"""IEEE 802.2 LLC with SNAP, and the ISO network layer identifiers (NLPID) of Frame Relay and ATM."""

from __future__ import annotations

import numpy as np

from netdiag.capture.space import Space
from netdiag.decode.ethertype import ETHERNET, I64, IP4, IP6, LLC, LOWEST, U16, bounded, skip

_SNAP, _OSI, _OLD_IP, _UI = 0xAAAA, 0xFEFE, 0x0606, 0x03
"""Service access points of both sides, and the control byte of unnumbered information (RFC 1042; RFC 2684 §5)."""
_ETHERNET_OUIS = (0x000000, 0x0000F8)
"""OUIs whose protocol identifier is an EtherType: RFC 1042, and IEEE 802.1H bridge tunnels."""
_BRIDGED_OUI, _BRIDGED_ETHERNET = 0x0080C2, (0x0001, 0x0007)
"""IEEE 802.1: a whole Ethernet frame follows, with or without checksum (RFC 2684 §5.2, RFC 2427 §4.2)."""
_NLPID = {0xCC: IP4, 0x8E: IP6}
"""RFC 2427 §4, RFC 2590 §3."""
_NLPID_SNAP, _NLPID_PPP = 0x80, 0xCF
"""RFC 2427 §4.1; RFC 1973 §3."""


def header(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows the LLC header at ``at``; ``LLC`` where that is nothing with an EtherType."""
    u2 = space.numbers(">u2")
    access, control = u2[at], space.array[at + 2]
    snap = (access == _SNAP) & (control == _UI)
    after, protocol = _snap(space, at + 3, end, 2)
    protocol[~snap] = LLC
    osi = np.flatnonzero((access == _OSI) & (control == _UI))
    if len(osi):
        after[osi], protocol[osi] = nlpid(space, at[osi] + 3, end[osi])
    old = (access == _OLD_IP) & (control == _UI)
    after[old], protocol[old] = at[old] + 3, IP4
    return bounded(after, protocol, end)


def _snap(space: Space, at: I64, end: I64, padding: int = 0) -> tuple[I64, U16]:
    """The five bytes of a SNAP header at ``at``: organisation and protocol; ``padding`` is what ATM puts between it and
    a bridged frame.
    """
    u2 = space.numbers(">u2")
    oui = u2[at].astype(np.uint32) << 8 | space.array[at + 2]
    protocol, after = u2[at + 3].astype(np.uint16), at + 5
    bridged = (oui == _BRIDGED_OUI) & np.isin(protocol, _BRIDGED_ETHERNET)
    protocol[~np.isin(oui, _ETHERNET_OUIS) | (protocol < LOWEST)] = LLC
    protocol[bridged] = ETHERNET
    after[bridged] += padding
    return bounded(after, protocol, end)


def nlpid(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """What follows the network layer identifier at ``at``."""
    value = space.array[at]
    protocol = np.full(len(at), LLC, np.uint16)
    for number, ethertype in _NLPID.items():
        protocol[value == number] = ethertype
    after = at + 1
    snap = np.flatnonzero(value == _NLPID_SNAP)
    if len(snap):
        after[snap], protocol[snap] = _snap(space, at[snap] + 1, end[snap])
    return bounded(after, protocol, end)


def frame_relay(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """A Q.922 address of two to four bytes, then RFC 2427, or an EtherType as Cisco has it."""
    octets = space.array
    after = at + 2
    for _ in range(2):  # the lowest bit is set in the last byte of the address
        more = (octets[after - 1] & 1) == 0
        after = after + more
    standard = octets[after] == _UI
    padded = standard & (octets[after + 1] == 0)
    later, protocol = nlpid(space, after + 1 + padded, end)
    cisco = np.flatnonzero(~standard)
    if len(cisco):
        value = space.numbers(">u2")[after[cisco]].astype(np.uint16)
        value[value < LOWEST] = LLC
        later[cisco], protocol[cisco] = after[cisco] + 2, value
    return bounded(later, protocol, end)


def fddi(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Frame control and two addresses (ANSI X3.139), then LLC."""
    return _after_control(space, at, skip(at, 13, end), end)


def token_ring(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Access and frame control, two addresses, a routing field where the source says so (IEEE 802.5), then LLC."""
    octets = space.array
    routed = (octets[at + 8] & 0x80) != 0
    after = skip(at + 14, np.where(routed, octets[at + 14] & 0x1F, 0), end)
    return _after_control(space, at + 1, after, end)


def _after_control(space: Space, control: I64, at: I64, end: I64) -> tuple[I64, U16]:
    after, protocol = header(space, at, end)
    protocol[(space.array[control] & 0xC0) != 0x40] = LLC  # MAC frames, tokens, station management
    return bounded(after, protocol, end)


