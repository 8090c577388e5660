"""Groups packets into flows: one hash a packet, one group-by for the whole capture."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt
import polars as pl

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]


def partition(*keys: npt.NDArray[np.generic]) -> tuple[U32, I64, I64]:
    """Rows with equal keys together: (order, start, size); groups in order of their first row, rows in row order."""
    if not len(keys[0]):
        return np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.int64)
    frame = pl.DataFrame({f"k{i}": key for i, key in enumerate(keys)}).with_row_index("i")
    groups = frame.group_by([f"k{i}" for i in range(len(keys))], maintain_order=True).agg("i")["i"]
    size = groups.list.len().to_numpy().astype(np.int64)
    order = groups.explode().to_numpy()
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)[:-1]])
    return order, start, size


def _end(address: U32, port: npt.NDArray[np.uint16]) -> U64:
    """Address and port of one end as a number below 2^48."""
    out = address.astype(np.uint64)
    out <<= np.uint64(16)
    out |= port
    return out


def flows(src: U32, dst: U32, sport: npt.NDArray[np.uint16], dport: npt.NDArray[np.uint16],
          proto: npt.NDArray[np.uint8], six: npt.NDArray[np.bool_], point: npt.NDArray[np.uint8],
          present: npt.NDArray[np.bool_]) -> tuple[U32, U32, I64, I64, npt.NDArray[np.bool_]]:
    """(flow of each row, order, start, size, forward) of bidirectional five-tuples at each point.

    Rows that are not ``present`` (no IP) get the id behind the last flow, and are not in ``order``.
    """
    rows = np.flatnonzero(present)
    a = _end(src[rows], sport[rows])
    b = _end(dst[rows], dport[rows])
    low = np.minimum(a, b)
    high = np.maximum(a, b, out=b)  # in place: eight bytes a packet count
    low |= proto[rows].astype(np.uint64) << np.uint64(48)
    low |= six[rows].astype(np.uint64) << np.uint64(56)
    high |= point[rows].astype(np.uint64) << np.uint64(48)
    # One 64-bit hash is faster to group than two keys. The multipliers are drawn anew for each run, so that nobody can
    # craft packets that collide, and the result is checked against the keys themselves.
    mixed = low * np.uint64(secrets.randbits(64) | 1)
    mixed ^= mixed >> np.uint64(29)
    mixed += high * np.uint64(secrets.randbits(64) | 1)
    mixed ^= mixed >> np.uint64(32)
    order, start, size = partition(mixed)
    del mixed
    first = np.repeat(order[start], size) if len(start) else order
    if not ((low[order] == low[first]).all() and (high[order] == high[first]).all()):
        order, start, size = partition(low, high)
        first = np.repeat(order[start], size)
    flow = np.full(len(src), len(start), np.uint32)
    number = np.repeat(np.arange(len(start), dtype=np.uint32), size)
    flow[rows[order]] = number
    forward = np.zeros(len(src), bool)
    forward[rows[order]] = a[order] == a[first]
    return flow, rows[order].astype(np.uint32), start, size, forward
