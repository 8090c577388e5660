from __future__ import annotations

from dataclasses import dataclass

from netdiag.tables.columns import frame_of
from netdiag.tables.schema import U16, schema


@dataclass(frozen=True, slots=True)
class Row:
    number: U16 | None
    names: tuple[str, ...]
    blobs: tuple[bytes, ...]


def test_lists_of_every_length_keep_their_rows() -> None:
    columns = {"number": [1, None, 3, 4], "names": [(), ("a",), (), ("b", "c")], "blobs": [(b"\xff",), (), (), ()]}
    frame = frame_of(Row, columns)
    assert dict(frame.schema) == schema(Row)
    assert frame["number"].to_list() == [1, None, 3, 4]
    assert frame["names"].to_list() == [[], ["a"], [], ["b", "c"]]
    assert frame["blobs"].to_list() == [[b"\xff"], [], [], []]


def test_no_rows_and_only_empty_lists() -> None:
    assert dict(frame_of(Row, {"number": [], "names": [], "blobs": []}).schema) == schema(Row)
    frame = frame_of(Row, {"number": [1, 2], "names": [(), ()], "blobs": [(), ()]})
    assert frame["names"].to_list() == [[], []]
