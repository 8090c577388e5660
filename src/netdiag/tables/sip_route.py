"""Where requests inside a dialog are sent: the route set, else the Contact (RFC 3261 §12.1, §12.2.1.1)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdiag.decode.sip import contact_uri, elements
from netdiag.tables.addresses import realm
from netdiag.tables.contacts import contact_host
from netdiag.tables.sip_head import lines

if TYPE_CHECKING:
    from netdiag.tables import Tables

_BLOCKS = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918 §3."""
_LOCAL_NAMES = (".local", ".localhost", ".invalid", ".internal", ".lan", ".home.arpa")
"""Names that the public DNS does not have (RFC 6761, RFC 6762 §3, RFC 8375), or that are used so (.internal, .lan)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a message tells the other side to send its requests to."""

    host: str
    header: str
    """"Contact" or "Record-Route"."""
    uri: str
    kept_flow: bool
    """The URI asks for the flow of the registration instead (``ob``, RFC 5626 §5; ``alias``, Kamailio's nathelper)."""


def target(tables: Tables, message: int, sender: str) -> Target | None:
    """Where ``sender`` sends requests of the dialog that ``message`` (with a Contact) comes from; None without Contact.

    A request lists the route as it is to be followed, a response the other way round (RFC 3261 §12.1.1, §12.1.2).
    """
    fields = lines(tables, message)
    route = [part for name, value in fields if name == "record-route" for part in elements(value)]
    if tables.sip["method"][message] is None:
        route.reverse()
    hosts = [contact_host(part) for part in route]
    if sender in hosts:
        route = route[len(hosts) - hosts[::-1].index(sender):]
    named = _contact(fields)
    if named is None:
        return None
    chosen, header = (route[0], "Record-Route") if route else (named, "Contact")
    uri = contact_uri(chosen) or ""
    names = {part.partition("=")[0].strip().lower() for part in uri.split(";")[1:]}
    return Target(contact_host(chosen), header, uri, bool(names & {"ob", "alias"}))


def contact(tables: Tables, message: int) -> str:
    """URI of the Contact of a message; "" without one."""
    return contact_uri(_contact(lines(tables, message)) or "") or ""


def _contact(fields: list[tuple[str, str]]) -> str | None:
    return next((elements(value)[0] for name, value in fields if name in ("contact", "m") and value), None)


def unreachable(host: str, source: str) -> bool:
    """Does ``host`` name what nobody reaches who sees ``source`` as the sender's address?

    It is not routable, and of another kind than ``source``, or in another of the private networks.
    """
    kind = realm(host)
    if kind == "name":
        return bool(host) and ("." not in host or host.lower().rstrip(".").endswith(_LOCAL_NAMES))
    if kind == "public":
        return False
    return kind != realm(source) or _block(host) != _block(source)


def _block(address: str) -> int:
    ip = ipaddress.ip_address(address)
    return next((i for i, net in enumerate(_BLOCKS) if ip.version == 4 and ip in net), -1)
