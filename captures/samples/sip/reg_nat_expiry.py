"""Samples of SIP-REG-NAT-EXPIRY: a phone behind NAT registers for an hour and is called after a minute of silence."""

from _craft.network import Wire
from _craft.sip import Dialog, register

NAT, INSIDE, REGISTRAR = "203.0.113.66", "10.30.0.21", "198.51.100.20"
CONTACT = "100@10.30.0.21:5060"
TRAIN = (0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)  # RFC 3261 §17.1.1.2, Timer A
AT = 70.0
"""When the call comes: 69 s after the last packet of the phone."""

HIT_FRAMES = {"hit": [1, *range(4, 13)], "hit_same_port": [1, *range(4, 13)],
              "hit_two_points": {"inside": [5], "outside": [1, *range(4, 13)]}}
ALSO = ("NAT-UDP-EXPIRY",)


def _register(wire: Wire, at: float, port: int, cseq: int, **given: object) -> None:
    values: dict[str, object] = {"contact": CONTACT, "call_id": "reg1@a.example", **given}
    register(wire, at, NAT, port, REGISTRAR, cseq=cseq, **values)


def _options(wire: Wire, at: float, port: int, number: int, answered: bool = True, method: str = "OPTIONS") -> None:
    """A request of the registrar to the phone, and its answer."""
    dialog = Dialog(wire, REGISTRAR, NAT, sport=port, call_id=f"ping-{number}@b.example")
    dialog.request(at, method)
    if answered:
        dialog.response(at + 0.02, 200, "OK", method)


def _call(wire: Wire, port: int = 33504, at: float = AT, sends: int = 7) -> Dialog:
    dialog = Dialog(wire, REGISTRAR, NAT, sport=port, call_id="call-5@b.example", branches=40)
    for i, later in enumerate(TRAIN[:sends]):
        dialog.request(at + later, "INVITE", new_branch=i == 0)
    return dialog


def hit():
    """Answered after 1 s, unanswered after 69 s of silence, and back from another port."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def hit_same_port():
    """The NAT gives the same port again: after the next REGISTER the phone answers there."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 33504, 2)
    _options(wire, 121.0, 33504, 2)
    return wire.sorted()


def hit_two_points():
    """Inside, the first and the last REGISTER leave port 5060, and nothing of the call is seen."""
    outside, inside = Wire(), Wire()
    _register(outside, 0.0, 33504, 1)
    _register(outside, 120.0, 39767, 2)
    for at, cseq in ((0.0, 1), (120.0, 2)):
        register(inside, at, INSIDE, 5060, REGISTRAR, contact=CONTACT, call_id="reg1@a.example", cseq=cseq)
    _options(outside, 1.0, 33504, 1)
    twin = Dialog(inside, REGISTRAR, INSIDE, call_id="ping-1@b.example")
    twin.request(1.0, "OPTIONS")
    twin.response(1.02, 200, "OK", "OPTIONS")
    _call(outside)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_answered():
    """Condition: no answer. The third INVITE is answered, that was loss."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    dialog = _call(wire, sends=3)
    dialog.response(AT + 1.6, 486, "Busy Here")
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_expired():
    """Condition: the registration is valid. This one was granted 60 s and not refreshed."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1, granted=60)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_restarted():
    """Condition: the same client comes back. A new Call-ID, and no instance, is a phone that was restarted."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 39767, 1, call_id="reg2@a.example")
    return wire.sorted()


def near_miss_moved():
    """Condition: from the same address. The phone comes back from another network."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    register(wire, 120.0, "203.0.113.99", 39767, REGISTRAR, contact=CONTACT, call_id="reg1@a.example", cseq=2)
    return wire.sorted()


def near_miss_bore_longer():
    """Condition: no silence as long did no harm. This client had answered after 80 s."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 80.0, 33504, 1)
    _call(wire, at=150.0)
    _register(wire, 200.0, 39767, 2)
    return wire.sorted()


def near_miss_keepalive():
    """Condition: the client was silent. It sends CRLF until 3 s before the call (RFC 5626 §3.5.1)."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    for at in range(25, 70, 3):
        wire.udp(at, NAT, 33504, REGISTRAR, 5060, b"\r\n\r\n")
    _call(wire)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_no_silence():
    """Condition: a silence came before. Here the client has registered 3 s ago."""
    wire = Wire()
    _register(wire, 67.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_two_sends():
    """Condition: sent three times. Two may both be lost."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire, sends=2)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_cancelled():
    """Condition: not cancelled. The caller hung up."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire, sends=3).request(AT + 2, "CANCEL", new_branch=False)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_never_back():
    """Condition: the client comes back. A phone that is gone is gone, with or without NAT."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    return wire.sorted()


def near_miss_same_port_unproved():
    """Condition: a client on the same port answers again. Here nothing shows that it can be reached."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _options(wire, 1.0, 33504, 1)
    _call(wire)
    _register(wire, 120.0, 33504, 2)
    return wire.sorted()


def near_miss_stale_contact():
    """Condition: the request goes to the newest registration. This one goes to the port before."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _register(wire, 40.0, 39767, 2)
    _call(wire)
    _register(wire, 120.0, 39768, 3)
    return wire.sorted()
