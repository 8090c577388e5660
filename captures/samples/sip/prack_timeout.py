"""Samples of SIP-PRACK-TIMEOUT: a gateway whose reliable 183 is never acknowledged."""

from _craft.network import Wire
from _craft.offer import body, media
from _craft.sip import Dialog

CALLER, PROXY, GATEWAY, PRIVATE = "203.0.113.140", "198.51.100.10", "198.51.100.30", "10.20.0.15"
TRAIN = (0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)  # RFC 3262 §3: doubling from T1 without a limit
OFFER, ANSWER = body(CALLER, media(16000)), body(GATEWAY, media(20000))

HIT_FRAMES = {"hit": list(range(3, 11)), "hit_gives_up": [3, 4, 5, 6], "hit_wrong_number": [3, 4, 5, 6, 7],
              "hit_ignored": list(range(3, 9)), "hit_421": [1, 3], "hit_420": [1, 3], "hit_481": [4, 5],
              "hit_481_fails": [4, 5, 6], "hit_proxied": [5, 7, 9, 11],
              "hit_two_hops": {"gateway": [3, 4, 5, 6]},
              "hit_two_points": {"callee": [3, 4, 5, 6], "caller": [3, 4, 5, 6, 7]}}


def _dialog(wire: Wire, extra: str = "Supported: 100rel\r\n", **more) -> Dialog:
    dialog = Dialog(wire, CALLER, GATEWAY, callee_contact=f"sip:gw@{PRIVATE}:5060", **more)
    dialog.request(0.0, "INVITE", body=OFFER, extra=extra)
    dialog.response(0.01, 100, "Trying")
    return dialog


def _progress(dialog: Dialog, times: tuple[float, ...], rseq: int = 1, start: float = 1.0, status: int = 183,
              extra: str = "Require: 100rel\r\n") -> None:
    for at in times:
        dialog.response(start + at, status, "Session Progress", body=ANSWER, extra=f"{extra}RSeq: {rseq}\r\n")


def _prack(dialog: Dialog, at: float, rack: str = "1 1", status: int = 200, number: int = 2) -> None:
    branches, dialog.branches = dialog.branches, dialog.branches + 40 + number
    dialog.request(at, "PRACK", to_tag=True, cseq=number, extra=f"RAck: {rack} INVITE\r\n",
                   uri=f"sip:gw@{PRIVATE}:5060")
    if status:
        dialog.response(at + 0.01, status, "X", "PRACK", cseq=number)
    dialog.branches = branches


def _ends(dialog: Dialog, at: float, status: int = 504) -> None:
    dialog.response(at, status, "X", body=ANSWER if status == 200 else "")
    dialog.request(at + 0.02, "ACK", to_tag=True, new_branch=status == 200)


def hit():
    """Seven 183 with RSeq 1, no PRACK, 504 after 32 s."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN)
    _ends(dialog, 33.0)
    return wire.sorted()


def hit_gives_up():
    """Four sends, then the caller hangs up."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:4])
    dialog.request(6.0, "CANCEL", new_branch=False)
    dialog.response(6.01, 200, "OK", "CANCEL")
    _ends(dialog, 6.02, 487)
    return wire.sorted()


def hit_wrong_number():
    """The PRACK names RSeq 2."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:4])
    _prack(dialog, 1.05, "2 1", status=0)
    return wire.sorted()


def hit_ignored():
    """The PRACK passes here on its way to the gateway, which goes on repeating."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:5])
    _prack(dialog, 1.05, status=0)
    return wire.sorted()


def hit_421():
    """The gateway insists on 100rel, which this caller does not know."""
    wire = Wire()
    dialog = _dialog(wire, "")
    _ends_with(dialog, 421, "Require: 100rel\r\n")
    return wire.sorted()


def hit_420():
    """The caller demands 100rel, which the gateway does not know."""
    wire = Wire()
    dialog = _dialog(wire, "Require: 100rel\r\n")
    _ends_with(dialog, 420, "Unsupported: timer, 100rel\r\n")
    return wire.sorted()


def _ends_with(dialog: Dialog, status: int, extra: str, at: float = 0.1) -> None:
    dialog.response(at, status, "X", extra=extra)
    dialog.request(at + 0.02, "ACK", to_tag=True, new_branch=False)
    dialog.cseq += 1


def hit_481():
    """The PRACK reaches a gateway that does not know the dialog; the caller gives up."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, (0.0,))
    _prack(dialog, 1.1, status=481)
    dialog.request(6.0, "CANCEL", new_branch=False)
    _ends(dialog, 6.02, 487)
    return wire.sorted()


def hit_481_fails():
    """The same, and the gateway rejects the call with 500."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, (0.0,))
    _prack(dialog, 1.1, status=481)
    _ends(dialog, 2.0, 500)
    return wire.sorted()


