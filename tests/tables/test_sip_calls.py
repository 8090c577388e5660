"""Transactions, calls, media and registrations from short dialogs."""

from __future__ import annotations

from typing import Any

import pytest
from sip_world import Datagram, message, world

from netdiag.tables import Tables
from netdiag.tables.calls import Call, Media, named
from netdiag.tables.registrations import Registration
from netdiag.tables.schema import schema
from netdiag.tables.sip import Transaction

A, P, B = ("192.0.2.1", 5060), ("198.51.100.2", 5060), ("203.0.113.3", 5060)
End = tuple[str, int]


def sdp(address: str, port: int, extra: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n{extra}"
    )


def say(
    time_s: float,
    source: End,
    destination: End,
    start: str,
    *,
    cseq: str = "1 INVITE",
    branch: str = "z9hG4bK1",
    tags: tuple[str | None, str | None] = ("a", None),
    call_id: str = "c1",
    more: tuple[str, ...] = (),
    body: str = "",
    point: int = 0,
) -> Datagram:
    """One message; ``start`` is a method or a status line's code and reason; ``tags`` are From and To tag."""
    first = f"SIP/2.0 {start}" if start[0].isdigit() else f"{start} sip:b@b.example SIP/2.0"
    tag = [f";tag={t}" if t else "" for t in tags]
    kind = ("Content-Type: application/sdp",) if body else ()
    payload = message(
        first,
        f"Via: SIP/2.0/UDP h.example;branch={branch}",
        f"From: <sip:a@a.example>{tag[0]}",
        f"To: <sip:b@b.example>{tag[1]}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq}",
        *more,
        *kind,
        body=body,
    )
    return Datagram(time_s, *source, *destination, payload, point=point)


def answered(point: int = 0, call_id: str = "c1") -> list[Datagram]:
    both: dict[str, Any] = {"tags": ("a", "b"), "call_id": call_id, "point": point}
    return [
        say(0, A, B, "INVITE", body=sdp("192.0.2.1", 4000), call_id=call_id, point=point),
        say(0.1, B, A, "100 Trying", call_id=call_id, point=point),
        say(0.5, B, A, "180 Ringing", **both),
        say(2, B, A, "200 OK", body=sdp("203.0.113.3", 6000), **both),
        say(2.5, B, A, "200 OK", body=sdp("203.0.113.3", 6000), **both),
        say(2.6, A, B, "ACK", cseq="1 ACK", branch="z9hG4bK2", **both),
        say(12, A, B, "BYE", cseq="2 BYE", branch="z9hG4bK3", more=("Reason: Q.850;cause=16",), **both),
        say(12.1, B, A, "200 OK", cseq="2 BYE", branch="z9hG4bK3", **both),
    ]


def only(tables: Tables, name: str) -> dict[str, Any]:
    frame = getattr(tables, name)
    assert len(frame) == 1
    row: dict[str, Any] = frame.row(0, named=True)
    return row


def test_schemas() -> None:
    tables = world(answered())
    assert tables.transactions.schema == schema(Transaction)
    assert tables.calls.schema == schema(Call)
    assert tables.media.schema == schema(Media)
    register = world([say(0, A, B, "REGISTER", cseq="1 REGISTER")])
    assert register.registrations.schema == schema(Registration)


def test_transactions_of_an_answered_call() -> None:
    invite, bye = world(answered()).transactions.rows(named=True)
    assert (invite["request_messages"], invite["response_messages"], invite["ack_messages"]) == ([0], [1, 2, 3, 4], [5])
    assert (invite["status"], invite["provisional_status"], invite["final_message"]) == (200, 180, 3)
    assert (invite["sends"], invite["final_sends"], invite["cancelled"], invite["midstream"]) == (1, 2, False, False)
    assert invite["response_s"] == pytest.approx(0.1)
    assert (bye["method"], bye["to_tag"], bye["ack_messages"], bye["client"]) == ("BYE", "b", [], A[0])


def test_answered_call() -> None:
    call = only(world(answered()), "calls")
    assert (call["state"], call["status"], call["bye_by"], call["caller"], call["callee"]) == (
        "completed",
        200,
        "caller",
        A[0],
        B[0],
    )
    assert (call["hops"], call["from_tag"], call["to_tag"], call["midstream"]) == (1, "a", "b", False)
    assert (call["post_dial_delay_s"], call["duration_s"]) == (pytest.approx(0.5), pytest.approx(10))
    assert (call["ack_ns"], call["end_ns"]) == (2_600_000_000, 12_000_000_000)
    assert named(world(answered()))["reason_header"].to_list() == ["Q.850;cause=16"]
    assert call["messages"] == list(range(8))


def test_two_points_are_two_calls() -> None:
    tables = world(answered() + answered(point=1), points=("in", "out"))
    assert tables.calls["point"].to_list() == ["in", "out"]
    assert tables.transactions["point"].to_list() == ["in", "in", "out", "out"]
    assert not tables.sip.filter(point="out")["retransmission"][0]


