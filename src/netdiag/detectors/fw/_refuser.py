"""Who answered a SYN with a reset, as far as TTLs tell."""

from __future__ import annotations

from typing import NamedTuple

from netdiag.model import Alternative, Confidence, number_of
from netdiag.tables.speakers import foreign, hops
from netdiag.tables.tcp import Connection


class Speaker(NamedTuple):
    """Who refused, as far as the TTL tells."""

    title: str
    clause: str
    confidence: Confidence
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...] = ()


def speaker_of(c: Connection, genuine: tuple[int, ...]) -> Speaker:
    """``genuine``: TTLs of other packets of the server; empty where none is here."""
    ttl = c.rst_ttl or 0
    answer = "a reset with ACK = SYN + 1 answered the SYN"
    if not genuine:
        return Speaker("New connections are refused", "and nothing here tells by whom", Confidence.SUSPECTED, (
            answer, f"no other packet of {c.server} is here, so the reset's TTL {ttl} cannot be compared"))
    seen = ", ".join(str(t) for t in genuine)
    if foreign(ttl, genuine):
        return Speaker(
            "A device on the path refuses new connections", "sent by a device on the path", Confidence.CONFIRMED, (
                answer, f"the reset has passed {number_of(hops(ttl), 'routers')} (TTL {ttl}), genuine packets of "
                        f"{c.server} {_passed(genuine)} (TTL {seen})"))
    if hops(ttl) not in map(hops, genuine):
        return Speaker(
            "New connections are refused", "sent from one router nearer or farther than the host's other packets",
            Confidence.SUSPECTED, (answer, f"the reset has passed {number_of(hops(ttl), 'routers')} (TTL {ttl}), other "
                                           f"packets of {c.server} {_passed(genuine)} (TTL {seen})"), (
                Alternative("the device next to the host refuses, in its name or for an address that is its own",
                            "it stands one router away from what else answers there",
                            "one hop may be another way, too"),
                Alternative("nothing listens on the port", "a closed port is the usual reason",
                            "the reset did not pass as many routers as the host's other packets")))
    return Speaker(
        "New connections are refused: nothing listens on the port", "sent from where the host is",
        Confidence.PROBABLE, (answer, f"the reset (TTL {ttl}) comes from as far as other packets of {c.server} "
                                      f"(TTL {seen})"),
        (Alternative("a filter on the host, or a load balancer without a healthy member, refuses",
                     "it would stand at the same distance", "nothing here; ask the host what listens"),))


def _passed(ttls: tuple[int, ...]) -> str:
    """Routers that they have passed: "7", "0 or 7"."""
    return " or ".join(str(n) for n in sorted({hops(ttl) for ttl in ttls}))
