"""TLS handshakes with alerts and, up to TLS 1.2 (or with the key log), certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdiag.tables.schema import U8, U16, U32

if TYPE_CHECKING:
    import polars as pl

    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Handshake:
    """One TLS handshake: one TCP connection on which a ClientHello or ServerHello was seen."""

    handshake: U32
    connection: U32
    flow: U32
    point: str
    client: str
    client_port: U16
    server: str
    server_port: U16
    start_ns: int
    """First hello."""
    end_ns: int
    """Last handshake or alert record that was read."""
    starttls: str
    """"" or the protocol that the handshake started inside: smtp, imap, pop3, ftp, xmpp, postgres, ldap, http
    (CONNECT), proxy (PROXY protocol), "plain" (bytes of anything else)."""
    client_hello_packet: U32 | None
    client_hellos: U8
    """2 after a HelloRetryRequest."""
    server_hello_packet: U32 | None
    server_hellos: U8
    sni: str | None
    alpn_offered: tuple[str, ...]
    alpn_chosen: str | None
    client_max_version: U16 | None
    """Highest version offered: supported_versions (RFC 8446 §4.2.1), else legacy_version; 0x0303 is TLS 1.2."""
    client_versions: tuple[U16, ...]
    """All of supported_versions without GREASE; empty without that extension."""
    fallback_scsv: bool
    """RFC 7507."""
    version: U16 | None
    """Chosen version."""
    downgrade_sentinel: U16 | None
    """0x0303 or 0x0302 when ServerHello.random ends with the RFC 8446 §4.1.3 sentinel."""
    ciphers_offered: tuple[U16, ...]
    cipher: U16 | None
    resumed: bool
    """No Certificate although a ServerHello and ChangeCipherSpec/Finished followed (up to 1.2), or PSK chosen (1.3)."""
    certificate_packet: U32 | None
    """Packet with the end of the server's Certificate message."""
    certificates: tuple[U32, ...]
    """Rows of ``certs`` as sent by the server, leaf first."""
    client_certificate_packet: U32 | None
    client_certificates: tuple[U32, ...]
    certificate_requested: bool
    alert_packet: U32 | None
    """First fatal alert in clear (or that the key log opens); else the first encrypted alert record, in TLS 1.3 one
    that ended the handshake, as far as lengths and places tell."""
    alert_level: U8 | None
    alert: U8 | None
    """AlertDescription (RFC 8446 §6); None when encrypted."""
    alert_by: str | None
    """"client" or "server"."""
    alert_encrypted: bool
    completed: bool
    """Finished from both sides: encrypted handshake record after ChangeCipherSpec up to 1.2; in 1.3 encrypted records
    of the server, and one of the client that is large enough for a Finished (no alert is, RFC 8446 §4.4.4, §5.2). Not
    where an alert is all that the server sends behind it: so it refuses a client certificate."""
    closed_by: str | None
    """Who sent the first FIN or RST of the connection: "client", "server" or None."""
    closed_how: str | None
    """"fin" or "rst"."""
    close_packet: U32 | None
    close_after_certificate_s: float | None
    """Certificate to close, seconds, where nothing of the client but an alert lies between."""
    application_data: bool
    """Up to 1.2: an application data record. In 1.3 without keys: a record of the client behind its Finished that is no
    lone alert, as far as lengths tell."""
    truncated: bool
    """Bytes of the handshake are missing in the capture (loss, snap length, mid-stream): absence proves nothing."""
    ja4: str
    """JA4 client fingerprint (JA4 alone, not the other JA4+ methods), or "" without ClientHello."""
    client_hello_size: int = 0
    """Bytes of the first ClientHello message with its header."""
    client_random: str = ""
    """Hex; the same on both sides of a device that does not terminate TLS."""
    client_session_id: str = ""
    """Hex, as offered. In TLS 1.3 it means nothing (RFC 8446 App. D.4)."""
    server_session_id: str = ""
    resumption_offered: bool = False
    """The ClientHello has a session ticket, a PSK or, without supported_versions, a session id."""
    early_data: bool = False
    """Early data offered (RFC 8446 §4.2.10)."""
    groups_offered: tuple[U16, ...] = ()
    """supported_groups, in order."""
    key_shares: tuple[U16, ...] = ()
    """Groups with a key share in the first ClientHello."""
    group: U16 | None = None
    """Group of the server's key share or HelloRetryRequest (TLS 1.3)."""
    signature_algorithms: tuple[U16, ...] = ()
    certificate_request_packet: U32 | None = None
    certificate_authorities: tuple[bytes, ...] = ()
    """DER names of the server's CertificateRequest, first 512."""
    certificate_authorities_size: U32 = 0
    """Bytes of that list."""
    client_records: tuple[U16, ...] = ()
    """Lengths of the client's first 16 application data records: how TLS 1.3 is read without keys."""
    server_records: tuple[U16, ...] = ()
    decrypted: bool = False
    """The key log opened the handshake (TLS 1.3)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert record in clear."""

    packet: U32
    point: str
    ts_ns: int
    connection: U32
    handshake: U32 | None
    by: str
    level: U8
    description: U8
    name: str
    """As RFC 8446 §6 and the IANA registry spell it; "alert 99" for unknown ones."""


def build(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Frames of ``Handshake``, ``Alert`` and ``netdiag.tables.certs.Certificate``.

    CaptureError when the key log that the user named cannot be read.
    """
    from netdiag.tables import tls_build
    return tls_build.build(tables)
