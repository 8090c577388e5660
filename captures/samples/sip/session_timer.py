"""Samples of SIP-SESSION-TIMER: calls with a session interval of 90 s end 60 s after their answer."""

from _craft.network import Wire
from _craft.sip import Dialog

CALLER, CALLEE = "203.0.113.140", "198.51.100.30"
OTHERS = (0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)  # RFC 3261 §17.1.2.2, Timer E

HIT_FRAMES = {"hit": [2, 4], "hit_no_refresher": [2, 4], "hit_at_the_end": [2, 4], "hit_refused": [2, 4, 5, 6],
              "hit_unanswered": [2, *range(4, 16)], "hit_three_calls": [2, 4, 7, 9, 12, 14],
              "hit_two_points": {"callee": [2, 4], "caller": [2, 4, 5, 6, 7, 8]}, "hit_422": [1, 2, 4, 5, 7, 8],
              "hit_refused_late": [2, 4, 5, 6]}
ALSO = ("SIP-DIALOG-481",)
"""Where the refresh itself gets 481."""


def _call(wire: Wire, timer: str = "90;refresher=uac", number: int = 1, at: float = 0.0) -> Dialog:
    """INVITE, 200 with Session-Expires, ACK; the answer comes 2 s after ``at``."""
    dialog = Dialog(wire, CALLER, CALLEE, call_id=f"call-{number}@a.example")
    extra = f"Session-Expires: {timer}\r\n" if timer else ""
    dialog.request(at, "INVITE", extra=f"Supported: timer\r\n{extra}")
    dialog.response(at + 2.0, 200, "OK", extra=extra)
    dialog.request(at + 2.01, "ACK", to_tag=True)
    return dialog


def _refresh(dialog: Dialog, at: float, status: int | None, times: tuple[float, ...] = (0.0,), method: str = "UPDATE",
             timer: str = "Session-Expires: 90;refresher=uac\r\n") -> None:
    dialog.cseq += 1
    for i, later in enumerate(times):
        dialog.request(at + later, method, to_tag=True, extra=timer, new_branch=i == 0)
    if status is not None:
        dialog.response(at + times[-1] + 0.01, status, "X", method, extra=timer if status < 300 else "")
        if method == "INVITE":
            dialog.request(at + times[-1] + 0.02, "ACK", to_tag=True, new_branch=status < 300)


def _bye(dialog: Dialog, at: float, by_caller: bool = False, reason: str = "") -> None:
    dialog.cseq += 1
    dialog.request(at, "BYE", from_caller=by_caller, to_tag=True, extra=f"Reason: {reason}\r\n" if reason else "")
    dialog.response(at + 0.01, 200, "OK", "BYE", to_caller=by_caller)


def hit():
    """The caller is the refresher and sends nothing; the callee cuts the call after 60 s."""
    wire = Wire()
    _bye(_call(wire), 62.0, reason='SIP;cause=408;text="Session timer expired"')
    return wire.sorted()


def hit_no_refresher():
    """The 2xx does not say who refreshes."""
    wire = Wire()
    _bye(_call(wire, "90"), 62.0)
    return wire.sorted()


def hit_at_the_end():
    """The refresher itself gives up at the end."""
    wire = Wire()
    _bye(_call(wire), 92.0, by_caller=True)
    return wire.sorted()


def hit_refused():
    """The refresh at half the time gets 481, and the caller hangs up."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, 481)
    _bye(dialog, 47.1, by_caller=True)
    return wire.sorted()


def hit_refused_late():
    """The refresh gets 501; the call goes on until the callee misses it."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, 501)
    _bye(dialog, 62.0)
    return wire.sorted()


