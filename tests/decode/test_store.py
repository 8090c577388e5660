"""Columns that grow: what is in them stays, whether they lie in memory or in a file without a name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from netdiag.capture import scratch
from netdiag.decode import store
from netdiag.decode.store import IN_MEMORY, Store
from netdiag.errors import CaptureError

KINDS = {"short": "u1", "long": "i8"}
ROWS = IN_MEMORY + 2 * store._PART + 12_345
STEP = 300_000


def filled(made: Store) -> None:
    for begin in range(0, ROWS, STEP):
        part = made.take(min(STEP, ROWS - begin))
        assert not part["short"].any()
        assert not part["long"].any()
        part["long"][:] = np.arange(begin, begin + len(part["long"]))
        part["short"][:] = part["long"] % 251


def kept(made: Store) -> bool:
    every = made.rows(0, made.used)
    return bool((every["long"] == np.arange(ROWS)).all() and (every["short"] == every["long"] % 251).all())


def kinds_of_memory() -> dict[str, int]:
    """kB of this process by kind of memory (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}


def test_most_rows_of_a_large_table_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = kinds_of_memory()
    made = Store(KINDS, ROWS)
    filled(made)
    grown = {kind: size - before[kind] for kind, size in kinds_of_memory().items()}
    outside = (ROWS - IN_MEMORY) * made.rows(0, 1)["long"].itemsize // 1024
    assert grown["RssFile"] + grown["RssShmem"] > outside
    assert kept(made)
    assert list(tmp_path.iterdir()) == []


def test_without_room_on_the_disk_the_rows_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    made = Store(KINDS, ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        filled(made)
    assert kept(made)


def test_a_disk_is_not_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "RESERVE", 1 << 60)
    monkeypatch.setattr(os, "posix_fallocate", pytest.fail)
    made = Store(KINDS, ROWS)
    filled(made)
    assert kept(made)


def test_without_a_place_for_files_the_rows_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    made = Store(KINDS, ROWS)
    filled(made)
    assert kept(made)


def test_a_column_outlives_its_store() -> None:
    column = store.column("u4", ROWS)
    assert len(column) == ROWS
    assert not column.any()
    column[:] = np.arange(ROWS)
    assert (column == np.arange(ROWS)).all()


def test_there_are_never_more_rows_than_were_asked_for() -> None:
    made = Store(KINDS, 10)
    made.take(9)
    with pytest.raises(CaptureError, match="more than 10 frames"):
        made.take(2)
