"""Samples of RTP-HOLD-STUCK: a phone holds a call with a gateway and takes it back."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, forth
from _craft.sip import Dialog

HIT_FRAMES = {"hit": [6, 9, 10], "hit_refused": [6, 9], "hit_oneway": [6, 9, 10, 98], "hit_old_style": [6, 9, 10]}


class Call(Dialog):
    """A dialog in which both sides make offers."""

    def begin(self) -> None:
        self.answered(0.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))

    def offer(self, at: float, direction: str, answer: str = "", *, status: int = 200, by_caller: bool = True,
              address: str = "") -> None:
        """A re-INVITE with a direction, and what the other side says to it."""
        self.cseq += 1
        ends = ((PHONE, PORT), (GATEWAY, GATEWAY_PORT))
        (mine, port), (theirs, their_port) = ends if by_caller else reversed(ends)
        self.request(at, "INVITE", from_caller=by_caller, to_tag=True, body=body(
            address or mine, port, direction=direction, version=self.cseq))
        self.response(at + 0.1, status, "OK" if status == 200 else "No", to_caller=by_caller, body=body(
            theirs, their_port, direction=answer, version=self.cseq) if answer else "")
        self.request(at + 0.11, "ACK", from_caller=by_caller, to_tag=True, new_branch=status == 200)


def _held(**options) -> Call:
    call = Call(Wire(), PHONE, GATEWAY)
    call.begin()
    call.offer(2.0, "sendonly", "recvonly", **options)
    return call


def _end(call: Call, at: float = 20.0) -> list:
    call.bye(at)
    return call.wire.sorted()


def hit():
    """The gateway answers the resume with recvonly, as it answered the hold."""
    call = _held()
    call.offer(5.0, "sendrecv", "recvonly")
    return _end(call)


def hit_refused():
    """The resume meets a 491 and is not tried again."""
    call = _held()
    call.offer(5.0, "sendrecv", status=491)
    return _end(call)


def hit_old_style():
    """The same after a hold with the address 0.0.0.0."""
    call = Call(Wire(), PHONE, GATEWAY)
    call.begin()
    call.offer(2.0, "sendrecv", "recvonly", address="0.0.0.0")
    call.offer(5.0, "sendrecv", "inactive")
    return _end(call)


def hit_oneway():
    """After it the phone talks, and the gateway does not."""
    call = _held()
    call.offer(5.0, "sendrecv", "recvonly")
    forth(call.wire, 5.5, 7.8)
    return _end(call)


def near_miss_resumed():
    """Condition: the answer closes a direction. Here it is sendrecv."""
    call = _held()
    call.offer(5.0, "sendrecv", "sendrecv")
    return _end(call)


def near_miss_still_held():
    """Condition: a resume. The phone never takes the call back."""
    return _end(_held())


def near_miss_refresh_of_the_held_side():
    """Condition: the holder resumes. Here the gateway refreshes, and the phone rightly answers sendonly."""
    call = _held()
    call.offer(5.0, "sendrecv", "sendonly", by_caller=False)
    return _end(call)


def near_miss_double_hold():
    """Condition: the other side does not hold. Here it does, and answers the resume of the first accordingly."""
    call = _held()
    call.offer(3.0, "inactive", "inactive", by_caller=False)
    call.offer(5.0, "sendrecv", "sendonly")
    return _end(call)


def near_miss_announcement():
    """Condition: a hold within the call. This one begins with sendonly; later sendrecv is answered recvonly."""
    call = Call(Wire(), PHONE, GATEWAY)
    call.answered(0.0, body(PHONE, PORT, direction="sendonly"), body(GATEWAY, GATEWAY_PORT, direction="recvonly"))
    call.offer(5.0, "sendrecv", "recvonly")
    return _end(call)


def near_miss_repeated():
    """Condition: never tried again. The offer that met a 491 is made again after three seconds."""
    call = _held()
    call.offer(5.0, "sendrecv", status=491)
    call.offer(8.0, "sendrecv", "sendrecv")
    return _end(call)


def near_miss_corrected():
    """Condition: it stays so. The gateway makes an offer of its own after two seconds."""
    call = _held()
    call.offer(5.0, "sendrecv", "recvonly")
    call.offer(7.0, "sendrecv", "sendrecv", by_caller=False)
    return _end(call)


def near_miss_challenged():
    """Condition: a refusal. 407 asks for credentials, and the call ends before they come."""
    call = _held()
    call.offer(5.0, "sendrecv", status=407)
    return _end(call)


def near_miss_ends_soon():
    """Condition: ten seconds. The call ends eight seconds later."""
    call = _held()
    call.offer(5.0, "sendrecv", "recvonly")
    return _end(call, 13.0)
