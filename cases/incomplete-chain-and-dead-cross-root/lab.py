"""One provisioning server, three kinds of client, four chains.

    phone (OpenSSL 3, TLS 1.2) -----+
    old phone (1.0.1 path building) +-- office -- transit -- server (openssl s_server)
    laptop (TLS 1.3) ---------------+

What changes between the variants is the list of certificates that the server sends.
The clients' trust stores stay the same: the laptop has the intermediate besides the
root (as a browser that met it elsewhere) and the test department's private root; the
old phone has the old root and the new one.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from netdiag.errors import LabError
from netdiag.lab.topology import Lab, Node

SERVER = "203.0.113.10"
NAME = "prov.phones.example"
PORT = 443
FILE = "cfg-001565a1b2c3.xml"
ATTEMPTS = 3  # a phone that fails tries again
TRUSTED = "Example Trust Root R1"
OLD_ROOT_ENDS = datetime(2024, 9, 30)
TEN_YEARS = (datetime(2025, 1, 1), datetime(2035, 1, 1))

REJECTED_BY = {
    "broken": {"phone": "unable to get local issuer certificate", "old": "unable to get local issuer certificate"},
    "fixed": {},
    "cross-root": {"old": "certificate has expired"},
    "private-ca": {
        "phone": "self-signed certificate in certificate chain",
        "old": "self-signed certificate in certificate chain",
    },
}


def run(lab: Lab, variant: str) -> None:
    pki = Pki(lab.workdir)
    clients, server = build(lab)
    start_server(server, pki, variant)
    lab.capture(lab.nodes["office"], "wan0", "client")
    lab.capture(server, "eth0", "server")
    outcomes = {
        "phone": [phone(clients["phone"], pki) for _ in range(attempts(variant, "phone"))],
        "old": [old_phone(clients["old"], pki) for _ in range(attempts(variant, "old"))],
        "laptop": [laptop(clients["laptop"], pki)],
    }
    for client, seen in outcomes.items():
        wanted = REJECTED_BY[variant].get(client, "200")
        for outcome in seen:
            if wanted not in outcome:
                raise LabError(f"{client}: expected {wanted!r}, got\n{outcome}")


def attempts(variant: str, client: str) -> int:
    return ATTEMPTS if client in REJECTED_BY[variant] else 1


def build(lab: Lab) -> tuple[dict[str, Node], Node]:
    office = lab.node("office", forward=True)
    transit = lab.node("transit", forward=True)
    server = lab.node("server")
    clients = {}
    for number, name in enumerate(("phone", "old", "laptop"), start=1):
        clients[name] = lab.node(name)
        lab.link(clients[name], "eth0", f"10.20.{number}.20/24", office, f"lan{number}", f"10.20.{number}.1/24")
        clients[name].route("default", f"10.20.{number}.1")
    lab.link(office, "wan0", "192.0.2.2/30", transit, "cust0", "192.0.2.1/30")
    lab.link(transit, "dc0", "203.0.113.1/24", server, "eth0", f"{SERVER}/24")
    office.route("default", "192.0.2.1")
    server.route("default", "203.0.113.1")
    transit.route("10.20.0.0/16", "192.0.2.2")
    return clients, server


def start_server(node: Node, pki: Pki, variant: str) -> None:
    leaf, chain = {
        "broken": (pki.leaf, []),
        "fixed": (pki.leaf, [pki.issuing]),
        "cross-root": (pki.leaf, [pki.issuing, pki.cross]),
        "private-ca": (pki.test_leaf, [pki.test_issuing, pki.test_root]),
    }[variant]
    folder = node.lab.workdir / "www"
    folder.mkdir()
    (folder / FILE).write_text("<config version='7'><line index='1' user='2041'/></config>\n", encoding="ascii")
    options = ["-cert", str(leaf.save()), "-key", str(leaf.save_key()), "-accept", str(PORT), "-WWW"]
    if chain:
        options += ["-cert_chain", str(pki.bundle("sent", chain))]
    node.start(
        ["openssl", "s_server", *options],
        name="https",
        cwd=folder,
        ready=lambda: node.listening("tcp", PORT),
    )


def phone(node: Node, pki: Pki) -> str:
    trust = pki.bundle("phone-store", [pki.root])
    return s_client(node, trust, "-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256")


def laptop(node: Node, pki: Pki) -> str:
    trust = pki.bundle("laptop-store", [pki.root, pki.issuing, pki.test_root])
    return s_client(node, trust, "-tls1_3", "-alpn", "http/1.1")


def s_client(node: Node, trust: Path, *options: str) -> str:
    fixed = ["-connect", f"{SERVER}:{PORT}", "-servername", NAME, "-CAfile", str(trust), "-no-CApath", "-no-CAstore"]
    request = f"GET /{FILE} HTTP/1.0\r\nHost: {NAME}\r\n\r\n"
    argv = ["openssl", "s_client", *fixed, "-verify_return_error", "-ign_eof", *options]
    return text(node.run(argv, check=False, timeout=10, input=request))


def old_phone(node: Node, pki: Pki) -> str:
    trust = pki.bundle("old-store", [pki.root, pki.old_root])
    script = str(Path(__file__).with_name("old_firmware.py"))
    argv = [sys.executable, script, SERVER, str(PORT), NAME, str(trust), f"/{FILE}"]
    return text(node.run(argv, check=False, timeout=10))


def text(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@dataclass
class Issued:
    """A certificate with its key, saved below the lab's folder."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    path: Path

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def save(self) -> Path:
        self.path.write_bytes(self.pem())
        return self.path

    def save_key(self) -> Path:
        path = self.path.with_suffix(".key")
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(self.key.private_bytes(encoding, form, serialization.NoEncryption()))
        return path


