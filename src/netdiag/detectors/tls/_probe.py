"""The command that shows what a server sends now: once certificates were read, no further capture is needed."""

from __future__ import annotations

import re

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""RFC 1123 §2.1. A name from the wire goes into a command only if it is one."""


_UPGRADES = {"smtp", "imap", "pop3", "ftp", "xmpp", "postgres", "ldap"}
"""What `-starttls` of openssl knows, of Handshake.starttls."""


def command(session: dict[str, object]) -> str:
    """``openssl s_client`` for the server of a handshake, with the name that the client asked for."""
    server, sni = str(session["server"]), str(session["sni"] or "")
    place = f"[{server}]" if ":" in server else server
    named = bool(_HOST_NAME.fullmatch(sni))
    before = str(session["starttls"])
    way = f"-connect {place}:{session['server_port']}"
    if before in _UPGRADES:
        way += f" -starttls {before}"
    elif before == "http":  # the address is that of the proxy
        way = f"-proxy {place}:{session['server_port']} -connect {sni if named else 'SERVER'}:443"
    return f"openssl s_client -showcerts {way}" + (f" -servername {sni}" if named else "")
