"""Calls of several legs: which calls a B2BUA joined, with what evidence, and what stays apart."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sip_world import Datagram, world
from test_call_ids import intruder
from test_sip_calls import End, answered, say, sdp

from netdiag.model import Confidence
from netdiag.tables.leg_marks import user
from netdiag.tables.legs import AMBIGUOUS, LegPair, families, family
from netdiag.tables.schema import schema

A, S, B, C = ("192.0.2.1", 5060), ("198.51.100.2", 5060), ("203.0.113.3", 5060), ("203.0.113.4", 5060)
OUT = ("198.51.100.99", 5060)
UUIDS = "ab30317f1a784dc48ff824d0d3715d86", "47755a9de7794ba387653f2099600ef2"
NIL = "0" * 32


def leg(time_s: float, source: End, destination: End, call_id: str, *more: str, calling: str = "+4930123456",
        called: str = "+4989654321", answer: tuple[str, ...] = (), media: tuple[str, int] = ("192.0.2.1", 4000),
        given: tuple[str, int] = ("203.0.113.3", 6000), point: int = 0) -> list[Datagram]:
    """A call that is answered after a second and ends five seconds later."""
    both: dict[str, Any] = {"call_id": call_id, "tags": (f"{call_id}f", f"{call_id}t"), "point": point}
    rows = [
        say(time_s, source, destination, "INVITE", call_id=call_id, branch=f"z9hG4bK{call_id}", more=more,
            tags=(f"{call_id}f", None), body=sdp(*media), point=point),
        say(time_s + 1, destination, source, "200 OK", branch=f"z9hG4bK{call_id}", more=answer, body=sdp(*given),
            **both),
        say(time_s + 1.1, source, destination, "ACK", cseq="1 ACK", branch=f"z9hG4bK{call_id}a", **both),
        say(time_s + 6, source, destination, "BYE", cseq="2 BYE", branch=f"z9hG4bK{call_id}b", **both),
    ]
    return [r._replace(payload=r.payload.replace(b"sip:a@", b"sip:%s@" % calling.encode()).replace(
        b"sip:b@", b"sip:%s@" % called.encode())) for r in rows]


def pairs(*legs: list[Datagram], points: tuple[str, ...] = ("capture",)) -> list[tuple[str, str, str]]:
    tables = world(sorted((d for rows in legs for d in rows), key=lambda d: (d.point, d.time_s)), points)
    assert tables.legs.schema == schema(LegPair)
    return [(a, b, Confidence(c).label) for a, b, c in tables.legs.select(
        "call_id", "next_call_id", "confidence").iter_rows()]


OTHER: dict[str, Any] = {"media": ("198.51.100.2", 7000), "given": ("203.0.113.3", 6002)}
STRANGE: dict[str, Any] = {**OTHER, "calling": "nobody", "called": "1002"}


@pytest.mark.parametrize(("one", "two"), [
    (f"Session-ID: {UUIDS[0]};remote={NIL}", f"Session-ID: {UUIDS[0]};remote={NIL}"),
    (f"session-id: {UUIDS[0].upper()}", f"Session-ID: {UUIDS[0]};remote={UUIDS[1]}"),
    ('P-Charging-Vector: icid-value="AyretyU0dm+6O2IrT5tAFrbHLso=023551024";orig-ioi=a.example',
     "P-Charging-Vector: icid-value=AyretyU0dm+6O2IrT5tAFrbHLso=023551024; icid-generated-at=192.0.2.6"),
])
def test_an_identifier_joins_what_nothing_else_does(one: str, two: str) -> None:
    assert pairs(leg(0, A, S, "l1", one), leg(0.1, OUT, B, "l2", two, **STRANGE)) == [("l1", "l2", "confirmed")]
    assert pairs(leg(0, A, S, "l1", one), leg(0.1, OUT, B, "l2", **STRANGE)) == []


def test_a_session_that_is_over_has_no_further_leg() -> None:
    same = f"Session-ID: {UUIDS[0]}"
    assert pairs(leg(0, A, S, "l1", same), leg(7, OUT, B, "l2", same, **STRANGE)) == []


def test_the_uuid_of_the_answer() -> None:
    """The far side's own UUID, which its INVITE could not know."""
    answer = (f"Session-ID: {UUIDS[1]};remote={UUIDS[0]}",)
    first = leg(0, A, S, "l1", f"Session-ID: {UUIDS[0]};remote={NIL}", answer=answer)
    second = leg(0.1, OUT, B, "l2", f"Session-ID: {'9' * 32};remote={NIL}",
                 answer=(f"Session-ID: {UUIDS[1]};remote={'9' * 32}",), **STRANGE)
    assert pairs(first, second) == [("l1", "l2", "confirmed")]


