"""Legs: calls that a back-to-back user agent joined, each with another Call-ID, found without configuration.

A leg has at most one call before it (nearer to the caller); a call may have several behind it. What speaks for a pair:
an identifier that a B2BUA passes on, the same numbers, the host that one leg ends at and the other begins at, the same
media address, one leg begun soon after the other. Where two calls fit a leg equally well it stays without a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.model import Confidence
from netdiag.tables.leg_marks import marks
from netdiag.tables.schema import U8, U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

WINDOW_NS = 5_000_000_000
"""A B2BUA sends its INVITE this soon, where nothing but numbers, hosts and media tells (practice)."""
CANDIDATES = 8
"""Calls before a leg that are compared with it, for each mark that they share (practice): bounds the work."""
NEARER = 4
"""Of two that fit equally well the nearer in time is taken when the other is this many times as far (practice)."""
AMBIGUOUS = "call that may be a leg of several others, which fit equally well: not joined"

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LegPair:
    """Two calls that a B2BUA joined: ``call`` is the leg nearer to the caller, ``next_call`` the one it made."""

    call: U32
    """Row of ``Tables.calls``, at one capture point where it was seen."""
    next_call: U32
    call_id: str
    next_call_id: str
    b2bua: str
    """Address that the first leg ends at and the other begins at; "" where they differ."""
    confidence: U8
    """``Confidence``: confirmed by an identifier, or the same media socket and a number or the host; probable by both
    numbers and the host or a media relay, or by the media socket alone; suspected by less."""
    evidence: tuple[str, ...]
    """In words, the strongest first."""
    delay_s: float
    """From the first leg's INVITE to the other's."""


_EXACT = {"uuid": "Session-ID (RFC 7989)", "icid": "icid-value of P-Charging-Vector (RFC 7315)",
          "other": "Call-ID of the other leg in a header", "own": "same Call-ID"}
_LOOSE = {"media": "same media address and port", "calling": "same calling number", "called": "same called number"}


def build(tables: Tables) -> pl.DataFrame:
    """All pairs in the order of the later leg's INVITE; schema of ``LegPair``.

    What stays unpaired because several calls fit is counted in the anomalies.
    """
    calls = tables.calls.filter(pl.col("invite_message").is_not_null()).unique(
        "call_id", keep="first", maintain_order=True).sort("invite_ns", maintain_order=True)
    if len(calls) < 2:
        return empty(LegPair)
    said = marks(tables, calls)
    said = said.with_columns(
        code=pl.struct(pl.col("kind").replace("own", "other"), "value").rank("dense").cast(pl.Int64))
    begin, end = _ends(tables, calls)
    ns = calls["invite_ns"].to_numpy()
    until = calls["end_ns"].fill_null(2**63 - 1).to_numpy()
    first, later = _candidates(said, begin, end, ns)
    # The legs that one B2BUA makes are no legs of each other, and a leg does not feed the one before it.
    keep = (first != later) & (begin[first] != begin[later]) & (until[first] >= ns[later])
    keep &= (end[later] != begin[first]) | (end[first] == begin[later])
    first, later = first[keep], later[keep]
    if not len(first):
        return empty(LegPair)
    shared = {kind: _common(said, kind, kind, first, later) for kind in ("uuid", "icid", "own", *_LOOSE)}
    shared["other"] = _common(said, "own", "other", first, later) | _common(said, "other", "own", first, later)
    relay = _common(said, "relay", "given", first, later)
    host = end[first] == begin[later]
    near = (ns[later] - ns[first] <= WINDOW_NS) & (host | (end[first] != end[later]))
    named = shared["calling"] & shared["called"]
    some = host | shared["calling"] | shared["called"]
    # Strangers may use a Call-ID too, or write one into a header: it needs another witness.
    shared["own"] &= host
    shared["other"] &= some
    exact = shared["uuid"] | shared["icid"] | shared["own"] | shared["other"]
    confirmed = exact | (near & shared["media"] & some)
    probable = near & ((named & (host | relay)) | shared["media"])
    suspected = near & (named | (host & (shared["calling"] | shared["called"])))
    level = np.where(confirmed, 2, np.where(probable, 1, np.where(suspected, 0, -1)))
    score = level * 64 + host * 32 + shared["media"] * 16 + shared["uuid"] * 8 + shared["called"] * 4 + (
        shared["calling"] * 2) + relay
    good = np.flatnonzero(level >= 0)
    chosen, several = _best(later[good], score[good], ns[later[good]] - ns[first[good]])
    pairs = good[chosen]
    if len(several):
        packets = tables.sip["packet"].gather(calls["invite_message"].gather(several)).to_list()
        tables.anomaly_log.add("legs", AMBIGUOUS, min(packets), len(packets))
    words = [_words(shared, host, relay, i) for i in pairs.tolist()]
    one, two = calls[first[pairs]], calls[later[pairs]]
    return pl.DataFrame({
        "call": one["call"], "next_call": two["call"], "call_id": one["call_id"], "next_call_id": two["call_id"],
        "b2bua": np.where(host[pairs], two["caller"].to_numpy(), ""), "confidence": level[pairs],
        "evidence": pl.Series(words, dtype=pl.List(pl.String)),
        "delay_s": (ns[later[pairs]] - ns[first[pairs]]) / 1e9,
    }).select(pl.col(name).cast(dtype) for name, dtype in schema(LegPair).items())


def _ends(tables: Tables, calls: pl.DataFrame) -> tuple[I64, I64]:
    """Numbers of the hosts that each call comes from and goes to; on one host the ports tell them apart."""
    invite = tables.sip.select("source_port", "destination_port")[calls["invite_message"]]
    inside = calls["caller"] == calls["callee"]
    ends = [
        pl.select(end=pl.when(inside).then(pl.format("{} {}", calls[host], invite[port])).otherwise(calls[host]))
        for host, port in (("caller", "source_port"), ("callee", "destination_port"))
    ]
    codes = pl.concat(ends)["end"].rank("dense").cast(pl.Int64).to_numpy()
    return codes[: len(calls)], codes[len(calls) :]


def _candidates(said: pl.DataFrame, begin: I64, end: I64, ns: I64) -> tuple[I64, I64]:
    """Pairs (earlier, later) of calls that share a mark: each call with the last few before it."""
    call, code = said["call"].to_numpy().astype(np.int64), said["code"].to_numpy()
    kind = said["kind"].to_numpy()
    found = []
    for names in (["uuid"], ["icid"], ["own", "other"], ["media"]):
        rows = np.flatnonzero(np.isin(kind, names))
        found += _before(code[rows], call[rows], code[rows], call[rows])
    rows = np.flatnonzero((kind == "calling") | (kind == "called"))
    # the number together with the host that the leg ends or begins at
    wide = int(max(begin.max(), end.max())) + 1
    found += _before(code[rows] * wide + end[call[rows]], call[rows], code[rows] * wide + begin[call[rows]], call[rows])
    both = said.filter(pl.col("kind") == "calling").select("call", a="code").join(
        said.filter(pl.col("kind") == "called").select("call", b="code"), on="call").with_columns(
        code=pl.struct("a", "b").rank("dense").cast(pl.Int64))
    pair, owner = both["code"].to_numpy(), both["call"].to_numpy().astype(np.int64)
    found += _before(pair, owner, pair, owner)
    first, later = (np.concatenate(x) for x in zip(*found, strict=True))
    unique = np.unique(first * len(ns) + later)
    return unique // len(ns), unique % len(ns)


def _before(key: I64, call: I64, wanted: I64, asker: I64) -> list[tuple[I64, I64]]:
    """For each (``wanted``, ``asker``) the last CANDIDATES calls with that key that began before the asker."""
    if not len(key):
        return []
    order = np.lexsort((call, key))
    size = int(max(call.max(), asker.max())) + 1
    ranked = key[order] * size + call[order]
    at = np.searchsorted(ranked, wanted * size + asker)
    out = []
    for back in range(1, CANDIDATES + 1):
        place = at - back
        rows = np.flatnonzero(place >= 0)
        rows = rows[key[order[place[rows]]] == wanted[rows]]
        out.append((call[order[place[rows]]], asker[rows]))
    return out


def _common(said: pl.DataFrame, one: str, two: str, first: I64, later: I64) -> Mask:
    """Is a mark of the first call, of kind ``one``, also one of the other call, of kind ``two``?"""
    a, b = (said.filter(pl.col("kind") == kind) for kind in (one, two))
    pairs = pl.DataFrame({"first": first, "later": later}).with_row_index("pair")
    left = pairs.join(a.select(first=pl.col("call").cast(pl.Int64), value="value"), on="first").select("pair", "value")
    right = pairs.join(b.select(later=pl.col("call").cast(pl.Int64), value="value"), on="later").select("pair", "value")
    out = np.zeros(len(first), np.bool_)
    out[left.join(right, on=["pair", "value"], how="semi")["pair"].to_numpy()] = True
    return out


def _best(later: I64, score: I64, delay: I64) -> tuple[I64, I64]:
    """Rows of the best candidate of each leg, in the order of legs, and the legs for which several are best."""
    order = np.lexsort((delay, -score, later))
    leg = later[order]
    lead = np.flatnonzero(np.append(True, leg[1:] != leg[:-1])) if len(leg) else np.empty(0, np.int64)
    best = order[lead]
    runner = lead + 1
    has = runner < len(order)
    has[has] = leg[runner[has]] == leg[lead[has]]
    other = order[np.where(has, runner, lead)]
    tie = has & (score[other] == score[best]) & (delay[other] < NEARER * np.maximum(delay[best], 1))
    return best[~tie], leg[lead[tie]]


def _words(shared: dict[str, Mask], host: Mask, relay: Mask, i: int) -> list[str]:
    out = [words for kind, words in _EXACT.items() if shared[kind][i]]
    out += ["ends where the other begins"] if host[i] else []
    out += [words for kind, words in _LOOSE.items() if shared[kind][i]]
    return out + (["same media relay"] if relay[i] else [])


def families(tables: Tables) -> pl.DataFrame:
    """``call`` (row of ``Tables.calls``), ``legs`` (Call-IDs of its other legs), ``legs_confidence`` (the weakest)."""
    parts = _parts(tables.legs)
    other = {name: [n for n in names if n != name] for names, _ in parts for name in names}
    level = {name: Confidence(least).label for names, least in parts for name in names}
    call_id = tables.calls["call_id"].to_list()
    return pl.DataFrame({
        "call": tables.calls["call"],
        "legs": pl.Series([other.get(name, []) for name in call_id], dtype=pl.List(pl.String)),
        "legs_confidence": pl.Series([level.get(name) for name in call_id], dtype=pl.String),
    })


def family(tables: Tables, call_id: str) -> pl.DataFrame:
    """Pairs of the whole call that this leg is part of, in their order."""
    names = next((names for names, _ in _parts(tables.legs) if call_id in names), ())
    return tables.legs.filter(pl.col("call_id").is_in(list(names)))


def _parts(pairs: pl.DataFrame) -> list[tuple[list[str], int]]:
    """Call-IDs of the legs of each whole call, in order, and its weakest confidence. Each leg follows one at most."""
    parts: dict[str, tuple[list[str], list[int]]] = {}
    for one, two, level in pairs.select("call_id", "next_call_id", "confidence").iter_rows():
        part = parts.setdefault(one, ([one], []))
        part[0].append(two)
        part[1].append(level)
        parts[two] = part
    return [(names, min(levels)) for names, levels in {id(p): p for p in parts.values()}.values()]
