"""Samples of SIP-CONTACT-PRIVATE: a PBX behind NAT writes its inside address into Contact."""

from _craft.network import Wire
from _craft.sip import Dialog

CALLER, CALLEE, PRIVATE = "203.0.113.140", "198.51.100.30", "10.20.0.15"
REPEATS = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # RFC 3261 §13.3.1.4
OTHERS = REPEATS[:6]  # §17.1.2.2, Timer E: the client gives up early

HIT_FRAMES = {"hit": list(range(4, 15)), "hit_bye": [1, *range(6, 12)], "hit_icmp": [1, *range(6, 13)],
              "hit_no_ack": list(range(4, 9)), "hit_481": [4, 6, 7], "hit_container": [1, *range(6, 12)],
              "hit_record_route": [4, *range(6, 12)], "hit_name": list(range(4, 9)),
              "hit_two_hops": [5, 7, 8, 9], "hit_prack": list(range(3, 10))}


def _dialog(wire: Wire, *, contact: str = "", callee_contact: str = f"sip:bob@{PRIVATE}:5060", route: str = "",
            caller: str = CALLER, callee: str = CALLEE, ack: bool = True, repeats: tuple[float, ...] = (0.0,)
            ) -> Dialog:
    """INVITE, 100, 180, 200 at 2 s, and an ACK to where it came from."""
    dialog = Dialog(wire, caller, callee, contact=contact, callee_contact=callee_contact)
    dialog.request(0.0, "INVITE", extra=route)
    dialog.response(0.01, 100, "Trying")
    dialog.response(0.05, 180, "Ringing")
    for at in repeats:
        dialog.response(2.0 + at, 200, "OK", extra=route)
    if ack:
        _ack(wire, 2.02, callee, caller)
    return dialog


def _ack(wire: Wire, at: float, to: str, caller: str = CALLER, number: int = 50) -> None:
    Dialog(wire, caller, to, branches=number).request(at, "ACK", to_tag=True)


def _inside(wire: Wire, source: str, to: str, *, method: str = "BYE", times: tuple[float, ...] = OTHERS,
            from_caller: bool = True) -> Dialog:
    """A request inside the dialog from ``source`` to ``to``."""
    dialog = (Dialog(wire, source, to, branches=80, cseq=2) if from_caller
              else Dialog(wire, to, source, branches=80, cseq=2))
    for i, at in enumerate(times):
        dialog.request(20.0 + at, method, from_caller=from_caller, to_tag=True, new_branch=i == 0)
    return dialog


def hit():
    """Each 200 makes the caller send an ACK to the private address; the 200 goes on."""
    wire = Wire()
    _dialog(wire, ack=False, repeats=REPEATS[:6])
    for i, at in enumerate(REPEATS[:5]):
        _ack(wire, 2.02 + at, PRIVATE, number=50 + i)
    return wire.sorted()


def _ringing(*, reliable: bool = True, times: tuple[float, ...] = OTHERS) -> Wire:
    """A call that rings and is never answered; the PRACK goes to the private address."""
    wire = Wire()
    dialog = Dialog(wire, CALLER, CALLEE, callee_contact=f"sip:bob@{PRIVATE}:5060")
    dialog.request(0.0, "INVITE", extra="Supported: 100rel\r\n")
    dialog.response(0.01, 100, "Trying")
    dialog.response(2.0, 180, "Ringing", extra="Require: 100rel\r\nRSeq: 1\r\n" if reliable else "")
    _inside(wire, CALLER, PRIVATE, method="PRACK", times=times)
    return wire


def hit_prack():
    """The Contact of a reliable 180 is private, and the PRACK that goes there is not answered."""
    return _ringing().sorted()


def near_miss_ringing():
    """Condition: a 2xx, or a reliable 18x. This 180 needs no PRACK; the one that is sent has another reason."""
    return _ringing(reliable=False).sorted()


def near_miss_two_pracks():
    """Condition: three sends. The PRACK is sent twice."""
    return _ringing(times=OTHERS[:2]).sorted()


def hit_bye():
    """The caller's Contact is private, and the BYE of the callee goes there."""
    wire = Wire()
    _dialog(wire, contact=f"sip:alice@{PRIVATE}:5060", callee_contact="")
    _inside(wire, CALLEE, PRIVATE, from_caller=False)
    return wire.sorted()


def hit_icmp():
    """A router says that there is no way to the private address."""
    wire = Wire()
    _dialog(wire, contact=f"sip:alice@{PRIVATE}:5060", callee_contact="")
    _inside(wire, CALLEE, PRIVATE, from_caller=False)
    wire.icmp_error(20.01, "198.51.100.1", wire.frames[5], type=3, code=0)
    return wire.sorted()