def test_a_nil_uuid_is_no_identifier() -> None:
    nil = f"Session-ID: {NIL};remote={NIL}"
    assert pairs(leg(0, A, S, "l1", nil), leg(0.1, OUT, B, "l2", nil, **STRANGE)) == []


@pytest.mark.parametrize("name", ["X-CID", "X-Call-ID", "XCallID"])
def test_a_header_that_names_the_other_leg(name: str) -> None:
    assert pairs(leg(0, A, S, "l1"), leg(0.1, S, B, "l2", f"{name}: l1", **STRANGE)) == [("l1", "l2", "confirmed")]
    assert pairs(leg(0, A, S, "l1"), leg(0.1, OUT, B, "l2", f"{name}: l1", **STRANGE)) == []


def test_numbers_and_host() -> None:
    row = world(leg(0, A, S, "l1") + leg(0.05, S, B, "l2", **OTHER)).legs.row(0, named=True)
    assert (row["b2bua"], row["confidence"], row["delay_s"]) == (S[0], Confidence.PROBABLE, 0.05)
    assert row["evidence"] == ["ends where the other begins", "same calling number", "same called number"]
    assert pairs(leg(0, A, S, "l1"), leg(0.05, S, B, "l2", calling="anonymous", **OTHER)) == [
        ("l1", "l2", "suspected")]
    assert pairs(leg(0, A, S, "l1"), leg(0.05, OUT, B, "l2", **OTHER)) == [("l1", "l2", "suspected")]
    assert pairs(leg(0, A, S, "l1"), leg(0.05, OUT, B, "l2", calling="anonymous", **OTHER)) == []
    assert pairs(leg(0, A, S, "l1"), leg(0.05, S, B, "l2", **STRANGE)) == []


def test_numbers_are_compared_without_their_prefixes() -> None:
    assert pairs(leg(0, A, S, "l1"), leg(0.05, S, B, "l2", calling="004930123456", called="089654321", **OTHER)) == [
        ("l1", "l2", "probable")]
    asserted = "P-Asserted-Identity: <tel:+4930123456>"
    assert pairs(leg(0, A, S, "l1", asserted, calling="anonymous"), leg(0.05, S, B, "l2", **OTHER)) == [
        ("l1", "l2", "probable")]
    values = ("sip:+49-30-123456@a.example", "sip:0049(30)123456;phone-context=x@a", "tel:+4930123456", "sip:Bob@b",
              "sip:12@b", "sip:b.example", None, "sip:000@b")
    assert [user(v) for v in values] == ["0123456"] * 3 + ["bob", None, None, None, ""]


@pytest.mark.parametrize(("delay_s", "found"), [(4.9, True), (5.1, False), (-0.1, False)])
def test_the_window(delay_s: float, found: bool) -> None:
    assert bool(pairs(leg(1, A, S, "l1"), leg(1 + delay_s, S, B, "l2", **OTHER))) is found


def test_media_that_pass_by_the_b2bua() -> None:
    same: dict[str, Any] = {"calling": "nobody", "given": ("203.0.113.3", 6002)}
    assert pairs(leg(0, A, S, "l1"), leg(0.05, OUT, B, "l2", **same)) == [("l1", "l2", "confirmed")]
    assert pairs(leg(0, A, S, "l1"), leg(0.05, OUT, B, "l2", **{**same, "called": "1002"})) == [
        ("l1", "l2", "probable")]


