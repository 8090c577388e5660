"""Calls that use one Call-ID: told apart when they are others, kept together when they are one."""

from __future__ import annotations

from typing import Any

import pytest
from sip_world import Datagram, world
from test_sip_calls import answered, say, sdp

from netdiag.tables import Tables

A, P, B, X = ("192.0.2.1", 5060), ("198.51.100.2", 5060), ("203.0.113.3", 5060), ("192.0.2.66", 5060)
WHAT = ("state", "status", "bye_by", "answer_ns", "end_ns", "post_dial_delay_s", "caller", "callee", "to_tag", "hops")


def names(rows: list[Datagram]) -> list[tuple[str, str]]:
    return world(sorted(rows, key=lambda d: d.time_s)).calls.select("call_id", "state").rows()


def outcome(tables: Tables, call_id: str = "c1") -> tuple[Any, ...]:
    return tables.calls.filter(call_id=call_id).select(WHAT).row(0)


def noted(tables: Tables) -> list[tuple[str, int]]:
    return [(a.reason, a.count) for a in tables.anomalies() if a.reason.startswith("Call-ID")]


def intruder(time_s: float, tag: str = "x") -> list[Datagram]:
    both: dict[str, Any] = {"tags": (tag, "y"), "branch": "z9hG4bKx"}
    return [
        say(time_s, X, B, "INVITE", tags=(tag, None), branch="z9hG4bKx", body=sdp("192.0.2.66", 9000)),
        say(time_s + 0.1, B, X, "486 Busy Here", **both),
        say(time_s + 0.2, X, B, "ACK", cseq="1 ACK", **both),
    ]


@pytest.mark.parametrize("time_s", [0.3, 1, 3, 11, 20])
def test_another_caller_with_the_same_call_id_changes_nothing(time_s: float) -> None:
    healthy = world(answered())
    both = world(sorted(answered() + intruder(time_s), key=lambda d: d.time_s))
    assert outcome(both) == outcome(healthy)
    assert names(answered() + intruder(time_s)) == [("c1", "completed"), ("c1;from-tag=x", "failed")]
    assert noted(both) == [("Call-ID that another call uses too", 1)]
    assert both.media.filter(call_id="c1").drop("message", "packet").equals(healthy.media.drop("message", "packet"))
    assert both.transactions.filter(call_id="c1").select("method", "status", "sends", "final_sends").equals(
        healthy.transactions.select("method", "status", "sends", "final_sends"))
    assert both.transactions.filter(call_id="c1")["ack_messages"].list.len().to_list() == [1, 0]


@pytest.mark.parametrize("request_", ["BYE", "CANCEL", "ACK"])
def test_a_request_of_no_known_dialog_ends_no_call(request_: str) -> None:
    rows = answered()[:6]
    stray = say(4, X, B, request_, cseq=f"9 {request_}", branch="z9hG4bKx", tags=("q", "r"))
    assert names([*rows, stray])[0] == ("c1", "answered")
    assert len(names([*rows, stray])) == 2


def test_the_same_tag_from_another_host() -> None:
    rows = intruder(3, "a")
    other = [d._replace(payload=d.payload.replace(b"UDP h.example", b"UDP x.example")) for d in rows]
    assert names(answered() + other) == [("c1", "completed"), ("c1;from-tag=a;source=192.0.2.66", "failed")]
    assert outcome(world(sorted(answered() + other, key=lambda d: d.time_s))) == outcome(world(answered()))


def test_a_hop_whose_near_side_was_not_captured_is_the_same_call() -> None:
    """Its lowest Via is the caller's."""
    via = ("Via: SIP/2.0/UDP h.example;branch=z9hG4bK1",)
    rows = [
        say(0, A, P, "INVITE"),
        say(0.02, X, B, "INVITE", branch="z9hG4bKp", more=via),
        say(1, B, X, "200 OK", branch="z9hG4bKp", tags=("a", "b"), more=via),
        say(1.02, P, A, "200 OK", tags=("a", "b")),
    ]
    assert names(rows) == [("c1", "answered")]
    assert not noted(world(rows))


def again(time_s: float, tag: str) -> list[Datagram]:
    both: dict[str, Any] = {"tags": ("a", tag)}
    return [
        say(time_s, A, B, "INVITE", cseq="7 INVITE", branch="z9hG4bK7"),
        say(time_s + 1, B, A, "200 OK", cseq="7 INVITE", branch="z9hG4bK7", **both),
        say(time_s + 1.1, A, B, "ACK", cseq="7 ACK", branch="z9hG4bK8", **both),
        say(time_s + 6, B, A, "BYE", cseq="1 BYE", branch="z9hG4bK9", tags=(tag, "a")),
    ]


def test_a_call_that_follows_with_the_same_call_id_and_tag() -> None:
    tables = world(answered() + again(20, "b2"))
    assert tables.calls.select("call_id", "bye_by", "duration_s").rows() == [
        ("c1", "caller", 10.0), ("c1;from-tag=a;cseq=7", "callee", 5.0)]
    # a repeated BYE of the first belongs to the first
    late = say(20.5, A, B, "BYE", cseq="2 BYE", branch="z9hG4bK3", tags=("a", "b"))
    tables = world(sorted(answered() + again(20, "b2") + [late], key=lambda d: d.time_s))
    assert [len(m) for m in tables.calls["messages"]] == [9, 4]


