"""What realm an address belongs to: who can route to it."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_REALMS: tuple[tuple[str, str], ...] = (
    ("10.0.0.0/8", "private"), ("172.16.0.0/12", "private"), ("192.168.0.0/16", "private"),  # RFC 1918 §3
    ("100.64.0.0/10", "cgn"),  # RFC 6598 §7
    ("169.254.0.0/16", "link-local"),  # RFC 3927 §2.1
    ("127.0.0.0/8", "loopback"),  # RFC 1122 §3.2.1.3
    ("0.0.0.0/8", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("fc00::/7", "private"),  # RFC 4193 §3.1
    ("fe80::/10", "link-local"),  # RFC 4291 §2.5.6
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("ff00::/8", "multicast"),
)
_NETWORKS = tuple((ipaddress.ip_network(text), realm) for text, realm in _REALMS)
_FOUR = tuple((int(n.network_address), int(n.netmask), realm) for n, realm in _NETWORKS if n.version == 4)


@lru_cache(maxsize=65536)
def realm(address: str) -> str:
    """"public", "private", "cgn", "link-local", "loopback", "unspecified", "multicast", or "name" for no address.

    Documentation addresses (RFC 5737, RFC 3849) count as public: that is what they stand for.
    """
    try:
        value = int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")  # far faster than ipaddress
    except (OSError, ValueError):
        return _realm6(address)
    return next((name for network, mask, name in _FOUR if value & mask == network), "public")


def _realm6(address: str) -> str:
    try:
        ip = ipaddress.IPv6Address(address)
    except ValueError:
        return "name"
    if ip.ipv4_mapped is not None:
        return realm(str(ip.ipv4_mapped))
    return next((name for network, name in _NETWORKS if network.version == 6 and ip in network), "public")


def routable(address: str) -> bool:
    """Can a host on the public Internet send to it?"""
    return realm(address) == "public"


def endpoint(address: str, port: int) -> str:
    """"192.0.2.1:5060" and "[2001:db8::1]:5060" (RFC 3986 §3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def routable_v4(numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """The same as ``routable``, of IPv4 addresses as numbers."""
    out = np.ones(len(numbers), np.bool_)
    for value, mask, _ in _FOUR:
        out &= numbers & np.uint32(mask) != value
    return out