def hit_unanswered():
    """The refresh gets no response until Timer F."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, None, OTHERS)
    _bye(dialog, 79.0, by_caller=True)
    return wire.sorted()


def hit_three_calls():
    """Three calls end after 60 s, with cause 16."""
    wire = Wire()
    for i in range(3):
        _bye(_call(wire, number=i, at=100.0 * i), 100.0 * i + 62.0, reason="Q.850;cause=16")
    return wire.sorted()


def hit_two_points():
    """The caller refreshes, and nothing of it comes out next to the callee."""
    near, far = Wire(), Wire()
    for wire in (near, far):
        dialog = _call(wire)
        if wire is near:
            _refresh(dialog, 47.0, None, OTHERS[:4])
        _bye(dialog, 62.0)
    return {"callee": far.sorted(), "caller": near.sorted()}


def hit_422():
    """The callee asks for 1800 s, and the caller repeats its 90 s."""
    wire = Wire()
    dialog = Dialog(wire, CALLER, CALLEE)
    for i in range(3):
        _offer(dialog, i, 90, 422)
    return wire.sorted()


def _offer(dialog: Dialog, number: int, interval: int, status: int, least: int = 1800) -> None:
    dialog.cseq = number + 1
    dialog.request(float(number), "INVITE", extra=f"Session-Expires: {interval}\r\n")
    dialog.response(number + 0.01, status, "X", extra=f"Min-SE: {least}\r\n" if status == 422 else "")
    dialog.request(number + 0.02, "ACK", to_tag=True, new_branch=status < 300)


def near_miss_another_time():
    """Condition: BYE when the timer says. Somebody hangs up after 70 s."""
    wire = Wire()
    _bye(_call(wire), 72.0)
    return wire.sorted()


def near_miss_no_timer():
    """Condition: Session-Expires in the 2xx. There is none, and the call ends after 60 s."""
    wire = Wire()
    _bye(_call(wire, ""), 62.0)
    return wire.sorted()


def near_miss_refreshed():
    """Condition: counted from the last 2xx. An UPDATE refreshes it, and the call ends 60 s after the answer."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 12.0, 200)
    _bye(dialog, 62.0)
    return wire.sorted()


def near_miss_by_the_refresher():
    """Condition: by the other side. The refresher itself hangs up after 60 s."""
    wire = Wire()
    _bye(_call(wire), 62.0, by_caller=True)
    return wire.sorted()


def near_miss_hang_up():
    """Condition: no cause 16. One call ends after 60 s, because somebody hangs up."""
    wire = Wire()
    _bye(_call(wire), 62.0, reason="Q.850 ;cause = 16")
    return wire.sorted()


def near_miss_longest_duration():
    """Condition: no limit in the Reason. The provider allows 90 s."""
    wire = Wire()
    _bye(_call(wire), 92.0, reason='SIP;cause=503;text="Maximum call duration"')
    return wire.sorted()


def near_miss_hold_refused():
    """Condition: a refresh, with Session-Expires. A hold is refused, and the caller hangs up."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, 481, method="INVITE", timer="")
    _bye(dialog, 48.0, by_caller=True)
    return wire.sorted()


def near_miss_repaired():
    """Condition: no success later. The refresh meets another one (491), is repeated, and the call ends by itself."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 46.0, 408)
    _refresh(dialog, 47.0, 200)
    _bye(dialog, 50.0, by_caller=True)
    return wire.sorted()


def near_miss_refused_and_goes_on():
    """Condition: BYE at once. The refresh gets 481, and the call goes on for 38 s."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, 481)
    _bye(dialog, 85.0, by_caller=True)
    return wire.sorted()


def near_miss_refused_otherwise():
    """Condition: 408, 481 or no response. A 488 does not end the session, and somebody hangs up soon after."""
    wire = Wire()
    dialog = _call(wire)
    _refresh(dialog, 47.0, 488)
    _bye(dialog, 50.0, by_caller=True)
    return wire.sorted()


def near_miss_422_repaired():
    """Condition: less than Min-SE. Two elements ask for more, one after the other, and get it."""
    wire = Wire()
    dialog = Dialog(wire, CALLER, CALLEE)
    _offer(dialog, 0, 90, 422, 600)
    _offer(dialog, 1, 600, 422, 1800)
    _offer(dialog, 2, 1800, 200)
    return wire.sorted()
