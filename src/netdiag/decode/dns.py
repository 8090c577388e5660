"""DNS messages (RFC 1035 §4): headers as columns, questions and records of single messages.

The question and the walk over the records are done here because they are needed for every message (dnspython takes
70 to 280 µs for a whole message, this 3 to 20); dnspython reads and prints the record data.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import numpy as np
import numpy.typing as npt

HEADER = 12
"""Bytes of the header (RFC 1035 §4.1.1)."""
MAX_ANSWERS = 16
"""Answer records that are kept as text."""
MAX_RECORDS = 4096
"""Records walked in one message: 65535 bytes hold at most 5957 of 11 bytes, and real ones some dozens (practice)."""
MAX_HOPS = 127
"""Compression pointers followed for one name: 255 bytes hold at most 127 labels (RFC 1035 §3.1)."""
MAX_TEXT = 4096
"""Characters kept of one record's data (practice: DKIM keys have some 400; a record can have 260 000)."""
OPT = 41
"""RFC 6891 §6.1.1."""
EDE = 15
"""Option code of extended DNS errors (RFC 8914 §2)."""

_PLAIN = re.compile(rb"[A-Za-z0-9_.-]+")
_REPEATED = 512
"""Bytes up to which a message's content is remembered (RFC 1035 §4.2.1: the size without EDNS)."""
_RECORD = struct.Struct(">HHIH")


class Headers(NamedTuple):
    """Header fields of n messages, each an array of length n."""

    id: npt.NDArray[np.uint16]
    response: npt.NDArray[np.bool_]
    opcode: npt.NDArray[np.uint8]
    authoritative: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    recursion_desired: npt.NDArray[np.bool_]
    recursion_available: npt.NDArray[np.bool_]
    checking_disabled: npt.NDArray[np.bool_]
    rcode: npt.NDArray[np.uint8]
    """Without the upper bits of EDNS."""
    counts: npt.NDArray[np.uint16]
    """Shape (n, 4): questions, answers, authority and additional records."""


class Question(NamedTuple):
    """First question of a message."""

    name: str
    """Lower case, without the final dot; the root is "."; escaped as dnspython prints it."""
    type: str
    end: int
    """Position behind the question section's first entry."""


class Details(NamedTuple):
    """What stands behind the question."""

    answers: tuple[str, ...]
    """First MAX_ANSWERS answer records in zone-file form: "name. ttl class type data"."""
    rcode: int
    """With the upper bits of EDNS (RFC 6891 §6.1.3)."""
    edns_size: int | None
    errors: tuple[int, ...]
    """Extended DNS error codes (RFC 8914)."""
    problem: str
    """"" or what was odd, our own words."""


def headers(heads: npt.NDArray[np.uint8]) -> Headers:
    """Header columns from the first 12 bytes of each message, shape (n, 12)."""
    words = np.ascontiguousarray(heads[:, :HEADER]).view(">u2").astype(np.uint16)
    flags = words[:, 1]

    def bit(mask: int) -> npt.NDArray[np.bool_]:
        return np.asarray(flags & np.uint16(mask), np.bool_)

    return Headers(words[:, 0], bit(0x8000), (flags >> 11 & 15).astype(np.uint8), bit(0x0400), bit(0x0200),
                   bit(0x0100), bit(0x0080), bit(0x0010), (flags & 15).astype(np.uint8), words[:, 2:6])


@lru_cache(maxsize=512)
def rcode_text(code: int) -> str:
    """For example "NXDOMAIN"; unknown ones as "RCODE3841"."""
    text = dns.rcode.to_text(dns.rcode.Rcode(code)) if code in dns.rcode.Rcode._value2member_map_ else f"RCODE{code}"
    return str(text)


@lru_cache(maxsize=1024)
def _type_text(code: int) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(code))


@lru_cache(maxsize=64)
def _class_text(code: int) -> str:
    return dns.rdataclass.to_text(dns.rdataclass.RdataClass.make(code))


def _text(labels: list[bytes]) -> str:
    joined = b".".join(labels)
    if _PLAIN.fullmatch(joined) and joined.count(b".") == len(labels) - 1:
        return joined.decode("ascii") + "."
    return dns.name.Name((*labels, b"")).to_text()


def _name(wire: bytes, at: int) -> tuple[str, int]:
    """Name at position ``at`` with its final dot, and the position behind it; ValueError when it is malformed.

    Pointers must go backwards, each further than the one before: that ends every loop (RFC 1035 §4.1.4).
    """
    labels: list[bytes] = []
    size = 1
    end = -1
    lowest = at
    hops = 0
    try:
        while True:
            length = wire[at]
            if length == 0:
                break
            if length < 64:
                label = wire[at + 1 : at + 1 + length]
                size += 1 + length
                if len(label) < length or size > 255:
                    raise ValueError("name longer than its message or than 255 bytes")
                labels.append(label)
                at += 1 + length
            elif length >= 192:
                if end < 0:
                    end = at + 2
                at = (length & 63) << 8 | wire[at + 1]
                hops += 1
                if at >= lowest or hops > MAX_HOPS:
                    raise ValueError("name with a compression pointer that does not point back")
                lowest = at
            else:
                raise ValueError("name with a reserved label type")
    except IndexError:
        raise ValueError("name longer than its message or than 255 bytes") from None
    return (_text(labels) if labels else "."), (end if end >= 0 else at + 1)