def test_proxy_seen_on_both_sides_is_one_call_with_two_hops() -> None:
    rows = [
        say(0, A, P, "INVITE", body=sdp("192.0.2.1", 4000)),
        say(0.01, P, B, "INVITE", branch="z9hG4bKp", body=sdp("192.0.2.1", 4000)),
        say(1, B, P, "200 OK", branch="z9hG4bKp", tags=("a", "b"), body=sdp("203.0.113.3", 6000)),
        say(1.01, P, A, "200 OK", tags=("a", "b"), body=sdp("203.0.113.3", 6000)),
        say(1.1, A, P, "ACK", cseq="1 ACK", branch="z9hG4bKx", tags=("a", "b")),
        say(1.11, P, B, "ACK", cseq="1 ACK", branch="z9hG4bKy", tags=("a", "b")),
    ]
    tables = world(rows)
    call = only(tables, "calls")
    assert (call["caller"], call["callee"], call["hops"], call["state"]) == (A[0], B[0], 2, "answered")
    assert tables.transactions["ack_messages"].to_list() == [[4], [5]]
    assert tables.media["message"].to_list() == [0, 2]  # the next hop changed nothing


def test_ack_past_a_proxy_that_did_not_record_route() -> None:
    rows = [
        say(0, A, P, "INVITE"),
        say(0.01, P, B, "INVITE", branch="z9hG4bKp"),
        say(1, B, P, "200 OK", branch="z9hG4bKp", tags=("a", "b")),
        say(1.01, P, A, "200 OK", tags=("a", "b")),
        say(1.1, A, B, "ACK", cseq="1 ACK", branch="z9hG4bKx", tags=("a", "b")),
    ]
    assert world(rows).transactions["ack_messages"].to_list() == [[4], [4]]


def test_ack_of_another_cseq_is_not_taken() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(1, B, A, "200 OK", tags=("a", "b")),
        say(1.1, A, B, "ACK", cseq="2 ACK", branch="z9hG4bKx", tags=("a", "b")),
    ]
    assert world(rows).transactions["ack_messages"].to_list() == [[]]


def test_challenge_rounds_are_one_call() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(0.1, B, A, "407 Proxy Authentication Required", tags=("a", "t")),
        say(0.2, A, B, "ACK", cseq="1 ACK", tags=("a", "t")),
        say(0.3, A, B, "INVITE", cseq="2 INVITE", branch="z9hG4bK2"),
    ]
    call = only(world(rows), "calls")
    assert (call["state"], call["status"]) == ("trying", None)
    rows.append(say(0.4, B, A, "486 Busy Here", cseq="2 INVITE", branch="z9hG4bK2", tags=("a", "t")))
    call = only(world(rows), "calls")
    assert (call["state"], call["status"], call["end_ns"]) == ("failed", 486, 400_000_000)
    assert world(rows).transactions["ack_messages"].to_list()[0] == [2]


@pytest.mark.parametrize(("last_s", "state"), [(31.9, "trying"), (32.1, "timeout")])
def test_silence_is_a_timeout_after_64_t1(last_s: float, state: str) -> None:
    rows = [say(t, A, B, "INVITE") for t in (0, 0.5, 1.5)] + [
        say(last_s, B, P, "OPTIONS", cseq="1 OPTIONS", call_id="x")
    ]
    tables = world(rows)
    assert only(tables, "calls")["state"] == state
    assert tables.transactions["sends"].to_list() == [3, 1]
    assert tables.transactions["last_request_ns"][0] == 1_500_000_000


def test_cancelled_call() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(0.1, B, A, "180 Ringing", tags=("a", "b")),
        say(3, A, B, "CANCEL", cseq="1 CANCEL"),
        say(3.1, B, A, "200 OK", cseq="1 CANCEL", tags=("a", "b")),
        say(3.2, B, A, "487 Request Terminated", tags=("a", "b")),
    ]
    tables = world(rows)
    call = only(tables, "calls")
    assert (call["state"], call["status"], call["end_ns"], call["answer_ns"]) == ("cancelled", 487, 3_000_000_000, None)
    assert tables.transactions["cancelled"].to_list() == [True, False]


def test_reinvite_by_the_callee_is_no_new_call() -> None:
    rows = [
        *answered()[:6],
        say(
            5,
            B,
            A,
            "INVITE",
            cseq="1 INVITE",
            branch="z9hG4bKr",
            tags=("b", "a"),
            body=sdp("203.0.113.3", 6000, "a=sendonly\r\n"),
        ),
        say(5.1, A, B, "488 Not Acceptable Here", cseq="1 INVITE", branch="z9hG4bKr", tags=("b", "a")),
    ]
    tables = world(rows)
    call = only(tables, "calls")
    assert (call["state"], call["status"], call["answer_message"], call["callee"]) == ("answered", 200, 3, B[0])
    assert tables.media.select("side", "role", "direction").rows()[-1] == ("callee", "offer", "sendonly")


