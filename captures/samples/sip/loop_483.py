"""Samples of SIP-LOOP-483: two proxies whose default routes point at each other."""

from _craft.network import Wire

CALLER, A, B, C, D = "203.0.113.5", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"

HIT_FRAMES = {"hit": list(range(2, 10)), "hit_spiral": list(range(2, 10)), "hit_names": list(range(2, 10)),
              "hit_483": [1, 2], "hit_482": [1, 2], "hit_482_via": [1, 2]}


class Request:
    """One request on its way; each step adds a datagram."""

    def __init__(self, wire: Wire, call_id: str = "call-1", method: str = "INVITE") -> None:
        self.wire, self.call_id, self.method = wire, call_id, method
        self.branches = 0

    def step(self, at: float, path: tuple[str, ...], forwards: int, uri: str = "sip:99@b.example", status: int = 0,
             names: dict[str, str] | None = None) -> None:
        """From the last but one of ``path`` to the last, with the Via of all before; ``status`` answers it."""
        self.branches += 1
        shown = [(names or {}).get(host, host) for host in path]
        via = "".join(f"Via: SIP/2.0/UDP {host};branch=z9hG4bK{self.call_id}{self.branches if i == 0 else f'x{i}'}\r\n"
                      for i, host in enumerate(reversed(shown[:-1])))
        head = (f"{via}From: <sip:1@a.example>;tag=1\r\nTo: <sip:99@b.example>{{}}\r\n"
                f"Call-ID: {self.call_id}\r\nCSeq: 1 {self.method}\r\n")
        src, dst = path[-2:]
        self.wire.udp(at, src, 5060, dst, 5060, (
            f"{self.method} {uri} SIP/2.0\r\n{head.format('')}Max-Forwards: {forwards}\r\n"
            "Content-Length: 0\r\n\r\n").encode())
        if status:
            answer = f"SIP/2.0 {status} X\r\n{head.format(';tag=2')}Content-Length: 0\r\n\r\n"
            self.wire.udp(at + 0.005, dst, 5060, src, 5060, answer.encode())


def _circle(first: int = 7, last: int = 0, status: int = 483, **more: object) -> Wire:
    """The request goes from A to B and back until Max-Forwards is ``last``."""
    wire = Wire()
    request, path = Request(wire), (CALLER, A)
    request.step(0.0, path, first)
    for i, forwards in enumerate(range(first - 1, last - 1, -1)):
        path = (*path, B if path[-1] == A else A)
        if "uris" in more:
            more["uri"] = f"sip:99{i}@b.example"
        request.step(0.01 * (i + 1), path, forwards, status=status if forwards == last else 0,
                     **{k: v for k, v in more.items() if k != "uris"})
    return wire


def hit():
    """Three passes and more over both hops, then 483."""
    return _circle().sorted()


def hit_spiral():
    """The Request-URI changes each time, and it goes on and on."""
    return _circle(uris=True).sorted()


def hit_names():
    """The proxies write their names into Via."""
    return _circle(names={A: "a.example", B: "b.example"}).sorted()


def hit_483():
    """Only the answer to the caller is seen."""
    wire = Wire()
    Request(wire).step(0.0, (CALLER, A), 70, status=483)
    return wire.sorted()


def hit_482():
    """A lone 482."""
    wire = Wire()
    Request(wire).step(0.0, (CALLER, A, B), 69, status=482)
    return wire.sorted()


def hit_482_via():
    """The server that answers 482 is in the Via."""
    wire = Wire()
    Request(wire).step(0.0, (CALLER, A, B, A), 68, status=482)
    return wire.sorted()


def near_miss_probe():
    """Condition: no probe. OPTIONS with Max-Forwards 0 asks the next server, REGISTER with 1 the second."""
    wire = Wire()
    Request(wire, "probe-1", "OPTIONS").step(0.0, (CALLER, A), 0, status=483)
    Request(wire, "probe-2", "REGISTER").step(1.0, (CALLER, A), 1, status=483)
    return wire.sorted()


def near_miss_two_passes():
    """Condition: three passes. The call comes back once, and is then answered."""
    return _circle(4, 1, 200).sorted()


def near_miss_chain():
    """Condition: the same hop. Four proxies on one segment."""
    wire = Wire()
    request, path = Request(wire), (CALLER, A, B, C, D)
    for i in range(2, 6):
        request.step(0.01 * i, path[:i], 72 - i, status=200 if i == 5 else 0)
    return wire.sorted()


def near_miss_fork():
    """Condition: Max-Forwards falls. A forks to three users of B, from where the call came."""
    wire = Wire()
    request = Request(wire)
    request.step(0.0, (CALLER, B, A), 69)
    for i in range(3):
        request.step(0.01, (CALLER, B, A, B), 68, f"sip:{i}@b.example", status=404)
    return wire.sorted()


def near_miss_not_in_via():
    """Condition: the server has been there. A client tries three times, with fewer hops allowed each time."""
    wire = Wire()
    request = Request(wire)
    for i in range(3):
        request.step(0.1 * i, (CALLER, A), 70 - i, status=404)
    return wire.sorted()


def near_miss_merged():
    """Condition: no other branch at that server. Two branches of a fork reach one phone, which takes the first."""
    wire = Wire()
    request = Request(wire)
    request.step(0.0, (CALLER, A, D), 69)
    request.step(0.1, (CALLER, B, D), 69, status=482)
    return wire.sorted()


def near_miss_other_answer():
    """Condition: 482 or 483. A 484 speaks of the number."""
    wire = Wire()
    Request(wire).step(0.0, (CALLER, A), 70, status=484)
    return wire.sorted()
