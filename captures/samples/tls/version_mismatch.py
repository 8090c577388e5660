"""Samples of TLS-VERSION-MISMATCH: after a hardening, phones that offer TLS 1.0 are turned away."""

from _craft.network import Wire
from _craft.tls import (
    CBC_10,
    DECODE_ERROR,
    DOWNGRADE_12,
    ECDHE_12,
    FALLBACK_SCSV,
    HANDSHAKE_FAILURE,
    ILLEGAL_PARAMETER,
    INAPPROPRIATE_FALLBACK,
    PROTOCOL_VERSION,
    SSL30,
    TLS10,
    TLS11,
    TLS12,
    TLS13,
    Authority,
    Session,
    alert,
    leaf,
)

HAPROXY_CHECK = bytes.fromhex("160300 0079 01000075 0300 6b03638b" + (b"HAPROXYSSLCHK\n" * 2).hex() + "00 004e"
                              + "".join(f"{n:04x}" for n in [*range(1, 28), *range(0x2f, 0x3b)]) + "0100")
"""The hello of HAProxy 2.6, option ssl-hello-chk."""

OLD, NEW = "10.20.1.20", "10.20.3.20"
SERVER, NAME = "203.0.113.10", "gw.edge.example"

ROOT = Authority("Example Root", starts=-3000, ends=3000)
ISSUING = Authority("Example Issuing CA", ROOT, starts=-1000, ends=1000)
CHAIN = [leaf(NAME, ISSUING), ISSUING]

HIT_FRAMES = {
    "hit": [4, 6, 14, 16, 24, 26],
    "hit_steps_down": [4, 6, 14, 16, 24, 26],
    "hit_many_behind_one_address": [4, 6, 14, 16],
    "hit_two_versions": [4, 6, 14, 16],
    "hit_too_new": [24, 26],
    "hit_closed": [24, 26],
    "hit_client_complains": [24, 26],
    "hit_client_refuses": [4, 6, 8],
    "hit_fallback": [12, 14],
    "hit_downgrade": [4, 6, 8],
    "hit_intolerant": [4, 6, 32, 34],
}


def _old(wire, cport=40000, offer=TLS10, **more):
    return Session(wire, OLD, cport, SERVER, **{"sni": NAME, "offer": offer, "version": offer, **more})


def _new(wire, at, cport=41000, client=NEW):
    """A client of today is served with TLS 1.2."""
    return Session(wire, client, cport, SERVER, sni=NAME).accepted(at, CHAIN)


def _modern(wire, cport, client=OLD):
    """Offers TLS 1.3 and 1.2."""
    return Session(wire, client, cport, SERVER, sni=NAME, version=TLS13, versions=(TLS13, TLS12))


def hit():
    """Three tries with TLS 1.0, alert 70 each; a newer client is served."""
    wire = Wire()
    for i in range(3):
        _old(wire, 40000 + i).refused(i * 5.0, PROTOCOL_VERSION)
    _new(wire, 20.0)
    return wire.sorted()


def hit_closed():
    """No alert, just a close; the versions that others got show why."""
    wire = Wire()
    _new(wire, 0.0)
    _old(wire).refused(3.0)
    return wire.sorted()


def hit_client_complains():
    """The server closes; the client answers the close with an alert of its own, as OpenSSL does."""
    wire = Wire()
    _new(wire, 0.0)
    old = _old(wire)
    old.hello(3.0)
    old.tcp.segment(3.06, False, "FA")
    old.tcp.segment(3.0601, True, "PA", alert(DECODE_ERROR, version=TLS10))
    old.tcp.segment(3.08, False, "R")
    return wire.sorted()


def hit_steps_down():
    """A client tries 1.2, 1.1, 1.0 and fails each time: no scanner, the server wants 1.3."""
    wire = Wire()
    for i, offer in enumerate((TLS12, TLS11, TLS10)):
        _old(wire, 40000 + i, offer).refused(i * 2.0, PROTOCOL_VERSION)
    return wire.sorted()


def hit_many_behind_one_address():
    """Devices of three generations share one address; one of them works, so that is no scanner."""
    wire = Wire()
    for i, offer in enumerate((TLS10, TLS11)):
        _old(wire, 40000 + i, offer).refused(i * 2.0, PROTOCOL_VERSION)
    _new(wire, 5.0, client=OLD)
    return wire.sorted()


