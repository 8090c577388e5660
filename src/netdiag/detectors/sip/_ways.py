"""The way of an INVITE over its proxies, and what is wrong with that of a later request."""

from __future__ import annotations

from typing import NamedTuple

from netdiag.tables.addresses import realm
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_routing import RouteUri, Routing


class Way(NamedTuple):
    """The way of one call's INVITE, as all points together show it."""

    invites: list[tuple[SipMessage, Routing]]
    """One for each hop, the one with most Via first."""
    answers: list[tuple[SipMessage, Routing]]
    """2xx or reliable 18x, one for each hop."""

    @property
    def proxies(self) -> frozenset[str]:
        """Hosts and addresses of the elements between the ends."""
        deepest = len(self.invites[0][1].via)
        out = set[str]().union(*self.invites[0][1].via[:-1])
        for message, said in self.invites:
            if len(said.via) > 1:
                out.add(message.source)
            if len(said.via) < deepest:
                out.add(message.destination)
        return frozenset(out)

    def following(self, request: SipMessage, by_caller: bool) -> frozenset[str]:
        """Proxies next to the sender of ``request`` that the answer of this very dialog came through."""
        tag = request.to_tag if by_caller else request.from_tag
        depths = [(m, len(said.via)) for m, said in self.answers if m.to_tag == tag]
        if by_caller:
            deepest = max((depth for _, depth in depths), default=0)
            return frozenset(m.source for m, depth in depths if m.destination == request.source and depth < deepest)
        return frozenset(m.destination for m, depth in depths if m.source == request.source and depth > 1)


def fault(request: SipMessage, said: Routing, recorded: tuple[RouteUri, ...], past: bool,
          whose: str) -> str | None:
    """What is wrong with the way that the request takes; None when it takes the recorded one."""
    if not recorded:
        return f"no Record-Route{whose}, and {request.method} goes to {request.destination} directly" if past else None
    strict = next((r for r in (*said.route, *recorded) if not r.loose), None)
    if strict is not None:
        return f"the route entry {strict.host} has no lr: strict routing"
    hosts = [r.host for r in said.route]
    expected = [r.host for r in recorded]
    if hosts != expected:
        return f"Record-Route asks for {' '.join(expected)}, and Route is {' '.join(hosts) or 'missing'}"
    top = hosts[0]
    if realm(top) != "name" and top != request.destination:
        return f"its topmost Route is {top}, and it goes to {request.destination}"
    return None
