"""ICE candidate pairs: who checked what, what was answered, which pair was nominated, when consent lapsed (RFC 8445,
RFC 7675), and the media that went with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import stun as decode
from netdiag.tables.packets import FORWARD, KIND_DTLS, KIND_RTP
from netdiag.tables.schema import U16, U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

BLOCK = 1 << 19
"""Packets of flows with checks that are looked at together (practice: 20 MB of working memory)."""
DTLS_DATA = 23
"""Content type of application data: a data channel is media too (RFC 8831)."""


@dataclass(frozen=True, slots=True)
class Check:
    """The checks of one agent on one candidate pair, with one pair of username fragments, at one capture point.

    The other agent's checks on the same pair are a row of their own, with the same ``session`` and ``path``.
    """

    check: U32
    point: str
    flow: U32
    path: U32
    relayed: bool
    """Inside TURN: ``local`` (or ``remote``) is the relayed address of the client that was captured."""
    local: str
    """The agent that checks, as this point sees it."""
    local_port: U16
    remote: str
    remote_port: U16
    local_ufrag: str
    remote_ufrag: str
    session: str
    """Both fragments in alphabetical order: the same in both directions and at every point."""
    local_type: str | None
    """host, srflx, prflx or relay by the candidates of the SDP; None where no SDP with this ufrag was captured."""
    remote_type: str | None
    signed_right: bool | None
    """The first request is signed with a password that the SDP of the other agent gives (RFC 8445 §7.2.2); None where
    no such SDP, or not the whole request, was captured, and inside TURN."""
    role: str | None
    """"controlling" or "controlled", by the last request that says so."""
    roles: U16
    """How many different roles its requests claim: 2 after a role conflict was repaired."""
    transactions: U32
    requests: U32
    """Packets, retransmissions included."""
    successes: U32
    """Transactions answered with success."""
    errors: U32
    codes: tuple[U16, ...]
    """Error codes in order of their first coming; 0 without ERROR-CODE."""
    role_conflicts: U32
    """487 responses."""
    denials: U32
    """400 and 401 responses."""
    nominated: bool
    """A request with USE-CANDIDATE was answered with success."""
    nominating_packet: U32 | None
    """The first such request."""
    first_ns: int
    last_ns: int
    """Last request."""
    first_response_ns: int | None
    """First success."""
    last_response_ns: int | None
    first_packet: U32
    last_packet: U32
    last_response_packet: U32 | None
    lapse_ns: int | None
    """Last success before the longest time without one in which checks found no answer at all; None without."""
    lapse_packet: U32 | None
    """That response."""
    lapse_checks: U32
    """Transactions without any response in that time."""
    lapse_last_ns: int | None
    """The last of them."""
    lapse_packets: tuple[U32, ...]
    """Their first requests."""
    recovered_ns: int | None
    """First success behind that time; None without."""
    media_sent: U32
    """RTP, RTCP and DTLS application data of the agent on this pair."""
    media_sent_first_ns: int | None
    media_sent_last_ns: int | None
    media_sent_last_packet: U32 | None
    media_received: U32
    media_received_first_ns: int | None
    media_received_last_ns: int | None
    media_received_last_packet: U32 | None
    heard_last_ns: int | None
    """Last packet of any kind from the other end on this pair."""


_PAIR = ["path", "client", "client_port", "username"]


def build(tables: Tables) -> pl.DataFrame:
    """One row for each pair and agent, in the order of first requests."""
    asked = checks_of(tables)
    if not asked.height:
        return empty(Check)
    pairs = asked.group_by(_PAIR, maintain_order=True).agg(
        pl.col("point", "flow", "relayed", "server", "server_port").first(),
        role=pl.when(pl.col("controlling").last()).then(pl.lit("controlling")).when(
            pl.col("controlled").last()).then(pl.lit("controlled")),
        roles=pl.col("controlling").any().cast(pl.UInt16) + pl.col("controlled").any(),
        transactions=pl.len(), requests=pl.col("sends").sum(), successes=(pl.col("response") == "success").sum(),
        errors=(pl.col("response") == "error").sum(),
        codes=pl.col("error").drop_nulls().unique(maintain_order=True),
        role_conflicts=(pl.col("error") == 487).sum(), denials=pl.col("error").is_in([400, 401]).sum(),
        nominated=(pl.col("use_candidate") & _OK).any(),
        nominating_packet=pl.col("request_packets").filter(pl.col("use_candidate") & _OK).first().list.first(),
        first_ns=pl.col("first_ns").first(), last_ns=pl.col("last_ns").max(),
        first_packet=pl.col("request_packets").first().list.first(),
        last_packet=pl.col("request_packets").list.last().max(),
        first_response_ns=pl.col("response_ns").filter(_OK).min(),
        last_response_ns=pl.col("response_ns").filter(_OK).max(),
        last_response_packet=pl.col("response_packets").filter(_OK).list.first().max(),
    ).with_row_index("check")
    pairs = pairs.join(_lapses(asked), on=_PAIR, how="left", nulls_equal=True, maintain_order="left")
    pairs = pairs.with_columns(
        local=pl.col("client"), local_port=pl.col("client_port"), remote=pl.col("server"),
        remote_port=pl.col("server_port"), lapse_checks=pl.col("lapse_checks").fill_null(0),
        **_ufrags(pairs["username"]))
    pairs = pairs.with_columns(session=pl.min_horizontal("local_ufrag", "remote_ufrag") + ":" + pl.max_horizontal(
        "local_ufrag", "remote_ufrag"), signed_right=_signed_right(tables, pairs), **_types(tables, pairs))
    pairs = _with_activity(tables, pairs)
    return pairs.select(pl.col(name).cast(dtype) for name, dtype in schema(Check).items())


_OK = pl.col("response") == "success"


def checks_of(tables: Tables) -> pl.DataFrame:
    """Binding transactions that are connectivity checks: requests with USERNAME, signed or with a PRIORITY."""
    return tables.stun.filter(
        (pl.col("method") == decode.BINDING) & (pl.col("sends") > 0) & pl.col("username").is_not_null()
        & (pl.col("username").str.contains(":", literal=True) | pl.col("priority").is_not_null()))


def _ufrags(usernames: pl.Series) -> dict[str, pl.Series]:
    parts = usernames.str.splitn(":", 2)
    return {"remote_ufrag": parts.struct.field("field_0").fill_null(""),
            "local_ufrag": parts.struct.field("field_1").fill_null("")}


def _lapses(asked: pl.DataFrame) -> pl.DataFrame:
    """For each pair the longest run of unanswered transactions behind a success: ``lapse_*`` and ``recovered_ns``."""
    runs = asked.select(*_PAIR, "first_ns", "response_ns", ok=_OK.fill_null(False), silent=pl.col("response").is_null(),
                        packet=pl.col("request_packets").list.first(), reply=pl.col("response_packets").list.first())
    runs = runs.with_columns(run=pl.col("ok").cum_sum().over(_PAIR)).filter(pl.col("run") > 0)
    each = runs.group_by([*_PAIR, "run"], maintain_order=True).agg(
        lapse_ns=pl.col("response_ns").first(), lapse_packet=pl.col("reply").first(),
        lapse_checks=pl.col("silent").sum(), lapse_last_ns=pl.col("first_ns").filter("silent").last(),
        lapse_packets=pl.col("packet").filter("silent"))
    each = each.with_columns(recovered_ns=pl.col("lapse_ns").shift(-1).over(_PAIR)).filter(pl.col("lapse_checks") > 0)
    longest = each.sort(pl.col("lapse_last_ns") - pl.col("lapse_ns"), descending=True, maintain_order=True)
    return longest.unique(_PAIR, keep="first").drop("run")


def _types(tables: Tables, pairs: pl.DataFrame) -> dict[str, pl.Series]:
    """Candidate types of both ends by the SDP of their agents."""
    out: dict[str, list[str | None]] = {"local_type": [], "remote_type": []}
    known: dict[str, dict[tuple[str, int], str]] = {}
    for ufrag, *columns in tables.ice_descriptions.select("ufrag", "addresses", "ports", "types").iter_rows():
        known.setdefault(ufrag, {}).update({(a, n): t for a, n, t in zip(*columns, strict=True)})
    for row in pairs.select("local_ufrag", "local", "local_port", "remote_ufrag", "remote", "remote_port").iter_rows():
        for side, (ufrag, address, port) in (("local_type", row[:3]), ("remote_type", row[3:])):
            # What no description names was found by a check (RFC 8445 §7.3.1.3).
            out[side].append(known[ufrag].get((address, port), "prflx") if ufrag in known else None)
    return {n: pl.Series(n, v, dtype=pl.String) for n, v in out.items()}


def _signed_right(tables: Tables, pairs: pl.DataFrame) -> pl.Series:
    passwords: dict[str, set[str]] = {}
    for ufrag, password in tables.ice_descriptions.select("ufrag", "password").iter_rows():
        passwords.setdefault(ufrag, set()).add(password)
    out: list[bool | None] = []
    for ufrag, packet, relayed in pairs.select("remote_ufrag", "first_packet", "relayed").iter_rows():
        known = passwords.get(ufrag)
        message = decode.read(tables.packets.payload(packet)) if known and not relayed else None
        fits = [decode.integrity_fits(message, p.encode()) for p in known or ()] if message else []
        out.append(None if not fits or fits[0] is None else any(fits))
    return pl.Series(out, dtype=pl.Boolean)


def _with_activity(tables: Tables, pairs: pl.DataFrame) -> pl.DataFrame:
    """Adds what else went over the paths, in the direction of the agent and in the other."""
    p = tables.packets
    paths = np.unique(pairs["path"].to_numpy()).astype(np.int64)
    base = len(p.flow_start)
    seen = pl.concat([_direct(tables, paths[paths < base]), _carried(tables, paths[paths >= base])])
    # The agent is side a of the path when its first request went forward.
    t = tables.stun_traffic
    assert t is not None
    direct = (p.flags[pairs["first_packet"].to_numpy()] & FORWARD) != 0
    relayed = np.flatnonzero(t.where.path >= base)
    keys = zip(t.where.packet[relayed].tolist(), t.where.path[relayed].tolist(), strict=True)
    inside = dict(zip(keys, t.where.forward[relayed].tolist(), strict=True))
    ahead = [inside.get((packet, path), d) for packet, path, d in zip(
        pairs["first_packet"].to_list(), pairs["path"].to_list(), direct.tolist(), strict=True)]
    pairs = pairs.with_columns(ahead=pl.Series(ahead), path=pl.col("path").cast(pl.Int64))
    columns = ["count", "first", "last", "packet"]
    for name, way in (("media_sent", pl.col("ahead")), ("media_received", ~pl.col("ahead"))):
        names = {"count": name, "first": name + "_first_ns", "last": name + "_last_ns", "packet": name + "_last_packet"}
        mine = seen.filter(pl.col("media")).select("path", *(pl.col(c).alias(names[c]) for c in columns), way="forward")
        pairs = pairs.with_columns(way=way).join(mine, on=["path", "way"], how="left", maintain_order="left")
        pairs = pairs.drop("way").with_columns(pl.col(name).fill_null(0))
    heard = seen.group_by("path", way="forward").agg(heard_last_ns=pl.col("last").max())
    return pairs.with_columns(way=~pl.col("ahead")).join(heard, on=["path", "way"], how="left", maintain_order="left")


_SEEN: dict[str, Any] = {"path": pl.Int64, "forward": pl.Boolean, "media": pl.Boolean, "count": pl.UInt32,
                         "first": pl.Int64, "last": pl.Int64, "packet": pl.UInt32}


def _sums(p: Any, rows: npt.NDArray[Any], path: npt.NDArray[np.int64], forward: npt.NDArray[np.bool_],
          media: npt.NDArray[np.bool_]) -> pl.DataFrame:
    data = pl.DataFrame({"path": path, "forward": forward, "media": media, "packet": rows, "ts": p.ts[rows]})
    return data.group_by("path", "forward", "media").agg(
        count=pl.len(), first=pl.col("ts").min(), last=pl.col("ts").max(), packet=pl.col("packet").max()
    ).select(pl.col(n).cast(d) for n, d in _SEEN.items())


def _direct(tables: Tables, flows: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Packets of flows by direction, media or not."""
    p = tables.packets
    parts = [pl.DataFrame(schema=_SEEN)]
    total = np.cumsum(p.flow_size[flows])
    at = 0
    while at < len(flows):
        stop = max(at + 1, int(np.searchsorted(total, (total[at - 1] if at else 0) + BLOCK)))
        some = flows[at:stop]
        size = p.flow_size[some]
        rows = p.order[np.repeat(p.flow_start[some] - np.cumsum(size) + size, size) + np.arange(int(size.sum()))]
        media = p.kind[rows] == KIND_RTP
        dtls = np.flatnonzero(p.kind[rows] == KIND_DTLS)
        media[dtls[p.head(rows[dtls], 1)[:, 0] == DTLS_DATA]] = True
        parts.append(_sums(p, rows, np.repeat(some, size), (p.flags[rows] & FORWARD) != 0, media))
        at = stop
    return pl.concat(parts)


def _carried(tables: Tables, paths: npt.NDArray[np.int64]) -> pl.DataFrame:
    """The same for paths inside TURN."""
    t, p = tables.stun_traffic, tables.packets
    if t is None or not len(paths):
        return pl.DataFrame(schema=_SEEN)
    c, w = t.carried.take(np.isin(t.carried.path, paths)), t.where.take(np.isin(t.where.path, paths))
    first = p.space.gather(c.at, 1)[:, 0]
    media = np.append(((first >> 6) == 2) | (first == DTLS_DATA), np.zeros(len(w.packet), np.bool_))
    return _sums(p, np.append(c.packet, w.packet), np.append(c.path, w.path), np.append(c.forward, w.forward), media)
