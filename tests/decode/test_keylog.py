from __future__ import annotations

from pathlib import Path

import pytest

from netdiag.decode import keylog
from netdiag.errors import CaptureError


def test_lines_comments_and_garbage(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"# comment\r\nCLIENT_RANDOM " + b"0a" * 32 + b" " + b"0b" * 48 + b"\r\n\nnonsense\n"
                     b"CLIENT_RANDOM zz 00\n"
                     b"SERVER_HANDSHAKE_TRAFFIC_SECRET " + b"01" * 32 + b" \xff\n")
    log = keylog.read(str(path), [b"SERVER_TRAFFIC_SECRET_0 " + b"02" * 32 + b" " + b"03" * 32])
    assert log.get("CLIENT_RANDOM", b"\x0a" * 32) == b"\x0b" * 48
    assert log.get("SERVER_TRAFFIC_SECRET_0", b"\x02" * 32) == b"\x03" * 32
    assert log.garbage == 3
    assert len(log.secrets) == 2


def test_binary_garbage_is_counted() -> None:
    log = keylog.read(None, [bytes(range(256)) * 10])
    assert log.garbage > 0
    assert not log.secrets


def test_unreadable_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot read the key log"):
        keylog.read(str(tmp_path / "missing"))
    with pytest.raises(CaptureError):
        keylog.read(str(tmp_path))
