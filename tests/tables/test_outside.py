"""Large tables that lie in a file without a name: the same values, and memory where there is no file to be had."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from netdiag.capture import scratch
from netdiag.capture.space import Space
from netdiag.tables import outside, sip_groups, text

SAID = b"INVITE sip:somebody@voice.example SIP/2.0|short|"


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "capture"
    path.write_bytes(SAID)
    with path.open("rb") as file:
        return Space([(file.fileno(), len(SAID))])


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "MANY", 1)


def table(space: Space) -> pl.DataFrame:
    offset = np.array([0, 42, 0, 7] * 25, np.int64)
    length = np.array([41, 5, -1, 0] * 25, np.int64)
    kinds = (pl.Int8, pl.UInt8, pl.Int16, pl.UInt16, pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Float32, pl.Float64)
    numbers = {str(kind): pl.Series([1, None, 3, 100] * 25, dtype=kind) for kind in kinds}
    return pl.DataFrame({
        **numbers, "bool": [True, False, None, True] * 25, "captured": text.column(space, offset, length),
        "made": ["", "of the call " * 3, None, "x"] * 25,
        "lists": pl.Series([[1, 2], [], None, [3]] * 25, dtype=pl.List(pl.UInt32))})


def test_values_are_the_same_and_outlive_what_they_were_made_of(space: Space) -> None:
    data = table(space)
    expected = data.to_dicts()
    found = outside.laid(data, space)
    del data, space
    gc.collect()
    assert found.to_dicts() == expected
    assert found.filter("bool").sort("String" if "String" in found.columns else "made").height == 50


def test_a_part_of_a_column(space: Space) -> None:
    data = table(space)[13:77]
    assert outside.laid(data, space).to_dicts() == data.to_dicts()


def test_columns_lie_in_a_file(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    opened = scratch.opened
    monkeypatch.setattr(scratch, "opened", lambda: written.append(opened()) or written[-1])
    data = table(space)
    assert outside.laid(data, space) is not data
    assert len(written) == 1


def test_texts_of_the_capture_are_not_copied(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    write = outside.os.pwrite
    monkeypatch.setattr(outside.os, "pwrite", lambda fd, data, at: kept.append(bytes(data)) or write(fd, data, at))
    outside.laid(table(space), space)
    assert not any(b"somebody@voice" in part for part in kept)


def test_nothing_that_was_decrypted_is_written(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "opened", lambda: pytest.fail("a file was opened"))
    space.decrypted = True
    data = table(space)
    assert outside.laid(data, space) is data


@pytest.mark.parametrize("why", ["full", "nowhere"])
def test_without_room_a_table_stays_in_memory(space: Space, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def nowhere() -> None:
        raise OSError(why)

    if why == "full":
        monkeypatch.setattr(scratch, "free", lambda descriptor: 16)
    else:
        monkeypatch.setattr(scratch, "opened", nowhere)
    data = table(space)
    assert outside.laid(data, space) is data


@pytest.mark.parametrize("collide", [False, True])
def test_groups_by_hash_are_those_by_value(monkeypatch: pytest.MonkeyPatch, collide: bool) -> None:
    if collide:
        monkeypatch.setattr(sip_groups, "_hashes", lambda columns: np.zeros(len(columns[0]), np.uint64))
    data = pl.DataFrame({"a": ["x", None, "y", "x", None, "y", "z"], "b": [1, 2, None, 1, 2, 3, 1]})
    codes, count = sip_groups.group_codes(data, ["a", "b"])
    assert (codes.tolist(), count) == ([0, 1, 2, 0, 1, 3, 4], 5)
