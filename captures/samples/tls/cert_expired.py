"""Samples of TLS-CERT-EXPIRED: a SIP edge still shows a certificate that ended two days ago."""

from _craft.network import Wire
from _craft.tls import (
    BAD_CERTIFICATE,
    CERTIFICATE_EXPIRED,
    TLS12,
    TLS13,
    UNKNOWN_CA,
    Authority,
    Session,
    encrypted,
    leaf,
    record,
)

PHONES = tuple(f"10.20.0.{n}" for n in (21, 22, 23))
SERVER, NAME = "203.0.113.10", "sip.edge.example"

ROOT = Authority("Example Root", starts=-3000, ends=3000)
ISSUING = Authority("Example Issuing CA", ROOT, starts=-1000, ends=1000)
VALID = leaf(NAME, ISSUING)
EXPIRED = leaf(NAME, ISSUING, starts=-92, ends=-2)

HIT_FRAMES = {
    "hit": [6, 8, 18, 20, 30, 32],
    "hit_intermediate": [6, 8],
    "hit_client_certificate": [8, 10],
    "hit_latent": [6],
    "hit_soon": [6],
    "hit_tls13": [8],
}


def _session(wire, client=PHONES[0], cport=40000, **more):
    return Session(wire, client, cport, SERVER, **{"sport": 5061, "sni": NAME, **more})


def hit():
    """Three phones refuse with alert 45; a client that does not verify goes on."""
    wire = Wire()
    for i, phone in enumerate(PHONES):
        _session(wire, phone, 40000 + i).rejected(i * 2.0, [EXPIRED, ISSUING], CERTIFICATE_EXPIRED)
    _session(wire, "10.20.0.40", 40010).accepted(7.0, [EXPIRED, ISSUING])
    return wire.sorted()


def hit_intermediate():
    """The leaf is good, its issuer's certificate ended: the renewed one is not sent."""
    wire = Wire()
    old = Authority("Example Issuing CA", ROOT, starts=-1800, ends=-1)
    _session(wire).rejected(0.0, [VALID, old], CERTIFICATE_EXPIRED)
    return wire.sorted()


def hit_client_certificate():
    """Mutual TLS on a trunk: the server refuses the client's certificate with alert 45."""
    wire = Wire()
    session = _session(wire)
    session.hello(0.0)
    session.flight(0.05, [VALID, ISSUING], request=True)
    session.finish(0.08, [leaf("trunk.customer.example", ISSUING, starts=-365, ends=-0.5, client=True), ISSUING],
                   answer=False)
    session.alert(0.1, CERTIFICATE_EXPIRED, by_client=False)
    session.close(0.101, by_client=False)
    return wire.sorted()


def hit_latent():
    """The only client goes on: nobody has failed yet."""
    wire = Wire()
    _session(wire).accepted(0.0, [EXPIRED, ISSUING])
    return wire.sorted()


def hit_soon():
    """Ten days of ninety are left."""
    wire = Wire()
    _session(wire).accepted(0.0, [leaf(NAME, ISSUING, starts=-80, ends=10), ISSUING])
    return wire.sorted()


def hit_tls13():
    """Alert 45 in clear, certificates encrypted."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).rejected(0.0, [EXPIRED, ISSUING], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_valid():
    """Condition: a certificate is past its date. Here none is: an expired root in the client's store, or its clock."""
    wire = Wire()
    _session(wire).rejected(0.0, [VALID, ISSUING], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_other_path():
    """Condition: no path holds. An expired certificate of the issuer is sent with its successor of the same key."""
    wire = Wire()
    old = Authority("Example Issuing CA", ROOT, starts=-1800, ends=-1)
    _session(wire).rejected(0.0, [VALID, old, ISSUING], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_cross():
    """Condition: above the leaf's issuer nobody found another path. One client did, around a cross certificate."""
    wire = Wire()
    cross = Authority("Example Root", Authority("Old Root", starts=-5000, ends=-90), starts=-2000, ends=-90)
    _session(wire).accepted(0.0, [VALID, ISSUING, cross])
    _session(wire, PHONES[1], 40001).rejected(3.0, [VALID, ISSUING, cross], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_root():
    """Condition: it is no root. The dates of a self-signed root that is sent along do not count."""
    wire = Wire()
    root = Authority("Example Root", starts=-4000, ends=-10)
    _session(wire).rejected(0.0, [VALID, ISSUING, root], UNKNOWN_CA)
    return wire.sorted()


def near_miss_unused():
    """Condition: it is on a path. Last year's issuer lies at the end of the file and certifies nothing here."""
    wire = Wire()
    other = Authority("Example Former CA", ROOT, starts=-2000, ends=-100)
    _session(wire).accepted(0.0, [VALID, ISSUING, other])
    return wire.sorted()


def near_miss_twenty_days():
    """Condition: less than 14 days are left. 20 of 398 are less than 20 %, but nobody renews so early."""
    wire = Wire()
    _session(wire).accepted(0.0, [leaf(NAME, ISSUING, starts=-378, ends=20), ISSUING])
    return wire.sorted()


def near_miss_short_lived():
    """Condition: less than 20 % of the lifetime is left. Three of six days are always less than 14."""
    wire = Wire()
    _session(wire).accepted(0.0, [leaf(NAME, ISSUING, starts=-3, ends=3), ISSUING])
    return wire.sorted()


def near_miss_tls13_used():
    """Condition: certificates are visible, or it is open what became of them. Data follows: the client took them."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).accepted(0.0, [EXPIRED, ISSUING])
    return wire.sorted()


def near_miss_tls13_other_alert():
    """Condition: the alert can be about dates. Alert 48 is about trust."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).rejected(0.0, [EXPIRED, ISSUING], UNKNOWN_CA)
    return wire.sorted()


def near_miss_tls13_known():
    """Condition: the certificates are seen nowhere. A TLS 1.2 client is shown a chain in which nothing is expired."""
    wire = Wire()
    _session(wire).accepted(0.0, [VALID, ISSUING])
    _session(wire, PHONES[1], 40001, version=TLS13, versions=(TLS13, TLS12)).rejected(
        3.0, [VALID, ISSUING], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_tls13_judged_late_inconclusive():
    """Condition: data of the client says that its peer took the certificates. A server that sends a lone alert behind
    the client's Finished refused them, whatever the client had sent by then."""
    wire = Wire()
    session = _session(wire, version=TLS13, versions=(TLS13, TLS12))
    session.hello(0.0)
    session.flight(0.05, [VALID, ISSUING])
    session.send(0.08, True, record(20, b"\x01") + encrypted(23, "ccert", 900) + encrypted(23, "ccv", 90)
                 + encrypted(23, "cfin", 53))
    session.send(0.081, True, encrypted(23, "request", 240))
    session.send(0.1, False, encrypted(23, "alert", 19))
    session.close(0.101, by_client=False)
    return wire.sorted()


def near_miss_not_yet_valid():
    """Condition: the end date is over. This certificate begins in five days, and is refused with alert 42."""
    wire = Wire()
    _session(wire).rejected(0.0, [leaf(NAME, ISSUING, starts=5, ends=95), ISSUING], BAD_CERTIFICATE)
    return wire.sorted()
