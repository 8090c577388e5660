"""Public scanning tools, by what they call themselves: what they provoke is no fault of the network."""

from __future__ import annotations

SIP_SCANNERS = ("friendly-scanner", "sipvicious", "sipcli", "sundayddr", "sip-scan", "pplsip", "vaxsip")
"""Parts of User-Agent values, in lower case, of SIPVicious and other tools that are met on open ports (practice)."""


def scanner(user_agent: str | None) -> bool:
    """Does a SIP User-Agent name a scanning tool?"""
    return any(tool in (user_agent or "").lower() for tool in SIP_SCANNERS)