def hit_proxied():
    """Both hops of a proxy are captured: the series next to the gateway counts."""
    wire = Wire()
    outer = Dialog(wire, CALLER, PROXY)
    outer.request(0.0, "INVITE", body=OFFER)
    outer.response(0.01, 100, "Trying")
    inner = Dialog(wire, PROXY, GATEWAY, branches=20)
    inner.request(0.02, "INVITE", body=OFFER)
    inner.response(0.03, 100, "Trying")
    _progress(inner, TRAIN[:4])
    _progress(outer, TRAIN[:4], start=1.001)
    return wire.sorted()


def hit_two_hops():
    """As ``hit_proxied``, each hop at a point of its own: only the gateway repeats anything."""
    near, far = Wire(), Wire()
    first = f"Via: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bKfirst\r\n"
    for wire, hop, via in ((near, (CALLER, PROXY), ""), (far, (PROXY, GATEWAY), first)):
        dialog = Dialog(wire, *hop, branches=len(via))
        dialog.request(0.0, "INVITE", body=OFFER, extra=via)
        dialog.response(0.01, 100, "Trying", extra=via)
        _progress(dialog, TRAIN[:4], extra=f"{via}Require: 100rel\r\n")
    return {"caller": near.sorted(), "gateway": far.sorted()}


def hit_two_points():
    """At the caller a PRACK leaves for the private address of the Contact; it never is at the gateway."""
    near, far = Wire(), Wire()
    for wire in (near, far):
        dialog = _dialog(wire)
        _progress(dialog, TRAIN[:4])
        if wire is near:
            astray = Dialog(wire, CALLER, PRIVATE, branches=70)
            _prack(astray, 1.02, status=0)
    return {"callee": far.sorted(), "caller": near.sorted()}


def near_miss_not_reliable():
    """Condition: Require: 100rel and RSeq. A 180 with 100rel in Supported alone is repeated every minute."""
    wire = Wire()
    dialog = _dialog(wire)
    for i in range(5):
        dialog.response(1.0 + 60 * i, 180, "Ringing", extra="Supported: 100rel\r\n")
    return wire.sorted()


def near_miss_other_extension():
    """Condition: Require names 100rel. It names another extension, and RSeq stands there without reason."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN, extra="Require: precondition\r\n")
    return wire.sorted()


def near_miss_no_number():
    """Condition: RSeq is there. Without a number nobody can acknowledge it."""
    wire = Wire()
    dialog = _dialog(wire)
    for at in TRAIN:
        dialog.response(1.0 + at, 183, "Session Progress", extra="Require: 100rel\r\n")
    return wire.sorted()


def near_miss_three_sends():
    """Condition: sent four times. The third one is acknowledged by the final response of a caller who hangs up."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:3])
    _ends(dialog, 4.0, 487)
    return wire.sorted()


def near_miss_many_numbers():
    """Condition: one response is repeated. Six different ones follow each other, acknowledged out of sight."""
    wire = Wire()
    dialog = _dialog(wire)
    for i in range(6):
        _progress(dialog, (0.0,), rseq=i + 1, start=1.0 + i)
    return wire.sorted()


def near_miss_late():
    """Condition: no PRACK stops it. It comes after 7.45 s, and one more 183 crosses it."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:5])
    _prack(dialog, 1.0 + 7.45)
    _ends(dialog, 20.0, 486)
    return wire.sorted()


def near_miss_answered():
    """Condition: the call is not answered. The 200 comes before any PRACK, and is acknowledged."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, TRAIN[:4])
    _ends(dialog, 6.0, 200)
    return wire.sorted()


def near_miss_tries_again():
    """Condition: no other try. After the 421 the caller sends Supported: 100rel, and gets through."""
    wire = Wire()
    dialog = _dialog(wire, "")
    _ends_with(dialog, 421, "Require: 100rel\r\n")
    dialog.request(1.0, "INVITE", body=OFFER, extra="Supported: 100rel\r\n")
    _progress(dialog, (0.0,))
    _prack(dialog, 1.1, "1 2", number=3)
    _ends_with(dialog, 486, "Require: 100rel\r\n", 5.0)
    return wire.sorted()


def near_miss_other_option():
    """Condition: refused for 100rel. The session timer is what the gateway does not know."""
    wire = Wire()
    dialog = _dialog(wire, "Require: timer\r\n")
    _ends_with(dialog, 420, "Unsupported: timer\r\n")
    return wire.sorted()


def near_miss_crossing():
    """Condition: the INVITE still waits. The PRACK crossed the 486."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, (0.0,))
    _ends(dialog, 1.05, 486)
    _prack(dialog, 1.06, status=481)
    return wire.sorted()


def near_miss_481_answered():
    """Condition: the call is not answered. The 200 comes in spite of the 481."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, (0.0,))
    _prack(dialog, 1.06, status=481)
    _ends(dialog, 3.0, 200)
    return wire.sorted()


def near_miss_prack_timeout():
    """Condition: answered with 481. A 200 to the PRACK is what should be."""
    wire = Wire()
    dialog = _dialog(wire)
    _progress(dialog, (0.0, 0.5))
    _prack(dialog, 1.6)
    _ends(dialog, 3.0, 503)
    return wire.sorted()
