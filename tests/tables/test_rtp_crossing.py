"""Streams at several capture points: what is compared, and in whole."""

from __future__ import annotations

import pytest
from recipes import SAMPLES

from netdiag.tables import Tables, rtp_crossing
from netdiag.tables.reader import open_captures
from netdiag.tables.rtp_crossing import Crossing


def opened(sample: str, *points: str) -> Tables:
    return open_captures([], [(point, str(SAMPLES / "cap" / f"loss.{sample}.{point}.pcap")) for point in points])


def crossing(tables: Tables, point: str) -> Crossing | None:
    rows = tables.rtp.filter((tables.rtp["point"] == point) & (tables.rtp["source"] == "10.20.0.15"))
    return rtp_crossing.compare(tables, rows).get(rows["stream"][0])


@pytest.mark.parametrize("points", [("phone", "tap", "server"), ("server", "tap", "phone"), ("tap", "server", "phone")])
def test_what_a_point_further_on_has_was_not_lost_whoever_had_it_before(points: tuple[str, ...]) -> None:
    tables = opened("hit_between", *points)
    found = crossing(tables, "tap")
    assert found is not None
    assert found.passed is not None
    assert (found.passed.point, found.passed.count, found.passed.of) == ("server", 6, 147)
    assert (found.before, found.untold) == (None, None)
    found = crossing(tables, "server")
    assert found is not None
    assert found.before is not None
    assert (found.before.point, found.before.count, found.passed) == (points[0] if points[0] != "server" else "tap", 3,
                                                                      None)


def test_a_point_that_captured_a_part_counts_for_that_part() -> None:
    found = crossing(opened("hit_part", "tap", "server"), "tap")
    assert found is not None
    assert found.passed is not None
    assert (found.passed.count, found.passed.of) == (6, 70)


def test_a_stream_is_compared_with_all_points_or_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = opened("hit_between", "phone", "tap", "server")
    lacking = tables.rtp.filter(tables.rtp["lost"] > 0)
    monkeypatch.setattr(rtp_crossing, "BUDGET", 1000)
    first, *others = lacking["stream"].to_list()
    assert list(rtp_crossing.compare(tables, lacking)) == [first]
    assert others


@pytest.mark.parametrize("sample", ["near_miss_another_call", "near_miss_many_calls"])
def test_one_ssrc_of_many_calls_proves_nothing(sample: str) -> None:
    assert crossing(opened(sample, "tap", "server"), "tap") is None


@pytest.mark.parametrize(("sample", "points"), [
    ("near_miss_routed_copies", ("wan", "sensor")), ("near_miss_two_receivers", ("recorder", "peer")),
    ("near_miss_around", ("peer", "between"))])
def test_where_nothing_tells_the_order_nothing_is_said_of_it(sample: str, points: tuple[str, str]) -> None:
    tables = opened(sample, *points)
    lacking = tables.rtp.filter(tables.rtp["lost"] > 0)
    found, = rtp_crossing.compare(tables, lacking).values()
    assert found.untold is not None
    assert (found.untold.point, found.untold.count, found.passed, found.before) == (points[1], 6, None, None)
