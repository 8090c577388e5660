"""How calls went and ended: delays, who released them and why, forks."""

from __future__ import annotations

from typing import Any

import pytest
from sip_world import Datagram, world
from test_sip_calls import A, B, End, P, answered, say

from netdiag.decode.reason import CAUSES, Reason, reasons
from netdiag.tables.call_details import CallDetails, call_details
from netdiag.tables.schema import schema


def only(rows: list[Datagram]) -> dict[str, Any]:
    table = call_details(world(rows))
    assert table.schema == schema(CallDetails)
    row, = table.iter_rows(named=True)
    found: dict[str, Any] = row
    return found


def ending(rows: list[Datagram]) -> tuple[Any, ...]:
    row = only(rows)
    return tuple(row[n] for n in ("release", "released_by", "released_at", "q850", "sip_cause", "cause"))


def test_delays_of_an_answered_call() -> None:
    row = only(answered())
    assert (row["request_delay_s"], row["request_successful"], row["ring_s"], row["answer_s"], row["talk_s"]) == (
        0.5, True, 1.5, 2.0, 10.0)
    assert (row["early_dialogs"], row["answered_branches"]) == (1, 1)


def test_a_trying_is_no_status_but_a_session_progress_is() -> None:
    rows = [say(0, A, B, "INVITE"), say(0.1, B, A, "100 Trying"),
            say(0.7, B, A, "183 Session Progress", tags=("a", "b")), say(2, B, A, "200 OK", tags=("a", "b"))]
    assert only(rows)["request_delay_s"] == 0.7
    assert only([rows[0], rows[1], rows[3]])["request_delay_s"] == 2
    assert only(rows[:2])["request_delay_s"] is None
    assert only(rows[1:])["request_delay_s"] is None


def refused(status: str, *more: str, source: End = B) -> list[Datagram]:
    return [say(0, A, source, "INVITE"), say(0.4, source, A, status, tags=("a", "b"), more=more)]


def test_a_failure_is_another_kind_of_delay() -> None:
    row = only(refused("486 Busy Here"))
    assert (row["request_delay_s"], row["request_successful"], row["ring_s"]) == (0.4, False, None)


def test_who_released_a_call() -> None:
    assert ending(answered()) == ("BYE", "caller", A[0], 16, None, "normal call clearing (Q.850 16)")
    by_callee = [*answered()[:6], say(9, B, A, "BYE", cseq="1 BYE", branch="z9hG4bK9", tags=("b", "a"))]
    assert ending(by_callee) == ("BYE", "callee", B[0], None, None, "")
    assert ending(answered()[:6]) == ("none seen", None, None, None, None, "")
    assert ending(refused("486 Busy Here")) == ("response", "callee", B[0], None, 486, "486 Busy Here")
    cancelled = [
        say(0, A, B, "INVITE"), say(0.1, B, A, "180 Ringing", tags=("a", "b")),
        say(3, A, B, "CANCEL", cseq="1 CANCEL", more=('Reason: SIP;cause=200;text="Call completed elsewhere"',)),
        say(3.2, B, A, "487 Request Terminated", tags=("a", "b")),
    ]
    assert ending(cancelled) == ("CANCEL", "caller", A[0], None, 200, "Call completed elsewhere (SIP 200)")
    assert only(cancelled)["ring_s"] == pytest.approx(2.9)
    silent = [say(0, A, B, "INVITE"), say(33, P, B, "OPTIONS", cseq="1 OPTIONS", call_id="x")]
    assert ending(silent)[0] == "no response"


def test_a_proxy_that_answers_for_the_callee_is_the_network() -> None:
    rows = [
        say(0, A, P, "INVITE"), say(0.01, P, B, "INVITE", branch="z9hG4bKp"),
        say(30, P, A, "408 Request Timeout", tags=("a", "p")),
    ]
    assert ending(rows) == ("response", "network", P[0], None, 408, "408 Request Timeout")
    rows[2] = say(1, B, P, "486 Busy Here", branch="z9hG4bKp", tags=("a", "b"))
    rows.append(say(1.1, P, A, "486 Busy Here", tags=("a", "b")))
    assert ending(rows)[1:3] == ("callee", B[0])