def hit_no_ack():
    """Next to the callee only the repeated 200 is seen."""
    wire = Wire()
    _dialog(wire, ack=False, repeats=REPEATS[:5])
    return wire.sorted()


def hit_481():
    """In the caller's own network another PBX has the private address."""
    wire = Wire()
    _dialog(wire)
    dialog = _inside(wire, CALLER, PRIVATE, times=(0.0,))
    dialog.response(20.01, 481, "Call/Transaction Does Not Exist", "BYE")
    return wire.sorted()


def hit_container():
    """The Contact has the address of a container bridge, the packet one of the office."""
    wire = Wire()
    _dialog(wire, contact="sip:alice@172.17.0.2:5060", callee_contact="", caller="192.168.7.5", callee="192.168.7.9")
    _inside(wire, "192.168.7.9", "172.17.0.2", from_caller=False)
    return wire.sorted()


def hit_record_route():
    """The caller's proxy records a public route, that of the callee a private one."""
    wire = Wire()
    _dialog(wire, callee_contact=f"sip:bob@{CALLEE}", route=f"Record-Route: <sip:{PRIVATE};lr>, <sip:{CALLER};lr>\r\n")
    _inside(wire, CALLER, PRIVATE)
    return wire.sorted()


def hit_name():
    """The Contact is a name that only the callee's own network knows."""
    wire = Wire()
    _dialog(wire, ack=False, repeats=REPEATS[:5], callee_contact="sip:bob@pbx.local")
    return wire.sorted()


def hit_two_hops():
    """The tap is at a proxy that does not record its route: the caller's ACK arrives there, its own goes astray."""
    wire = Wire()
    proxy = "203.0.113.10"
    Dialog(wire, CALLER, proxy, call_id="call-1@a.example", branches=20).request(-0.1, "INVITE")
    _dialog(wire, caller=proxy, ack=False, repeats=REPEATS[:3])
    _ack(wire, 2.2, proxy, number=90)
    _ack(wire, 2.3, PRIVATE, caller=proxy)
    return wire.sorted()


def near_miss_works():
    """Condition: requests fail. The Contact is private, and the other side sends to the packet's source."""
    wire = Wire()
    _dialog(wire).bye(20.0)
    return wire.sorted()


def near_miss_elsewhere():
    """Condition: sent to that address. The BYE goes to the packet's source and is lost."""
    wire = Wire()
    _dialog(wire)
    _inside(wire, CALLER, CALLEE)
    return wire.sorted()


def near_miss_private_peer():
    """Condition: named by this dialog. The BYE goes to a private address that neither side named."""
    wire = Wire()
    _dialog(wire)
    _inside(wire, CALLER, "10.20.0.99")
    return wire.sorted()


def near_miss_one_network():
    """Condition: unreachable from the other side. Both are in one private network, and the BYE gets lost."""
    wire = Wire()
    _dialog(wire, caller="10.20.0.7", callee=PRIVATE)
    _inside(wire, "10.20.0.7", PRIVATE)
    return wire.sorted()


def near_miss_two_sends():
    """Condition: sent three times. The second BYE may have been answered out of view."""
    wire = Wire()
    _dialog(wire)
    _inside(wire, CALLER, PRIVATE, times=OTHERS[:2])
    return wire.sorted()


def near_miss_answered():
    """Condition: no response. A VPN leads to the private address, and the BYE is answered."""
    wire = Wire()
    _dialog(wire)
    _inside(wire, CALLER, PRIVATE).response(31.6, 200, "OK", "BYE")
    return wire.sorted()


def near_miss_outbound():
    """Condition: no ob in the Contact, which asks for the flow of the registration."""
    wire = Wire()
    _dialog(wire, callee_contact=f"sip:bob@{PRIVATE}:5060;ob", ack=False, repeats=REPEATS[:5])
    return wire.sorted()


def near_miss_routed():
    """Condition: the first host of the route. Public proxies record their routes; ACKs get lost for another reason."""
    wire = Wire()
    _dialog(wire, ack=False, repeats=REPEATS[:5],
            route=f"Record-Route: <sip:{CALLEE};lr>, <sip:{CALLER};lr>\r\n")
    return wire.sorted()


def near_miss_ack_arrives():
    """Condition: no ACK passes to the source of the 2xx. It does, and the 2xx is repeated all the same."""
    wire = Wire()
    _dialog(wire, repeats=REPEATS[:5])
    return wire.sorted()


def near_miss_other_side():
    """Condition: sent by the other side. A third host sends the BYE to the private address."""
    wire = Wire()
    _dialog(wire)
    _inside(wire, "203.0.113.77", PRIVATE)
    return wire.sorted()
