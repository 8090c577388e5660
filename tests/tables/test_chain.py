from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import tls_wire
from tls_wire import Signed, signed

from netdiag.errors import CaptureError
from netdiag.tables import roots
from netdiag.tables.certs import Certificate, CertificateStore
from netdiag.tables.chain import MISSING, SELF_SIGNED, TRUSTED, analyse

ROOT = signed("root.example", ca=True, days=900)
MIDDLE = signed("issuing.example", ROOT, ca=True, days=500)
LEAF = signed("sip.example", MIDDLE)
KNOWN = roots.parse(ROOT.pem, "test", False)
NONE = roots.parse(b"", "none", False)


def chain(*certs: Signed) -> list[Certificate]:
    store = CertificateStore()
    return [store.rows[row] for c in certs if (row := store.add(c.der, 1)) is not None]


def test_complete_chain_without_root() -> None:
    facts = analyse(chain(LEAF, MIDDLE), KNOWN)
    assert facts.trusted
    assert [(p.certs, p.end, p.anchor) for p in facts.paths] == [((0, 1), TRUSTED, "CN=root.example")]
    assert (facts.in_order, facts.unused, facts.missing_issuer, facts.root_sent) == (True, (), None, False)


def test_missing_intermediate() -> None:
    facts = analyse(chain(LEAF), KNOWN)
    assert not facts.trusted
    assert (facts.missing_issuer, facts.missing_for) == ("CN=issuing.example", 0)
    assert facts.paths[0].end == MISSING


def test_private_root_left_out_is_missing_above_the_intermediate() -> None:
    facts = analyse(chain(LEAF, MIDDLE), NONE)
    assert (facts.missing_issuer, facts.missing_for) == ("CN=root.example", 1)


def test_private_root_sent() -> None:
    facts = analyse(chain(LEAF, MIDDLE, ROOT), NONE)
    assert [(p.certs, p.end) for p in facts.paths] == [((0, 1, 2), SELF_SIGNED)]
    assert facts.root_sent
    assert facts.missing_issuer is None


def test_wrong_order_and_stranger() -> None:
    other = signed("other.example", ca=True)
    facts = analyse(chain(LEAF, other, MIDDLE), KNOWN)
    assert (facts.trusted, facts.in_order, facts.unused) == (True, False, (1,))


def test_intermediate_with_another_key_is_broken() -> None:
    renewed = signed("issuing.example", ROOT, ca=True)
    facts = analyse(chain(LEAF, renewed), KNOWN)
    assert facts.broken == ((0, 1),)
    assert facts.missing_issuer == "CN=issuing.example"
    without_ids = signed("sip.example", signed("issuing.example", ROOT, ca=True, ids=False), ids=False)
    assert analyse(chain(without_ids, renewed), KNOWN).broken == ((0, 1),)


def test_self_signed_leaf() -> None:
    facts = analyse(chain(signed("phone.example")), KNOWN)
    assert facts.self_signed_leaf
    assert facts.paths[0].end == SELF_SIGNED


def test_cross_certificate_gives_two_paths() -> None:
    old = signed("old-root.example", ca=True, start=tls_wire.NOW - timedelta(days=400), days=390)
    cross = signed("root.example", old, ca=True, key=ROOT.key, start=tls_wire.NOW - timedelta(days=400), days=390)
    sent = chain(LEAF, MIDDLE, cross)
    facts = analyse(sent, KNOWN)
    assert facts.cross_signed == (2,)
    assert {(p.certs, p.end, p.anchor) for p in facts.paths} == {
        ((0, 1), TRUSTED, "CN=root.example"), ((0, 1, 2), TRUSTED, "CN=root.example"),
        ((0, 1, 2), MISSING, "CN=old-root.example")}


def test_circle_ends() -> None:
    a = signed("a.example", ca=True)
    b = signed("b.example", a, ca=True)
    a_by_b = signed("a.example", b, ca=True, key=a.key)
    leaf = signed("sip.example", a_by_b)
    facts = analyse(chain(leaf, a_by_b, b), NONE)
    assert facts.paths[0].end == MISSING
    assert facts.unused == ()


def test_rubbish_and_empty_chains() -> None:
    store = CertificateStore()
    row = store.add(b"rubbish", 3)
    assert row == 0
    facts = analyse([*store.rows, *chain(MIDDLE)], KNOWN)
    assert (facts.unreadable, facts.paths) == ((0,), ())
    assert analyse([], KNOWN).length == 0
    many = analyse(chain(LEAF, MIDDLE) * 40, KNOWN)
    assert many.length == 80
    assert many.trusted


def test_names_covered() -> None:
    cert = chain(signed("*.voice.example"))[0]
    assert cert.covers("a.voice.example")
    assert cert.covers("A.Voice.Example.")
    assert cert.covers("192.0.2.7")
    assert not cert.covers("voice.example")
    assert not cert.covers("a.b.voice.example")


def test_public_roots_and_files(tmp_path: Path) -> None:
    public = roots.load()
    assert public.public
    assert public.source.startswith("certifi ")
    assert public.count > 50
    assert public.skipped == 0
    path = tmp_path / "roots.pem"
    path.write_bytes(b"text\n" + ROOT.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    own = roots.load(str(path))
    assert (own.count, own.skipped, own.public) == (1, 1, False)
    with pytest.raises(CaptureError, match="cannot read the CA file"):
        roots.load(str(tmp_path / "missing.pem"))
    path.with_name("empty.pem").write_bytes(b"nothing")
    with pytest.raises(CaptureError, match="no certificate"):
        roots.load(str(path.with_name("empty.pem")))
