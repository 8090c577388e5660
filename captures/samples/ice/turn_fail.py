"""Samples of ICE-TURN-FAIL: a relay that refuses, or whose grants run out."""

from _craft.network import Wire
from _craft.stun import ALLOCATE, TurnClient, attribute

CLIENT, SERVER, OTHER = ("192.0.2.10", 40000), ("203.0.113.7", 3478), ("203.0.113.8", 3478)
PEER, PRIVATE = ("198.51.100.20", 50000), ("10.9.0.20", 50000)

HIT_FRAMES = {"hit": [3, 4, 7, 8], "hit_ends_at_once": [3, 4, 7, 8],
              "hit_quota": [3, 4], "hit_forbidden": [5, 6], "hit_stale_nonce": [15, 16],
              "hit_permission": [5, 6, 38, 48], "hit_channel": [7, 8, 38, 65], "hit_allocation": [3, 4, 36, 46]}


def _turn(wire: Wire, server: tuple[str, int] = SERVER, tids: int = 1000) -> TurnClient:
    return TurnClient(wire, CLIENT, server, tids=tids)


def _ready(wire: Wire) -> TurnClient:
    """An allocation with a permission for the peer."""
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.permit(0.2, PEER)
    return turn


def _talk(turn: TurnClient, start: float, sent: float, received: float, step: float = 2.0) -> None:
    """Data both ways: the client's until ``sent``, the peer's until ``received``."""
    at = start
    while at < max(sent, received):
        payload = b"\x80\x6f" + round(at).to_bytes(2, "big") + bytes(8) + b"srtp"
        if at < sent:
            turn.send(at, PEER, payload)
        if at < received:
            turn.receive(at + 0.03, PEER, payload)
        at += step


def _bye(wire: Wire, at: float) -> None:
    """Something else, so that the capture is seen to go on."""
    wire.udp(at, CLIENT[0], 5060, "203.0.113.5", 5060, b"\r\n\r\n")


def hit():
    """Credentials that are refused again and again."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    for at in (0.1, 0.6, 1.6):
        turn.allocate(at, 401)
    _bye(wire, 5.0)
    return wire.sorted()


def hit_ends_at_once():
    """The capture ends with the client's last try: three equal answers say that it reacts and gets no further."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    for at in (0.1, 0.2, 0.3):
        turn.allocate(at, 401)
    return wire.sorted()


def hit_quota():
    """486: the user has too many allocations."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1, 486)
    _bye(wire, 5.0)
    return wire.sorted()


def hit_forbidden():
    """403 for the only peer, and nothing is relayed."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.permit(0.2, PEER, 403)
    _bye(wire, 5.0)
    return wire.sorted()


def hit_stale_nonce():
    """438 to a Refresh, and the client does not try the new nonce; the relay stops with it."""
    wire = Wire()
    turn = _ready(wire)
    _talk(turn, 1.0, 9.0, 9.0)
    turn.refresh(10.0, code=438)
    _bye(wire, 15.0)
    return wire.sorted()


def hit_permission():
    """No CreatePermission for 300 s: data of the peer ends, the client's goes on."""
    wire = Wire()
    turn = _ready(wire)
    turn.refresh(280.0)
    _talk(turn, 270.0, 320.0, 300.0)
    return wire.sorted()


def hit_channel():
    """No ChannelBind for 600 s, although the permission is renewed."""
    wire = Wire()
    turn = _ready(wire)
    turn.bind(0.5, PEER)
    for at in (250.0, 500.0):
        turn.permit(at, PEER)
        turn.refresh(at + 1)
    for i in range(25):
        at = 580.0 + 2 * i
        turn.channel(at, b"\x80\x6f" + i.to_bytes(2, "big") + bytes(12))
        payload = b"\x80\x6f" + i.to_bytes(2, "big") + bytes(12)
        if at < 600.5:
            turn.channel(at + 0.03, payload, out=False)
        else:
            turn.receive(at + 0.03, PEER, payload)
    return wire.sorted()


