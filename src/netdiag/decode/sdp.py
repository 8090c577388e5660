"""Session descriptions (RFC 8866) as far as media paths need them, in linear time for any bytes.

Calls repeat the same codec lists, so a media section without its first line is parsed once and
remembered; what differs from call to call (addresses, ports) is on the lines before it.
"""

from __future__ import annotations

from typing import NamedTuple

MEDIA_LIMIT = 64
"""Media lines read in one body (practice)."""
LINE_LIMIT = 1000
"""Lines of one body that are usual: more are noted (practice: WebRTC with many codecs and candidates has hundreds)."""
CANDIDATE_LIMIT = 256
"""Candidates read in one media section (practice)."""
WORD_LIMIT = 255
"""Longest address, codec or other word that is believed (RFC 1035 §2.3.4: the longest host name); what each media line
repeats must not be long."""
FORMAT_LIMIT = 128
"""Payload types of one media line: there are no more (RFC 3550 §5.1, seven bits)."""
MEMO = 1 << 12
"""Media sections remembered (practice)."""
MEMO_BYTES = 4096
"""Longer sections are not remembered (practice)."""

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
STATIC = {
    0: "PCMU/8000", 3: "GSM/8000", 4: "G723/8000", 5: "DVI4/8000", 6: "DVI4/16000", 7: "LPC/8000", 8: "PCMA/8000",
    9: "G722/8000", 10: "L16/44100", 11: "L16/44100", 12: "QCELP/8000", 13: "CN/8000", 14: "MPA/90000",
    15: "G728/8000", 16: "DVI4/11025", 17: "DVI4/22050", 18: "G729/8000", 25: "CelB/90000", 26: "JPEG/90000",
    28: "nv/90000", 31: "H261/90000", 32: "MPV/90000", 33: "MP2T/90000", 34: "H263/90000",
}
"""Payload types that need no rtpmap (RFC 3551 tables 4 and 5)."""


class Attributes(NamedTuple):
    """What the lines behind m= say; also for the session part."""

    address: str | None
    direction: str | None
    rtpmap: dict[int, str]
    rtcp_port: int | None
    mux: bool
    ptime: int | None
    ice: bool
    candidates: tuple[str, ...]
    excess: bool


class MediaLine(NamedTuple):
    """One m= line with everything that applies to it."""

    type: str
    address: str | None
    port: int
    protocol: str
    payload_types: tuple[int, ...]
    codecs: tuple[str, ...]
    direction: str
    rtcp_port: int | None
    ptime: int | None
    ice: bool
    candidates: tuple[str, ...]


class Session(NamedTuple):
    """One body."""

    origin_address: str | None
    media: tuple[MediaLine, ...]
    odd: str
    """What was wrong with it, in our words; "" when nothing was."""


_SILENT = Attributes(None, None, {}, None, False, None, False, (), False)
_memo: dict[str, Attributes] = {}
_codec_memo: dict[tuple[str, str], tuple[tuple[int, ...], tuple[str, ...]]] = {}


def parse(body: bytes) -> Session:
    """Reads a body up to its first line that is no SDP line (the end of a multipart piece)."""
    head, *sections = body.decode("utf-8", "replace").replace("\r\n", "\n").split("\nm=", MEDIA_LIMIT + 1)
    odd = ""
    if len(sections) > MEDIA_LIMIT:
        sections = sections[:MEDIA_LIMIT]
        odd = f"SDP with more than {MEDIA_LIMIT} media lines"
    elif body.count(b"\n") > LINE_LIMIT:
        odd = f"SDP with more than {LINE_LIMIT} lines"
    origin = None
    at = head.find("\no=")
    if at >= 0:
        fields = head[at + 3 :].partition("\n")[0].split()
        origin = _word(fields[5]) if len(fields) >= 6 else None
    session = _attributes(head) if "\na=" in head else _SILENT._replace(address=_connection(head))
    media = []
    for section in sections:
        line, _, rest = section.partition("\n")
        own = _remembered(rest)
        excess = own.excess
        item = _media(line, rest, own, session)
        if item is None:
            odd = odd or "SDP with a bad media line"
            continue
        media.append(item)
        if excess:
            odd = odd or f"SDP with more than {CANDIDATE_LIMIT} candidates in a section"
    return Session(origin, tuple(media), odd)


