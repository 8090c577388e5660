"""Samples of ICE-DTLS-STALL: ICE has a pair, and the DTLS handshake on it goes wrong."""

from _craft.dtls import Peers, fingerprint
from _craft.network import Wire
from _craft.sip import Dialog
from _craft.stun import Agents, sdp
from _craft.tls import BAD_CERTIFICATE, CLOSE_NOTIFY, Authority

A, B = "192.0.2.10", "198.51.100.20"
HOST_A, HOST_B, OTHER_B = (A, 40000), (B, 50000), ("198.51.100.21", 50000)
MINE, THEIRS, ANOTHER = Authority("agent-a.example"), Authority("agent-b.example"), Authority("agent-c.example")

ALSO = ("SIP-SRTP-OFFER",)
"""Equal roles in the descriptions are a fault of their own."""

HIT_FRAMES = {"hit": [7, 8, 9, 12], "hit_certificate": [8, 9, 12, 16, 22], "hit_alert": [7, 9],
              "hit_two_points": {"server": [8, 11, 14, 19], "client": [8, 10, 12, 16]}, "hit_fingerprint": [4, 13],
              "hit_both_active": [7, 8, 9, 10], "hit_both_passive": [1, 4, 10, 17]}


def _peers(pair: Agents, label: str = "dtls") -> Peers:
    """DTLS on a pair; a is the client."""
    return Peers(lambda at, raw, from_client: pair.data(at, raw, from_client), THEIRS, MINE, label)


def _found(wire: Wire, remote: tuple[str, int] = HOST_B, tids: int = 0, ufrags: tuple[str, str] = ("aaaa", "bbbb"),
           nominated: bool = True, at: float = 0.3) -> Agents:
    """A pair that ICE found."""
    pair = Agents(wire, HOST_A, remote, ufrags, tids=tids)
    if nominated:
        pair.connect(at)
    else:
        pair.check(at)
    return pair


def _call(wire: Wire, mine: Authority | None = MINE, theirs: Authority | None = THEIRS,
          setups: tuple[str, str] = ("actpass", "passive"), start: float = 0.0) -> None:
    """The descriptions of both agents; None for one without fingerprint."""
    bodies = [sdp(*end, ufrag, password, setup=setup, fingerprint=fingerprint(of) if of else "")
              for end, ufrag, password, setup, of in (
                  (HOST_A, "aaaa", "password-of-agent-a-000", setups[0], mine),
                  (HOST_B, "bbbb", "password-of-agent-b-000", setups[1], theirs))]
    Dialog(wire, A, B, call_id="dtls-1@a.example").answered(start, *bodies)


def _whole(pair: Agents, at: float, label: str = "dtls") -> Peers:
    """A handshake that works."""
    peers = _peers(pair, label)
    peers.hello(at)
    peers.flight(at + 0.02)
    peers.finish(at + 0.05)
    return peers


def _media(pair: Agents, start: float, count: int = 5) -> None:
    for i in range(count):
        pair.data(start + i * 0.5, b"\x80\x6f" + i.to_bytes(2, "big") + bytes(8) + b"srtp")


def _keep(pair: Agents, until: float) -> None:
    """Consent, so that the capture goes on."""
    at = 5.0
    while at <= until:
        pair.check(at)
        at += 5.0


def hit():
    """A ClientHello four times in 7 s, and no ServerHello."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 3.0, 7.0):
        peers.hello(0.5 + at)
    _keep(pair, 10.0)
    return wire.sorted()


def hit_certificate():
    """The flight with the certificate in pieces goes out again and again; the client repeats its hello."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 3.0, 7.0):
        peers.hello(0.5 + at)
        peers.flight(0.55 + at, mtu=300)
    _keep(pair, 10.0)
    return wire.sorted()


def hit_two_points():
    """The large datagrams of the flight leave the server and do not reach the client."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 3.0, 7.0):
        peers.hello(0.5 + at)
        peers.flight(0.55 + at, mtu=500)
    _keep(pair, 10.0)
    every = wire.sorted()
    return {"client": [f for f in every if len(f) < 400], "server": every}


def hit_alert():
    """The client refuses the certificate."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    peers.flight(0.52)
    peers.alert(0.54, BAD_CERTIFICATE)
    return wire.sorted()


def hit_fingerprint():
    """The certificate of the server is not the one that its SDP names, and no media follows."""
    wire = Wire()
    _call(wire, theirs=ANOTHER)
    pair = _found(wire)
    _whole(pair, 0.5)
    _keep(pair, 5.0)
    return wire.sorted()


