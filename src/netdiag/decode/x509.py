"""X.509 certificates (RFC 5280) by the cryptography package, with everything that can be wrong with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

MAX_CERTIFICATE = 1 << 20
"""Larger ones are refused unread: no handshake message above this is read either (``tls_records.MAX_MESSAGE``)."""
CACHED = 1 << 14
"""Larger ones are not kept in caches: usual ones have 1 to 2 kB (practice)."""
MAX_RSA_BITS, MAX_RSA_EXPONENT_BITS, MAX_DSA_BITS = 8192, 64, 3072
"""Keys beyond these verify nothing here: a signature would take milliseconds, and a message holds hundreds to check.
CAs use 4096 bits at most, OpenSSL allows exponents of 64 bits on large keys, FIPS 186-4 §4.2 ends at 3072 bits for DSA.
"""
MAX_NAMES = 1000
"""Alternative names kept of one certificate (practice: public CAs stop at 100 to 250)."""

_FAR = (1 << 63) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign")

T = TypeVar("T")


class Parsed(NamedTuple):
    """What a certificate says; the fields mean what ``netdiag.tables.certs.Certificate`` says of them."""

    sha256: str
    der: bytes
    subject: str = ""
    issuer: str = ""
    subject_der: bytes = b""
    issuer_der: bytes = b""
    serial: str = ""
    not_before_ns: int = 0
    not_after_ns: int = 0
    san_dns: tuple[str, ...] = ()
    san_ip: tuple[str, ...] = ()
    san_uri: tuple[str, ...] = ()
    common_name: str | None = None
    is_ca: bool | None = None
    key_usage: tuple[str, ...] = ()
    self_issued: bool = False
    self_signed: bool = False
    authority_key_id: str | None = None
    subject_key_id: str | None = None
    aia_issuers: tuple[str, ...] = ()
    extended_key_usage: tuple[str, ...] = ()
    key_type: str = ""
    key_bits: int = 0
    signature_algorithm: str = ""
    version: int = 0
    problem: str = ""


def nanoseconds(when: datetime) -> int:
    """Nanoseconds since the epoch; the year 9999 of RFC 5280 §4.1.2.5 becomes the largest 64-bit value."""
    delta = when - _EPOCH
    value = (delta.days * 86400 + delta.seconds) * 1_000_000_000
    return max(-_FAR, min(_FAR, value))


def load(der: bytes) -> x509.Certificate | None:
    """The certificate as an object of the cryptography package, or None when it is too large or no certificate."""
    if len(der) > MAX_CERTIFICATE:
        return None
    return _load_cached(der) if len(der) <= CACHED else _load(der)


def _load(der: bytes) -> x509.Certificate | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return x509.load_der_x509_certificate(der)
        except Exception:  # bytes from the wire: the package documents ValueError, but what it wraps has raised others
            return None


_load_cached = lru_cache(maxsize=1024)(_load)


@lru_cache(maxsize=4096)
def _issued_by_cached(der: bytes, issuer_der: bytes) -> bool | None:
    return _issued_by(der, issuer_der)


def issued_by(der: bytes, issuer_der: bytes) -> bool | None:
    """Does the key of certificate ``issuer_der`` verify the signature on ``der``? None when that cannot be computed.

    Names must match too (RFC 5280 §6.1.3(a)(4)); dates and usages are not looked at.
    """
    if len(der) + len(issuer_der) > 2 * CACHED:
        return _issued_by(der, issuer_der)
    return _issued_by_cached(der, issuer_der)


def _issued_by(der: bytes, issuer_der: bytes) -> bool | None:
    certificate, issuer = load(der), load(issuer_der)
    if certificate is None or issuer is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if certificate.issuer != issuer.subject:
                return False
            return _verifies(certificate, issuer.public_key())
        except Exception:  # malformed names, unknown algorithms and curves, keys that sign nothing
            return None


def _verifies(certificate: x509.Certificate, key: object) -> bool | None:
    # Not verify_directly_issued_by(): it refuses SHA-1 and MD5, which old roots and devices still have.
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    hashed = certificate.signature_hash_algorithm
    try:
        if isinstance(key, rsa.RSAPublicKey) and hashed is not None:
            if key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
                return None
            form = certificate.signature_algorithm_parameters
            if not isinstance(form, padding.PKCS1v15 | padding.PSS):
                return False
            key.verify(signature, signed, form, hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey) and hashed is not None:
            key.verify(signature, signed, ec.ECDSA(hashed))
        elif isinstance(key, dsa.DSAPublicKey) and hashed is not None:
            if key.key_size > MAX_DSA_BITS:
                return None
            key.verify(signature, signed, hashed)
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return None
    except InvalidSignature:
        return False
    return True


def parse(der: bytes) -> Parsed:
    """Reads one certificate. Never raises: what cannot be read stays empty and ``problem`` says why."""
    digest = sha256(der).hexdigest()
    if len(der) > MAX_CERTIFICATE:
        return Parsed(digest, b"", problem=f"larger than {MAX_CERTIFICATE} bytes: not read")
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            certificate = x509.load_der_x509_certificate(der)
        except Exception as error:  # see load()
            return Parsed(digest, der, problem=f"no X.509 certificate ({type(error).__name__})")
        result = _fields(certificate, digest, der, problems)
    if any("serial number" in str(w.message) for w in caught):
        problems.append("serial number is not positive (RFC 5280 §4.1.2.2)")
    elif caught:
        problems.append("breaks a rule of RFC 5280 that cryptography warns of")
    if problems:
        return result._replace(problem="; ".join(dict.fromkeys(problems)))
    return result


def _fields(certificate: x509.Certificate, digest: str, der: bytes, problems: list[str]) -> Parsed:
    def attempt(what: str, default: T, read: Callable[[], T]) -> T:
        try:
            return read()
        except Exception as error:  # each field is decoded when asked for, and each can be malformed
            problems.append(f"{what} cannot be read ({type(error).__name__})")
            return default

    subject_der = attempt("subject", b"", lambda: certificate.subject.public_bytes())
    issuer_der = attempt("issuer", b"", lambda: certificate.issuer.public_bytes())
    self_issued = subject_der == issuer_der and subject_der != b""
    key_type, key_bits = attempt("public key", ("", 0), lambda: _key(certificate))
    try:
        extensions = Extensions(certificate.extensions)
    except Exception:  # one malformed extension: read the others one by one
        extensions = Extensions.one_by_one(der, problems)
    serial = attempt("serial number", 0, lambda: certificate.serial_number)
    names = _alternative_names(extensions)
    return Parsed(
        sha256=digest, der=der,
        subject=attempt("subject", "", lambda: certificate.subject.rfc4514_string()),
        # Many certificates have one issuer, and the text costs more than all else here.
        issuer=attempt("issuer", "", lambda: _issuer_text(issuer_der, certificate)),
        subject_der=subject_der, issuer_der=issuer_der,
        serial=f"{serial:x}",
        not_before_ns=attempt("notBefore", 0, lambda: nanoseconds(certificate.not_valid_before_utc)),
        not_after_ns=attempt("notAfter", 0, lambda: nanoseconds(certificate.not_valid_after_utc)),
        san_dns=names[0], san_ip=names[1], san_uri=names[2],
        common_name=attempt("common name", None, lambda: _common_name(certificate)),
        is_ca=extensions.is_ca(der),
        key_usage=_key_usage(extensions),
        self_issued=self_issued,
        self_signed=self_issued and issued_by(der, der) is True,
        authority_key_id=_authority_key_id(extensions), subject_key_id=_subject_key_id(extensions),
        aia_issuers=_aia(extensions), extended_key_usage=_extended_key_usage(extensions),
        key_type=key_type, key_bits=min(key_bits, 0xFFFF),
        signature_algorithm=attempt("signature algorithm", "", lambda: _signature(certificate)),
        version=attempt("version", 0, lambda: certificate.version.value + 1),
    )


_issuers: dict[bytes, str] = {}


def _issuer_text(der: bytes, certificate: x509.Certificate) -> str:
    text = _issuers.get(der)
    if text is None:
        text = certificate.issuer.rfc4514_string()
        if len(_issuers) >= 1024 or len(der) > CACHED:
            _issuers.clear()
        _issuers[der] = text
    return text


def _signature(certificate: x509.Certificate) -> str:
    oid = certificate.signature_algorithm_oid
    name = oid._name  # the only place where the package keeps its names of signature algorithms
    return name if name != "Unknown OID" else oid.dotted_string


def _common_name(certificate: x509.Certificate) -> str | None:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not found:
        return None
    value = found[-1].value
    return value if isinstance(value, str) else value.decode("latin-1")


def _key(certificate: x509.Certificate) -> tuple[str, int]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec", key.key_size
    if isinstance(key, dsa.DSAPublicKey):
        return "dsa", key.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", 256
    if isinstance(key, ed448.Ed448PublicKey):
        return "ed448", 456
    return type(key).__name__.removesuffix("PublicKey").lower(), 0


_E = TypeVar("_E", bound=x509.ExtensionType)

_WANTED: dict[type[x509.ExtensionType], tuple[str, bytes]] = {
    x509.SubjectAlternativeName: ("subjectAltName", b"\x06\x03\x55\x1d\x11"),
    x509.BasicConstraints: ("basicConstraints", b"\x06\x03\x55\x1d\x13"),
    x509.KeyUsage: ("keyUsage", b"\x06\x03\x55\x1d\x0f"),
    x509.ExtendedKeyUsage: ("extKeyUsage", b"\x06\x03\x55\x1d\x25"),
    x509.AuthorityKeyIdentifier: ("authorityKeyIdentifier", b"\x06\x03\x55\x1d\x23"),
    x509.SubjectKeyIdentifier: ("subjectKeyIdentifier", b"\x06\x03\x55\x1d\x0e"),
    x509.AuthorityInformationAccess: ("authorityInfoAccess", b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x01"),
}
"""Extensions that are read: name and encoded object identifier (RFC 5280 §4.2)."""

_PKIX = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01"
"""1.3.6.1.5.5.7.1, private extensions of PKIX (RFC 5280 §4.2.2)."""
_PKIX_HIDDEN = _PKIX[:-1] + b"\x7f"

# basicConstraints that states its default, cA FALSE: against DER (X.690 §11.5), but large CAs issued such certificates
# for years.
_EXPLICIT_FALSE = re.compile(rb"\x06\x03\x55\x1d\x13(?:\x01\x01.)?\x04\x05\x30\x03\x01\x01\x00", re.DOTALL)


class Extensions:
    """The extensions that are read, by class."""

    def __init__(self, found: Iterable[x509.Extension[x509.ExtensionType]]) -> None:
        self._by_class = {type(e.value): e.value for e in found}

    @classmethod
    def one_by_one(cls, der: bytes, problems: list[str]) -> Extensions:
        """Reads each extension from a copy in which all others have an identifier nobody knows.

        cryptography decodes all extensions or none: one that breaks DER would hide the names of the certificate.
        """
        found: list[x509.Extension[x509.ExtensionType]] = []
        # Whatever else it knows lies under 2.5.29 or pkix, and moves away too.
        hidden = re.sub(rb"\x06\x03\x55\x1d([\x00-\x7f])", b"\x06\x03\x55\x7d\\1", der)
        hidden = hidden.replace(_PKIX, _PKIX_HIDDEN)
        for kind, (name, identifier) in _WANTED.items():
            copy = hidden.replace(_hide(identifier), identifier)
            try:
                found += [e for e in x509.load_der_x509_certificate(copy).extensions if isinstance(e.value, kind)]
            except Exception:  # see load()
                problems.append(f"{name} cannot be read")
        return cls(found)

    def get(self, kind: type[_E]) -> _E | None:
        value = self._by_class.get(kind)
        return value if isinstance(value, kind) else None

    def is_ca(self, der: bytes) -> bool | None:
        constraints = self.get(x509.BasicConstraints)
        if constraints is None:
            return False if _EXPLICIT_FALSE.search(der) else None
        return constraints.ca


def _hide(identifier: bytes) -> bytes:
    if identifier.startswith(_PKIX):
        return identifier.replace(_PKIX, _PKIX_HIDDEN)
    return identifier.replace(b"\x55\x1d", b"\x55\x7d")


def _alternative_names(extensions: Extensions) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    san = extensions.get(x509.SubjectAlternativeName)
    if san is None:
        return (), (), ()
    return (tuple(san.get_values_for_type(x509.DNSName)[:MAX_NAMES]),
            tuple(str(ip) for ip in san.get_values_for_type(x509.IPAddress)[:MAX_NAMES]),
            tuple(san.get_values_for_type(x509.UniformResourceIdentifier)[:MAX_NAMES]))


def _key_usage(extensions: Extensions) -> tuple[str, ...]:
    usage = extensions.get(x509.KeyUsage)
    return () if usage is None else tuple(name for name in _USAGES if getattr(usage, name))


def _extended_key_usage(extensions: Extensions) -> tuple[str, ...]:
    usage = extensions.get(x509.ExtendedKeyUsage)
    return () if usage is None else tuple(oid.dotted_string for oid in usage)


def _authority_key_id(extensions: Extensions) -> str | None:
    found = extensions.get(x509.AuthorityKeyIdentifier)
    return found.key_identifier.hex() if found is not None and found.key_identifier is not None else None


def _subject_key_id(extensions: Extensions) -> str | None:
    found = extensions.get(x509.SubjectKeyIdentifier)
    return found.digest.hex() if found is not None else None


def _aia(extensions: Extensions) -> tuple[str, ...]:
    found = extensions.get(x509.AuthorityInformationAccess)
    if found is None:
        return ()
    return tuple(d.access_location.value for d in found
                 if d.access_method == AuthorityInformationAccessOID.CA_ISSUERS
                 and isinstance(d.access_location, x509.UniformResourceIdentifier))[:16]
