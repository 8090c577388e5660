"""Community ID version 1: one flow's name in every tool (github.com/corelight/community-id-spec)."""

from __future__ import annotations

import base64
import hashlib

SEED = b"\x00\x00"
"""The specification's default seed, which all tools share."""

# Message types that ask and are answered; the answer's type takes the place of the second port (specification,
# "ICMP details"). Left: ICMP (RFC 792, 950, 1256); right: ICMPv6 (RFC 4443, 4861, 2710, 4620, 4286 and 6275).
_ICMP = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17}
_ICMP6 = {128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130, 144: 145, 145: 144,
          139: 140, 140: 139}
_PORTS = frozenset({1, 6, 17, 58, 132})


def community_id(source: bytes, destination: bytes, protocol: int,
                 source_port: int = 0, destination_port: int = 0) -> str:
    """Community ID of a flow; addresses are 4 or 16 bytes in network order.

    For ICMP and ICMPv6 pass type and code as the ports. Both directions give the same text.
    """
    one_way = False
    if protocol in (1, 58):
        answers = _ICMP if protocol == 1 else _ICMP6
        one_way = source_port not in answers
        if not one_way:
            destination_port = answers[source_port]
    if protocol not in _PORTS:
        a, b = sorted((source, destination))
        return digest(a + b + bytes((protocol, 0)))
    low = (source, source_port)
    high = (destination, destination_port)
    if not one_way and low > high:
        low, high = high, low
    return digest(low[0] + high[0] + bytes((protocol, 0)) + low[1].to_bytes(2, "big") + high[1].to_bytes(2, "big"))


def digest(ordered: bytes) -> str:
    """Community ID of already ordered addresses, protocol, a zero byte and ports, all in network order."""
    return "1:" + base64.b64encode(hashlib.sha1(SEED + ordered, usedforsecurity=False).digest()).decode("ascii")
