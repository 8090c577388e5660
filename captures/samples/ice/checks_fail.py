"""Samples of ICE-CHECKS-FAIL: two agents check each other's candidates, and nothing leads through."""

from _craft.network import Wire
from _craft.sip import Dialog
from _craft.stun import BINDING, REQUEST, SUCCESS, Agents, attribute, message, number, sdp, xored

A, B, PROXY = "192.0.2.10", "198.51.100.20", "203.0.113.5"
HOST_A, HOST_B, OTHER_B = (A, 40000), (B, 50000), ("10.9.0.20", 50000)
ALSO = ("FW-REJECT",)

HIT_FRAMES = {"hit": [6, 7, 18, 19], "hit_refused": [6, 7, 9, 11, 14], "hit_role_conflict": [1, 2, 3, 4, 6, 9, 11],
              "hit_unreachable": [1, 2, 4, 6, 13], "hit_two_points": {"near": [6, 12]}}


def _call(wire: Wire, caller: str = A, callee: str = PROXY) -> Dialog:
    """A call that carries the descriptions of both agents."""
    dialog = Dialog(wire, caller, callee, call_id="ice-1@a.example")
    dialog.answered(0.0, sdp(A, 40000, "aaaa", "password-of-agent-a-000"),
                    sdp(B, 50000, "bbbb", "password-of-agent-b-000", (f"{OTHER_B[0]} 50000 host", f"{B} 50000 srflx")))
    return dialog


def hit():
    """Two pairs, seven requests each over 31.5 s, no answer; the host hears its proxy meanwhile."""
    wire = Wire()
    dialog = _call(wire)
    for i, remote in enumerate((OTHER_B, HOST_B)):
        Agents(wire, HOST_A, remote, tids=10 * i).retransmitted(0.2 + i * 0.02)
    dialog.bye(42.0)
    return wire.sorted()


def hit_refused():
    """Every check is answered with 401: it is signed with the password of an older description."""
    wire = Wire()
    _call(wire)
    pair = Agents(wire, HOST_A, HOST_B, passwords=("password-of-agent-a-000", "an-older-password-of-b"))
    for i in range(5):
        pair.request(0.2 + i * 0.5)
        pair.refusal(0.22 + i * 0.5, 401)
    return wire.sorted()


def hit_role_conflict():
    """Both agents are controlling, answer 487 and do not change."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    for i in range(3):
        for from_a in (True, False):
            pair.request(i * 1.0 + (not from_a) * 0.3, from_a, role="controlling")
            pair.refusal(i * 1.0 + (not from_a) * 0.3 + 0.02, 487, from_a)
    return wire.sorted()


def hit_unreachable():
    """A router forbids UDP between the two."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    for i in range(8):
        index = pair.request(i * 0.5)
        if i < 5:
            wire.icmp_error(i * 0.5 + 0.01, "203.0.113.1", wire.frames[index]["IP"], code=13)
    return wire.sorted()


def hit_two_points():
    """The checks leave one side and do not arrive at the other; the call is seen at both."""
    near, far = Wire(), Wire()
    for wire in (near, far):
        _call(wire, A, B)
    Agents(near, HOST_A, HOST_B).retransmitted(0.2)
    for wire in (near, far):
        wire.udp(45.0, A, 5060, B, 5060, b"\r\n\r\n")
    return {"near": near.sorted(), "far": far.sorted()}


def near_miss_one_pair_works():
    """Condition: no pair succeeds. Of three pairs one is nominated, and the checks on the others stop."""
    wire = Wire()
    for i, remote in enumerate((OTHER_B, ("10.9.1.20", 50000))):
        Agents(wire, HOST_A, remote, tids=10 * i).retransmitted(0.2, most=5)
    Agents(wire, HOST_A, HOST_B, tids=100).connect(0.3)
    return wire.sorted()


def near_miss_peer_reflexive():
    """Condition: no pair succeeds. The pair that works leads to an address that no description names."""
    wire = Wire()
    _call(wire)
    Agents(wire, HOST_A, OTHER_B).retransmitted(0.2)
    Agents(wire, HOST_A, ("203.0.113.77", 61000), tids=100).connect(0.3)
    return wire.sorted()


def near_miss_role_settled():
    """Condition: the conflict goes on. Here one 487 changes a role, and the next check succeeds."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.request(0.0, role="controlling")
    pair.refusal(0.02, 487)
    pair.check(0.1, role="controlled")
    return wire.sorted()


def near_miss_few_conflicts():
    """Condition: three conflicts. Two are not yet an endless quarrel, and the agents give up."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    for i in range(2):
        pair.request(i * 1.0)
        pair.refusal(i * 1.0 + 0.02, 487)
    wire.udp(60.0, A, 5060, PROXY, 5060, b"\r\n\r\n")
    return wire.sorted()


def near_miss_refused_once():
    """Condition: refused again and again. One 401 may be a check that overtook its description."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.request(0.0)
    pair.refusal(0.02, 401)
    wire.udp(60.0, A, 5060, PROXY, 5060, b"\r\n\r\n")
    return wire.sorted()


def near_miss_lite():
    """Condition: no pair succeeds. An ICE-lite agent answers and sends no checks of its own."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.check(0.0)
    pair.check(0.1, nominate=True)
    return wire.sorted()


def near_miss_forked():
    """Condition: no other session of the agent succeeds. Of two answers to one offer the other one won."""
    wire = Wire()
    Agents(wire, HOST_A, OTHER_B, ("aaaa", "cccc")).retransmitted(0.2)
    Agents(wire, HOST_A, HOST_B, tids=100).connect(0.3)
    return wire.sorted()


def near_miss_few_checks():
    """Condition: seven requests. An agent that stops after three was stopped."""
    wire = Wire()
    Agents(wire, HOST_A, HOST_B).retransmitted(0.0, most=3)
    wire.udp(60.0, A, 5060, PROXY, 5060, b"\r\n\r\n")
    return wire.sorted()


def near_miss_established_before():
    """Condition: no media on the pair. This path was found before the capture, and it is lost now."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    for i in range(8):
        pair.request(i * 5.0)
        pair.data(i * 5.0 + 0.1, b"\x80\x6f" + i.to_bytes(2, "big") + bytes(8) + b"media")
    return wire.sorted()


def near_miss_gathering():
    """Condition: requests with a username. A STUN server that is silent answers no check, and the check succeeds."""
    wire = Wire()
    for i in range(7):
        wire.udp(0.5 * i, A, 40000, "203.0.113.3", 3478, message(REQUEST, BINDING, number(500), fingerprint=False))
    wire.udp(9.0, A, 40000, "203.0.113.4", 3478, message(REQUEST, BINDING, number(501), fingerprint=False))
    wire.udp(9.1, "203.0.113.4", 3478, A, 40000, message(
        SUCCESS, BINDING, number(501), attribute(0x20, xored(HOST_A, number(501))), fingerprint=False))
    Agents(wire, HOST_A, HOST_B).connect(10.0)
    return wire.sorted()


def near_miss_inconclusive_cut():
    """Condition: time for an answer. The capture ends 1.5 s after the first check."""
    wire = Wire()
    Agents(wire, HOST_A, HOST_B).retransmitted(0.0, most=3)
    return wire.sorted()
