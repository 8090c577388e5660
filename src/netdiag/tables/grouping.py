"""Groups packets into flows: one hash a packet, one group-by for the whole capture."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt
import polars as pl

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
_END = np.uint64((1 << 48) - 1)


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


def _end(address: U32, port: U16) -> U64:
    """Address and port of one end as a number below 2^48."""
    out = address.astype(np.uint64)
    out <<= np.uint64(16)
    out |= port
    return out


def flows(src: U32, dst: U32, sport: U16, dport: U16, proto: npt.NDArray[np.uint8], six: Mask,
          point: npt.NDArray[np.uint8], present: Mask, path: U16 | None = None) -> tuple[U32, U32, I64, I64, Mask]:
    """(flow of each row, order, start, size, forward) of bidirectional five-tuples at each point.

    ``path`` keeps apart what travels in different tunnels or VLANs. Where each of them has one direction only, and
    together they have both, they are one conversation: many networks use one VLAN or tunnel for each direction.
    Rows that are not ``present`` (no IP) get the id behind the last flow, and are not in ``order``.
    """
    rows = np.flatnonzero(present)
    a = _end(src[rows], sport[rows])
    b = _end(dst[rows], dport[rows])
    low = np.minimum(a, b)
    high = np.maximum(a, b, out=b)  # in place: eight bytes a packet count
    low |= proto[rows].astype(np.uint64) << np.uint64(48)
    low |= six[rows].astype(np.uint64) << np.uint64(56)
    where = point[rows].astype(np.uint64)
    if path is not None:
        where = _places(low, high, a == (low & _END), point[rows], path[rows])
    high |= where << np.uint64(48)
    order, start, size = _same(low, high)
    first = np.repeat(order[start], size)
    flow = np.full(len(src), len(start), np.uint32)
    number = np.repeat(np.arange(len(start), dtype=np.uint32), size)
    flow[rows[order]] = number
    forward = np.zeros(len(src), bool)
    forward[rows[order]] = a[order] == a[first]
    return flow, rows[order].astype(np.uint32), start, size, forward


def _same(low: U64, high: U64) -> tuple[U32, I64, I64]:
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
    return order, start, size


def _places(low: U64, high: U64, upward: Mask, point: npt.NDArray[np.uint8], path: U16) -> U64:
    """One number for each point and path, below 2^16; the paths of a conversation that needs several are one.

    ``upward`` is the direction of a packet: from the lower end to the higher.
    """
    place = point.astype(np.uint32) << np.uint32(16) | path
    place = np.unique(place, return_inverse=True)[1]
    place = np.minimum(place, 0xFFFF)  # 250 points with 32768 paths each do not fit: the last ones share a number
    order, start, size = _same(low, high | place.astype(np.uint64) << np.uint64(48))
    if not len(start):
        return np.empty(0, np.uint64)
    up = np.add.reduceat(upward[order].astype(np.int64), start)
    groups = pl.DataFrame({"low": low[order[start]], "high": high[order[start]], "point": point[order[start]],
                           "up": up > 0, "down": up < size, "place": place[order[start]].astype(np.uint32)})
    key = ["low", "high", "point"]
    split = groups.with_columns(
        torn=~(pl.col("up") & pl.col("down")).any().over(key) & pl.col("up").any().over(key)
        & pl.col("down").any().over(key), one=pl.col("place").first().over(key))
    torn = np.repeat(split["torn"].to_numpy(), size)
    out: U64 = place.astype(np.uint64)
    out[order[torn]] = np.repeat(split["one"].to_numpy(), size)[torn]
    return out