def _skip(wire: bytes, at: int) -> int:
    """Position behind the name at ``at``."""
    while True:
        length = wire[at]
        if length == 0:
            return at + 1
        if length >= 192:
            return at + 2
        if length >= 64:
            raise ValueError("name with a reserved label type")
        at += 1 + length


def question(wire: bytes) -> Question:
    """First question of a message that has one; ValueError with our own words when it cannot be read."""
    # Clients ask the same again and again. The name ends at its first zero byte, type and class follow; a pointer, or a
    # zero inside a label, only means that more or less is cut off here, and then the whole message is read.
    stop = wire.find(0, HEADER) + 5
    if HEADER < stop <= HEADER + 260:
        try:
            return _question(wire[HEADER:stop])
        except ValueError:
            pass
    return _read_question(wire)


@lru_cache(maxsize=8192)
def _question(part: bytes) -> Question:
    return _read_question(bytes(HEADER) + part)


def _read_question(wire: bytes) -> Question:
    name, at = _name(wire, HEADER)
    if at + 4 > len(wire):
        raise ValueError("question that ends before its type")
    name = name.lower()
    return Question(name[:-1] if name != "." else name, _type_text(wire[at] << 8 | wire[at + 1]), at + 4)


def details(wire: bytes, at: int, counts: tuple[int, int, int, int], rcode: int) -> Details:
    """Records behind the first question, which ends at ``at``; ``counts`` are the header's."""
    if len(wire) <= _REPEATED:
        return _repeated(wire[HEADER:], at, counts, rcode)
    return _details(wire, at, counts, rcode)


@lru_cache(maxsize=8192)
def _repeated(part: bytes, at: int, counts: tuple[int, int, int, int], rcode: int) -> Details:
    return _details(bytes(HEADER) + part, at, counts, rcode)


def _details(wire: bytes, at: int, counts: tuple[int, int, int, int], rcode: int) -> Details:
    answers: list[str] = []
    size: int | None = None
    errors: tuple[int, ...] = ()
    problem = ""
    total = min(counts[1] + counts[2] + counts[3], MAX_RECORDS)
    first_other = counts[1]
    try:
        for _ in range(min(counts[0] - 1, MAX_RECORDS)):
            at = _skip(wire, at) + 4
        for i in range(total):
            start = at
            at = _skip(wire, at)
            kind, klass, ttl, length = _RECORD.unpack_from(wire, at)
            at += 10
            if at + length > len(wire):
                raise ValueError("record longer than its message")
            if i < first_other:
                if len(answers) < MAX_ANSWERS:
                    answers.append(_record(wire, start, at, kind, klass, ttl, length))
                elif not counts[3]:
                    break
            elif kind == OPT and i >= counts[1] + counts[2] and size is None:
                size = klass
                rcode |= (ttl >> 24) << 4
                errors = _errors(wire[at : at + length])
            at += length
    except (IndexError, struct.error):
        problem = "message that ends before its records do"
    except ValueError as error:
        problem = str(error)
    return Details(tuple(answers), rcode, size, errors, problem)


def _record(wire: bytes, start: int, at: int, kind: int, klass: int, ttl: int, length: int) -> str:
    name, _ = _name(wire, start)
    if kind == 1 and klass == 1 and length == 4:
        data = f"{wire[at]}.{wire[at + 1]}.{wire[at + 2]}.{wire[at + 3]}"
    elif kind == 28 and klass == 1 and length == 16:
        data = str(IPv6Address(wire[at : at + 16]))
    else:
        try:
            data = dns.rdata.from_wire(dns.rdataclass.RdataClass.make(klass), dns.rdatatype.RdataType.make(kind),
                                       wire, at, length).to_text()
        except Exception:  # dnspython has many types with many readers, and hostile bytes have met gaps in them
            raise ValueError("record whose data cannot be read") from None
    if len(data) > MAX_TEXT:
        data = data[:MAX_TEXT] + "…"
    return f"{name} {ttl} {_class_text(klass)} {_type_text(kind)} {data}"


def _errors(options: bytes) -> tuple[int, ...]:
    out = []
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(">HH", options, at)
        if code == EDE and length >= 2 and at + 6 <= len(options):
            out.append(options[at + 4] << 8 | options[at + 5])
        at += 4 + length
    return tuple(out[:MAX_ANSWERS])