def test_the_last_round_counts() -> None:
    rows = [
        *refused("407 Proxy Authentication Required"),
        say(1, A, B, "INVITE", cseq="2 INVITE", branch="z9hG4bK2"),
        say(2, B, A, "404 Not Found", cseq="2 INVITE", branch="z9hG4bK2", tags=("a", "b")),
    ]
    assert ending(rows) == ("response", "callee", B[0], None, 404, "404 Not Found")


def test_q850_wins_wherever_it_stands() -> None:
    both = ('Reason: SIP;cause=503;text="a, b"', "reason: Q.850 ;text=x ; cause=34")
    assert ending(refused("503 Service Unavailable", *both))[3:] == (
        34, 503, "no circuit or channel available (Q.850 34)")
    assert ending(refused("503 Service Unavailable", ", ".join(["Reason: SIP;cause=503", "Q.850;cause=3"])))[3:] == (
        3, 503, "no route to destination (Q.850 3)")
    assert ending(refused("500 Server Error", "Reason: Q.850;cause=99999"))[3:] == (None, 500, "Q.850")


def test_forks() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(1, B, A, "180 Ringing", tags=("a", "x")),
        say(1.1, B, A, "180 Ringing", tags=("a", "y")),
        say(2, B, A, "200 OK", tags=("a", "y")),
        say(2.1, B, A, "200 OK", tags=("a", "x")),
        say(3, B, A, "INVITE", cseq="1 INVITE", branch="z9hG4bKr", tags=("y", "a")),
        say(3.1, A, B, "200 OK", cseq="1 INVITE", branch="z9hG4bKr", tags=("y", "a")),
    ]
    row = only(rows)
    assert (row["early_dialogs"], row["answered_branches"]) == (2, 2)


def test_only_some_calls() -> None:
    tables = world(answered() + answered(call_id="c2") + answered(call_id="c3"))
    assert call_details(tables, [2, 0])["call"].to_list() == [2, 0]
    assert len(call_details(world([say(0, A, B, "OPTIONS", cseq="1 OPTIONS")]))) == 0


def test_a_redirection_is_no_failure() -> None:
    rows = [say(0, A, B, "INVITE"), say(0.4, B, A, "302 Moved Temporarily", tags=("a", "b"))]
    call, = world(rows).calls.iter_rows(named=True)
    assert (call["state"], call["status"]) == ("redirected", 302)


def test_the_reason_of_another_branch_is_not_that_of_the_call() -> None:
    gone = say(3, A, B, "CANCEL", cseq="1 CANCEL", more=('Reason: SIP;cause=200;text="Call completed elsewhere"',))
    left = say(9, B, A, "BYE", cseq="1 BYE", branch="z9hG4bK9", tags=("b", "a"))
    row = only([*answered()[:6], gone, left])
    assert (row["release"], row["sip_cause"], row["cause"]) == ("BYE", None, "")


def test_reason_values() -> None:
    assert reasons('Q.850;cause=17;text="User busy", SIP;cause=486') == [
        Reason("Q.850", 17, "User busy"), Reason("SIP", 486, "")]
    assert reasons(r'q.850 ; cause = 16 ; text = "a \"b\" ; cause=1"') == [Reason("Q.850", 16, 'a "b" ; cause=1')]
    assert [r.words for r in reasons("Q.850;cause=126, X;text=why, SIP;cause=200, Q.850;cause=19;text=x")] == [
        "Q.850 126", "why (X)", "SIP 200", "no answer from user (user alerted) (Q.850 19)"]
    assert reasons("") == []
    assert reasons("SIP;cause=x;cause=-1")[0].cause is None
    assert CAUSES[16] == "normal call clearing"
    assert set(CAUSES) <= set(range(1, 128))


@pytest.mark.parametrize("value", ['"' * 9999, ";" * 9999, "a;cause=" * 3000, 'a;text="' + "\\" * 9999, "\0\xff,,,"])
def test_odd_reasons_cost_little(value: str) -> None:
    assert len(reasons(value)) <= 8
