"""Why a call ended, as a Reason header says it (RFC 3326), and the names of the causes of ITU-T Q.850."""

from __future__ import annotations

import re
from typing import NamedTuple

from netdiag.decode.sip import elements, readable

CAUSES = {
    1: "unallocated number", 2: "no route to transit network", 3: "no route to destination",
    4: "send special information tone", 5: "misdialled trunk prefix", 6: "channel unacceptable",
    7: "call awarded, delivered in an established channel", 8: "preemption",
    9: "preemption, circuit reserved for reuse", 14: "query on release: ported number", 16: "normal call clearing",
    17: "user busy", 18: "no user responding",
    19: "no answer from user (user alerted)", 20: "subscriber absent", 21: "call rejected", 22: "number changed",
    23: "redirection to new destination", 24: "call rejected due to feature at the destination",
    25: "exchange routing error", 26: "non-selected user clearing", 27: "destination out of order",
    28: "invalid number format (address incomplete)", 29: "facility rejected", 30: "response to STATUS ENQUIRY",
    31: "normal, unspecified", 34: "no circuit or channel available", 38: "network out of order",
    39: "permanent frame mode connection out of service", 40: "permanent frame mode connection operational",
    41: "temporary failure", 42: "switching equipment congestion", 43: "access information discarded",
    44: "requested circuit or channel not available", 46: "precedence call blocked",
    47: "resource unavailable, unspecified", 49: "quality of service not available",
    50: "requested facility not subscribed", 53: "outgoing calls barred within closed user group",
    55: "incoming calls barred within closed user group", 57: "bearer capability not authorized",
    58: "bearer capability not presently available", 62: "inconsistency in access information and subscriber class",
    63: "service or option not available, unspecified", 65: "bearer capability not implemented",
    66: "channel type not implemented", 69: "requested facility not implemented",
    70: "only restricted digital information bearer capability is available",
    79: "service or option not implemented, unspecified", 81: "invalid call reference value",
    82: "identified channel does not exist", 83: "a suspended call exists, but this call identity does not",
    84: "call identity in use", 85: "no call suspended", 86: "call having the requested call identity has been cleared",
    87: "user not member of closed user group", 88: "incompatible destination",
    90: "non-existent closed user group", 91: "invalid transit network selection",
    95: "invalid message, unspecified", 96: "mandatory information element is missing",
    97: "message type non-existent or not implemented",
    98: "message not compatible with call state, or message type non-existent or not implemented",
    99: "information element or parameter non-existent or not implemented",
    100: "invalid information element contents", 101: "message not compatible with call state",
    102: "recovery on timer expiry", 103: "parameter non-existent or not implemented, passed on",
    110: "message with unrecognized parameter, discarded", 111: "protocol error, unspecified",
    127: "interworking, unspecified",
}
"""Cause value to its name (ITU-T Q.850 (05/2018) table 1)."""
_PARAMETER = re.compile(r';\s*(cause|text)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))', re.IGNORECASE)


class Reason(NamedTuple):
    """One value of a Reason header."""

    protocol: str
    """"SIP", "Q.850" or another token, in upper case."""
    cause: int | None
    text: str
    """"" without one."""

    @property
    def words(self) -> str:
        """The cause by name, or by what the sender says, and by number."""
        name = CAUSES.get(self.cause or 0, self.text) if self.protocol == "Q.850" else self.text
        code = self.protocol if self.cause is None else f"{self.protocol} {self.cause}"
        return f"{name} ({code})" if name else code


def reasons(value: str) -> list[Reason]:
    """All values of a Reason header, Latin-1 or text; what is no cause is None."""
    out = []
    for element in elements(value, 8):
        protocol = element.partition(";")[0].strip().upper()
        found: dict[str, str] = {}
        for match in _PARAMETER.finditer(element):
            found.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3])
        cause = found.get("cause", "")
        number = int(cause) if cause.isascii() and cause.isdigit() and len(cause) <= 3 else None
        if protocol:
            out.append(Reason(readable(protocol), number, readable(re.sub(r"\\(.)", r"\1", found.get("text", "")))))
    return out
