"""Samples of TLS-CHAIN-INCOMPLETE: a provisioning server sends its leaf without the intermediate."""

from _craft.network import Wire
from _craft.tls import (
    AIA,
    BAD_CERTIFICATE,
    CERTIFICATE_EXPIRED,
    TLS12,
    TLS13,
    UNKNOWN_CA,
    Authority,
    Session,
    leaf,
)

PHONES = ("10.20.1.20", "10.20.1.21")
SERVER, NAME = "203.0.113.10", "prov.phones.example"

ROOT = Authority("Example Root", starts=-3000, ends=3000)
ISSUING = Authority("Example Issuing CA", ROOT, starts=-1000, ends=1000)
OTHER = Authority("Example Issuing CA 2", ROOT, starts=-1000, ends=1000)
LEAF = leaf(NAME, ISSUING, aia=AIA)
PLAIN = leaf(NAME, ISSUING)
DIRECT = leaf(NAME, ROOT)

HIT_FRAMES = {
    "hit": [6, 8, 18, 20, 30, 32, 42, 44],
    "hit_wrong_intermediate": [6, 8],
    "hit_seen_elsewhere": [26],
    "hit_lone_leaf": [6, 8],
    "hit_order": [6],
}


def _session(wire, client=PHONES[0], cport=40000, server=SERVER, **more):
    return Session(wire, client, cport, server, **{"sni": NAME, **more})


def hit():
    """Two phones answer alert 48 twice each; the laptop, which met the intermediate elsewhere, is content."""
    wire = Wire()
    for i in range(4):
        _session(wire, PHONES[i % 2], 40000 + i).rejected(i * 3.0, [LEAF], UNKNOWN_CA)
    _session(wire, "10.20.3.20", 40010).accepted(15.0, [LEAF])
    return wire.sorted()


def hit_wrong_intermediate():
    """The intermediate of last year is sent; the leaf is from its successor."""
    wire = Wire()
    _session(wire).rejected(0.0, [PLAIN, OTHER], BAD_CERTIFICATE)
    return wire.sorted()


def hit_seen_elsewhere():
    """One node of two lacks the intermediate that the other sends; no client has objected."""
    wire = Wire()
    _session(wire).accepted(0.0, [PLAIN, ISSUING])
    _session(wire, cport=40001, server="203.0.113.11").accepted(3.0, [PLAIN])
    return wire.sorted()


def hit_lone_leaf():
    """A leaf alone with no hint, refused with alert 48: a gap, or a root that signs leaves itself."""
    wire = Wire()
    _session(wire).rejected(0.0, [PLAIN], UNKNOWN_CA)
    return wire.sorted()


def hit_order():
    """Root before intermediate; the client sorts them."""
    wire = Wire()
    _session(wire).accepted(0.0, [PLAIN, ROOT, ISSUING])
    return wire.sorted()


def near_miss_root_omitted():
    """Condition: an intermediate is missing. Leaf and intermediate are sent, the root rightly is not."""
    wire = Wire()
    _session(wire).accepted(0.0, [LEAF, ISSUING])
    return wire.sorted()


def near_miss_leaf_twice():
    """Condition: a certificate does not certify the one before. The leaf is only sent twice."""
    wire = Wire()
    _session(wire).accepted(0.0, [LEAF, LEAF, ISSUING, ROOT])
    return wire.sorted()


def near_miss_tls13_used():
    """Condition: certificates are visible, or it is open what became of them. Data follows: the client took them."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).accepted(0.0, [LEAF, ISSUING])
    return wire.sorted()


def near_miss_tls13_other_alert():
    """Condition: the alert can be about trust. Alert 45 is about dates."""
    wire = Wire()
    _session(wire, version=TLS13, versions=(TLS13, TLS12)).rejected(0.0, [LEAF, ISSUING], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_lone_leaf_accepted():
    """Condition: something hints at an intermediate, or the peer refused. A private root may sign leaves itself."""
    wire = Wire()
    _session(wire).accepted(0.0, [DIRECT])
    return wire.sorted()


def near_miss_closed_only():
    """Condition: a lone leaf without a hint counts when an alert refuses it. This client only closed."""
    wire = Wire()
    _session(wire).abandoned(0.0, [DIRECT])
    return wire.sorted()


def near_miss_issuer_is_root():
    """Condition: the missing issuer is no root. Another server shows that it is one: the leaf is all there is."""
    wire = Wire()
    _session(wire).accepted(0.0, [leaf(NAME, ROOT, aia=AIA)])
    _session(wire, cport=40001, server="203.0.113.12", sni="www.phones.example").accepted(
        3.0, [leaf("www.phones.example", ROOT), ROOT])
    return wire.sorted()


def near_miss_directory():
    """Condition: the issuer can be fetched over HTTP. A company's CA writes a directory entry for its own root."""
    wire = Wire()
    _session(wire).accepted(0.0, [leaf(NAME, ROOT, aia="ldap:///CN=Example%20Root,CN=AIA,DC=corp,DC=example")])
    return wire.sorted()


def near_miss_old_root_appended():
    """Condition: a foreign certificate stands where the missing one should. A retired root at the end is litter."""
    wire = Wire()
    _session(wire).accepted(0.0, [LEAF, ISSUING, Authority("Example Retired Root", starts=-4000, ends=400)])
    return wire.sorted()


def near_miss_other_alert():
    """Condition: the answer is about trust (48, 42, 46). Alert 45 is about dates."""
    wire = Wire()
    _session(wire).rejected(0.0, [DIRECT], CERTIFICATE_EXPIRED)
    return wire.sorted()


def near_miss_expired():
    """Condition: dates do not explain alert 42. This leaf ended yesterday."""
    wire = Wire()
    _session(wire).rejected(0.0, [leaf(NAME, ROOT, ends=-1)], BAD_CERTIFICATE)
    return wire.sorted()


def near_miss_wrong_name():
    """Condition: the name does not explain alert 42. This leaf is for another host."""
    wire = Wire()
    _session(wire, sni="other.phones.example").rejected(0.0, [DIRECT], BAD_CERTIFICATE)
    return wire.sorted()


def near_miss_client_leaf():
    """Condition: a server sends it, or it is refused. A client's lone leaf suits a server that knows its CA."""
    wire = Wire()
    _session(wire).accepted(0.0, [PLAIN, ISSUING, ROOT], request=True, client_chain=[
        leaf("phone-1.phones.example", OTHER, client=True, aia=AIA)])
    return wire.sorted()