@pytest.mark.parametrize(("later_s", "status", "calls"), [
    (2, "503 Service Unavailable", 1), (40, "503 Service Unavailable", 2), (40, "401 Unauthorized", 1)])
def test_a_retry_after_a_failure_is_the_same_attempt_for_a_while(later_s: float, status: str, calls: int) -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(0.1, B, A, status, tags=("a", "t")),
        say(0.2, A, B, "ACK", cseq="1 ACK", tags=("a", "t")),
        *again(later_s, "b"),
    ]
    assert [s for _, s in names(rows)] == ["completed"] if calls == 1 else ["failed", "completed"]


def test_a_challenge_that_is_answered_under_a_new_tag_is_the_same_call() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(0.1, B, A, "407 Proxy Authentication Required", tags=("a", "t")),
        say(0.2, A, B, "ACK", cseq="1 ACK", tags=("a", "t")),
        say(0.3, A, B, "INVITE", cseq="2 INVITE", branch="z9hG4bK2", tags=("a2", None)),
        say(0.4, B, A, "180 Ringing", cseq="2 INVITE", branch="z9hG4bK2", tags=("a2", "b")),
    ]
    assert names(rows) == [("c1", "ringing")]


def test_forks_and_the_callees_requests_stay_in_their_call() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(1, B, A, "180 Ringing", tags=("a", "x")),
        say(2, B, A, "183 Session Progress", tags=("a", "y")),
        say(3, B, A, "200 OK", tags=("a", "y")),
        say(4, B, A, "BYE", cseq="1 BYE", branch="z9hG4bK3", tags=("y", "a")),
    ]
    assert names(rows) == [("c1", "completed")]
    assert names(rows[1:]) == [("c1", "completed")]
    assert names(rows[4:]) == [("c1", "completed")]


def test_two_midstream_dialogs_with_one_call_id() -> None:
    rows = [
        say(0, A, B, "BYE", cseq="2 BYE", tags=("a", "b")),
        say(0.1, B, A, "200 OK", cseq="2 BYE", tags=("a", "b")),
        say(1, B, X, "BYE", cseq="2 BYE", branch="z9hG4bKx", tags=("q", "r")),
        say(1.1, X, B, "200 OK", cseq="2 BYE", branch="z9hG4bKx", tags=("q", "r")),
    ]
    assert names(rows) == [("c1", "completed"), ("c1;from-tag=q", "completed")]


def test_a_response_whose_tags_were_lost_stays_with_its_request() -> None:
    rows = [say(0, A, B, "INVITE"), say(1, B, A, "486 Busy Here", tags=("zz", "b"))]
    assert len(names(rows)) == 1


def test_callers_without_tags_are_one_call() -> None:
    """As before RFC 3261: only the callee may have one."""
    rows = [
        say(0, A, B, "INVITE", tags=(None, None)),
        say(1, B, A, "200 OK", tags=(None, "b")),
        say(1.1, A, B, "ACK", cseq="1 ACK", tags=(None, "b")),
        say(5, B, A, "BYE", cseq="1 BYE", branch="z9hG4bK3", tags=("b", None)),
    ]
    assert names(rows) == [("c1", "completed")]


def test_other_uses_of_a_call_id_are_left_alone() -> None:
    """A phone may register for months with one Call-ID and a new tag each time."""
    rows = [say(i, A, B, "REGISTER", cseq=f"{i} REGISTER", branch=f"z9hG4bK{i}", tags=(f"t{i}", None))
            for i in range(5)]
    assert world(rows).sip["call_id"].unique().to_list() == ["c1"]
    tables = world(sorted(rows + answered(), key=lambda d: d.time_s))
    assert tables.calls["call_id"].to_list() == ["c1"]
    assert tables.registrations["call_id"].to_list() == ["c1"] * 5


def test_both_points_use_the_same_names() -> None:
    rows = [d._replace(point=p) for p in (0, 1) for d in sorted(answered() + intruder(3), key=lambda d: d.time_s)]
    assert world(rows, ("in", "out")).calls.select("point", "call_id").rows() == [
        ("in", "c1"), ("in", "c1;from-tag=x"), ("out", "c1"), ("out", "c1;from-tag=x")]


def test_a_call_id_that_looks_like_one_of_our_names() -> None:
    rows = answered() + intruder(3) + [say(4, X, B, "INVITE", tags=("z", None), call_id="c1;from-tag=x")]
    assert names(rows) == [("c1", "completed"), ("c1;from-tag=x;2", "failed"), ("c1;from-tag=x", "trying")]


def test_thousands_of_tags_cost_linear_time() -> None:
    rows = [say(i / 100, X, B, "INVITE", tags=(f"t{i}", None), branch=f"z9hG4bK{i}") for i in range(3000)]
    tables = world(rows)
    assert len(tables.calls) == 3000
    assert noted(tables) == [("Call-ID that another call uses too", 2999)]


