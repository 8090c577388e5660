"""Samples of NAT-UDP-EXPIRY: a phone keeps its socket, and after a silence the NAT gives it another port."""

from _craft.network import Wire
from _craft.sip import Dialog, register

NAT, INSIDE, REGISTRAR = "203.0.113.66", "10.30.0.21", "198.51.100.20"
INSTANCE = "00000000-0000-4000-8000-000000000100"
CONTACT = "100@10.30.0.21:5060"

HIT_FRAMES = {"hit": [1, 3, 4, 5], "hit_another_moves": [1, 5, 6, 7], "hit_two_clients": [3, 5, 7, 8, 9, 10, 11, 13],
              "hit_two_points": {"inside": [1, 3], "outside": [1, 3, 4, 5]}}


def _register(wire: Wire, at: float, port: int, cseq: int, *, source: str = NAT, contact: str = CONTACT,
              call_id: str = "reg1@a.example", aor: str = "sip:100@pbx.example", instance: str = "") -> None:
    register(wire, at, source, port, REGISTRAR, aor=aor, contact=contact, call_id=call_id, cseq=cseq,
             instance=instance)


def _ping(wire: Wire, at: float, port: int = 33504, number: int = 1) -> None:
    """OPTIONS to the old port, twice, lost."""
    dialog = Dialog(wire, REGISTRAR, NAT, sport=port, call_id=f"ping-{number}@b.example", branches=number * 10)
    for i, later in enumerate((0.0, 0.5)):
        dialog.request(at + later, "OPTIONS", new_branch=i == 0)


def hit():
    """Silence from 0 to 120 s, what is sent at 70 s is lost, the next REGISTER has another port."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def hit_two_clients():
    """The same with two clients behind one NAT, which bore 20 s before."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _register(wire, 20.0, 33504, 2)
    _register(wire, 1.0, 40100, 1, aor="sip:101@pbx.example", contact="101@10.30.0.22:5060", call_id="reg2@a.example")
    _ping(wire, 90.0)
    _ping(wire, 91.0, 40100, 2)
    _register(wire, 120.0, 39767, 3)
    _register(wire, 121.0, 40200, 2, aor="sip:101@pbx.example", contact="101@10.30.0.22:5060", call_id="reg2@a.example")
    return wire.sorted()


def hit_another_moves():
    """A second client behind the NAT moves after its silence too; nothing was sent to it meanwhile."""
    wire = Wire()
    second = {"aor": "sip:101@pbx.example", "contact": "101@10.30.0.22:5060", "call_id": "reg2@a.example"}
    _register(wire, 0.0, 33504, 1)
    _register(wire, 1.0, 40100, 1, **second)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 2)
    _register(wire, 121.0, 40200, 2, **second)
    return wire.sorted()


def hit_two_points():
    """Inside, both REGISTERs leave port 5060."""
    outside, inside = Wire(), Wire()
    for at, port, cseq in ((0.0, 33504, 1), (120.0, 39767, 2)):
        _register(outside, at, port, cseq)
        _register(inside, at, 5060, cseq, source=INSIDE)
    _ping(outside, 70.0)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_new_socket():
    """Condition: the Contact goes on. This client has a new port itself, and says so."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 2, contact="100@10.30.0.21:5080")
    return wire.sorted()


def near_miss_restarted():
    """Condition: the Call-ID goes on. This client was restarted."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1, instance=INSTANCE)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 1, call_id="reg2@a.example", instance=INSTANCE)
    return wire.sorted()


def near_miss_moved():
    """Condition: the address is the same. Another address is another network."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 2, source="203.0.113.99")
    return wire.sorted()


def near_miss_no_silence():
    """Condition: a silence came before. A NAT that changes ports between packets 3 s apart restarts or balances."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _ping(wire, 2.0)
    _register(wire, 3.0, 39767, 2)
    return wire.sorted()


def near_miss_bore_longer():
    """Condition: no longer silence did no harm. This client's mapping had lived through 90 s."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _register(wire, 90.0, 33504, 2)
    _ping(wire, 160.0)
    _register(wire, 210.0, 39767, 3)
    return wire.sorted()


def near_miss_nothing_lost():
    """Condition: something was sent to the old port. A port that changes between two REGISTERs harms nobody."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _register(wire, 120.0, 39767, 2)
    return wire.sorted()


def near_miss_old_port_lives():
    """Condition: the silence ended the mapping. Here the client goes on using the old port beside the new one."""
    wire = Wire()
    _register(wire, 0.0, 33504, 1)
    _ping(wire, 70.0)
    _register(wire, 120.0, 39767, 2)
    wire.udp(130.0, NAT, 33504, REGISTRAR, 5060, b"\r\n\r\n")
    return wire.sorted()


def near_miss_inside_port_changes():
    """Condition: inside, the port stays the same. Here the client itself changed it."""
    outside, inside = Wire(), Wire()
    for at, port, inner, cseq in ((0.0, 33504, 5060, 1), (120.0, 39767, 5070, 2)):
        _register(outside, at, port, cseq)
        _register(inside, at, inner, cseq, source=INSIDE)
    _ping(outside, 70.0)
    return {"inside": inside.sorted(), "outside": outside.sorted()}
