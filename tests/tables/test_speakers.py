"""TTL distances, sweeps and vanished packets: the facts that several TCP patterns share."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import SAMPLES

from netdiag.tables import Tables
from netdiag.tables.destinations import by_destination, port_sweeps
from netdiag.tables.reader import open_captures
from netdiag.tables.speakers import foreign, genuine_ttls, hops
from netdiag.tables.vanished import Vanished


def tables(*names: str, points: tuple[str, ...] = ()) -> Tables:
    paths = [str(SAMPLES / name) for name in names]
    return open_captures([], list(zip(points, paths, strict=True))) if points else open_captures(paths, [])


@pytest.mark.parametrize(("ttl", "passed"), [
    (64, 0), (57, 7), (65, 63), (128, 0), (127, 1), (255, 0), (129, 126), (0, 64)])
def test_hops_from_the_nearest_initial_value(ttl: int, passed: int) -> None:
    assert hops(ttl) == passed


@pytest.mark.parametrize(("ttl", "genuine", "expected"), [
    (62, [57], True),
    (59, [57], True),
    (58, [57], False),  # one hop: a route change
    (248, [57], False),  # another initial value, the same distance
    (121, [57], False),
    (62, [57, 61], False),  # near enough to one of the genuine packets
    (62, [], False),
])
def test_foreign_needs_two_hops_from_all(ttl: int, genuine: list[int], expected: bool) -> None:
    assert foreign(ttl, genuine) is expected


def test_genuine_ttls_leave_resets_out() -> None:
    t = tables("fw/reject.hit.pcap")
    reset = t.tcp.filter("refused")["rst_packets"][0][0]
    assert t.packets.ttl[reset] == 62
    assert genuine_ttls(t, [reset]) == [(57,)]
    assert genuine_ttls(t, []) == []
    alone = tables("fw/reject.hit_alone.pcap")
    assert genuine_ttls(alone, alone.tcp["rst_packets"][0].to_numpy()) == [()]


def test_sweep_is_more_than_twenty_ports_in_vain() -> None:
    assert port_sweeps(tables("fw/reject.near_miss_sweep.pcap")).rows() == [
        ("capture", "10.20.0.15", "198.51.100.20")]
    assert port_sweeps(tables("nat/port_exhaust.hit.pcap")).height == 0


def test_a_connection_at_two_points_counts_once() -> None:
    t = tables("nat/tcp_idle_drop.hit_two_points.inside.pcap", "nat/tcp_idle_drop.hit_two_points.outside.pcap",
               points=("inside", "outside"))
    assert by_destination(t.tcp) == {("198.51.100.20", "8080"): 3}


def test_vanished_names_the_point_that_lacks_the_packets(tmp_path: Path) -> None:
    pair = ("nat/tcp_idle_drop.hit_two_points.inside.pcap", "nat/tcp_idle_drop.hit_two_points.outside.pcap")
    t = tables(*pair, points=("inside", "outside"))
    lost = [10, 11, 12, 15, 16]  # rows of frames 11, 12, 13, 16, 17 at the first point
    assert Vanished(t, lost).at(lost) == "outside"
    assert Vanished(t, lost).at([8, *lost]) == "", "one of them was seen there"
    assert Vanished(t, []).at(lost) == "", "unexplained loss on the path: five of twenty packets"
    assert Vanished(t, lost).at([]) == ""
    alone = tables(pair[0])
    assert Vanished(alone, lost).at(lost) == "", "there is no other point"
