"""Samples of SIP-DIALOG-481: a proxy's BYE meets a node that does not have the call."""

from _craft.network import Wire, ip
from _craft.sip import Dialog
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

PROXY, NODE, STANDBY, PHONE = "198.51.100.10", "192.0.2.21", "192.0.2.22", "203.0.113.66"

HIT_FRAMES = {"hit": [2, 4, 5], "hit_standby": [2, 4, 5], "hit_server_header": [2, 4, 5], "hit_ttl": [2, 4, 5],
              "hit_three": [4, 6, 8, *range(10, 16)], "hit_outage": [4, 6, 8, 11, *range(13, 19)],
              "hit_silence": [4, 6, 8, *range(12, 18)], "hit_by_callee": [1, 4, 5], "hit_404": [2, 4, 5],
              "hit_forwarded": [3, 8, 9], "hit_again": [2, *range(4, 10)],
              "hit_two_points": {"phone": [2, 4, 5], "node": [2, 4, 5]}}


def _call(wire: Wire, number: int = 1, at: float = 0.0, node: str = NODE, contact: str = "", extra: str = "",
          caller: str = PROXY) -> Dialog:
    """INVITE, 200, ACK."""
    dialog = Dialog(wire, caller, node, call_id=f"call-{number}@a.example", callee_contact=contact)
    dialog.request(at, "INVITE")
    dialog.response(at + 2.0, 200, "OK", extra=extra)
    dialog.request(at + 2.01, "ACK", to_tag=True)
    return dialog


def _deny(dialog: Dialog, at: float, status: int = 481, *, method: str = "BYE", node: str = "",
          from_caller: bool = True, extra: str = "") -> None:
    """A request inside the dialog, perhaps to another ``node``, and its answer."""
    dialog.cseq += 1
    callee, dialog.callee = dialog.callee, node or dialog.callee
    dialog.request(at, method, from_caller=from_caller, to_tag=True)
    dialog.response(at + 0.01, status, "X", method, to_caller=from_caller, extra=extra)
    dialog.callee = callee


def hit():
    """The node answers the INVITE, and its BYE with 481."""
    wire = Wire()
    _deny(_call(wire), 20.0)
    return wire.sorted()


def hit_standby():
    """The standby answers the BYE."""
    wire = Wire()
    _deny(_call(wire), 20.0, node=STANDBY)
    return wire.sorted()


def hit_server_header():
    """Another Server answers from the virtual address."""
    wire = Wire()
    _deny(_call(wire, extra="Server: node-a\r\n"), 20.0, extra="Server: node-b\r\n")
    return wire.sorted()


def hit_ttl():
    """The answer comes from another distance."""
    wire = Wire()
    _deny(_call(wire), 20.0)
    wire.frames[-1][IP].ttl = 60
    return wire.sorted()


def _three(wire: Wire) -> list[Dialog]:
    return [_call(wire, i, i * 0.1) for i in range(3)]


def hit_three():
    """Three calls in two seconds."""
    wire = Wire()
    for i, dialog in enumerate(_three(wire)):
        _deny(dialog, 20.0 + i)
    return wire.sorted()


def hit_outage():
    """Before that, an OPTIONS to the node met a closed port."""
    wire = Wire()
    dialogs = _three(wire)
    Dialog(wire, PROXY, NODE, call_id="ping-1@a.example").request(10.0, "OPTIONS")
    probe = ip(PROXY, NODE) / UDP(sport=5060, dport=5060) / Raw(b"OPTIONS sip:")
    wire.icmp_error(10.01, NODE, probe)
    Dialog(wire, PROXY, NODE, call_id="ping-2@a.example").request(11.0, "OPTIONS")
    for i, dialog in enumerate(dialogs):
        _deny(dialog, 20.0 + i)
    return wire.sorted()


def hit_silence():
    """Before that, an OPTIONS to the node got no response."""
    wire = Wire()
    dialogs = _three(wire)
    ping = Dialog(wire, PROXY, NODE, call_id="ping-1@a.example")
    for i, at in enumerate((10.0, 10.5)):
        ping.request(at, "OPTIONS", new_branch=i == 0)
    for i, dialog in enumerate(dialogs):
        _deny(dialog, 20.0 + i)
    return wire.sorted()


def hit_by_callee():
    """The callee hangs up, and the proxy has lost the call."""
    wire = Wire()
    _deny(_call(wire), 20.0, from_caller=False)
    return wire.sorted()


def hit_404():
    """The standby says 404."""
    wire = Wire()
    _deny(_call(wire), 20.0, 404, node=STANDBY)
    return wire.sorted()


def hit_again():
    """An UPDATE gets 481, and so do the BYE that follows and another one."""
    wire = Wire()
    dialog = _call(wire)
    _deny(dialog, 20.0, method="UPDATE")
    _deny(dialog, 20.1)
    _deny(dialog, 25.0)
    return wire.sorted()


