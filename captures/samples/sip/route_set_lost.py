"""Samples of SIP-ROUTE-SET-LOST: calls through a proxy whose BYE or ACK goes past it."""

from _craft.network import Wire

CALLER, PROXY, SECOND, CALLEE = "203.0.113.5", "198.51.100.1", "198.51.100.2", "203.0.113.90"
THIRD, PRIVATE = "198.51.100.3", "10.20.0.15"
TIMER_E = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # RFC 3261 §17.1.2.2
RECORDED = f"Record-Route: <sip:{PROXY};lr>\r\n"
RELIABLE = "Require: 100rel\r\nRSeq: 1\r\n"

HIT_FRAMES = {"hit": [1, 2, *range(4, 15)], "hit_callee_drops": [1, 2, *range(4, 15)],
              "hit_strict": [1, 2, *range(4, 15)],
              "hit_ack": [2, 3, 4, 5, 7, 9, 11, 13], "hit_private_contact": [2, 3, 4, 5, 7, 9, 11, 13],
              "hit_route_dropped": [2, 3, *range(6, 17)],
              "hit_wrong_next_hop": list(range(1, 14)),
              "hit_next_proxy": [2, 3, 4, 5, 7, 9, 11, 13], "hit_next_proxy_bye": [2, 3, *range(5, 16)],
              "hit_prack": [2, 3, *range(5, 16)],
              "hit_two_points": {"callee": [1, 2, *range(4, 15)], "proxy": [1, 2]}}


class Call:
    """A call from CALLER to CALLEE by way of PROXY; each method adds datagrams."""

    def __init__(self, wire: Wire, path: tuple[str, ...] = (CALLER, PROXY, CALLEE), call_id: str = "call-1") -> None:
        self.wire, self.path, self.call_id = wire, path, call_id
        self.called, self.contact = "b", ""

    def send(self, at: float, start: str, hop: tuple[str, str], via: tuple[str, ...], cseq: str, extra: str = "", *,
             by_caller: bool = True, to_tag: bool = True, answer: bool = False) -> None:
        """One message over ``hop``; ``via`` are the senders of the request so far, the first one first."""
        lines = "".join(f"Via: SIP/2.0/UDP {host};branch=z9hG4bK{cseq.replace(' ', '')}{host}\r\n"
                        for host in reversed(via))
        tags = ("a", self.called) if by_caller else (self.called, "a")
        shown = f";tag={tags[1]}" if to_tag else ""
        host = self.path[0] if by_caller != answer else self.contact or self.path[-1]
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

    def ok(self, at: float = 1.0, recorded: str = "", hops: int = 2, status: str = "200 OK") -> None:
        """200 back over the last ``hops``."""
        path = self.path
        for i in range(len(path) - 2, len(path) - 2 - hops, -1):
            self.send(at + (len(path) - i) * 0.01, f"SIP/2.0 {status}", (path[i + 1], path[i]), path[: i + 1],
                      "1 INVITE", recorded, answer=True)

    def ack(self, at: float, hop: tuple[str, str], extra: str = "", via: tuple[str, ...] = (CALLER,)) -> None:
        self.send(at, f"ACK sip:{CALLEE} SIP/2.0", hop, via, "1 ACK", extra)

    def bye(self, at: float, hop: tuple[str, str], extra: str = "", *, by_caller: bool = True,
            times: tuple[float, ...] = TIMER_E, status: int = 0, via: tuple[str, ...] = (), method: str = "BYE"
            ) -> None:
        """BYE, sent again until it is given up, or answered at last."""
        for later in times:
            self.send(at + later, f"{method} sip:{self.path[-1 if by_caller else 0]} SIP/2.0", hop, via or hop[:1],
                      f"2 {method}", extra, by_caller=by_caller)
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


def hit_private_contact():
    """As before, and the callee's Contact is one that only the proxy reaches: the ACK goes to that address."""
    call = Call(Wire())
    call.contact = PRIVATE
    call.invite()
    for at in (0.0, 0.5, 1.5, 3.5, 7.5):
        call.ok(1.0 + at)
    call.ack(1.1, (CALLER, PRIVATE))
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


def _two_proxies(recorded: str = RECORDED, hops: int = 2, last: int = 0) -> Call:
    """An INVITE that PROXY sends to SECOND, as both proxies' segments show it."""
    call = Call(Wire(), (CALLER, PROXY, SECOND, CALLEE))
    call.invite(recorded=recorded, hops=hops, last=last)
    return call


