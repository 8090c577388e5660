"""Samples of SIP-INVITE-TIMEOUT: a proxy sends INVITE to a phone that never answers."""

from _craft.network import Wire
from _craft.sip import Dialog, sdp

PROXY, PHONE, OTHER = "198.51.100.10", "203.0.113.66", "203.0.113.140"
TRAIN = (0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)  # RFC 3261 §17.1.1.2, Timer A
OTHERS = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # §17.1.2.2, Timer E

HIT_FRAMES = {"hit": [1, 2, 3, 4, 5, 6, 7], "hit_upstream": [3, 4, 5, 6], "hit_icmp": list(range(1, 13)),
              "hit_other_gateway": [1, 2, 3, 4, 5, 6, 7],
              "hit_two_points": {"outside": [6, 7, 8, 9, 10, 11, 12]},
              "hit_two_points_way_back": {"outside": list(range(1, 8)), "inside": list(range(1, 15))}}


def _neighbour(wire: Wire, at: float = 34.0, phone: str = OTHER) -> None:
    """Another call, which is answered, and lets the capture go on."""
    Dialog(wire, PROXY, phone, call_id="call-9@a.example").answered(at, sdp(PROXY, 30000), sdp(phone, 16000))


def _train(wire: Wire, times: tuple[float, ...] = TRAIN, method: str = "INVITE", to_tag: bool = False) -> Dialog:
    dialog = Dialog(wire, PROXY, PHONE, sport=33504)
    for i, at in enumerate(times):
        dialog.request(at, method, new_branch=i == 0, to_tag=to_tag)
    return dialog


def hit():
    """Seven INVITEs in 31.5 s and no response."""
    wire = Wire()
    _train(wire)
    _neighbour(wire)
    return wire.sorted()


def hit_upstream():
    """The proxy gives up after four sends and answers 408 to its own client; the capture ends there."""
    wire = Wire()
    caller = Dialog(wire, OTHER, PROXY, branches=20)
    caller.request(0.0, "INVITE")
    caller.response(0.01, 100, "Trying")
    inner = Dialog(wire, PROXY, PHONE, sport=33504)
    for i, at in enumerate(TRAIN[:4]):
        inner.request(0.02 + at, "INVITE", new_branch=i == 0)
    caller.response(8.0, 408, "Request Timeout")
    caller.request(8.01, "ACK", to_tag=True, new_branch=False)
    return wire.sorted()


def hit_icmp():
    """A REGISTER is sent eleven times; a router says that the host cannot be reached."""
    wire = Wire()
    _train(wire, OTHERS, "REGISTER")
    wire.icmp_error(0.02, "203.0.113.1", wire.frames[0], type=3, code=1)
    _neighbour(wire)
    return wire.sorted()


def hit_other_gateway():
    """After 32 s the proxy tries another gateway in the same call, which answers."""
    wire = Wire()
    _train(wire)
    Dialog(wire, PROXY, OTHER, branches=20).answered(32.1, sdp(PROXY, 30000), sdp(OTHER, 16000))
    return wire.sorted()


def hit_two_points():
    """The INVITE is sent by the proxy and does not come out behind the firewall, where other calls to it do."""
    outside, inside = Wire(), Wire()
    for wire in (outside, inside):
        _neighbour(wire, 0.0, PHONE)
        _neighbour(wire, 40.0)
    dialog = Dialog(outside, PROXY, PHONE, call_id="call-2@a.example")
    for i, at in enumerate(TRAIN):
        dialog.request(1.0 + at, "INVITE", new_branch=i == 0)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def hit_two_points_way_back():
    """The phone's 100 is seen next to it, and never at the proxy."""
    outside, inside = Wire(), Wire()
    for wire in (outside, inside):
        dialog = _train(wire)
        _neighbour(wire)
        for at in TRAIN if wire is inside else ():
            dialog.response(at + 0.01, 100, "Trying")
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_other_phone_answers():
    """Condition: no other branch is accepted meanwhile. Another phone of the same user answers after 5 s."""
    wire = Wire()
    caller = Dialog(wire, "203.0.113.9", PROXY, branches=40)
    caller.request(0.0, "INVITE")
    caller.response(0.01, 100, "Trying")
    other = Dialog(wire, PROXY, OTHER, branches=20)
    other.request(0.02, "INVITE")
    _train(wire, TRAIN[:4])
    other.response(5.0, 200, "OK")
    caller.response(5.01, 200, "OK")
    caller.request(5.1, "ACK", to_tag=True)
    other.request(5.11, "ACK", to_tag=True)
    _neighbour(wire, phone="203.0.113.150")
    return wire.sorted()


def near_miss_trying():
    """Condition: no response of any kind. After the last send comes a 100: the phone has it and is slow."""
    wire = Wire()
    dialog = _train(wire)
    dialog.response(31.6, 100, "Trying")
    _neighbour(wire)
    return wire.sorted()


def near_miss_cancelled():
    """Condition: not cancelled. The caller hangs up after 10 s."""
    wire = Wire()
    dialog = _train(wire, TRAIN[:5])
    dialog.request(10.0, "CANCEL", new_branch=False)
    _neighbour(wire)
    return wire.sorted()


def near_miss_one_way_tap():
    """Condition: no ACK. The proxy acknowledges, so it got an answer that this tap does not show."""
    wire = Wire()
    dialog = _train(wire, TRAIN[:5])
    dialog.request(9.0, "ACK", to_tag=True)
    _neighbour(wire)
    return wire.sorted()


def near_miss_three_sends():
    """Condition: sent four times. Whoever gives up after 1.5 s did not wait for an answer."""
    wire = Wire()
    _train(wire, TRAIN[:3])
    _neighbour(wire)
    return wire.sorted()


def near_miss_in_dialog():
    """Condition: outside a dialog. A BYE goes to the Contact, and its failure is about that."""
    wire = Wire()
    _train(wire, OTHERS, "BYE", to_tag=True)
    _neighbour(wire)
    return wire.sorted()


def near_miss_probe():
    """Condition: not OPTIONS. A probe of a dead peer is meant to fail."""
    wire = Wire()
    _train(wire, OTHERS, "OPTIONS")
    _neighbour(wire)
    return wire.sorted()


def near_miss_capture_ends():
    """Condition: the capture lasts until Timer B, or shows that the client gave up. This one ends after 16 s."""
    wire = Wire()
    _train(wire, TRAIN[:6])
    _neighbour(wire, 15.8)
    return wire.sorted()