def hit_two_versions():
    """Two devices behind one address with 1.0 and 1.1: two versions make no scan."""
    wire = Wire()
    for i, offer in enumerate((TLS10, TLS11)):
        _old(wire, 40000 + i, offer).refused(i * 2.0, PROTOCOL_VERSION)
    return wire.sorted()


def hit_too_new():
    """A client that offers 1.3 alone meets a server that gave others 1.2 at most, and says 40."""
    wire = Wire()
    _new(wire, 0.0, client="10.20.3.21")
    Session(wire, NEW, 40000, SERVER, sni=NAME, versions=(TLS13,)).refused(3.0, HANDSHAKE_FAILURE)
    return wire.sorted()


def hit_client_refuses():
    """The server knows no more than TLS 1.0, and the client does not want that."""
    wire = Wire()
    Session(wire, NEW, 40000, SERVER, sni=NAME, version=TLS10).rejected(0.0, CHAIN, PROTOCOL_VERSION)
    return wire.sorted()


def hit_fallback():
    """A first try with 1.2 dies without an answer, the second with 1.1 and the signalling suite is refused with 86."""
    wire = Wire()
    first = Session(wire, OLD, 40000, SERVER, sni=NAME)
    first.hello(0.0)
    first.close(1.0)
    _old(wire, 40001, TLS11, ciphers=(*CBC_10, FALLBACK_SCSV)).refused(2.0, INAPPROPRIATE_FALLBACK)
    return wire.sorted()


def hit_downgrade():
    """The server marks its random (it could do 1.3), the client offered 1.3 and aborts with alert 47."""
    wire = Wire()
    session = Session(wire, NEW, 40000, SERVER, sni=NAME, versions=(TLS13, TLS12))
    session.hello(0.0)
    session.flight(0.05, CHAIN, sentinel=DOWNGRADE_12)
    session.alert(0.08, ILLEGAL_PARAMETER)
    session.close(0.081)
    return wire.sorted()


def hit_intolerant():
    """Twice a client gets no further with TLS 1.3, and at once succeeds with 1.2."""
    wire = Wire()
    for i in range(2):
        at = i * 20.0
        _modern(wire, 40000 + i).refused(at)
        _new(wire, at + 1.0, 41000 + i, OLD)
    return wire.sorted()


def near_miss_cipher():
    """Condition: no version in common. TLS 1.2 is offered and accepted from others: alert 40 is about ciphers."""
    wire = Wire()
    _new(wire, 0.0)
    _old(wire, offer=TLS12, ciphers=CBC_10).refused(3.0, HANDSHAKE_FAILURE)
    return wire.sorted()


def near_miss_served_with_newer_inconclusive():
    """Condition: TLS 1.2 is no old offer. Others get TLS 1.3, and alert 40 can be about this client's ciphers."""
    wire = Wire()
    _modern(wire, 41000, NEW).accepted(0.0, CHAIN)
    _old(wire, offer=TLS12, ciphers=CBC_10).refused(3.0, HANDSHAKE_FAILURE)
    return wire.sorted()


def near_miss_haproxy_check():
    """Condition: the hello is none of HAProxy's checks, which offer SSL 3.0 and take an alert for a sign of life."""
    wire = Wire()
    _new(wire, 0.0)
    for i in range(3):
        check = Session(wire, "10.20.5.10", 42000 + i, SERVER)
        check.tcp.open(3.0 + i * 2, check.rtt)
        check.send(3.03 + i * 2, True, HAPROXY_CHECK)
        check.alert(3.05 + i * 2, PROTOCOL_VERSION, by_client=False)
        check.close(3.051 + i * 2)
    return wire.sorted()


def near_miss_no_contrast_inconclusive():
    """Condition: without alert 70, others show what the server accepts. Here nobody does."""
    wire = Wire()
    _old(wire).refused(0.0, HANDSHAKE_FAILURE)
    return wire.sorted()


def near_miss_clear_text():
    """Condition: alert 70 of the client follows a ServerHello. Here it follows clear text (TLS-PLAINTEXT-PORT)."""
    wire = Wire()
    session = Session(wire, NEW, 40000, SERVER, sni=NAME)
    session.hello(0.0)
    session.send(0.05, False, b"220 mail.edge.example ESMTP\r\n")
    session.alert(0.08, PROTOCOL_VERSION)
    session.close(0.081)
    return wire.sorted()


