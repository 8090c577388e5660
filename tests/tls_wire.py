"""Real TLS handshakes and certificates for the tests: made in memory by the ssl module and by cryptography."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
Flights = list[tuple[bool, bytes]]
"""(from the client, bytes), in order."""


@dataclass
class Signed:
    """A certificate with its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    def files(self, directory: Path, *above: Signed) -> tuple[str, str]:
        """Paths of the chain and of the key in PEM."""
        chain, key = directory / f"{self.cert.serial_number:x}.pem", directory / f"{self.cert.serial_number:x}.key"
        chain.write_bytes(b"".join(c.pem for c in (self, *above)))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(chain), str(key)


def signed(name: str, by: Signed | None = None, ca: bool = False, key: ec.EllipticCurvePrivateKey | None = None,
           start: datetime = NOW - timedelta(days=10), days: int = 90, ids: bool = True,
           usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH) -> Signed:
    """A certificate of ``name``, signed by ``by`` or by itself; a CA or a leaf with the name as subjectAltName."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = by.key if by else key
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(by.cert.subject if by else subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(start).not_valid_after(start + timedelta(days=days))
               .add_extension(x509.BasicConstraints(ca, None), True))
    if ids:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    if not ca:
        names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
                                         x509.UniformResourceIdentifier(f"sip:{name}")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        builder = builder.add_extension(x509.AuthorityInformationAccess([x509.AccessDescription(
            x509.oid.AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://ca.example/issuer.crt"))]), False)
    return Signed(builder.sign(issuer_key, hashes.SHA256()), key)


def contexts(directory: Path, version: ssl.TLSVersion, leaf: Signed, *above: Signed, trust: Signed | None = None,
             ask: Signed | None = None, show: Signed | None = None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(client, server): ``trust`` is the client's root, ``ask`` the server's, ``show`` the client's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*leaf.files(directory, *above))
    server.set_alpn_protocols(["sip/2", "h2"])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_alpn_protocols(["h2"])
    client.minimum_version = client.maximum_version = version
    if trust is None:
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
    else:
        client.load_verify_locations(cadata=trust.pem.decode())
    if ask is not None:
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(cadata=ask.pem.decode())
    if show is not None:
        client.load_cert_chain(*show.files(directory))
    return client, server


SAID: Flights = [(True, b"OPTIONS sip:a.example SIP/2.0\r\n"), (False, b"SIP/2.0 200 OK\r\n" * 20)]


def converse(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None, say: bool = True,
             keylog: bool = False, said: Flights = SAID) -> tuple[Flights, bytes]:
    """Lets both talk until nothing more comes: (flights, key log). With ``say``, what is ``said`` and the end."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "keys"
        if keylog:
            client.keylog_filename = str(log)
        ends = []
        for context, is_server in ((client, False), (server, True)):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            ends.append((context.wrap_bio(incoming, outgoing, server_side=is_server,
                                          server_hostname=None if is_server else name), incoming, outgoing))
        flights: Flights = []

        def move() -> bool:
            moved = False
            for i in (0, 1):
                data = ends[i][2].read()
                if data:
                    flights.append((i == 0, data))
                    ends[1 - i][1].write(data)
                    moved = True
            return moved

        done, failed = [False, False], [False, False]
        for _ in range(12):
            for i, (end, _, _) in enumerate(ends):
                if failed[i]:
                    continue
                try:
                    if not done[i]:
                        end.do_handshake()
                        done[i] = True
                    else:
                        end.read(100)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    failed[i] = True
            if not move():
                break
        if say and all(done) and not any(failed):
            for from_client, data in said:
                ends[not from_client][0].write(data)
                move()
            for end, _, _ in ends:
                with contextlib.suppress(ssl.SSLError):
                    end.unwrap()
                move()
        return flights, log.read_bytes() if keylog else b""


def record(kind: int, body: bytes, version: int = 0x0303) -> bytes:
    return bytes([kind, version >> 8, version & 255]) + len(body).to_bytes(2, "big") + body


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body
