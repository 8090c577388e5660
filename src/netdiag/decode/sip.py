"""Values of SIP start lines and header fields, and where messages begin and end in a stream.

Text arrives as Latin-1 (one character a byte), so that positions in text and bytes agree;
``readable`` turns it into what the sender meant. Each function takes any text of any length
in linear time and answers None for what is not there or not valid.

Sources: RFC 3261 §7.1, §7.2 (start lines), §18.3 (framing), §20 (fields), §25 (grammar).
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+\Z")
U32_MAX = 0xFFFFFFFF
HEAD_LIMIT = 65535
"""Longest header that is looked at on a stream: what UDP could carry (RFC 768)."""

_CSEQ = re.compile(r"\s*(\d{1,10})\s+(\S+)\s*\Z")
_NUMBER = re.compile(r"\s*(\d{1,10})(?:\s*[;(].*)?\s*\Z", re.DOTALL)
_NAME_ADDR = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<]*)<([^>]*)>', re.DOTALL)
# A string that nobody closes reaches to the end: otherwise each of its escaped quotes would be tried as a start.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:(")|\\?\Z)', re.DOTALL)
_TAG = re.compile(r";\s*tag\s*=\s*([^;,\s>]+)", re.IGNORECASE)
_BRANCH = re.compile(r";\s*branch\s*=\s*([^;,\s]+)", re.IGNORECASE)
_EXPIRES = re.compile(r";\s*expires\s*=\s*\"?(\d{1,10})(?!\d)", re.IGNORECASE)
_INSTANCE = re.compile(r";\s*\+sip\.instance\s*=\s*\"([^\"]*)\"", re.IGNORECASE)


class StartLine(NamedTuple):
    """Request line (``method`` and ``uri``) or status line (``status`` and ``reason``)."""

    method: str | None
    uri: str | None
    status: int | None
    reason: str | None


def readable(text: str) -> str:
    """Latin-1 text as UTF-8 (RFC 3261 §7 asks for it); bytes that are not UTF-8 become U+FFFD."""
    return text if text.isascii() else text.encode("latin-1", "replace").decode("utf-8", "replace")


def start_line(line: str) -> StartLine | None:
    """A start line without its line end; None when it is none.

    As strict as Wireshark's: single spaces, version 2.0, only printable characters, a URI with a scheme.
    """
    line = readable(line)
    if not line.isprintable():
        return None
    if line[:8].upper() == "SIP/2.0 ":
        code, _, reason = line[8:].partition(" ")
        if len(code) != 3 or not code.isascii() or not code.isdigit() or not 100 <= int(code) <= 699:
            return None
        return StartLine(None, None, int(code), reason)
    head, _, version = line.rpartition(" ")
    method, _, uri = head.partition(" ")
    if version.upper() != "SIP/2.0" or ":" not in uri or " " in uri or not TOKEN.match(method):
        return None
    return StartLine(method, uri, None, None)


def cseq(value: str) -> tuple[int | None, str | None]:
    """Sequence number (None when it is none or exceeds 32 bits) and method."""
    match = _CSEQ.match(value)
    if match:
        number = int(match[1])
        return (number if number <= U32_MAX else None), readable(match[2])
    words = value.split()
    return None, readable(words[1]) if len(words) == 2 else None


def number(value: str | None) -> int | None:
    """A decimal number of at most 32 bits, parameters and comments behind it ignored."""
    match = _NUMBER.match(value) if value is not None else None
    if not match or int(match[1]) > U32_MAX:
        return None
    return int(match[1])


def address(value: str) -> tuple[str | None, str | None]:
    """addr-spec and tag of a From or To value (RFC 3261 §20.20: without <> parameters belong to the header)."""
    uri, parameters = _split_address(value)
    tag = _TAG.search(parameters) if "=" in parameters else None
    return (readable(uri) or None), (readable(tag[1]) if tag else None)


def _split_address(value: str) -> tuple[str, str]:
    value = value.strip()
    match = _NAME_ADDR.match(value)
    if match:
        uri, parameters = match[1], value[match.end() :]
    elif "<" in value:  # a quotation mark is missing
        rest = value[value.rfind("<") + 1 :]
        uri, _, parameters = rest.partition(">" if ">" in rest else ";")
        parameters = ";" + parameters
    else:
        uri, mark, parameters = value.partition(";")
        parameters = mark + parameters
    if '"' in parameters:
        parameters = _QUOTED.sub(lambda m: "" if m[1] else m[0], parameters)
    return uri.strip(), parameters


def first_element(value: str) -> str:
    """The first of a comma-separated list; commas inside quotes and angle brackets do not count."""
    if "," not in value:
        return value.strip()
    depth = quoted = False
    skip = False
    for i, c in enumerate(value):
        if skip:
            skip = False
        elif quoted:
            if c == "\\":
                skip = True
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c == "<":
            depth = True
        elif c == ">":
            depth = False
        elif c == "," and not depth:
            return value[:i].strip()
    return value.strip()


def elements(value: str, limit: int = 64) -> list[str]:
    """All of a comma-separated list, at most ``limit`` (practice)."""
    out: list[str] = []
    rest = value
    while rest and len(out) < limit:
        head = first_element(rest)
        out.append(head)
        at = rest.find(head) + len(head)
        rest = rest[at:].lstrip()[1:]
    return out


def via(value: str) -> tuple[str, str | None]:
    """Topmost Via and its branch."""
    top = first_element(value)
    at = top.find(";branch=")
    if at >= 0:
        branch = top[at + 8 :].partition(";")[0]
        if branch and branch.isascii() and " " not in branch and "\t" not in branch:
            return readable(top), branch
    match = _BRANCH.search(top)
    return readable(top), readable(match[1]) if match else None


def contact(value: str) -> tuple[str, int | None]:
    """First Contact value and its expires parameter."""
    first = first_element(value)
    return readable(first), contact_expires(first) if "xpires" in first or "XPIRES" in first else None


def contact_expires(value: str) -> int | None:
    match = _EXPIRES.search(value[value.rfind(">") + 1 :])
    return int(match[1]) if match and int(match[1]) <= U32_MAX else None


def contact_uri(value: str | None) -> str | None:
    """addr-spec of a Contact value; "*" stays as it is."""
    if value is None:
        return None
    return _split_address(value)[0] or None


def contact_instance(value: str | None) -> str | None:
    """``+sip.instance`` without quotes and angle brackets (RFC 5626 §4.1)."""
    match = _INSTANCE.search(value) if value else None
    return match[1].strip("<> ") or None if match else None


def header_lines(head: str) -> list[tuple[str, str]]:
    """Name (lower case) and value of each header of one message, folded lines joined; for the few that need all."""
    head = re.split(r"\r?\n\r?\n", head, maxsplit=1)[0]
    lines = re.sub(r"\r?\n[ \t]", " ", head).split("\n")[1:]
    pairs = (line.rstrip("\r").partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, colon, value in pairs if colon]


class Framed(NamedTuple):
    """One message found in a stream."""

    start: int
    end: int
    complete: bool
    """The header and the whole body are inside the stream."""
    note: str
    """What was odd about its framing, in our words; "" when nothing was."""


_START = re.compile(rb"(?:SIP/2\.0 \d{3}[ \r\n]|[A-Za-z0-9\-.!%*_+`'~]{1,64} [^ \r\n]{1,4096} SIP/2\.0\r?\n)")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\n(?:content-length|l)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_NEXT = re.compile(rb"\n(?=SIP/2\.0 \d{3}[ \r\n]|[A-Za-z0-9\-.!%*_+`'~]{1,64} [^ \r\n]{1,4096} SIP/2\.0\r?\n)")


def starts(data: bytes) -> bool:
    """Does it begin with a start line, line ends before it left aside (RFC 3261 §7.5)?"""
    blank = _LINE_ENDS.match(data)
    return _START.match(data, blank.end() if blank else 0) is not None


def frame_stream(data: bytes, holes: tuple[tuple[int, int], ...] = ()) -> list[Framed]:
    """Messages of one direction of a stream, by Content-Length (RFC 3261 §18.3).

    CR LF between messages is a keep-alive. Where the framing is lost (no or a wrong
    Content-Length, a hole, a start in the middle) it goes on at the next start line.
    """
    out: list[Framed] = []
    at, size, hole = 0, len(data), 0
    searched = 0  # no header ends between ``at`` and here: never look twice
    head: re.Match[bytes] | None = None
    while at < size:
        while at < size and data[at] in b"\r\n":
            at += 1
        if not _START.match(data, at):
            following = _NEXT.search(data, at)
            if not following:
                break
            at = following.end()
            continue
        while hole < len(holes) and holes[hole][1] <= at:
            hole += 1
        gap = holes[hole] if hole < len(holes) else (size, size)
        reach = min(size, at + HEAD_LIMIT)
        if head is None or head.start() < at:  # else it was found for a start line that a hole parted from it
            head = _HEAD_END.search(data, max(at, searched - 3), reach) if reach > searched else None
        if not head or head.start() >= gap[0]:
            searched = searched if head else max(searched, reach)
            following = _NEXT.search(data, at + 1)
            # a header that a hole interrupts ends at the hole; the rest is not known
            end = min(following.end() if following else size, gap[0] if gap[0] > at else size, reach)
            out.append(Framed(at, end, False, "header without an end"))
            at = following.end() if following else size
            continue
        note = ""
        length = _LENGTH.search(data, at, head.start() + 1)
        text = length[1].strip() if length else b""
        body = head.end()
        if text.isdigit() and len(text) <= 10:
            end = body + int(text)
            if end < gap[0] and data[end] not in b"\r\n" and not _START.match(data, end):
                following = _NEXT.search(data, body - 1)
                if following:
                    end, note = following.end(), "Content-Length does not match the body"
        else:
            following = _NEXT.search(data, body - 1)
            end = following.end() if following else size
            note = "bad Content-Length on a stream" if length else "no Content-Length on a stream"
        known = max(gap[0], body)
        out.append(Framed(at, min(end, size, known), end <= min(size, known), note))
        at = end if end <= gap[0] or end > gap[1] else gap[1]
    return out
