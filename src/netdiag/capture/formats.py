"""Chooses how a capture file is read, by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from netdiag.capture import erf, pcap, pcapng, snoop
from netdiag.capture.records import FileNotes, Records
from netdiag.capture.space import Extent, Space

Reader = Callable[[Space, Extent, FileNotes, str], Iterator[Records]]
HEAD = 1 << 16
"""Bytes that tell the format of any file; a page is enough for all but ERF with jumbo frames."""


def reader(head: bytes) -> Reader | None:
    """The reader for a file that begins with ``head``: up to its first ``HEAD`` bytes."""
    if head[:4] in pcap.MAGIC:
        return pcap.read
    if head.startswith(pcapng.MAGIC):
        return pcapng.read
    if head.startswith(snoop.MAGIC):
        return snoop.read
    return erf.read if erf.looks(head) else None
