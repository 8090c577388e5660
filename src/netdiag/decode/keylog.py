"""Key logs in the NSS format, from a file or a pcapng Decryption Secrets Block.

Format: draft-ietf-tls-keylogfile: lines ``LABEL client-random secret`` in hex, ``#`` starts a comment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from netdiag.errors import CaptureError

LABELS = frozenset({
    b"CLIENT_RANDOM", b"CLIENT_EARLY_TRAFFIC_SECRET", b"EARLY_EXPORTER_MASTER_SECRET", b"EXPORTER_SECRET",
    b"CLIENT_HANDSHAKE_TRAFFIC_SECRET", b"SERVER_HANDSHAKE_TRAFFIC_SECRET",
    b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0", b"RSA", b"ECH_SECRET", b"ECH_CONFIG",
    b"CLIENT_TRAFFIC_SECRET_N", b"SERVER_TRAFFIC_SECRET_N", b"EARLY_EXPORTER_SECRET",
})
"""The last three are OpenSSL's own: secrets after a KeyUpdate, and another spelling."""
MAX_FILE = 256 << 20
"""Bytes read of a key log: 180 bytes a line, more than a million connections (practice)."""


@dataclass(slots=True)
class KeyLog:
    """Secrets by (label, client random)."""

    secrets: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    garbage: int = 0
    """Lines that are neither a secret nor a comment."""
    cut: bool = False
    """The file is larger than what was read."""

    def get(self, label: str, client_random: bytes) -> bytes | None:
        """The secret of that label, for example ``SERVER_HANDSHAKE_TRAFFIC_SECRET``."""
        return self.secrets.get((label, client_random))

    def add(self, text: bytes) -> None:
        """Adds the secrets of a key-log text; a line that cannot be read is counted in ``garbage``."""
        for line in text.splitlines():
            parts = line.split()
            if not parts or parts[0].startswith(b"#"):
                continue
            if len(parts) != 3 or parts[0] not in LABELS:
                self.garbage += 1
                continue
            try:
                random = bytes.fromhex(parts[1].decode("ascii"))
                secret = bytes.fromhex(parts[2].decode("ascii"))
            except ValueError:
                self.garbage += 1
                continue
            if len(random) > 64 or not 0 < len(secret) <= 4096:
                self.garbage += 1
                continue
            self.secrets[parts[0].decode("ascii"), random] = secret


def read(path: str | None, blocks: Iterable[bytes] = ()) -> KeyLog:
    """Key log of the file ``path`` (None: no file) and of the texts in ``blocks``.

    Raises ``CaptureError`` when the file cannot be read.
    """
    log = KeyLog()
    for block in blocks:
        log.add(block)
    if path is not None:
        try:
            with open(path, "rb") as file:
                log.add(file.read(MAX_FILE))
                log.cut = bool(file.read(1))
        except OSError as error:
            raise CaptureError(f"cannot read the key log {path}: {error.strerror or error}") from error
    return log
