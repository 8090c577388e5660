from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tls_wire

from netdiag.decode import x509


def test_fields() -> None:
    root = tls_wire.signed("ca.example", ca=True)
    leaf = tls_wire.signed("sip.example", root)
    found = x509.parse(leaf.der)
    assert found.problem == ""
    assert (found.subject, found.issuer, found.common_name) == ("CN=sip.example", "CN=ca.example", "sip.example")
    assert (found.san_dns, found.san_ip, found.san_uri) == (("sip.example",), ("192.0.2.7",), ("sip:sip.example",))
    assert found.not_after_ns == int(leaf.cert.not_valid_after_utc.timestamp()) * 10**9
    assert found.extended_key_usage == ("1.3.6.1.5.5.7.3.1",)
    assert found.aia_issuers == ("http://ca.example/issuer.crt",)
    assert (found.key_type, found.key_bits, found.version, found.is_ca) == ("ec", 256, 3, False)
    assert (found.self_issued, found.self_signed) == (False, False)
    above = x509.parse(root.der)
    assert above.is_ca is True
    assert above.self_signed
    assert found.authority_key_id == above.subject_key_id
    assert found.issuer_der == above.subject_der


def test_self_issued_is_not_self_signed() -> None:
    other = tls_wire.signed("ca.example", ca=True)
    pretender = tls_wire.signed("ca.example", other, ca=True)
    found = x509.parse(pretender.der)
    assert found.self_issued
    assert not found.self_signed
    assert x509.issued_by(pretender.der, other.der) is True
    assert x509.issued_by(other.der, pretender.der) is False


def test_year_9999_is_the_largest_time() -> None:
    assert x509.nanoseconds(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) == 2**63 - 1
    assert x509.nanoseconds(datetime(1600, 1, 1, tzinfo=UTC)) == -(2**63 - 1)


def test_negative_serial_is_a_problem_and_still_read() -> None:
    der = bytearray(tls_wire.signed("sip.example").der)
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    der[at] |= 0x80
    found = x509.parse(bytes(der))
    assert "serial number is not positive" in found.problem
    assert found.san_dns == ("sip.example",)
    assert found.serial.startswith("-")


def test_unknown_curve_is_a_problem_and_the_rest_is_read() -> None:
    known, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    found = x509.parse(tls_wire.signed("sip.example").der.replace(known, unknown))
    assert found.problem == "public key cannot be read (UnsupportedAlgorithm)"
    assert found.san_dns == ("sip.example",)


def test_one_broken_extension_does_not_hide_the_names() -> None:
    # basicConstraints 30 00 becomes a boolean that must not be there.
    der = tls_wire.signed("sip.example").der
    broken = der.replace(bytes.fromhex("0603551d130101ff04023000"), bytes.fromhex("0603551d130101ff04020101"))
    assert broken != der
    found = x509.parse(broken)
    assert found.problem == "basicConstraints cannot be read"
    assert found.san_dns == ("sip.example",)
    assert found.subject_key_id is not None
    assert found.is_ca is None


@pytest.mark.parametrize("der", [b"", b"\x30", bytes(100), b"\x30\x84\xff\xff\xff\xff", b"\x30\x80" * 5000])
def test_no_certificate(der: bytes) -> None:
    found = x509.parse(der)
    assert found.problem.startswith("no X.509 certificate")
    assert found.der == der
    assert found.subject == ""


def test_huge_certificate_is_refused_by_size() -> None:
    found = x509.parse(b"\x30\x84\x01\x00\x00\x00" + bytes(1 << 24))
    assert "not read" in found.problem
    assert found.der == b""


def test_mutated_certificates_never_raise() -> None:
    der = tls_wire.signed("sip.example", tls_wire.signed("ca.example", ca=True)).der
    chance = random.Random(7)
    read = 0
    for _ in range(2000):
        data = bytearray(der)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        found = x509.parse(bytes(data))
        read += found.subject != ""
    assert read > 100


def test_real_certificate_with_explicit_default(real: Path) -> None:
    from netdiag.tables.reader import open_captures
    certs = open_captures([str(real / "tls-alert__zeek__tls-early-alert.pcap")]).certs
    row = certs.row(0, named=True)
    assert row["san_dns"] == ["www.jeffbryner.com", "jeffbryner.com"]
    assert row["is_ca"] is False
    assert row["problem"] == "basicConstraints cannot be read"


def test_sha1_signatures_verify(real: Path) -> None:
    from netdiag.tables.reader import open_captures
    certs = open_captures([str(real / "ssl3__arkime__openssl-ssl3.pcap")]).certs
    leaf, issuer, above = certs["der"].to_list()
    assert certs["signature_algorithm"][0] == "sha1WithRSAEncryption"
    assert x509.issued_by(leaf, issuer) is True
    assert x509.issued_by(issuer, above) is True
    assert x509.issued_by(leaf, above) is False
    broken = leaf[:-1] + bytes([leaf[-1] ^ 1])
    assert x509.issued_by(broken, issuer) is False
