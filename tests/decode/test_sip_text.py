"""SIP start lines, header values and stream framing, text by text."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from netdiag.decode import sip

REQUEST = b"OPTIONS sip:a@b.example SIP/2.0\r\nCall-ID: 1\r\n"


def test_request_and_status_lines() -> None:
    assert sip.start_line("INVITE sip:a@b.example SIP/2.0") == ("INVITE", "sip:a@b.example", None, None)
    assert sip.start_line("SIP/2.0 183 Session Progress") == (None, None, 183, "Session Progress")
    assert sip.start_line("SIP/2.0 100 ") == (None, None, 100, "")
    assert sip.start_line("!odd-Method.%~ tel:+1 SIP/2.0") == ("!odd-Method.%~", "tel:+1", None, None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "INVITE",
        "INVITE sip:a@b SIP/7.0",
        "INVITE  sip:a@b SIP/2.0",
        "INVITE sip:a; lr SIP/2.0",
        "INVITE sip:a SIP/2.0 ",
        "INVITE nouri SIP/2.0",
        'IN"VITE sip:a SIP/2.0',
        "INVITE sip:\0a SIP/2.0",
        "SIP/2.0 4294967301 no",
        "SIP/2.0 99 x",
        "NOTIFY * HTTP/1.1",
        "SIP/2.0 2x0 OK",
    ],
)
def test_what_is_no_start_line(line: str) -> None:
    assert sip.start_line(line) is None


@pytest.mark.parametrize(
    ("value", "uri", "tag"),
    [
        ("<sip:a@b.example>;tag=x1", "sip:a@b.example", "x1"),
        ('"A; tag=no <b>" <sip:a@b.example;user=phone> ; TAG = y', "sip:a@b.example;user=phone", "y"),
        ("sip:a@b.example;tag=z;p=1", "sip:a@b.example", "z"),
        ('"quote \\" inside" <sip:a@b.example>', "sip:a@b.example", None),
        ('"no end <sip:a@b.example>;tag=q', "sip:a@b.example", "q"),
        ("<sip:a@b.example;tag=damaged", "sip:a@b.example", "damaged"),
        ("", None, None),
    ],
)
def test_address(value: str, uri: str | None, tag: str | None) -> None:
    assert sip.address(value) == (uri, tag)


def test_cseq_limits() -> None:
    assert sip.cseq("4294967295 ACK") == (4294967295, "ACK")
    assert sip.cseq("4294967296 ACK") == (None, "ACK")
    assert sip.cseq("-1 ACK") == (None, "ACK")
    assert sip.cseq("nothing") == (None, None)


def test_lists_are_split_outside_quotes_and_brackets() -> None:
    value = '"a, b" <sip:x@y.example;p=1,2>;expires=60, <sip:z@y.example>'
    assert sip.elements(value) == ['"a, b" <sip:x@y.example;p=1,2>;expires=60', "<sip:z@y.example>"]
    assert sip.contact(value) == ('"a, b" <sip:x@y.example;p=1,2>;expires=60', 60)
    assert sip.via("SIP/2.0/UDP a.example;branch=z9hG4bK1, SIP/2.0/TCP b.example;branch=z9hG4bK2")[1] == "z9hG4bK1"


def message(body: bytes = b"", length: int | None = None, name: bytes = b"Content-Length") -> bytes:
    return REQUEST + name + b": %d\r\n\r\n" % (len(body) if length is None else length) + body


def parts(data: bytes, holes: tuple[tuple[int, int], ...] = ()) -> list[tuple[bytes, bool, str]]:
    return [(data[m.start : m.end], m.complete, m.note) for m in sip.frame_stream(data, holes)]


def test_messages_back_to_back_with_keepalives_between() -> None:
    one, two = message(b"v=0\r\n"), message(b"xyz", name=b"l ")
    assert parts(b"\r\n\r\n" + one + b"\r\n\r\n" + two + one) == [(one, True, ""), (two, True, ""), (one, True, "")]


def test_stream_that_starts_in_the_middle() -> None:
    assert parts(b"example>\r\nTo: x\r\n\r\nrest\n" + message()) == [(message(), True, "")]


def test_missing_and_wrong_length_go_on_at_the_next_start_line() -> None:
    bare, wrong = REQUEST + b"\r\nbody\r\n", message(b"12345\n", length=3)
    assert parts(bare + message()) == [(bare, True, "no Content-Length on a stream"), (message(), True, "")]
    found = parts(wrong + message())
    assert found == [(wrong, True, "Content-Length does not match the body"), (message(), True, "")]


def test_hole_in_a_body_and_in_a_header() -> None:
    one = message(b"a" * 50)
    data = one[:-20] + b"\0" * 20 + message()
    hole = ((len(one) - 20, len(one)),)
    assert parts(data, hole) == [(one[:-20], False, ""), (message(), True, "")]
    data = one[:40] + b"\0" * 30 + b"x: y\r\n" + message()
    found = parts(data, ((40, 70),))
    assert found == [(one[:40], False, "header without an end"), (message(), True, "")]


def test_unfinished_last_message() -> None:
    one = message(b"a" * 50)
    assert parts(one[:-1]) == [(one[:-1], False, "")]


@pytest.mark.parametrize(
    "data",
    [
        b"SIP/2.0 200 \n" * 100_000,
        b"\r\n" * 500_000,
        b"\nA a: SIP/2.0" * 100_000,
        b"\nA " + b"a" * 1_000_000,
        (REQUEST + b"\r\n") * 20_000,
        message(length=9) * 20_000,
        b"\0" * 1_000_000,
    ],
)
def test_hostile_streams_take_linear_time(data: bytes) -> None:
    begin = time.process_time()
    found = sip.frame_stream(data)
    assert time.process_time() - begin < 5
    assert all(a.start < a.end <= b.start for a, b in pairwise(found))


@pytest.mark.parametrize("parse", [sip.address, sip.via, sip.contact, sip.cseq, sip.number, sip.contact_instance])
@pytest.mark.parametrize("text", [" ", "\x0b", '"', "\\", "<", ";", ";tag", ",", "1", "; tag=", 'a="', "\xff", "\xa0"])
def test_hostile_values_take_linear_time(parse: object, text: str) -> None:
    begin = time.process_time()
    parse(text * 60_000)  # type: ignore[operator]
    assert time.process_time() - begin < 2