def hit_allocation():
    """No Refresh before the lifetime of 120 s is over."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1, lifetime=120)
    turn.permit(0.2, PEER)
    _talk(turn, 90.0, 140.0, 119.5)
    return wire.sorted()


def near_miss_challenge():
    """Condition: an error with credentials. The first request has none, and learns realm and nonce from the 401."""
    wire = Wire()
    turn = _ready(wire)
    _talk(turn, 1.0, 5.0, 5.0)
    return wire.sorted()


def near_miss_challenge_only():
    """Condition: an error with credentials. A probe asks without them, and needs no more to know that TURN lives."""
    wire = Wire()
    _turn(wire).challenged(0.0)
    _bye(wire, 5.0)
    return wire.sorted()


def near_miss_new_nonce():
    """Condition: no later success. One 438, then the same request with the new nonce."""
    wire = Wire()
    turn = _ready(wire)
    turn.refresh(5.0, code=438)
    turn.nonce = "f29a1bC0e7"
    turn.refresh(5.1)
    _bye(wire, 10.0)
    return wire.sorted()


def near_miss_deleted():
    """Condition: the allocation was wanted. A Refresh with lifetime 0 that is answered with 437 deletes nothing."""
    wire = Wire()
    turn = _ready(wire)
    turn.refresh(5.0, lifetime=0)
    turn.refresh(5.5, lifetime=0, code=437)
    _bye(wire, 10.0)
    return wire.sorted()


def near_miss_other_peer():
    """Condition: no other peer is relayed. The peer's private address is forbidden, its public one is not."""
    wire = Wire()
    turn = _ready(wire)
    _talk(turn, 1.0, 5.0, 5.0)
    turn.permit(5.5, PRIVATE, 403)
    _bye(wire, 10.0)
    return wire.sorted()


def near_miss_other_family():
    """Condition: no allocation at all. IPv6 is not to be had, IPv4 is."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1, 440, family=2)
    turn.allocate(0.2)
    _bye(wire, 5.0)
    return wire.sorted()


def near_miss_other_server():
    """Condition: no later success. The first server has no capacity, the second one has."""
    wire = Wire()
    first, second = _turn(wire), _turn(wire, OTHER, 2000)
    first.challenged(0.0)
    first.allocate(0.1, 508)
    second.challenged(0.2)
    second.allocate(0.3)
    _bye(wire, 5.0)
    return wire.sorted()


def near_miss_still_relayed():
    """Condition: nothing is relayed after the error. This server refuses to renew, and yet it relays."""
    wire = Wire()
    turn = _ready(wire)
    turn.permit(5.0, PEER, 437)
    _talk(turn, 6.0, 20.0, 20.0)
    return wire.sorted()


def near_miss_second_allocation():
    """Condition: the client has no allocation. The quota allows one, and one it has."""
    wire = Wire()
    turn = _ready(wire)
    turn.ask(1.0, ALLOCATE, attribute(0x19, b"\x11\0\0\0"))
    turn.answer(1.02, ALLOCATE, 486)
    _bye(wire, 5.0)
    return wire.sorted()


def near_miss_new_allocation():
    """Condition: the client has no allocation. The server forgot the old one and grants a new one."""
    wire = Wire()
    turn = _ready(wire)
    turn.permit(5.0, PEER, 437)
    turn.relay = ("198.51.100.9", 50002)
    turn.allocate(5.1)
    _bye(wire, 10.0)
    return wire.sorted()


def near_miss_no_channel_needed():
    """Condition: the client goes on with ChannelData. It lets the channel end and sends indications."""
    wire = Wire()
    turn = _ready(wire)
    turn.bind(0.5, PEER)
    for at in (250.0, 500.0):
        turn.permit(at, PEER)
        turn.refresh(at + 1)
    for i in range(25):
        at, payload = 580.0 + 2 * i, b"\x80\x6f" + i.to_bytes(2, "big") + bytes(12)
        if at < 600.5:
            turn.channel(at, payload)
            turn.channel(at + 0.03, payload, out=False)
        else:
            turn.send(at, PEER, payload)
            turn.receive(at + 0.03, PEER, payload)
    return wire.sorted()


def near_miss_alternate():
    """Condition: a refusal. 300 names another server."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1, 300)
    _bye(wire, 5.0)
    return wire.sorted()


def near_miss_renewed():
    """Condition: the permission ends. It was renewed, and data goes on."""
    wire = Wire()
    turn = _ready(wire)
    turn.permit(240.0, PEER)
    _talk(turn, 270.0, 320.0, 320.0)
    return wire.sorted()


def near_miss_renewed_by_channel():
    """Condition: the permission ends. ChannelBind renewed it; the peer stopped 300 s after the CreatePermission."""
    wire = Wire()
    turn = _ready(wire)
    turn.bind(240.0, PEER)
    _talk(turn, 270.0, 320.0, 300.0)
    return wire.sorted()


def near_miss_hung_up():
    """Condition: the client goes on sending. Both stop when the permission ends."""
    wire = Wire()
    turn = _ready(wire)
    _talk(turn, 270.0, 301.0, 300.0)
    _bye(wire, 320.0)
    return wire.sorted()


def near_miss_earlier_stop():
    """Condition: data stops when the permission ends. This peer stopped 20 s before."""
    wire = Wire()
    turn = _ready(wire)
    _talk(turn, 250.0, 320.0, 280.0)
    return wire.sorted()


def near_miss_inconclusive_end():
    """Condition: nothing follows. The capture ends with the error."""
    wire = Wire()
    turn = _turn(wire)
    turn.challenged(0.0)
    turn.allocate(0.1, 401)
    return wire.sorted()
