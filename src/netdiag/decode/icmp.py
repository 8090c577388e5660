"""ICMP and ICMPv6 error messages and the start of the packet that they quote."""

from __future__ import annotations

from typing import NamedTuple

# Errors of ICMP quote the packet: RFC 1122 §3.2.2; the numbers: RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1.
ERRORS4 = (3, 4, 5, 11, 12)
ERRORS6 = (1, 2, 3, 4)
"""RFC 4443 §2.1: errors have types below 128; 1 to 4 are the ones it defines."""
WIDTH = 160
"""Bytes worth having: 8 of ICMP, 40 of quoted IPv6, some extension headers, ports."""

_NAMES4: dict[tuple[int, int | None], str] = {
    (3, 0): "network unreachable", (3, 1): "host unreachable", (3, 2): "protocol unreachable",
    (3, 3): "port unreachable", (3, 4): "fragmentation needed", (3, 5): "source route failed",
    (3, 6): "destination network unknown", (3, 7): "destination host unknown", (3, 8): "source host isolated",
    (3, 9): "communication with destination network administratively prohibited",
    (3, 10): "communication with destination host administratively prohibited",
    (3, 11): "network unreachable for type of service", (3, 12): "host unreachable for type of service",
    (3, 13): "communication administratively prohibited", (3, 14): "host precedence violation",
    (3, 15): "precedence cutoff in effect", (3, None): "destination unreachable",
    (4, None): "source quench", (5, 0): "redirect for network", (5, 1): "redirect for host", (5, None): "redirect",
    (11, 0): "time to live exceeded in transit", (11, 1): "fragment reassembly time exceeded",
    (11, None): "time exceeded", (12, None): "parameter problem",
}
_NAMES6: dict[tuple[int, int | None], str] = {  # RFC 4443 §3
    (1, 0): "no route to destination", (1, 1): "communication administratively prohibited",
    (1, 2): "beyond scope of source address", (1, 3): "address unreachable", (1, 4): "port unreachable",
    (1, 5): "source address failed ingress/egress policy", (1, 6): "reject route to destination",
    (1, None): "destination unreachable", (2, None): "packet too big",
    (3, 0): "hop limit exceeded in transit", (3, 1): "fragment reassembly time exceeded", (3, None): "time exceeded",
    (4, 0): "erroneous header field", (4, 1): "unrecognized next header", (4, 2): "unrecognized IPv6 option",
    (4, None): "parameter problem",
}
_WITH_PORTS = frozenset({6, 17, 132, 136})
"""TCP, UDP, SCTP, UDP-Lite: both ports in the first 4 bytes."""
_EXTENSIONS = frozenset({0, 43, 60})
"""IPv6 extension headers with a length in units of 8 bytes (RFC 8200 §4)."""
_FRAGMENT, _AUTHENTICATION = 44, 51
_CHAIN = 8
"""Extension headers followed; RFC 8200 §4.1 names seven in their recommended order."""


class Quote(NamedTuple):
    """What is left of the packet that failed."""

    version: int
    proto: int
    source: bytes
    destination: bytes
    source_port: int | None
    """None where the quote ends before it, is a later fragment or a protocol without ports."""
    destination_port: int | None


def name(version: int, kind: int, code: int) -> str:
    """The standard's name of a message, in lower case."""
    names = _NAMES4 if version == 4 else _NAMES6
    return names.get((kind, code)) or names.get((kind, None)) or f"ICMP type {kind} code {code}"


def mtu(version: int, message: bytes) -> int | None:
    """Next-hop MTU of "fragmentation needed" (RFC 1191 §4; None from routers older than that, which send 0) and
    "packet too big" (RFC 4443 §3.2); None for other messages."""
    if len(message) < 8:
        return None
    if version == 4 and message[0] == 3 and message[1] == 4:
        return int.from_bytes(message[6:8], "big") or None
    if version == 6 and message[0] == 2:
        return int.from_bytes(message[4:8], "big")
    return None


def quote(version: int, message: bytes) -> Quote | None:
    """The quoted packet of an error message; None when too little of it is there to name its addresses."""
    packet = message[8:]
    if version == 4:
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[0] & 15 < 5:
            return None
        proto, at = packet[9], (packet[0] & 15) * 4
        source, destination = packet[12:16], packet[16:20]
        later = (packet[6] & 0x1F) << 8 | packet[7]
        if not later:
            proto, at = _behind_authentication(packet, proto, at)
    else:
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return None
        source, destination = packet[8:24], packet[24:40]
        proto, at, later = _behind_extensions(packet)
    ports = packet[at : at + 4]
    if proto not in _WITH_PORTS or later or len(ports) < 4:
        return Quote(version, proto, source, destination, None, None)
    return Quote(version, proto, source, destination,
                 int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big"))


def _behind_authentication(packet: bytes, proto: int, at: int) -> tuple[int, int]:
    """(protocol, where it starts) behind the authentication headers of an IPv4 packet (RFC 4302 §2)."""
    for _ in range(_CHAIN):
        if proto != _AUTHENTICATION or len(packet) < at + 8:
            break
        proto, at = packet[at], at + (packet[at + 1] + 2) * 4
    return proto, at


def _behind_extensions(packet: bytes) -> tuple[int, int, int]:
    """(protocol, where it starts, fragment offset) of an IPv6 packet."""
    proto, at = packet[6], 40
    for _ in range(_CHAIN):
        if len(packet) < at + 8:
            break
        if proto == _FRAGMENT:
            later = int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8
            proto, at = packet[at], at + 8
            if later:
                return proto, at, later
        elif proto in _EXTENSIONS:
            proto, at = packet[at], at + (packet[at + 1] + 1) * 8
        elif proto == _AUTHENTICATION:
            proto, at = packet[at], at + (packet[at + 1] + 2) * 4
        else:
            break
    return proto, at, 0
