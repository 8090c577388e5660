"""Where a Contact points."""

from __future__ import annotations

from netdiag.decode.sip import contact_uri


def contact_host(contact: str | None) -> str:
    """Host of a Contact header value, without port and brackets; "" without one (RFC 3261 §25.1, ``hostport``)."""
    rest = (contact_uri(contact) or "").partition(":")[2].partition(";")[0].partition("?")[0]
    host = rest.rpartition("@")[2]
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