@pytest.mark.parametrize(
    ("first", "state", "status"), [(1, "completed", 200), (6, "completed", None), (5, "completed", None)]
)
def test_call_that_began_before_the_capture(first: int, state: str, status: int | None) -> None:
    call = only(world(answered()[first:]), "calls")
    assert (call["state"], call["status"], call["midstream"], call["caller"]) == (state, status, True, A[0])


def test_first_fork_that_answers_is_the_call() -> None:
    rows = [
        say(0, A, B, "INVITE"),
        say(1, B, A, "180 Ringing", tags=("a", "x")),
        say(2, B, A, "200 OK", tags=("a", "y")),
        say(2.1, B, A, "200 OK", tags=("a", "x")),
    ]
    assert only(world(rows), "calls")["to_tag"] == "y"


def test_branch_without_cookie_needs_call_id_and_from_tag() -> None:
    rows = [
        say(0, A, B, "INVITE", branch="1"),
        say(0, A, B, "INVITE", branch="1", call_id="c2"),
        say(1, B, A, "200 OK", branch="1", call_id="c2", tags=("a", "b")),
    ]
    assert world(rows).transactions.select("call_id", "status").rows() == [("c1", None), ("c2", 200)]


def test_answer_from_another_address_joins_its_request() -> None:
    rows = [say(0, A, B, "OPTIONS", cseq="1 OPTIONS"), say(1, P, A, "200 OK", cseq="1 OPTIONS")]
    row = only(world(rows), "transactions")
    assert (row["status"], row["server"], row["midstream"]) == (200, B[0], False)


def test_offer_and_answer_roles() -> None:
    normal = world(answered()).media.select("message", "side", "role", "address", "port", "rtcp_port", "codecs").rows()
    assert normal == [
        (0, "caller", "offer", "192.0.2.1", 4000, 4001, ["PCMU/8000"]),
        (3, "callee", "answer", "203.0.113.3", 6000, 6001, ["PCMU/8000"]),
    ]
    late = [
        say(0, A, B, "INVITE"),
        say(1, B, A, "200 OK", tags=("a", "b"), body=sdp("203.0.113.3", 6000)),
        say(1.1, A, B, "ACK", cseq="1 ACK", branch="z9hG4bK2", tags=("a", "b"), body=sdp("192.0.2.1", 4000)),
    ]
    assert world(late).media.select("side", "role").rows() == [("callee", "offer"), ("caller", "answer")]


def test_description_that_comes_again_is_one_row() -> None:
    rows = answered()
    rows.insert(3, say(1, B, A, "183 Session Progress", tags=("a", "b"), body=sdp("203.0.113.3", 6000)))
    assert world(rows).media["message"].to_list() == [0, 3]
    rows[3] = say(1, B, A, "183 Session Progress", tags=("a", "b"), body=sdp("203.0.113.9", 6000))
    assert world(rows).media["message"].to_list() == [0, 3, 4]


REGISTER: dict[str, Any] = {"cseq": "1 REGISTER", "call_id": "r"}
CONTACT = 'Contact: <sip:a@192.0.2.1:5060;ob>;+sip.instance="<urn:uuid:1>";expires=600'


def test_registration_with_its_binding() -> None:
    rows = [
        say(0, A, B, "REGISTER", more=(CONTACT, "Expires: 3600"), **REGISTER),
        say(
            0.1,
            B,
            A,
            "200 OK",
            tags=("a", "b"),
            **REGISTER,
            more=("Contact: <sip:other@192.0.2.9>;expires=5, <sip:A@192.0.2.1:5060>;expires=60", "Expires: 120"),
        ),
    ]
    row = only(world(rows), "registrations")
    assert (row["aor"], row["contact_uri"], row["instance"]) == (
        "sip:b@b.example",
        "sip:a@192.0.2.1:5060;ob",
        "urn:uuid:1",
    )
    assert (row["expires_asked"], row["expires_granted"], row["status"], row["removes"]) == (600, 60, 200, False)
    assert (row["request_packet"], row["response_packet"], row["source"], row["registrar"]) == (0, 1, A[0], B[0])


def test_removal_and_refusal() -> None:
    rows = [
        say(0, A, B, "REGISTER", more=("Contact: *", "Expires: 0"), **REGISTER),
        say(1, A, B, "REGISTER", cseq="2 REGISTER", branch="z9hG4bK2", call_id="r", more=(CONTACT,)),
        say(1.1, B, A, "401 Unauthorized", cseq="2 REGISTER", branch="z9hG4bK2", call_id="r", tags=("a", "b")),
    ]
    table = world(rows).registrations
    assert table.select("removes", "status", "expires_granted").rows() == [(True, None, None), (False, 401, None)]


def test_many_invites_and_acks_of_one_call_id_stay_bounded() -> None:
    rows = [say(0, A, B, "INVITE", branch=f"z9hG4bK{i}") for i in range(1500)]
    rows += [say(1, A, B, "ACK", cseq="1 ACK", branch=f"z9hG4bKa{i}", tags=("a", "b")) for i in range(1500)]
    acks = world(rows).transactions["ack_messages"].list.len()
    assert acks.sum() == 16 * 1500
