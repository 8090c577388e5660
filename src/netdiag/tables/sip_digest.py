"""Digest challenges and credentials of single SIP messages (RFC 3261 §22, RFC 7616 §3.3–3.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netdiag.decode import sip as decode

CHALLENGES = {"www-authenticate": "authorization", "proxy-authenticate": "proxy-authorization"}
"""Header of a challenge to the header of its answer (RFC 3261 §22.2, §22.3)."""
_VALUE_LIMIT = 4096
"""Characters of one header value that are looked at (practice): ten times what a challenge needs."""
_PARAMETER = re.compile(r'(?<![A-Za-z0-9_-])([A-Za-z][A-Za-z0-9_-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Digest:
    """One challenge, or the credentials that answer one; text with bad bytes replaced."""

    header: str
    """Name of the header, lower case; for a challenge that of its answer."""
    realm: str
    nonce: str
    algorithm: str
    """Upper case; "MD5" where it is left out (RFC 7616 §3.3)."""
    qop: str
    nc: str
    stale: bool
    username: str
    uri: str


def digests(lines: Iterable[tuple[str, str]]) -> list[Digest]:
    """Digest challenges (of a response) or credentials (of a request) among header lines, in order."""
    out = []
    for name, value in lines:
        header = CHALLENGES.get(name, name)
        if header not in CHALLENGES.values() or value[:7].lower() != "digest ":
            continue
        found = {key.lower(): decode.readable(text[1:-1] if text[0] == '"' else text)
                 for key, text in _PARAMETER.findall(value[:_VALUE_LIMIT])}
        out.append(Digest(
            header=header, realm=found.get("realm", ""), nonce=found.get("nonce", ""),
            algorithm=found.get("algorithm", "MD5").upper(), qop=found.get("qop", ""), nc=found.get("nc", ""),
            stale=found.get("stale", "").lower() == "true", username=found.get("username", ""),
            uri=found.get("uri", "")))
    return out
