"""Samples of NAT-PORT-EXHAUST: eight ports to one destination, and a ninth connection that finds none."""

from itertools import count

from _craft.network import Connection, Wire

CLIENT, SERVER, OTHER, PUBLIC = "10.20.0.15", "198.51.100.20", "198.51.100.77", "203.0.113.9"
PORTS = 8
TRIES = (0.0, 1.0, 3.0)

HIT_FRAMES = {"hit": [25, 26, 27, 31, 32, 33, 36, 37, 38], "hit_lingering": [25, 26, 30, 31, 34, 35, 39, 40, 41],
              "hit_two_points": {"inside": [25, 26, 27, 31, 32, 33, 36, 37, 38]},
              "hit_race": [*range(25, 32), *range(35, 42), *range(44, 51), 54, 58],
              "hit_tried_again": {"inside": [25, 26, 27, 31, 32, 33, 36, 37, 38, 39, 40]}}


def _open(wire: Wire, at: float, number: int, client: str = CLIENT, server: str = SERVER) -> Connection:
    conn = Connection(wire, client, 40000 + number, server, 443, cseq=100_000 * (number + 1))
    conn.open(at)
    return conn


def _lost(wire: Wire, at: float, number: int, client: str = CLIENT, server: str = SERVER, tries=TRIES) -> None:
    conn = Connection(wire, client, 40000 + number, server, 443, cseq=100_000 * (number + 1))
    for i, later in enumerate(tries):
        conn.syn(at + later, again=i > 0)


def _story(wire: Wire, *, client: str = CLIENT, later: float = 0.0, ports: int = PORTS, failed: int = 3,
           fails: bool = True, went_on: bool = True, elsewhere: bool = True, elsewhere_fails: bool = False,
           again: bool = True, low: bool = False, more: bool = False, freed: float = 0.0) -> list:
    """``ports`` connections stay open, ``failed`` more find no answer, one closes, and the next one works."""
    old = [_open(wire, later + n * 0.1, n, client) for n in range(ports)]
    if low:
        _lost(wire, later + 0.05, 90, client, tries=(0.0, 0.15, 0.5))
    for n in range(failed):
        if fails:
            wire_ids, wire.ids = wire.ids, count(500 + 10 * n)  # each SYN is the same at every point
            _lost(wire, later + 10.0 + n * 0.001, 20 + n, client)
            wire.ids = wire_ids
    if went_on:
        old[0].data(later + 11.5, True, b"still here")
    if elsewhere:
        _open(wire, later + 10.5, 50, client, OTHER)
    if elsewhere_fails:
        _lost(wire, later + 10.2, 60, client, OTHER, (0.0, 1.0, 2.5))
    if more:
        _open(wire, later + 15.0, 71, client)
    old[1].close(later + 20.0)
    if again:
        _open(wire, later + 21.0 + freed, 70, client)
    return wire.sorted()


def hit():
    """Eight are open and go on, three more fail, another destination works; one closes and one more succeeds."""
    return _story(Wire())


def hit_lingering():
    """The same with a port that stays taken for a minute: a try 30 s after the close still fails."""
    wire = Wire()
    _story(wire, failed=2, freed=60.0)
    _lost(wire, 50.0, 80)
    return wire.sorted()


def hit_two_points():
    """Outside, translated to one address, all SYNs appear but those that fail."""
    return {"inside": _story(Wire()), "outside": _story(Wire(), client=PUBLIC, later=0.0005, fails=False)}


def hit_race():
    """One of 23 SYNs is lost below the limit: the translator had not yet seen the end of the connection that closed."""
    wire = Wire()
    _story(wire, failed=7)
    _lost(wire, 20.022, 80, tries=(0.0, 1.0))
    return wire.sorted()


def _tried_again(wire: Wire, at: float, client: str = CLIENT, lost: bool = True) -> None:
    """A connection whose third SYN finds the port that another one left at 20 s."""
    conn = Connection(wire, client, 40081, SERVER, 443, cseq=8_200_000)
    conn.cseq += 1
    if lost:
        conn.syn(at + 18.0, again=True)
        conn.syn(at + 19.0, again=True)
    conn.syn(at + 20.5, again=True)
    conn.segment(at + 20.52, False, "SA", options=conn.options)
    conn.segment(at + 20.5201, True, "A")


def hit_tried_again():
    """A SYN that left at the third try bears the number of the two that did not."""
    inside, outside = Wire(), Wire()
    for wire, later, client in ((inside, 0.0, CLIENT), (outside, 0.0005, PUBLIC)):
        _tried_again(wire, later, client, wire is inside)
        _story(wire, client=client, later=later, fails=wire is inside, again=False)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_leaves():
    """Condition: outside, the SYNs that fail are not seen. Here they leave: the server does not take them."""
    return {"inside": _story(Wire()), "outside": _story(Wire(), client=PUBLIC, later=0.0005)}


def near_miss_two_failed():
    """Condition: at least three connections fail."""
    return _story(Wire(), failed=2)


def near_miss_few_open():
    """Condition: at least eight are open. Seven are no load."""
    return _story(Wire(), ports=7)


def near_miss_fails_below():
    """Condition: below the limit every SYN is answered. Here one failed with few open."""
    return _story(Wire(), low=True)


def near_miss_more_worked():
    """Condition: at the limit every SYN fails. Here a ninth connection opened while eight were open."""
    return _story(Wire(), more=True)


def near_miss_no_success_again():
    """Condition: success again after others closed. Nothing works any more: a rule, or the host is down."""
    return _story(Wire(), again=False)


def near_miss_open_ones_stall():
    """Condition: open connections go on. Here they say nothing: the path may be down."""
    return _story(Wire(), went_on=False)


def near_miss_nothing_elsewhere():
    """Condition: other destinations work meanwhile. Here none was tried."""
    return _story(Wire(), elsewhere=False)


def near_miss_all_destinations():
    """Condition: failures at this destination only. At another one half of the new connections fail too."""
    return _story(Wire(), elsewhere_fails=True)


def near_miss_icmp():
    """Condition: no ICMP error. A filter says that it refuses what is above its limit."""
    wire = Wire()
    _story(wire)
    for n in range(3):
        syn = next(f for f in wire.frames if f.sport == 40020 + n)
        wire.icmp_error(10.005 + n * 0.001, "203.0.113.1", syn, type=3, code=13)
    return wire.sorted()


def near_miss_one_lost():
    """Condition: two SYNs or more are lost for each. One lost SYN is chance."""
    wire = Wire()
    _story(wire, fails=False)
    for n in range(3):
        _lost(wire, 10.0 + n, 20 + n, tries=(0.0,))
    return wire.sorted()
