"""Groups packets into flows: one hash a packet, one group-by for the whole capture."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import store

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
_BLOCK = 1 << 15
"""Rows hashed at once: what is needed for that stays near the processor."""


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
    rows = None if present.all() else np.flatnonzero(present)
    ends: list[npt.NDArray[Any]] = [
        column if rows is None else column[rows] for column in (src, dst, sport, dport, proto, six, point)]
    place = None
    if path is not None:
        low, high, upward = _keys(*ends[:6])
        place = _places(low, high, upward, ends[6], path if rows is None else path[rows])
    different = None
    while different is None:
        order, start, size, different = _grouped(ends, place)
    forward = np.zeros(len(src), np.bool_)
    kept, flow = store.column("u4", len(order)), store.column("u4", len(src))
    kept[:] = order if rows is None else rows[order]
    forward[kept] = ~different
    flow[:] = len(start)
    flow[kept] = np.repeat(np.arange(len(start), dtype=np.uint32), size)
    return flow, kept, start, size, forward


def _grouped(ends: list[npt.NDArray[Any]], place: U64 | None) -> tuple[U32, I64, I64, Mask | None]:
    """Rows by flow, and which of them go the other way than the first of their flow; None where two flows are mixed.

    One 64-bit hash is faster to group than the keys. The multipliers are drawn anew for each run, so that nobody can
    craft packets that collide; a second hash shows if two did by chance, once in some 2^30 captures.
    """
    n = len(ends[0])
    factors = [np.uint64(secrets.randbits(64) | 1) for _ in range(4)]
    mixed, check = np.empty(n, np.uint64), np.empty(n, np.uint32)
    for begin in range(0, n, _BLOCK):
        cut = slice(begin, begin + _BLOCK)
        low, high, upward = _keys(*(column[cut] for column in ends[:6]))
        high |= (ends[6][cut].astype(np.uint64) if place is None else place[cut]) << np.uint64(48)
        mixed[cut] = _mixed(low, high, factors[0], factors[1])
        check[cut] = (_mixed(low, high, factors[2], factors[3]) >> np.uint64(32)) & ~np.uint64(1) | upward
    order, start, size = partition(mixed)
    del mixed
    check = check[order]
    check ^= np.repeat(check[start], size)
    return order, start, size, None if (check > 1).any() else check == 1


def _keys(src: U32, dst: U32, sport: U16, dport: U16, proto: npt.NDArray[np.uint8], six: Mask
          ) -> tuple[U64, U64, Mask]:
    """Lower and higher end with the protocol, the same for both directions, and whether a packet goes upwards."""
    a, b = _end(src, sport), _end(dst, dport)
    upward: Mask = a <= b
    low, high = np.minimum(a, b), np.maximum(a, b, out=b)
    low |= proto.astype(np.uint64) << np.uint64(48)
    low |= six.astype(np.uint64) << np.uint64(56)
    return low, high, upward


def _mixed(low: U64, high: U64, one: np.uint64, other: np.uint64) -> U64:
    mixed = low * one
    mixed ^= mixed >> np.uint64(29)
    mixed += high * other
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _places(low: U64, high: U64, upward: Mask, point: npt.NDArray[np.uint8], path: U16) -> U64:
    """One number for each point and path, below 2^16; the paths of a conversation that needs several are one.

    ``upward`` is the direction of a packet: from the lower end to the higher.
    """
    place = point.astype(np.uint32) << np.uint32(16) | path
    place = np.unique(place, return_inverse=True)[1]
    place = np.minimum(place, 0xFFFF)  # 250 points with 32768 paths each do not fit: the last ones share a number
    order, start, size = partition(low, high | place.astype(np.uint64) << np.uint64(48))
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
