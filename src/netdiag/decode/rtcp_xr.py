"""RTCP extended reports (RFC 3611): report blocks as columns, many at once.

Sources: RFC 3611 §3 (block header), §4.1 to §4.7 (the seven blocks); the numbers are those of §6.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I64 = npt.NDArray[np.int64]

EXTENDED_REPORT = 207
"""RTCP packet type (RFC 3611 §2)."""
LOSS_RLE, DUPLICATE_RLE, RECEIPT_TIMES, REFERENCE_TIME, DELAY, SUMMARY, VOIP = range(1, 8)
NAMES = {
    LOSS_RLE: "loss RLE", DUPLICATE_RLE: "duplicate RLE", RECEIPT_TIMES: "packet receipt times",
    REFERENCE_TIME: "receiver reference time", DELAY: "DLRR", SUMMARY: "statistics summary", VOIP: "VoIP metrics",
}
LEAST = {LOSS_RLE: 12, DUPLICATE_RLE: 12, RECEIPT_TIMES: 12, REFERENCE_TIME: 12, DELAY: 4, SUMMARY: 40, VOIP: 36}
"""Bytes of the fixed part of each block, with its header."""
SUB_BLOCK = 12
"""Bytes for each source in a DLRR block (§4.5)."""
UNAVAILABLE = 127
"""Levels and RERL that the reporter does not know (§4.7.4)."""
MAX_R, MOS_RANGE = 100, (10, 50)
"""Values of R factors and of ten times the MOS that mean something (§4.7.5); 127 says unavailable."""

RANGE = np.dtype([("head", ">u4"), ("ssrc", ">u4"), ("begin", ">u2"), ("end", ">u2")])
"""What blocks 1, 2, 3 and 6 begin with."""
TIME = np.dtype([("head", ">u4"), ("seconds", ">u2"), ("ntp", ">u4"), ("fraction", ">u2")])
"""Block 4; ``ntp`` is the middle of the time, what the other side returns."""
RETURNED = np.dtype([("ssrc", ">u4"), ("last_rr", ">u4"), ("delay", ">u4")])
"""A sub-block of block 5."""
STATISTICS = np.dtype([
    ("head", "u1"), ("flags", "u1"), ("words", ">u2"), ("ssrc", ">u4"), ("begin", ">u2"), ("end", ">u2"),
    ("lost", ">u4"), ("duplicates", ">u4"), ("min_jitter", ">u4"), ("max_jitter", ">u4"), ("mean_jitter", ">u4"),
    ("dev_jitter", ">u4"), ("min_ttl", "u1"), ("max_ttl", "u1"), ("mean_ttl", "u1"), ("dev_ttl", "u1")])
METRICS = np.dtype([
    ("head", ">u4"), ("ssrc", ">u4"), ("loss", "u1"), ("discard", "u1"), ("burst", "u1"), ("gap", "u1"),
    ("burst_ms", ">u2"), ("gap_ms", ">u2"), ("round_trip", ">u2"), ("end_system", ">u2"), ("signal", "i1"),
    ("noise", "i1"), ("rerl", "u1"), ("gmin", "u1"), ("r", "u1"), ("ext_r", "u1"), ("mos_lq", "u1"), ("mos_cq", "u1"),
    ("config", "u1"), ("reserved", "u1"), ("nominal", ">u2"), ("maximum", ">u2"), ("absolute", ">u2")])
HAS_LOSS, HAS_DUPLICATES, HAS_JITTER, HAS_TTL = 0x80, 0x40, 0x20, 0x18
"""Flags of block 6 (§4.6): which of its fields mean something."""


def covered(begin: npt.NDArray[np.generic], end: npt.NDArray[np.generic]) -> I64:
    """Sequence numbers from ``begin`` up to, and without, ``end`` (§4.1)."""
    return (end.astype(np.int64) - begin.astype(np.int64)) & 0xFFFF


def zeros(chunks: U16, size: I64, count: I64) -> I64:
    """How many of the first ``count`` bits are 0 in each run-length encoded trace (§4.1.1 to §4.1.3).

    ``chunks`` are those of all traces, one behind the other, ``size`` how many each has. What the chunks do not reach
    is not counted.
    """
    owner = np.repeat(np.arange(len(size)), size)
    first = np.repeat(np.cumsum(size) - size, size)
    ended = np.cumsum(chunks == 0)
    before = np.append(0, ended)
    open_ = (chunks != 0) & (ended == before[first])  # nothing counts behind the terminating chunk
    vector = chunks >> 15 == 1
    length = np.where(open_, np.where(vector, 15, chunks & 0x3FFF), 0).astype(np.int64)
    position = np.cumsum(length)
    start = position - length
    start -= np.append(0, position)[first]
    length = np.clip(count[owner] - start, 0, length)
    # The first sequence number is the highest of the 15 bits.
    bits = (chunks & 0x7FFF).astype(np.int64) >> (15 - np.minimum(length, 15))
    gone = np.where(vector, length - np.bitwise_count(bits), np.where(chunks >> 14 & 1 == 1, 0, length))
    return np.bincount(owner, gone, len(size)).astype(np.int64)