def test_a_relay_joins_two_interfaces() -> None:
    relay: dict[str, Any] = {"media": ("198.51.100.50", 30002)}
    assert pairs(leg(0, A, S, "l1", given=("198.51.100.50", 30000)), leg(0.05, OUT, B, "l2", **relay)) == [
        ("l1", "l2", "probable")]


def test_a_chain_and_a_fork() -> None:
    same = f"Session-ID: {UUIDS[0]}"
    chain = [leg(0, A, S, "l1", same), leg(0.1, S, B, "l2", same, **OTHER), leg(0.2, B, C, "l3", same, **OTHER)]
    assert pairs(*chain) == [("l1", "l2", "confirmed"), ("l2", "l3", "confirmed")]
    fork = [leg(0, A, S, "l1", same), leg(0.1, S, B, "l2", same, **OTHER), leg(0.2, S, C, "l3", same, **OTHER)]
    assert pairs(*fork) == [("l1", "l2", "confirmed"), ("l1", "l3", "confirmed")]
    tables = world(sorted((d for rows in chain for d in rows), key=lambda d: d.time_s))
    assert [family(tables, f"l{i}")["call_id"].to_list() for i in (1, 2, 3)] == [["l1", "l2"]] * 3
    assert families(tables).rows() == [(0, ["l2", "l3"], "confirmed"), (1, ["l1", "l3"], "confirmed"),
                                       (2, ["l1", "l2"], "confirmed")]
    assert families(world(chain[0])).rows() == [(0, [], None)]


def test_two_that_fit_equally_well_stay_apart_and_are_counted() -> None:
    rows = [leg(0, A, S, "l1"), leg(0.2, A, S, "l2"), leg(0.4, S, B, "l3", **OTHER)]
    tables = world(sorted((d for r in rows for d in r), key=lambda d: d.time_s))
    assert tables.legs["next_call_id"].to_list() == []
    assert [(a.table, a.count) for a in tables.anomalies() if a.reason == AMBIGUOUS] == [("legs", 1)]
    # much nearer in time
    assert pairs(leg(0, A, S, "l1"), leg(3, A, S, "l2"), leg(3.1, S, B, "l3", **OTHER)) == [("l2", "l3", "probable")]


def test_hosts_that_share_an_address_are_told_apart_by_their_ports() -> None:
    local = [("127.0.0.1", p) for p in (5060, 5070, 5080)]
    assert pairs(leg(0, local[0], local[1], "l1"), leg(0.1, local[1], local[2], "l2", **OTHER)) == [
        ("l1", "l2", "probable")]


def test_the_legs_may_be_at_two_points() -> None:
    assert pairs(leg(0, A, S, "l1"), leg(0.1, S, B, "l2", point=1, **OTHER), points=("in", "out")) == [
        ("l1", "l2", "probable")]
    # and one call that both points show is no leg of itself
    assert pairs(leg(0, A, S, "l1"), leg(0.1, A, S, "l1", point=1), points=("in", "out")) == []


def test_a_call_id_that_a_b2bua_keeps() -> None:
    rows = leg(0, A, S, "l1") + [d._replace(payload=d.payload.replace(b"l1f", b"l9f").replace(b"l1t", b"l9t").replace(
        b"z9hG4bKl1", b"z9hG4bKl9")) for d in leg(0.1, S, B, "l1", **OTHER)]
    assert pairs(rows) == [("l1", "l1;from-tag=l9f", "confirmed")]


def test_a_stranger_with_the_same_call_id_is_no_leg() -> None:
    rows = answered() + intruder(3)
    assert pairs(rows) == []


def test_thousands_of_calls_cost_little() -> None:
    """Also when all of them say the same."""
    rows = []
    for i in range(1500):
        rows += leg(i / 100, A, S, f"a{i}", f"Session-ID: {UUIDS[0]}")[:1]
        rows += leg(i / 100 + 0.001, S, B, f"b{i}", f"Session-ID: {UUIDS[0]}", **OTHER)[:1]
    tables = world(rows)
    assert len(tables.calls) == 3000
    tables.media  # noqa: B018
    start = time.process_time()
    assert len(tables.legs) <= 3000
    assert time.process_time() - start < 5