def hit_forwarded():
    """Both hops of a proxy are captured: the finding is about the node, not about the proxy."""
    wire = Wire()
    outer = Dialog(wire, PHONE, PROXY, branches=40)
    inner = Dialog(wire, PROXY, NODE)
    outer.request(0.0, "INVITE")
    inner.request(0.01, "INVITE")
    inner.response(2.0, 200, "OK")
    outer.response(2.01, 200, "OK")
    outer.request(2.02, "ACK", to_tag=True)
    inner.request(2.03, "ACK", to_tag=True)
    outer.cseq = inner.cseq = 2
    outer.request(20.0, "BYE", to_tag=True)
    inner.callee = STANDBY
    inner.request(20.01, "BYE", to_tag=True)
    inner.response(20.02, 481, "X", "BYE")
    outer.response(20.03, 481, "X", "BYE")
    return wire.sorted()


def hit_two_points():
    """The same with a point on either side of the proxy: one finding, about the node."""
    before, behind = Wire(), Wire()
    outer, inner = Dialog(before, PHONE, PROXY, branches=40), Dialog(behind, PROXY, NODE)
    via = f"Via: SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bKphone\r\n"
    for dialog, extra in ((outer, ""), (inner, via)):
        dialog.request(0.0, "INVITE", extra=extra)
        dialog.response(2.0, 200, "OK", extra=extra)
        dialog.request(2.02, "ACK", to_tag=True, extra=extra)
        dialog.cseq = 2
        dialog.callee = STANDBY if dialog is inner else PROXY
        dialog.request(20.0, "BYE", to_tag=True, extra=extra)
        dialog.response(20.02, 481, "X", "BYE", extra=extra)
    return {"node": behind.sorted(), "phone": before.sorted()}


def near_miss_ended():
    """Condition: not ended. The other side's BYE comes first, and both cross."""
    wire = Wire()
    dialog = _call(wire)
    dialog.request(20.0, "BYE", from_caller=False, to_tag=True, cseq=1)
    _deny(dialog, 20.005)
    return wire.sorted()


def near_miss_bye_again():
    """Condition: not ended. The BYE is answered, and sent once more as a new one."""
    wire = Wire()
    dialog = _call(wire)
    dialog.bye(20.0)
    _deny(dialog, 25.0)
    return wire.sorted()


def near_miss_cancel():
    """Condition: inside a dialog. A CANCEL crosses the 200."""
    wire = Wire()
    dialog = Dialog(wire, PROXY, NODE)
    dialog.request(0.0, "INVITE")
    dialog.response(2.0, 200, "OK")
    dialog.request(2.005, "CANCEL", new_branch=False)
    dialog.response(2.015, 481, "X", "CANCEL")
    dialog.request(2.02, "ACK", to_tag=True)
    dialog.bye(9.0)
    return wire.sorted()


def near_miss_notify():
    """Condition: methods of the call. A NOTIFY is about a subscription."""
    wire = Wire()
    dialog = _call(wire)
    _deny(dialog, 20.0, method="NOTIFY", from_caller=False)
    dialog.bye(30.0)
    return wire.sorted()


def near_miss_other_tag():
    """Condition: tags of the dialog. The client sends a BYE with a tag that nobody gave."""
    wire = Wire()
    _deny(_call(wire), 20.0)
    for frame in wire.frames[-2:]:
        frame[Raw].load = frame[Raw].load.replace(b"tag=callee1", b"tag=stranger")
        del frame[IP].len, frame[IP].chksum, frame[UDP].len, frame[UDP].chksum
    return wire.sorted()


def near_miss_refused():
    """Condition: set up with 2xx. The INVITE was refused, and a BYE comes all the same."""
    wire = Wire()
    dialog = Dialog(wire, PROXY, NODE)
    dialog.request(0.0, "INVITE")
    dialog.response(2.0, 486, "Busy Here")
    dialog.request(2.01, "ACK", to_tag=True, new_branch=False)
    _deny(dialog, 3.0)
    return wire.sorted()


def near_miss_404_of_the_owner():
    """Condition: 404 counts where another host answers. The node itself answers a REFER with 404."""
    wire = Wire()
    _deny(_call(wire), 20.0, 404, method="REFER")
    return wire.sorted()


def near_miss_contact():
    """Condition: another host than the Contact's. The INVITE goes over a proxy, the REFER straight to the phone."""
    wire = Wire()
    _deny(_call(wire, contact=f"sip:bob@{PHONE}:5060"), 20.0, 404, method="REFER", node=PHONE)
    return wire.sorted()


def near_miss_works():
    """Condition: 481, 404 or 408. The standby has the call: it answers 200."""
    wire = Wire()
    _deny(_call(wire), 20.0, 200, node=STANDBY)
    return wire.sorted()


def near_miss_before_the_capture_inconclusive():
    """Condition: set up in view. Of a call that began before the capture nobody knows."""
    wire = Wire()
    _deny(Dialog(wire, PROXY, NODE), 20.0)
    return wire.sorted()