def hit_next_proxy():
    """The first proxy records its route, the second one does not: the ACK goes past the second one."""
    call = _two_proxies()
    for at in (0.0, 0.5, 1.5, 3.5, 7.5):
        call.ok(1.0 + at, RECORDED)
    call.ack(1.1, (PROXY, CALLEE), via=(CALLER, PROXY))
    return call.wire.sorted()


def hit_next_proxy_bye():
    """The second proxy records its route, the first one does not: the callee's BYE goes past the first one."""
    recorded = RECORDED.replace(PROXY, SECOND)
    call = _two_proxies(recorded)
    call.ok(recorded=recorded)
    call.bye(10.0, (SECOND, CALLER), by_caller=False, via=(CALLEE, SECOND))
    return call.wire.sorted()


def hit_prack():
    """The second proxy does not record its route: the PRACK for a reliable 183 goes past it."""
    call = _two_proxies()
    call.ok(1.0, f"{RECORDED}{RELIABLE}", status="183 Session Progress")
    call.bye(1.1, (PROXY, CALLEE), via=(CALLER, PROXY), method="PRACK", extra="RAck: 1 1 INVITE\r\n")
    return call.wire.sorted()


def near_miss_not_reliable():
    """Condition: a 2xx, or a reliable 18x. This 183 is not, and need not have the route."""
    call = _two_proxies()
    call.ok(1.0, RECORDED, status="183 Session Progress")
    call.bye(1.1, (PROXY, CALLEE), via=(CALLER, PROXY), method="PRACK", extra="RAck: 1 1 INVITE\r\n")
    return call.wire.sorted()


def near_miss_next_may_be_the_end():
    """Condition: the answer came through the next proxy. What the proxy sent the INVITE to may be the callee itself."""
    call = Call(Wire(), (CALLER, PROXY, SECOND))
    call.invite(recorded=RECORDED)
    call.ok(recorded=RECORDED)
    call.bye(10.0, (PROXY, CALLEE), via=(CALLER, PROXY))
    return call.wire.sorted()


def near_miss_other_branch():
    """Condition: the answer came through the next proxy. It came from SECOND itself; THIRD led elsewhere."""
    call = Call(Wire(), (CALLER, PROXY, THIRD, "203.0.113.91"))
    call.invite(recorded=RECORDED)
    call.path = CALLER, PROXY, SECOND
    call.invite(0.1, recorded=RECORDED)
    call.ok(recorded=RECORDED)
    call.bye(10.0, (PROXY, CALLEE), via=(CALLER, PROXY))
    return call.wire.sorted()


def near_miss_other_dialog():
    """Condition: the answer of this dialog came through the next proxy. SECOND passed on that of another callee."""
    call = _two_proxies()
    call.ok(recorded=RECORDED)
    call.path, call.called = (CALLER, PROXY, THIRD), "c"
    call.invite(recorded=RECORDED)
    call.ok(2.0, RECORDED)
    call.bye(10.0, (PROXY, "203.0.113.91"), via=(CALLER, PROXY))
    return call.wire.sorted()


def near_miss_caller_is_next():
    """Condition: a proxy is next. It is the caller, and the BYE goes to another address of it."""
    call = _call(RECORDED, hops=2)
    call.bye(10.0, (PROXY, "203.0.113.91"), by_caller=False, via=(CALLEE, PROXY))
    return call.wire.sorted()


def near_miss_next_recorded():
    """Condition: the next proxy did not record its route. It did, and PROXY sends the BYE to another address of it."""
    both = f"Record-Route: <sip:{SECOND};lr>, <sip:{PROXY};lr>\r\n"
    call = _two_proxies(both)
    call.ok(recorded=both)
    call.bye(10.0, (PROXY, THIRD), f"Route: <sip:{SECOND};lr>\r\n", via=(CALLER, PROXY))
    return call.wire.sorted()


def near_miss_proxy_hangs_up():
    """Condition: an end's request. PROXY ends the call itself, and its BYE has one Via."""
    call = _two_proxies()
    call.ok(recorded=RECORDED)
    call.bye(10.0, (PROXY, CALLEE))
    return call.wire.sorted()


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
