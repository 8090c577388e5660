"""Which root certificates count as trusted: those of ``--ca-file``, else the public list of the certifi package.

certifi carries Mozilla's root programme of the day it was released: a root removed since the capture was taken is not
in it, and devices have their own lists. Who judges must say which list was used (``Roots.source``).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from netdiag.errors import CaptureError

if TYPE_CHECKING:
    from cryptography import x509  # imported where a certificate is read: most captures show none

_BLOCK = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----",
                    re.DOTALL)


class Root(NamedTuple):
    """A trusted certificate."""

    subject: str
    """RFC 4514 text."""
    subject_der: bytes
    key_der: bytes
    """Its key as SubjectPublicKeyInfo: a cross certificate with the same name and key is the same authority."""
    der: bytes


@dataclass(frozen=True, eq=False, slots=True)
class Roots:
    """A list of trusted roots."""

    source: str
    """"certifi <version>" or the path of the file."""
    public: bool
    """It is the public list, not one that the user gave."""
    count: int
    skipped: int
    """Blocks of the file that could not be read."""
    by_subject: dict[bytes, tuple[Root, ...]]

    def named(self, subject_der: bytes) -> tuple[Root, ...]:
        """Roots with that DER name."""
        return self.by_subject.get(subject_der, ())

    def knows_key(self, subject_der: bytes, key_der: bytes) -> bool:
        """Is there a root of that name and key?"""
        return any(root.key_der == key_der for root in self.named(subject_der))


def parse(text: bytes, source: str, public: bool) -> Roots:
    """Reads a PEM bundle; a block that cannot be read is counted, not fatal."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    found: dict[bytes, list[Root]] = {}
    count = skipped = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in _BLOCK.findall(text):
            try:
                certificate = x509.load_pem_x509_certificate(block)
                root = Root(certificate.subject.rfc4514_string(), certificate.subject.public_bytes(),
                            public_key(certificate), certificate.public_bytes(Encoding.DER))
            except Exception:  # a bundle of somebody else: any error of the package means this block only
                skipped += 1
                continue
            found.setdefault(root.subject_der, []).append(root)
            count += 1
    return Roots(source, public, count, skipped, {name: tuple(roots) for name, roots in found.items()})


def public_key(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo in DER; raises what cryptography raises for keys it does not know."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=8)
def load(ca_file: str | None = None) -> Roots:
    """Roots of the PEM bundle ``ca_file``, or the public ones.

    Raises ``CaptureError`` when the file cannot be read or holds no certificate.
    """
    if ca_file is None:
        import certifi
        with open(certifi.where(), "rb") as file:
            return parse(file.read(), f"certifi {certifi.__version__}", True)
    try:
        with open(ca_file, "rb") as file:
            text = file.read()
    except OSError as error:
        raise CaptureError(f"cannot read the CA file {ca_file}: {error.strerror or error}") from error
    roots = parse(text, ca_file, False)
    if not roots.count:
        raise CaptureError(f"the CA file {ca_file} holds no certificate in PEM form")
    return roots
