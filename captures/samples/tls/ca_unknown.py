"""Samples of TLS-CA-UNKNOWN: a test server with a whole chain up to a private root that the phones do not have."""

from _craft.network import Wire
from _craft.tls import (
    AIA,
    BAD_CERTIFICATE,
    CERTIFICATE_EXPIRED,
    CERTIFICATE_UNKNOWN,
    TLS12,
    TLS13,
    UNKNOWN_CA,
    Authority,
    Session,
    leaf,
)

PHONES = ("10.20.1.20", "10.20.1.21", "10.20.1.22")
SERVER, NAME = "203.0.113.10", "test.phones.example"

ROOT = Authority("Telephony Test Root", starts=-3000, ends=3000)
ISSUING = Authority("Telephony Test CA", ROOT, starts=-1000, ends=1000)
LEAF = leaf(NAME, ISSUING)
WHOLE = [LEAF, ISSUING, ROOT]

HIT_FRAMES = {
    "hit": [6, 8, 18, 20, 30, 32],
    "hit_self_signed": [6, 8],
    "hit_closed": [6, 8],
    "hit_open_end": [6, 8],
    "hit_root_elsewhere": [6, 8],
    "hit_tls13": [9],
    "hit_leaf_twice": [7, 9],
}


def _session(wire, client=PHONES[0], cport=40000, server=SERVER, **more):
    return Session(wire, client, cport, server, **{"sni": NAME, **more})


def _unused(wire, cport, at):
    """A handshake that is completed and closed without data."""
    session = _session(wire, cport=cport)
    session.hello(at)
    session.flight(at + 0.05, WHOLE)
    session.finish(at + 0.08)
    session.close(at + 0.13)


def hit():
    """Three phones answer alert 48; the laptop, which has the test root, is content."""
    wire = Wire()
    for i, phone in enumerate(PHONES):
        _session(wire, phone, 40000 + i).rejected(i * 3.0, WHOLE, UNKNOWN_CA)
    _session(wire, "10.20.3.20", 40010).accepted(12.0, WHOLE)
    return wire.sorted()


def hit_self_signed():
    """The certificate that the installer made."""
    wire = Wire()
    _session(wire).rejected(0.0, [leaf(NAME, None)], CERTIFICATE_UNKNOWN)
    return wire.sorted()


def hit_leaf_twice():
    """The leaf is sent twice, which every client passes over; the root is the fault."""
    wire = Wire()
    _session(wire).rejected(0.0, [LEAF, *WHOLE], UNKNOWN_CA)
    return wire.sorted()


def near_miss_unused_inconclusive():
    """Condition: somebody refuses. A program that verifies after the handshake looks like a health check."""
    wire = Wire()
    for number in range(2):
        _unused(wire, 40000 + number, number * 5.0)
    return wire.sorted()


def near_miss_looked_once():
    """Condition: at least two of them. One look at the certificate is no attempt to use it."""
    wire = Wire()
    _unused(wire, 40000, 0.0)
    return wire.sorted()


def near_miss_tls13_used():
    """Condition: certificates are visible, or it is open what became of them. Data follows: the client took them."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).accepted(0.0, WHOLE)
    return wire.sorted()


def hit_closed():
    """A phone closes right after the certificates, without an alert."""
    wire = Wire()
    _session(wire).abandoned(0.0, WHOLE)
    return wire.sorted()


def hit_open_end():
    """Leaf and intermediate, alert 48: a private root is left out, or one more intermediate."""
    wire = Wire()
    _session(wire).rejected(0.0, WHOLE[:2], UNKNOWN_CA)
    return wire.sorted()


def hit_root_elsewhere():
    """Leaf and intermediate, alert 48; another server sends the root and shows that it is one."""
    wire = Wire()
    _session(wire).rejected(0.0, WHOLE[:2], UNKNOWN_CA)
    _session(wire, PHONES[1], 40001, "203.0.113.12", sni="www.phones.example").accepted(
        3.0, [leaf("www.phones.example", ISSUING), ISSUING, ROOT])
    return wire.sorted()


def hit_tls13():
    """Alert 48 in clear, certificates encrypted."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).rejected(0.0, WHOLE, UNKNOWN_CA)
    return wire.sorted()


def near_miss_accepted():
    """Condition: somebody refuses. A private PKI whose clients are content is no fault."""
    wire = Wire()
    _session(wire).accepted(0.0, WHOLE)
    return wire.sorted()


def near_miss_gap():
    """Condition: the chain has no gap. Here the intermediate is missing: same alert, other cure."""
    wire = Wire()
    _session(wire).rejected(0.0, [leaf(NAME, ISSUING, aia=AIA)], UNKNOWN_CA)
    return wire.sorted()


def near_miss_order():
    """Condition: the chain is in order. This client may have stumbled over the root in the middle."""
    wire = Wire()
    _session(wire).rejected(0.0, [LEAF, ROOT, ISSUING], UNKNOWN_CA)
    return wire.sorted()


def near_miss_other_alert():
    """Condition: the answer is about trust (48, 42, 46). Alert 45 is about dates."""
    wire = Wire()
    _session(wire).rejected(0.0, WHOLE, CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_expired():
    """Condition: dates do not explain alert 46. This leaf ended yesterday."""
    wire = Wire()
    _session(wire).rejected(0.0, [leaf(NAME, ISSUING, ends=-1), ISSUING, ROOT], CERTIFICATE_UNKNOWN)
    return wire.sorted()


def near_miss_wrong_name():
    """Condition: the name does not explain alert 42. This leaf is for another host."""
    wire = Wire()
    _session(wire, sni="other.phones.example").rejected(0.0, WHOLE, BAD_CERTIFICATE)
    return wire.sorted()


def near_miss_cross():
    """Condition: nobody accepts a list with a cross certificate. Here path builders differ (TLS-CHAIN-CROSSROOT)."""
    wire = Wire()
    cross = Authority("Telephony Test Root", Authority("Old Test Root", starts=-5000, ends=300), starts=-900, ends=300)
    sent = [*WHOLE, cross]
    _session(wire).accepted(0.0, sent)
    _session(wire, PHONES[1], 40001).rejected(3.0, sent, UNKNOWN_CA)
    return wire.sorted()


def near_miss_slow_close():
    """Condition: the close comes right after the certificates. Twenty seconds later it has other reasons."""
    wire = Wire()
    _session(wire).abandoned(0.0, WHOLE, after=20.0)
    return wire.sorted()


def near_miss_collector():
    """Condition: who closes does so at few servers. A monitor reads the certificates of three servers and leaves."""
    wire = Wire()
    for i in range(3):
        _session(wire, cport=40000 + i, server=f"203.0.113.{10 + i}").abandoned(i * 1.0, WHOLE)
    return wire.sorted()


def near_miss_tls13_known():
    """Condition: the certificates are seen nowhere. A TLS 1.2 client is shown a chain that has a gap."""
    wire = Wire()
    short = [leaf(NAME, ISSUING, aia=AIA)]
    _session(wire).accepted(0.0, short)
    _session(wire, PHONES[1], 40001, version=TLS13, versions=(TLS13, TLS12)).rejected(3.0, short, UNKNOWN_CA)
    return wire.sorted()
