"""Samples of SIP-ACK-LOST: a callee whose 200 is never acknowledged."""

from _craft.network import Wire
from _craft.sip import Dialog, sdp

CALLER, CALLEE, PRIVATE, PROXY = "203.0.113.140", "198.51.100.30", "10.20.0.15", "198.51.100.9"
REPEATS = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # RFC 3261 §13.3.1.4

HIT_FRAMES = {"hit": list(range(4, 16)), "hit_ignored": list(range(4, 27)),
              "hit_fork": list(range(5, 17)),
              "hit_kept_by_proxy": sorted([*range(4, 37, 3), *range(6, 37, 3), 37]),
              "hit_two_points": {"callee": list(range(4, 16)), "caller": list(range(4, 17))}}
ALSO = ("SIP-CONTACT-PRIVATE",)
"""The Contact of the callee is private in most of them."""


def _dialog(wire: Wire, number: int = 1) -> Dialog:
    dialog = Dialog(wire, CALLER, CALLEE, call_id=f"call-{number}@a.example", callee_contact=f"sip:bob@{PRIVATE}:5060")
    dialog.request(0.0, "INVITE", body=sdp(CALLER, 16000))
    dialog.response(0.01, 100, "Trying")
    dialog.response(0.05, 180, "Ringing")
    return dialog


def _ok(dialog: Dialog, times: tuple[float, ...], start: float = 2.0) -> None:
    for at in times:
        dialog.response(start + at, 200, "OK", body=sdp(CALLEE, 17000))


def _ack(dialog: Dialog, at: float, uri: str = "") -> int:
    """An ACK; it is a transaction of its own."""
    branches, dialog.branches = dialog.branches, dialog.branches + 50
    number = dialog.request(at, "ACK", to_tag=True, uri=uri)
    dialog.branches = branches
    return number


def hit():
    """Eleven times 200, no ACK, BYE after 32 s."""
    wire = Wire()
    dialog = _dialog(wire)
    _ok(dialog, REPEATS)
    dialog.bye(34.0, by_caller=False)
    return wire.sorted()


def hit_ignored():
    """The caller acknowledges every 200, on the right way as far as this tap sees; the callee goes on repeating."""
    wire = Wire()
    dialog = _dialog(wire)
    _ok(dialog, REPEATS)
    for at in REPEATS:
        _ack(dialog, 2.02 + at)
    dialog.bye(34.0, by_caller=False)
    return wire.sorted()


def hit_kept_by_proxy():
    """Both hops of a proxy are seen: the caller acknowledges each 200, and no ACK leaves the proxy."""
    wire = Wire()
    contact = f"sip:bob@{CALLEE}:5060"
    outer = Dialog(wire, CALLER, PROXY, callee_contact=contact)
    inner = Dialog(wire, PROXY, CALLEE, callee_contact=contact, branches=90)
    outer.request(0.0, "INVITE", body=sdp(CALLER, 16000))
    inner.request(0.005, "INVITE", body=sdp(CALLER, 16000))
    outer.response(0.01, 100, "Trying")
    for at in REPEATS:
        _ok(inner, (at,))
        _ok(outer, (at,), 2.005)
        _ack(outer, 2.02 + at)
    inner.bye(34.0, by_caller=False)
    return wire.sorted()


def _fork(acknowledged: bool) -> Wire:
    """Two phones behind a proxy answer the same INVITE; the second one's 200 is acknowledged, or never."""
    wire = Wire()
    first, second = (Dialog(wire, CALLER, PROXY, callee_contact=f"sip:bob@198.51.100.{host}:5060", callee_tag=tag)
                     for host, tag in ((30, "phone1"), (31, "phone2")))
    first.request(0.0, "INVITE", body=sdp(CALLER, 16000))
    second.branches = first.branches
    first.response(0.01, 100, "Trying")
    _ok(first, (0.0,))
    _ack(first, 2.01, "sip:bob@198.51.100.30:5060")
    _ok(second, REPEATS[:2] if acknowledged else REPEATS, 2.1)
    if acknowledged:
        _ack(second, 2.65, "sip:bob@198.51.100.31:5060")
    second.bye(34.2, by_caller=False)
    return wire


def hit_fork():
    """The caller acknowledges the first phone that answers, and not the second."""
    return _fork(False).sorted()


def hit_two_points():
    """Next to the caller the ACK leaves for the private address of the Contact; it never is at the callee."""
    near, far = Wire(), Wire()
    for wire, later in ((near, 0.0), (far, 0.001)):
        dialog = _dialog(wire)
        _ok(dialog, REPEATS, 2.0 - later)
        dialog.bye(34.0 - later, by_caller=False)
        if wire is near:
            astray = Dialog(wire, CALLER, PRIVATE, branches=70)
            astray.request(2.02, "ACK", to_tag=True, uri=f"sip:bob@{PRIVATE}:5060")
    return {"callee": far.sorted(), "caller": near.sorted()}


def near_miss_one_lost():
    """Condition: the 2xx is sent three times at least. One lost ACK costs one repetition."""
    wire = Wire()
    dialog = _dialog(wire)
    _ok(dialog, REPEATS[:2])
    dialog.bye(20.0)
    return wire.sorted()


def near_miss_late_ack():
    """Condition: no ACK. An ACK comes after 7.45 s, late for whatever reason, and one 200 crosses it."""
    wire = Wire()
    dialog = _dialog(wire)
    _ok(dialog, REPEATS[:5])
    _ack(dialog, 2.0 + 7.45)
    dialog.bye(40.0)
    return wire.sorted()


def near_miss_refused():
    """Condition: the final response is a 2xx. A 486 is repeated by Timer G, and its ACK is another matter."""
    wire = Wire()
    dialog = _dialog(wire)
    for at in REPEATS:
        dialog.response(2.0 + at, 486, "Busy Here")
    Dialog(wire, CALLER, CALLEE, call_id="call-9@a.example").answered(40.0, sdp(CALLER, 16000), sdp(CALLEE, 17000))
    return wire.sorted()


def near_miss_fork():
    """Condition: a branch without an ACK. The caller acknowledges both phones, the second one after a repetition."""
    return _fork(True).sorted()


def near_miss_capture_ends():
    """Condition: the capture goes on for 4 s after the first 2xx. This one stops after 2 s."""
    wire = Wire()
    dialog = _dialog(wire)
    _ok(dialog, REPEATS[:3])
    return wire.sorted()