def hit_both_active():
    """Both sides send ClientHellos."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0):
        peers.hello(0.5 + at)
        peers.hello(0.6 + at, from_client=False, label="other")
    return wire.sorted()


def hit_both_passive():
    """Both sides wait for the other."""
    wire = Wire()
    _call(wire, setups=("passive", "passive"))
    pair = _found(wire)
    _keep(pair, 15.0)
    return wire.sorted()


def near_miss_one_repeat():
    """Condition: three repeats. One ClientHello is lost, the second is answered."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    _whole(pair, 1.5)
    return wire.sorted()


def near_miss_two_repeats():
    """Condition: three repeats. The agent gives up after two."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 3.0):
        peers.hello(0.5 + at)
    _keep(pair, 10.0)
    return wire.sorted()


def near_miss_quick_repeats():
    """Condition: 3 s. Four ClientHellos in 0.9 s come before the answer is applied, and then it goes on."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 0.2, 0.5, 0.9):
        peers.hello(0.5 + at)
    _keep(pair, 10.0)
    return wire.sorted()


def near_miss_late_answer():
    """Condition: no end. Five ClientHellos over 4 s, then the handshake completes."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 2.0, 3.0, 4.0):
        peers.hello(0.5 + at)
    peers.flight(4.6)
    peers.finish(4.7)
    return wire.sorted()


def near_miss_verified():
    """Condition: repeats. The second ClientHello has the cookie of a HelloVerifyRequest."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    peers.verify(0.52, b"cookie-0123456789ab")
    peers.hello(0.54, b"cookie-0123456789ab", sequence=1)
    peers.flight(0.56, sequence=1)
    peers.finish(0.6, sequence=2)
    return wire.sorted()


def near_miss_not_nominated():
    """Condition: the pair is nominated. Another one is, and DTLS completes there."""
    wire = Wire()
    other = _found(wire, OTHER_B, tids=100, nominated=False)
    peers = _peers(other, "other")
    for at in (0.0, 1.0, 3.0, 7.0):
        peers.hello(0.5 + at)
    pair = _found(wire)
    _whole(pair, 1.0)
    _keep(pair, 10.0)
    return wire.sorted()


def near_miss_closed():
    """Condition: an alert in the handshake. This one closes a session that worked."""
    wire = Wire()
    pair = _found(wire)
    peers = _whole(pair, 0.5)
    _media(pair, 1.0)
    peers.close(5.0)
    return wire.sorted()


def near_miss_warning():
    """Condition: a fatal alert. A warning does not end a handshake."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    peers.alert(0.51, CLOSE_NOTIFY, from_client=False, level=1)
    _keep(pair, 10.0)
    return wire.sorted()


def near_miss_fingerprint_fits():
    """Condition: another certificate. Both are those of the SDP."""
    wire = Wire()
    _call(wire)
    pair = _found(wire)
    _whole(pair, 0.5)
    _keep(pair, 5.0)
    return wire.sorted()


def near_miss_fingerprint_ignored():
    """Condition: no media follows. Nobody compares the certificate, and the call works, if late."""
    wire = Wire()
    _call(wire, theirs=ANOTHER)
    pair = _found(wire)
    peers = _peers(pair)
    for at in (0.0, 1.0, 3.0, 7.0):
        peers.hello(0.5 + at)
    peers.flight(7.6)
    peers.finish(7.7)
    _media(pair, 8.0)
    return wire.sorted()


def near_miss_crossing_hellos():
    """Condition: both go on. Each side sends one ClientHello, and then one of them gives way."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    peers.hello(0.501, from_client=False, label="other")
    _keep(pair, 10.0)
    return wire.sorted()


def near_miss_no_certificate_announced():
    """Condition: both announce DTLS. One description has no fingerprint; another call shows that DTLS works here."""
    wire = Wire()
    _call(wire, theirs=None)
    _keep(_found(wire), 15.0)
    other = _found(wire, OTHER_B, 100, ("cccc", "dddd"))
    _whole(other, 1.0)
    return wire.sorted()


def near_miss_media_without():
    """Condition: no media. Here it flows with other keys; another call shows that DTLS works here."""
    wire = Wire()
    _call(wire, setups=("passive", "passive"))
    pair = _found(wire)
    _media(pair, 1.0)
    _keep(pair, 15.0)
    _whole(_found(wire, OTHER_B, 100, ("cccc", "dddd")), 1.0)
    return wire.sorted()


def near_miss_too_early():
    """Condition: 5 s of silence. The capture shows 3 s of it; another call shows that DTLS works here."""
    wire = Wire()
    _call(wire, setups=("passive", "passive"))
    pair = _found(wire)
    pair.check(3.3)
    _whole(_found(wire, OTHER_B, 100, ("cccc", "dddd")), 1.0)
    return wire.sorted()


def near_miss_inconclusive_cut():
    """Condition: time for repeats. The capture ends 1 s after the first ClientHello."""
    wire = Wire()
    pair = _found(wire)
    peers = _peers(pair)
    peers.hello(0.5)
    peers.hello(1.5)
    return wire.sorted()