def near_miss_client_closes():
    """Condition: the server ended it. This client gave up by itself."""
    wire = Wire()
    _new(wire, 0.0)
    _old(wire).refused(3.0, by_client=True)
    return wire.sorted()


def near_miss_slow_close():
    """Condition: the close comes right after the ClientHello. A server that closes after 20 s was stuck."""
    wire = Wire()
    _new(wire, 0.0)
    _old(wire).refused(3.0, after=20.0)
    return wire.sorted()


def near_miss_after_hello():
    """Condition: no ServerHello. Alert 40 after a CertificateRequest is about the client's certificate."""
    wire = Wire()
    _new(wire, 0.0)
    session = _old(wire)
    session.hello(3.0)
    session.flight(3.05, CHAIN, request=True)
    session.finish(3.08, [], answer=False)
    session.alert(3.12, HANDSHAKE_FAILURE, by_client=False)
    session.close(3.121, by_client=False)
    return wire.sorted()


def near_miss_sweep():
    """Condition: the client is no scanner. This one offers four versions in three seconds and uses none."""
    wire = Wire()
    for i, offer in enumerate((TLS10, TLS11)):
        _old(wire, 40000 + i, offer).refused(i * 1.0, PROTOCOL_VERSION)
    _old(wire, 40002, TLS12, ciphers=ECDHE_12).abandoned(2.0, CHAIN)
    session = _modern(wire, 40003)
    session.hello(3.0)
    session.flight(3.05, CHAIN)
    session.finish(3.08)
    session.close(3.2)
    return wire.sorted()


def near_miss_ssl3_probe():
    """Condition: more than one try with SSL 3.0. A single one is a probe."""
    wire = Wire()
    _old(wire, offer=SSL30).refused(0.0, PROTOCOL_VERSION)
    _new(wire, 3.0)
    return wire.sorted()


def near_miss_record_version():
    """Condition: the hello counts, not its record. Records say 1.0 and 1.2, the hello 1.3, and all is well."""
    wire = Wire()
    session = _modern(wire, 40000)
    session.hello(0.0)
    session.flight(0.05, CHAIN)
    session.finish(0.08)
    session.data(0.2)
    session.close(2.0)
    return wire.sorted()


def near_miss_no_sentinel():
    """Condition: alert 47 meets a mark in the server's random. Without it, some other parameter was illegal."""
    wire = Wire()
    session = Session(wire, NEW, 40000, SERVER, sni=NAME, versions=(TLS13, TLS12))
    session.hello(0.0)
    session.flight(0.05, CHAIN)
    session.alert(0.08, ILLEGAL_PARAMETER)
    session.close(0.081)
    return wire.sorted()


def near_miss_sentinel_best():
    """Condition: the client offered more than it got. A client of 1.2 cannot have been lowered to it."""
    wire = Wire()
    session = Session(wire, NEW, 40000, SERVER, sni=NAME)
    session.hello(0.0)
    session.flight(0.05, CHAIN, sentinel=DOWNGRADE_12)
    session.alert(0.08, ILLEGAL_PARAMETER)
    session.close(0.081)
    return wire.sorted()


def near_miss_retry_later():
    """Condition: the lower offer follows at once. Half an hour later the policy or the client was another."""
    wire = Wire()
    _modern(wire, 40000).refused(0.0)
    _new(wire, 1800.0, 41000, OLD)
    return wire.sorted()


def near_miss_retry_same():
    """Condition: the retry offers less. Here it offers the same and succeeds."""
    wire = Wire()
    Session(wire, OLD, 40000, SERVER, sni=NAME).refused(0.0)
    _new(wire, 1.0, 41000, OLD)
    return wire.sorted()


def near_miss_others_succeed():
    """Condition: nobody succeeds with the higher offer. Another client does, so the server can bear it."""
    wire = Wire()
    _modern(wire, 40000).refused(0.0)
    _new(wire, 1.0, 41000, OLD)
    session = _modern(wire, 42000, NEW)
    session.hello(5.0)
    session.flight(5.05, CHAIN)
    session.finish(5.08)
    session.data(5.2)
    session.close(6.0)
    return wire.sorted()
