"""Samples of ICE-CONSENT-LOST: a call over ICE, a path that breaks, checks without answer, media that stops."""

from _craft.dtls import Peers
from _craft.network import START, Wire
from _craft.sip import Dialog
from _craft.stun import Agents, TurnClient, sdp
from _craft.tls import Authority

A, B = "192.0.2.10", "198.51.100.20"
HOST_A, HOST_B, RELAY_B = (A, 40000), (B, 50000), ("198.51.100.99", 55000)
BREAK, STOP, END = 20.0, 50.1, 60.0
"""Seconds: last answered check, last media, end of the capture."""

HIT_FRAMES = {
    "hit": [50, 53, 58, 64, 70, 76, 82, 87, 88],
    "hit_counted": [50, 53, 59, 67, 74, 81, 88, 95, 96],
    "hit_rebound": [34, 39, 41, 46, 48, 53, 60, 67, 73, 74],
    "hit_one_way": [62, 75, 90, 105, 120, 135, 148, 150, 164], "hit_relayed": [40, 45, 51, 57, 63, 69, 74, 75],
    "hit_two_points": {"far": [40, 42, 47, 49, 54, 61], "near": [51, 54, 59, 65, 71, 77, 83, 88, 89]}}


def media(number: int) -> bytes:
    """An SRTP packet: its header is in clear (RFC 3711 §3.1)."""
    return b"\x80\x6f" + number.to_bytes(2, "big") + (960 * number).to_bytes(4, "big") + b"\0\0\x12\x34" + b"srtp"


def talk(pair: Agents, start: float, end: float, from_a: bool = True, step: float = 1.0, first: int = 0) -> None:
    """Media packets of one side, one in ``step`` seconds."""
    for i in range(int((end - start) / step)):
        pair.data(start + i * step + 0.013, media(first + i), from_a)


def consent(pair: Agents, start: float, end: float, answered: bool = True) -> None:
    """Checks of the first agent every 5 s."""
    at = start
    while at <= end:
        if answered:
            pair.check(at)
        else:
            pair.request(at)
        at += 5.0


def broken(wire: Wire, stop: float = STOP, last: float = BREAK + 30, back: float = BREAK) -> Agents:
    """Consent until BREAK, then none; media of the first agent until ``stop``, of the other until ``back``."""
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    consent(pair, BREAK + 5, last, answered=False)
    talk(pair, 1.0, stop)
    talk(pair, 1.0, back, from_a=False)
    return pair


def later(wire: Wire, at: float = END) -> None:
    """Something else, so that the capture is seen to go on."""
    wire.udp(at, A, 5060, "203.0.113.5", 5060, b"\r\n\r\n")


def hit():
    """Six checks without answer; media stops 30 s after the last response."""
    wire = Wire()
    broken(wire)
    later(wire)
    return wire.sorted()


def hit_counted():
    """Six checks 5.8 s apart, given up after 0.5 s: the agent counts them, and stops with the sixth, 37 s after."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    for i in range(6):
        pair.request(BREAK + 5.8 + 6.3 * i)
    talk(pair, 1.0, BREAK + 38.9)
    talk(pair, 1.0, BREAK, from_a=False)
    later(wire, END + 6)
    return wire.sorted()


def hit_rebound():
    """The responses come from another port: a NAT before the peer has another mapping."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    for i in range(6):
        pair.request(BREAK + 5 * (i + 1))
        pair.response(BREAK + 5 * (i + 1) + 0.02, source=(B, 61234))
    talk(pair, 1.0, STOP)
    later(wire)
    return wire.sorted()


def hit_one_way():
    """The other side is heard all the time, and another pair is answered; media stays where nothing is answered."""
    wire = Wire()
    pair = broken(wire, back=END)
    for i in range(6):
        pair.tids = 300 + i
        pair.check(BREAK + 2 + 5 * i, from_a=False)
    consent(Agents(wire, HOST_A, RELAY_B, tids=500), 1.0, END)
    return wire.sorted()


def hit_relayed():
    """The same inside TURN, with a permission that holds."""
    wire = Wire()
    inner = Wire()
    turn = _relay(wire)
    pair = Agents(inner, turn.relay, HOST_B)
    pair.connect(1.0)
    consent(pair, 6.0, 21.0)
    consent(pair, 26.0, 51.0, answered=False)
    talk(pair, 2.0, 51.0)
    _carry(turn, inner)
    later(wire)
    return wire.sorted()


def _relay(wire: Wire) -> TurnClient:
    """An allocation with a permission for the peer."""
    turn = TurnClient(wire, HOST_A, ("203.0.113.7", 3478))
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.permit(0.2, HOST_B)
    return turn


