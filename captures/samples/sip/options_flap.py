"""Samples of SIP-OPTIONS-FLAP: a proxy probes a trunk every 30 s, and some probes fail."""

from _craft.network import Wire
from _craft.sip import Dialog, sdp

PROXY, TRUNK, SPARE = "198.51.100.10", "203.0.113.20", "203.0.113.40"
TRAIN = (0.0, 0.5, 1.5, 3.5)  # RFC 3261 §17.1.2.2, Timer E; the prober gives up after 5 s
PERIOD = 30.0

HIT_FRAMES = {"hit": list(range(5, 17)), "hit_once": list(range(5, 11)),
              "hit_refused": list(range(5, 13)), "hit_rerouted": [10, 11, 12, 13, 19, 20],
              "hit_false_alarm": [5, 6, 7, 8, 14, 15], "hit_too_late": list(range(5, 15)),
              "hit_two_points": {"prober": [5, 6, 7, 8, 9, 10], "trunk": [6]}}


def _probe(wire: Wire, number: int, answer: int | None = 200, *, at: float | None = None, sends: int = 4,
           extra: str = "", delay: float = 0.02, arrives: bool = True) -> None:
    """Probe ``number`` and its answer; without one it is sent ``sends`` times, or not seen here."""
    start = PERIOD * number if at is None else at
    dialog = Dialog(wire, PROXY, TRUNK, call_id=f"probe-{number}@proxy.example",
                    caller_uri="sip:ping@proxy.example", callee_uri="sip:trunk.example")
    times = TRAIN[:sends] if answer is None or delay > 0.5 else TRAIN[:1]
    for i, later in enumerate(times if arrives else ()):
        dialog.request(start + later, "OPTIONS", new_branch=i == 0)
    if answer is not None:
        dialog.branches = 1
        dialog.response(start + delay, answer, "X", "OPTIONS", extra=extra)


def _series(outcomes: str, wire: Wire | None = None, answer: int | None = None, extra: str = "") -> Wire:
    """A probe for each letter: "u" is answered with 200, "d" with ``answer`` or not at all."""
    wire = wire or Wire()
    for i, outcome in enumerate(outcomes):
        _probe(wire, i, 200 if outcome == "u" else answer, extra="" if outcome == "u" else extra)
    return wire


def _call(wire: Wire, at: float, peer: str, number: int, status: int = 200) -> None:
    dialog = Dialog(wire, PROXY, peer, call_id=f"call-{number}@proxy.example")
    if status == 200:
        dialog.answered(at, sdp(PROXY, 30000), sdp(peer, 16000))
    else:
        dialog.request(at, "INVITE")
        dialog.response(at + 0.02, status, "X")
        dialog.request(at + 0.03, "ACK", to_tag=True, new_branch=False)


def hit():
    """Two probes of seven get no answer, each between answered ones."""
    return _series("uududuu").sorted()


def hit_once():
    """One probe of six fails: suspected."""
    return _series("uuduuu").sorted()


def hit_refused():
    """Two probes get 503."""
    return _series("uududuu", answer=503).sorted()


def hit_rerouted():
    """While the probes fail, calls go to the spare trunk, and afterwards back."""
    wire = _series("uuduuu")
    _call(wire, 32.0, TRUNK, 1)
    _call(wire, 66.0, SPARE, 2)
    _call(wire, 95.0, TRUNK, 3)
    return wire.sorted()


def hit_false_alarm():
    """The trunk answers a call while its probe fails."""
    wire = _series("uuduuu")
    _call(wire, 66.0, TRUNK, 2)
    return wire.sorted()


def hit_too_late():
    """Two probes are answered after 2.4 s; the prober sent them twice and not a third time, so it had given up."""
    wire = Wire()
    for i, outcome in enumerate("uududuu"):
        if outcome == "u":
            _probe(wire, i)
        else:
            _probe(wire, i, delay=2.4, sends=2)
    return wire.sorted()


def hit_two_points():
    """The trunk does answer; the answer gets lost on the way back."""
    prober, trunk = _series("uuduuu"), Wire()
    for i in range(6):
        _probe(trunk, i, at=PERIOD * i + 0.001)
    for later in TRAIN[1:]:
        dialog = Dialog(trunk, PROXY, TRUNK, call_id="probe-2@proxy.example", branches=1,
                        caller_uri="sip:ping@proxy.example", callee_uri="sip:trunk.example")
        dialog.request(PERIOD * 2 + 0.001 + later, "OPTIONS", new_branch=False)
    return {"prober": prober.sorted(), "trunk": trunk.sorted()}


def near_miss_repeated():
    """Condition: no response. The second send of the probe is answered."""
    wire = _series("uu")
    _probe(wire, 2, delay=0.55, sends=2)
    for i in range(3, 6):
        _probe(wire, i)
    return wire.sorted()


def near_miss_slow():
    """Condition: the prober has given up. It goes on repeating the probe until the answer comes after 2.4 s."""
    wire = Wire()
    for i, outcome in enumerate("uududuu"):
        if outcome == "u":
            _probe(wire, i)
        else:
            _probe(wire, i, delay=2.4, sends=3)
    return wire.sorted()


def near_miss_alive():
    """Condition: 408 or 503. A 404 and a 501 come from a living peer."""
    wire = Wire()
    for i, status in enumerate((200, 200, 404, 200, 501, 200, 200)):
        _probe(wire, i, status)
    return wire.sorted()


def near_miss_maintenance():
    """Condition: no Retry-After. The peer announces maintenance."""
    return _series("uududuu", answer=503, extra="Retry-After: 60\r\n").sorted()


def near_miss_goes_down():
    """Condition: two changes. The peer dies and stays dead."""
    return _series("uuuudd").sorted()


def near_miss_no_period():
    """Condition: a steady period. Somebody asks at odd times."""
    wire = Wire()
    for i, at in enumerate((0.0, 20.0, 95.0, 100.0, 160.0, 171.0)):
        _probe(wire, i, None if i == 2 else 200, at=at)
    return wire.sorted()


def near_miss_half_an_hour():
    """Condition: two changes within half an hour. This probe comes every 20 minutes, and two of them fail."""
    wire = Wire()
    for i, outcome in enumerate("uuudduu"):
        _probe(wire, i, 200 if outcome == "u" else None, at=1200.0 * i)
    return wire.sorted()


def near_miss_capture_ends():
    """Condition: the prober goes on, or 32 s pass. The capture ends within the last probe."""
    return _series("duuuud").sorted()


def near_miss_in_dialog():
    """Condition: outside a dialog. OPTIONS inside one ask about the call."""
    wire = Wire()
    dialog = Dialog(wire, PROXY, TRUNK)
    dialog.answered(0.0, sdp(PROXY, 30000), sdp(TRUNK, 16000))
    _probe(wire, 9, at=10.0)
    for i, outcome in enumerate("uududuu"):
        dialog.cseq += 1
        dialog.request(20 + PERIOD * i, "OPTIONS", to_tag=True)
        if outcome == "u":
            dialog.response(20.02 + PERIOD * i, 200, "OK", "OPTIONS")
    return wire.sorted()
