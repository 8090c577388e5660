"""Session descriptions of the usual shape, many at once: what differs from call to call, apart from what repeats.

Nearly all bodies have one media line and one connection line. Of these the origin, the address and the port are cut
out; the text around them is the same for all calls of a device, and is parsed once (``decode.sdp``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.decode import sdp
from netdiag.decode.bits import WIDTH, Texts, first
from netdiag.decode.sip_columns import Span

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ADDRESS, _PORT = "\x01", 40000
"""Stand for the connection address and the port while the text around them is parsed; no text contains the first."""
_IP4, _IP6 = (np.frombuffer(b"c=IN IP" + version, "<u8")[0] for version in (b"4", b"6"))


class Bodies(NamedTuple):
    """Positions in a buffer of many bodies; rows that are not ``usual`` mean nothing."""

    usual: Mask
    origin: Span
    address: Span
    port: I64
    middle: Span
    """From the line behind the connection line to the port."""
    tail: Span
    """From behind the port to the end of the body."""


def split(data: U8, begin: I64, end: I64) -> Bodies:
    """Bodies ``data[begin:end]``, each followed by a line feed; 64 bytes must follow the last."""
    feeds = np.flatnonzero(data == 10)
    pair = np.ndarray((len(data) - 1,), "<u2", data, 0, (1,))[feeds + 1]
    beyond = len(data)

    def lines(kind: bytes) -> tuple[I64, I64, I64]:
        """Position of the first line of a kind in each body, of the second one, and the end of the first."""
        at = feeds[pair == int.from_bytes(kind, "little")] + 1
        place = np.searchsorted(at, begin)
        ends = np.append(at, [beyond, beyond])
        one, two = ends[place], ends[place + 1]
        stop = np.append(feeds, beyond)[np.searchsorted(feeds, one)]
        return one, two, np.minimum(stop - (data[np.minimum(stop, beyond) - 1] == 13), end)

    media, again, _ = lines(b"m=")
    usual = (media < end) & (again >= end)
    origin_at, _, origin_end = lines(b"o=")
    connection, second, connection_end = lines(b"c=")
    usual &= (origin_at < media) & (connection < media) & (second > media)
    safe = beyond - WIDTH
    # o=- 0 1 IN IP4 192.0.2.1: six words
    start = np.minimum(origin_at + 2, safe)
    text = Texts(data, start, origin_end - start)
    spaces = text.equal(32)
    usual &= (origin_end - start <= WIDTH) & (np.bitwise_count(spaces) == 5) & (text.at_most(32) == spaces)
    usual &= spaces & (spaces << np.uint64(1) | np.uint64(1)) == 0
    for _ in range(4):
        spaces &= spaces - np.uint64(1)
    origin = Span(start + first(spaces) + 1, origin_end)
    usual &= origin.end > origin.begin
    # c=IN IP4 192.0.2.1
    here = np.minimum(connection, safe - 9)
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))[here]
    address = Span(here + 9, connection_end)
    text = Texts(data, address.begin, address.end - address.begin)
    usual &= ((word == _IP4) | (word == _IP6)) & (data[here + 8] == 32)
    usual &= (address.end > address.begin) & (address.end - address.begin <= WIDTH)
    usual &= (text.at_most(32) == 0) & (text.equal(47) == 0)
    # m=audio 10000 RTP/AVP 0 8
    start = np.minimum(media + 2, safe)
    text = Texts(data, start, end - start)
    spaces = text.at_most(32)
    one = first(spaces)
    two = first(spaces & (spaces - np.uint64(1)))
    size = two - one - 1
    usual &= (text.equal(32) & spaces == spaces) | (first(spaces ^ text.equal(32)) > two)
    usual &= (one > 0) & (two < WIDTH) & (size >= 1) & (size <= 5)
    port = np.zeros(len(begin), np.int64)
    at = np.minimum(start + one + 1, safe)
    for i in range(5):
        digit = data[np.minimum(at + i, beyond - 1)].astype(np.int64) - 48
        inside = size > i
        usual &= ~inside | ((digit >= 0) & (digit <= 9))
        port = np.where(inside, port * 10 + digit, port)
    usual &= (port > 0) & (port < 65535)
    line = np.minimum(np.append(feeds, beyond)[np.searchsorted(feeds, np.minimum(connection, beyond))] + 1, end)
    tail = at + np.maximum(size, 0)
    usual &= (end - tail <= sdp.MEMO_BYTES) & (np.maximum.reduceat(data, begin) < 128)
    return Bodies(usual, origin, address, port, Span(line, at), Span(tail, end))


def template(middle: bytes, tail: bytes) -> tuple[sdp.MediaLine, bool, str] | None:
    """The media line of bodies with these texts around the port; is its address the session's, and what was odd.

    None where more than that depends on what was cut out. The address is meaningless where it is the session's.
    """
    if b"a=rtcp:" in middle + tail or b"\x01" in middle + tail:
        return None
    head = f"v=0\r\no=- 0 0 IN IP4 h\r\ns=-\r\nc=IN IP4 {_ADDRESS}\r\n".encode()
    session = sdp.parse(head + middle + str(_PORT).encode() + tail)
    if len(session.media) != 1:
        return None
    line = session.media[0]
    return line, line.address == _ADDRESS, session.odd


def shares_port(line: sdp.MediaLine) -> bool:
    """Does RTCP use the port of RTP in a line made from a template? Else it uses the next one."""
    return line.rtcp_port == _PORT
