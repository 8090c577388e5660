"""Samples of SIP-ROUTE-SET-LOST: calls through a proxy whose BYE or ACK goes past it."""

from _craft.network import Wire

CALLER, PROXY, SECOND, CALLEE = "203.0.113.5", "198.51.100.1", "198.51.100.2", "203.0.113.90"
TIMER_E = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # RFC 3261 §17.1.2.2
RECORDED = f"Record-Route: <sip:{PROXY};lr>\r\n"

HIT_FRAMES = {"hit": [1, 2, *range(4, 15)], "hit_callee_drops": [1, 2, *range(4, 15)],
              "hit_strict": [1, 2, *range(4, 15)],
              "hit_ack": [2, 3, 4, 5, 7, 9, 11, 13],
              "hit_route_dropped": [2, 3, *range(6, 17)],
              "hit_wrong_next_hop": list(range(1, 14)),
              "hit_two_points": {"callee": [1, 2, *range(4, 15)], "proxy": [1, 2]}}


class Call:
    """A call from CALLER to CALLEE by way of PROXY; each method adds datagrams."""

    def __init__(self, wire: Wire, path: tuple[str, ...] = (CALLER, PROXY, CALLEE), call_id: str = "call-1") -> None:
        self.wire, self.path, self.call_id = wire, path, call_id

    def send(self, at: float, start: str, hop: tuple[str, str], via: tuple[str, ...], cseq: str, extra: str = "", *,
             by_caller: bool = True, to_tag: bool = True, answer: bool = False) -> None:
        """One message over ``hop``; ``via`` are the senders of the request so far, the first one first."""
        lines = "".join(f"Via: SIP/2.0/UDP {host};branch=z9hG4bK{cseq.replace(' ', '')}{host}\r\n"
                        for host in reversed(via))
        tags = ("a", "b") if by_caller else ("b", "a")
        shown = f";tag={tags[1]}" if to_tag else ""
        host = self.path[0 if by_caller != answer else -1]
        src, dst = hop
        self.wire.udp(at, src, 5060, dst, 5060, (
            f"{start}\r\n{lines}From: <sip:{tags[0]}@x.example>;tag={tags[0]}\r\n"
            f"To: <sip:{tags[1]}@x.example>{shown}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {cseq}\r\nMax-Forwards: 70\r\nContact: <sip:{host}>\r\n{extra}"
            "Content-Length: 0\r\n\r\n").encode())

    def invite(self, at: float = 0.0, recorded: str = "", hops: int = 2, last: int = 0) -> None:
        """INVITE over the last ``hops`` of the path; ``last``: how many of its hops next to the callee are not seen."""
        path = self.path
        for i in range(len(path) - 1 - hops, len(path) - 1 - last):
            self.send(at + i * 0.01, "INVITE sip:b@x.example SIP/2.0", path[i : i + 2], path[: i + 1], "1 INVITE",
                      recorded if i else "", to_tag=False)

    def ok(self, at: float = 1.0, recorded: str = "", hops: int = 2) -> None:
        """200 back over the last ``hops``."""
        path = self.path
        for i in range(len(path) - 2, len(path) - 2 - hops, -1):
            self.send(at + (len(path) - i) * 0.01, "SIP/2.0 200 OK", (path[i + 1], path[i]), path[: i + 1], "1 INVITE",
                      recorded, answer=True)

    def ack(self, at: float, hop: tuple[str, str], extra: str = "", via: tuple[str, ...] = (CALLER,)) -> None:
        self.send(at, f"ACK sip:{CALLEE} SIP/2.0", hop, via, "1 ACK", extra)

    def bye(self, at: float, hop: tuple[str, str], extra: str = "", *, by_caller: bool = True,
            times: tuple[float, ...] = TIMER_E, status: int = 0) -> None:
        """BYE, sent again until it is given up, or answered at last."""
        for later in times:
            self.send(at + later, f"BYE sip:{self.path[-1 if by_caller else 0]} SIP/2.0", hop, hop[:1], "2 BYE", extra,
                      by_caller=by_caller)
        if status:
            self.send(at + times[-1] + 0.1, f"SIP/2.0 {status} X", hop[::-1], hop[:1], "2 BYE", by_caller=by_caller)


def _call(recorded: str = "", ack: tuple[str, str] = (PROXY, CALLEE), hops: int = 1) -> Call:
    """Set up, as seen next to the callee, or with two hops at the proxy; the ACK comes through."""
    call = Call(Wire())
    call.invite(recorded=recorded, hops=hops)
    call.ok(recorded=recorded, hops=hops)
    call.ack(1.1, ack, via=(CALLER, PROXY) if ack[0] == PROXY else (CALLER,))
    return call


def hit():
    """Next to the callee: the proxy does not record its route, and the callee's BYE goes to the caller directly."""
    call = _call(ack=(CALLER, CALLEE))
    call.bye(10.0, (CALLEE, CALLER), by_caller=False)
    return call.wire.sorted()