class Pki:
    """The public CA in three levels, its old root with the cross-certificate, and the test department's own CA."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = self._issue(TRUSTED, None, (datetime(2018, 1, 1), datetime(2043, 1, 1)))
        self.issuing = self._issue("Example Trust TLS CA 3", self.root, (datetime(2023, 3, 1), datetime(2038, 3, 1)))
        self.leaf = self._issue(NAME, self.issuing, TEN_YEARS, leaf=True)
        # The old root is over; the certificate that it once gave the new root's key is not.
        self.old_root = self._issue("Example Legacy Root", None, (datetime(2004, 9, 30), OLD_ROOT_ENDS))
        self.cross = self._issue(
            TRUSTED, self.old_root, (datetime(2019, 1, 1), datetime(2036, 1, 1)), key=self.root.key
        )
        self.test_root = self._issue("Telephony Test Root", None, TEN_YEARS)
        self.test_issuing = self._issue("Telephony Test Issuing CA", self.test_root, TEN_YEARS)
        self.test_leaf = self._issue(NAME, self.test_issuing, TEN_YEARS, leaf=True)

    def bundle(self, name: str, members: list[Issued]) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(b"".join(member.pem() for member in members))
        return path

    def _issue(
        self,
        common_name: str,
        issuer: Issued | None,
        valid: tuple[datetime, datetime],
        *,
        leaf: bool = False,
        key: rsa.RSAPrivateKey | None = None,
    ) -> Issued:
        key = key or rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        signer = issuer.key if issuer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
            .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if leaf and issuer:
            where = (
                "http://" + issuer.certificate.subject.rfc4514_string()[3:].lower().replace(" ", "-") + ".example/ca"
            )
            access = x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(where)
            )
            builder = (
                builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
                .add_extension(x509.AuthorityInformationAccess([access]), critical=False)
            )
        certificate = builder.sign(signer, hashes.SHA256())
        stem = common_name.lower().replace(" ", "-") + f"-{certificate.serial_number:x}"[:9]
        return Issued(certificate, key, self._folder / f"{stem}.pem")