def _connection(head: str) -> str | None:
    at = head.find("\nc=")
    fields = head[at + 3 :].partition("\n")[0].split(None, 3) if at >= 0 else ()
    return _word(fields[2].partition("/")[0]) if len(fields) >= 3 else None


def _word(text: str) -> str | None:
    """The same, or None where it is too long for a name or an address."""
    return text if len(text) <= WORD_LIMIT else None


def _media(line: str, text: str, own: Attributes, session: Attributes) -> MediaLine | None:
    fields = line.split(None, 3)
    if len(fields) < 3 or len(fields[0]) > WORD_LIMIT or len(fields[2]) > WORD_LIMIT:
        return None
    number = fields[1].partition("/")[0]
    if not number.isascii() or not number.isdigit() or len(number) > 5 or int(number) > 65535:
        return None
    port = int(number)
    formats = fields[3] if len(fields) > 3 else ""
    if own.mux or (own.rtcp_port is None and port == 0):
        rtcp = port if own.mux else None
    else:
        rtcp = own.rtcp_port if own.rtcp_port is not None else port + 1 if port < 65535 else None
    types, codecs = _codecs(formats, text, own.rtpmap)
    return MediaLine(
        fields[0], own.address or session.address, port, fields[2], types, codecs,
        own.direction or session.direction or "sendrecv",  # RFC 8866 §6.7: sendrecv is the default
        rtcp, own.ptime if own.ptime is not None else session.ptime, own.ice or session.ice, own.candidates,
    )


def _codecs(formats: str, text: str, rtpmap: dict[int, str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    key = (formats, text)
    known = _codec_memo.get(key)
    if known is None:
        numbers = (int(f) for f in formats.split() if f.isascii() and f.isdigit() and len(f) <= 3)
        types = tuple(dict.fromkeys(numbers))[:FORMAT_LIMIT]
        known = types, tuple(rtpmap.get(t) or STATIC.get(t, "") for t in types)
        if len(text) + len(formats) <= MEMO_BYTES:
            if len(_codec_memo) >= MEMO:
                _codec_memo.clear()
            _codec_memo[key] = known
    return known


def _remembered(text: str) -> Attributes:
    known = _memo.get(text)
    if known is None:
        known = _attributes(text)
        if len(text) <= MEMO_BYTES:
            if len(_memo) >= MEMO:
                _memo.clear()
            _memo[text] = known
    return known


def _attributes(text: str) -> Attributes:
    address = direction = rtcp = ptime = None
    mux = ice = excess = False
    rtpmap: dict[int, str] = {}
    candidates: list[str] = []
    for line in text.split("\n"):
        kind = line[:2]
        if kind == "a=":
            name, _, value = line[2:].partition(":")
            name = name.strip()
            if name == "rtpmap":
                number, _, codec = value.strip().partition(" ")
                if number.isascii() and number.isdigit() and len(number) <= 3 and len(codec) <= WORD_LIMIT:
                    rtpmap.setdefault(int(number), codec.strip())
            elif name in DIRECTIONS:
                direction = name
            elif name == "candidate":
                ice = True
                fields = value.split(None, 6)
                if len(candidates) >= CANDIDATE_LIMIT:
                    excess = True
                elif len(fields) > 4 and len(fields[4]) <= WORD_LIMIT and fields[4] not in candidates[-8:]:
                    candidates.append(fields[4])
            elif name == "ice-ufrag":
                ice = True
            elif name == "rtcp":
                rtcp = _number(value, 65535)
            elif name == "rtcp-mux":
                mux = True
            elif name == "ptime":
                ptime = _number(value, 65535)
        elif kind == "c=" and address is None:
            fields = line[2:].split(None, 3)
            if len(fields) >= 3:
                address = _word(fields[2].partition("/")[0])
        elif line and line[1:2] != "=":
            break
    return Attributes(address, direction, rtpmap, rtcp, mux, ptime, ice, tuple(candidates), excess)


def _number(text: str, limit: int) -> int | None:
    word = text.split(None, 1)[0] if text.strip() else ""
    word = word.partition(".")[0]
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= limit else None