def hit_ack():
    """At the proxy's segment: the caller's ACK goes past it, and the callee does not get it."""
    call = Call(Wire())
    call.invite()
    for at in (0.0, 0.5, 1.5, 3.5, 7.5):
        call.ok(1.0 + at)
    call.ack(1.1, (CALLER, CALLEE))
    return call.wire.sorted()


def hit_route_dropped():
    """The route is recorded; the caller's BYE comes without it, to the callee directly."""
    call = _call(RECORDED, hops=2)
    call.bye(10.0, (CALLER, CALLEE))
    return call.wire.sorted()


def hit_callee_drops():
    """The callee sends its BYE to the proxy, but without Route: the proxy does not know what to do with it."""
    call = _call(RECORDED)
    call.bye(10.0, (CALLEE, PROXY), by_caller=False)
    return call.wire.sorted()


def hit_strict():
    """The proxy records a route without lr."""
    strict = RECORDED.replace(";lr", "")
    call = _call(strict)
    call.bye(10.0, (CALLEE, PROXY), strict.replace("Record-", ""), by_caller=False)
    return call.wire.sorted()


def hit_wrong_next_hop():
    """Two proxies record their routes; the callee sends its BYE to the first one, past the one that is next."""
    call = Call(Wire(), (CALLER, PROXY, SECOND, CALLEE))
    both = f"Record-Route: <sip:{SECOND};lr>, <sip:{PROXY};lr>\r\n"
    call.invite(recorded=both, hops=1)
    call.ok(recorded=both, hops=1)
    call.bye(10.0, (CALLEE, PROXY), both.replace("Record-", ""), by_caller=False)
    return call.wire.sorted()


def hit_two_points():
    """The proxy's own capture has the call, and not the BYE."""
    proxy, callee = Call(Wire()), _call()
    proxy.invite()
    proxy.ok()
    proxy.ack(1.09, (CALLER, PROXY))
    proxy.ack(1.1, (PROXY, CALLEE), via=(CALLER, PROXY))
    callee.bye(10.0, (CALLEE, CALLER), by_caller=False)
    later = Call(proxy.wire, call_id="call-2")
    later.invite(60.0)
    later.ok(61.0)
    later.ack(61.1, (PROXY, CALLEE), via=(CALLER, PROXY))
    return {"callee": callee.wire.sorted(), "proxy": proxy.wire.sorted()}


def near_miss_answered():
    """Condition: not answered. The proxy keeps out on purpose, and the fifth send of the direct BYE is answered."""
    call = _call(ack=(CALLER, CALLEE))
    call.bye(10.0, (CALLEE, CALLER), by_caller=False, times=TIMER_E[:5], status=200)
    return call.wire.sorted()


def near_miss_recorded():
    """Condition: it leaves the recorded way. The BYE takes it; nobody answers."""
    call = _call(RECORDED)
    call.bye(10.0, (CALLEE, PROXY), RECORDED.replace("Record-", ""), by_caller=False)
    return call.wire.sorted()


def near_miss_no_proxy():
    """Condition: the INVITE has passed a proxy. This one came from the caller itself."""
    call = Call(Wire(), (CALLER, CALLEE))
    call.invite(hops=1)
    call.ok(hops=1)
    call.ack(1.1, (CALLER, CALLEE))
    call.bye(10.0, (CALLEE, CALLER), by_caller=False)
    return call.wire.sorted()


def near_miss_same_proxy():
    """Condition: it goes past the proxy. Nothing is recorded, and the callee uses the proxy for all it sends."""
    call = _call()
    call.bye(10.0, (CALLEE, PROXY), by_caller=False)
    return call.wire.sorted()


def near_miss_by_proxy():
    """Condition: an end sends it. The proxy does, for a call that it tears down."""
    call = _call()
    call.bye(10.0, (PROXY, "203.0.113.91"))
    return call.wire.sorted()


def near_miss_three_sends():
    """Condition: sent four times. This client gives up after 1.5 s."""
    call = _call(ack=(CALLER, CALLEE))
    call.bye(10.0, (CALLEE, CALLER), by_caller=False, times=TIMER_E[:3])
    return call.wire.sorted()


def near_miss_ack_direct():
    """Condition: the 2xx comes three times. The ACK goes past the proxy and arrives after one repetition."""
    call = Call(Wire())
    call.invite()
    call.ok()
    call.ok(1.5)
    call.ack(1.6, (CALLER, CALLEE))
    return call.wire.sorted()


def near_miss_not_answered():
    """Condition: the INVITE was answered. A BYE inside a call that never was is another matter."""
    call = Call(Wire())
    call.invite()
    call.bye(10.0, (CALLER, CALLEE))
    return call.wire.sorted()