def _carry(turn: TurnClient, inner: Wire) -> None:
    """Puts datagrams between the relayed address and the peer into indications."""
    for frame in inner.sorted():
        at, out = float(frame.time) - START, frame["IP"].src == turn.relay[0]
        (turn.send if out else turn.receive)(at, HOST_B, bytes(frame["UDP"].payload))


def hit_two_points():
    """At the other side the checks arrive and are answered: the way back is broken."""
    near, far = Wire(), Wire()
    broken(near)
    pair = Agents(far, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK + 30)
    talk(pair, 1.0, STOP)
    for wire in (near, far):
        later(wire)
        wire.udp(0.0, A, 5060, "203.0.113.5", 5060, b"\r\n\r\n")
    return {"near": near.sorted(), "far": far.sorted()}


def near_miss_recovered():
    """Condition: nothing comes any more. This outage ends after 27 s, and then the call is over."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    for i in range(6):
        pair.request(BREAK + 4.2 * (i + 1))
    consent(pair, BREAK + 27, BREAK + 30)
    talk(pair, 1.0, BREAK + 29)
    later(wire)
    return wire.sorted()


def near_miss_media_goes_on():
    """Condition: the media stops. This sender does not care for consent; whether it is heard is another question."""
    wire = Wire()
    pair = broken(wire, stop=BREAK + 50, last=BREAK + 50)
    later(wire, BREAK + 56)
    assert pair.tids
    return wire.sorted()


def near_miss_no_media():
    """Condition: media went on when the path broke. This agent had stopped sending before."""
    wire = Wire()
    broken(wire, stop=BREAK - 3)
    later(wire)
    return wire.sorted()


def near_miss_few_checks():
    """Condition: five checks without answer. Three are no proof that the path is broken."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    for at in (5.0, 14.0, 24.0):
        pair.request(BREAK + at)
    talk(pair, 1.0, STOP)
    later(wire)
    return wire.sorted()


def near_miss_short():
    """Condition: checks for 20 s. Six in 12 s of a quick prober, then the end of the session."""
    wire = Wire()
    pair = Agents(wire, HOST_A, HOST_B)
    pair.connect(0.0)
    consent(pair, 5.0, BREAK)
    for i in range(6):
        pair.request(BREAK + 2 * (i + 1))
    talk(pair, 1.0, BREAK + 12)
    later(wire)
    return wire.sorted()


def near_miss_hung_up():
    """Condition: nobody hung up. After the BYE the other side answers nothing, and this one is slow to stop."""
    wire = Wire()
    dialog = Dialog(wire, A, B, call_id="ice-1@a.example")
    dialog.answered(0.0, sdp(A, 40000, "aaaa", "password-of-agent-a-000"),
                    sdp(B, 50000, "bbbb", "password-of-agent-b-000"), ring=0.02)
    broken(wire)
    dialog.bye(BREAK + 1, by_caller=False)
    later(wire)
    return wire.sorted()


def near_miss_closed():
    """Condition: nobody hung up. The other side closes DTLS."""
    wire = Wire()
    pair = broken(wire)
    peers = Peers(lambda at, raw, from_client: pair.data(at, raw, from_client), Authority("agent"))
    peers.hello(0.2)
    peers.flight(0.22)
    peers.finish(0.24)
    peers.close(BREAK + 0.5, from_client=False)
    later(wire)
    return wire.sorted()


def near_miss_switched():
    """Condition: media goes nowhere else. Another pair was nominated, and the old one is silent."""
    wire = Wire()
    broken(wire, stop=STOP - 5)
    other = Agents(wire, HOST_A, RELAY_B, tids=500)
    other.connect(BREAK + 1)
    consent(other, BREAK + 6, END)
    talk(other, BREAK + 2, END, first=100)
    return wire.sorted()


def near_miss_permission_lapsed():
    """Condition: the relay still has leave. The permission for this peer ran out, and ICE-TURN-FAIL says so."""
    wire = Wire()
    turn = _relay(wire)
    inner = Wire()
    pair = Agents(inner, turn.relay, HOST_B)
    pair.connect(1.0)
    consent(pair, 265.0, 300.0)
    consent(pair, 305.0, 330.0, answered=False)
    talk(pair, 260.0, 330.0)
    _carry(turn, inner)
    later(wire, 345.0)
    return wire.sorted()


def near_miss_inconclusive_end():
    """Condition: time for consent to expire. The capture ends after four checks without answer."""
    wire = Wire()
    broken(wire, stop=BREAK + 22, last=BREAK + 20)
    return wire.sorted()


def near_miss_inconclusive_stop():
    """Condition: the media is seen to stop. It ends 33 s after the last answer, and the capture 3 s later."""
    wire = Wire()
    broken(wire, stop=BREAK + 33.1)
    later(wire, BREAK + 36)
    return wire.sorted()
