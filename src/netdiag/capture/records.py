"""What a capture format hands to the decoder: batches of records as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

MAX_RECORD = 262144
"""Longest record that is believed: MAXIMUM_SNAPLEN of libpcap and of Wireshark's wiretap."""
NO_PACKET = 0xFFFF
"""Link type of records that hold no packet (pcapng custom and journal blocks)."""


class Records(NamedTuple):
    """A batch of frames in file order."""

    offset: I64
    """Where the frame's bytes start in the space."""
    captured: U32
    wire: U32
    ts: I64
    """Nanoseconds since the epoch."""
    link: U16
    """Link type (LINKTYPE_ value) of each frame."""


@dataclass(slots=True)
class FileNotes:
    """What the format says besides frames; filled while the records are read."""

    format: str = ""
    damage: str = ""
    comments: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    secrets: list[bytes] = field(default_factory=list)
    """Key-log text of Decryption Secrets Blocks."""
    drops: int | None = None
    """Packets the interface or the system dropped, by the interface statistics; None without any."""
    filters: list[str] = field(default_factory=list)
    """Capture filters recorded for the interfaces."""
    snaplen: int | None = None
    """Snap length that the file states, the largest of its interfaces; None when it states none."""
    names: dict[str, str] = field(default_factory=dict)
    """Names that the file gives to addresses; whoever wrote it resolved them, so nothing is judged by them."""

