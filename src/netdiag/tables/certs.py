"""Certificates seen on the wire: one row per distinct certificate."""

from __future__ import annotations

from dataclasses import dataclass, fields

from netdiag.tables.schema import U8, U16, U32


@dataclass(frozen=True, slots=True)
class Certificate:
    """One distinct X.509 certificate (RFC 5280), by SHA-256."""

    cert: U32
    sha256: str
    subject: str
    """RFC 4514 text."""
    issuer: str
    subject_der: bytes
    issuer_der: bytes
    serial: str
    """Hex."""
    not_before_ns: int
    not_after_ns: int
    san_dns: tuple[str, ...]
    san_ip: tuple[str, ...]
    common_name: str | None
    is_ca: bool | None
    """basicConstraints; None when absent."""
    self_issued: bool
    """Subject equals issuer."""
    self_signed: bool
    """Self-issued and the signature verifies with its own key."""
    authority_key_id: str | None
    """Hex."""
    subject_key_id: str | None
    aia_issuers: tuple[str, ...]
    """caIssuers URLs (RFC 5280 §4.2.2.1)."""
    extended_key_usage: tuple[str, ...]
    """OIDs in dotted form."""
    key_type: str
    """rsa, ec, ed25519…"""
    key_bits: U16
    signature_algorithm: str
    version: U8
    der: bytes
    problem: str
    """"" or what is wrong with it; what could not be read is empty (all of it when it is no certificate)."""
    first_packet: U32
    """Packet with the end of the first Certificate message that held it."""
    san_uri: tuple[str, ...] = ()
    """URIs in subjectAltName: ``sip:`` names a SIP domain (RFC 5922 §7.1)."""
    key_usage: tuple[str, ...] = ()
    """keyUsage bits by name (RFC 5280 §4.2.1.3), for example "digital_signature"; empty when absent."""

    def names(self) -> tuple[str, ...]:
        """DNS names and addresses of subjectAltName; the common name is none of them (RFC 9525 §6.3)."""
        return self.san_dns + self.san_ip

    def covers(self, name: str) -> bool:
        """Does subjectAltName cover that host name or address? A wildcard is one left-most label (RFC 9525 §6.3)."""
        wanted = name.rstrip(".").lower()
        if wanted in self.san_ip:
            return True
        _, dot, parent = wanted.partition(".")
        wildcard = "*." + parent if dot else None
        return any(known.rstrip(".").lower() in (wanted, wildcard) for known in self.san_dns)


MAX_ROWS = 200_000
"""Distinct certificates kept (practice: some 2 kB of memory each besides their bytes)."""
MAX_BYTES = 256 << 20
"""Bytes of distinct certificates kept, some hundred thousand of usual size (practice)."""

_PARSED = tuple(f.name for f in fields(Certificate) if f.name not in ("cert", "first_packet"))


class CertificateStore:
    """Collects certificates: each distinct one is parsed once and gets the next row number."""

    def __init__(self) -> None:
        self.rows: list[Certificate] = []
        self.refused = 0
        """Distinct certificates beyond ``MAX_ROWS`` or ``MAX_BYTES``."""
        self._bytes = 0
        self._known: dict[bytes, int] = {}

    def add(self, der: bytes, packet: int) -> int | None:
        """Row number of that certificate, first seen in packet row ``packet``; None when the store is full."""
        row = self._known.get(der)
        if row is None:
            self._bytes += len(der)
            if self._bytes > MAX_BYTES or len(self.rows) >= MAX_ROWS:
                self.refused += 1
                return None
            from netdiag.decode.x509 import parse  # takes long to import, and most captures hold no certificate
            parsed = parse(der)
            row = len(self.rows)
            self._known[der] = row
            self.rows.append(Certificate(cert=row, first_packet=packet, **{n: getattr(parsed, n) for n in _PARSED}))
        return row
