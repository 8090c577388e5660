"""Matches requests, responses and ACKs into transactions (RFC 3261 §17), one for each hop that was captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.outside import laid
from netdiag.tables.schema import empty, schema
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_groups import first_of, group_codes, last_of, lists, taken
from netdiag.tables.sip_hops import hop_messages

if TYPE_CHECKING:
    from netdiag.tables import Tables

INVITES_PER_ACK = 16
"""INVITE transactions with one Call-ID and CSeq that an ACK is compared with (practice): bounds the join."""

_DIALOG = ["dialog", "cseq"]
"""Point and Call-ID have one number."""
_HOP = ["client", "server"]

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def build(tables: Tables) -> pl.DataFrame:
    """All transactions in the order of their first message; schema of ``Transaction``.

    A transaction is known by topmost branch, CSeq and the two addresses of the hop; without the
    RFC 3261 branch by Call-ID, CSeq and From tag. Messages without Call-ID or CSeq take no part.
    """
    sip = hop_messages(tables)
    acks = sip.select("message", *_DIALOG, "key", *_HOP, "client_port", "server_port").filter(sip["method"] == "ACK")
    others = (sip["method"] != "ACK").fill_null(True) & (sip["cseq_method"] != "ACK")
    rows = others.arg_true()
    if not len(rows):
        return empty(Transaction)
    names = [*_DIALOG, "cseq_method", "key", *_HOP, "transport"]
    codes, count = group_codes(sip.select(names)[rows], names)
    data = sip.select("message", "status", "to_tag", "ts_ns")[rows]
    request = sip["method"].is_not_null().gather(rows).to_numpy()
    codes, count = _join_detours(sip, rows, codes, count, request)

    status = data["status"].fill_null(0).to_numpy()
    final = status >= 200
    whole = np.ones(len(data), np.bool_)
    first, last = first_of(codes, count, whole), last_of(codes, count, whole)
    asked, asked_last = first_of(codes, count, request), last_of(codes, count, request)
    replied, decided = first_of(codes, count, ~request), first_of(codes, count, final)
    head = np.where(asked >= 0, asked, first)
    provisional = np.zeros(count, np.uint16)
    early = np.flatnonzero(~request & ~final)
    np.maximum.at(provisional, codes[early], status[early])

    ns = data["ts_ns"]
    message = data["message"]
    decisive = decided[codes]
    same = final & (status == status[decisive])
    same &= data["to_tag"].eq_missing(taken(data["to_tag"], decisive)).to_numpy()
    asked_ns = taken(ns, asked)
    delay = (taken(ns, replied) - asked_ns) / 1e9
    out = sip.select("dialog", "point", "call_id", "cseq", "branch", "client", "client_port", "server", "server_port",
                     "transport", "key", "cseq_method")[rows.to_numpy()[head]].with_columns(
        transaction=pl.int_range(count, dtype=pl.UInt32),
        method=pl.col("cseq_method"),
        to_tag=taken(data["to_tag"], asked),
        request_messages=lists(codes[request], count, message.filter(request)),
        response_messages=lists(codes[~request], count, message.filter(~request)),
        final_message=taken(data["message"], decided),
        provisional_status=pl.Series(provisional).replace(0, None),
        status=taken(data["status"], decided),
        first_ns=ns[first],
        last_request_ns=taken(ns, np.where(asked_last >= 0, asked_last, head)),
        last_ns=ns[last],
        sends=_counted(codes[request], count),
        final_sends=_counted(codes[same], count),
        midstream=pl.Series(asked < 0),
        response_s=delay.set(delay < 0, None),
    )
    # of no use for what follows, which needs much memory of its own
    del data, ns, message, codes, request, status, final, same, decisive, early
    cancels = out.filter(pl.col("method") == "CANCEL").select(*_DIALOG, "key", *_HOP).unique()
    cancels = cancels.with_columns(method=pl.lit("INVITE"), cancelled=pl.lit(True))
    out = out.join(cancels, on=[*_DIALOG, "key", *_HOP, "method"], how="left", maintain_order="left").with_columns(
        pl.col("cancelled").fill_null(False), ack_messages=_acks(out, acks))
    return laid(out.select(pl.col(name).cast(dtype) for name, dtype in schema(Transaction).items()),
                tables.packets.space)


def _join_detours(sip: pl.DataFrame, rows: pl.Series, codes: I64, count: int, request: Mask) -> tuple[I64, int]:
    """Joins responses that came from, or went to, another address than the request's with their request.

    Only where the request has no other answer, and only one such request shares an address with them.
    """
    asked, replied = first_of(codes, count, request), first_of(codes, count, ~request)
    open_, loose = np.flatnonzero((asked >= 0) & (replied < 0)), np.flatnonzero((asked < 0) & (replied >= 0))
    if not len(open_) or not len(loose):
        return codes, count
    key = [*_DIALOG, "cseq_method", "key"]
    place = rows.to_numpy()
    left = sip.select(*key, *_HOP)[place[replied[loose]]].with_columns(loose=pl.Series(loose))
    right = sip.select(*key, *_HOP)[place[asked[open_]]].with_columns(open=pl.Series(open_))
    alone = right.filter(pl.len().over(key) == 1)
    pairs = left.join(alone, on=key, suffix="_open").filter(
        (pl.col("client") == pl.col("client_open")) | (pl.col("server") == pl.col("server_open"))
    ).unique("open", keep="first", maintain_order=True)
    renamed = np.arange(count)
    renamed[pairs["loose"].to_numpy()] = pairs["open"].to_numpy()
    # numbers stay in the order of first appearance, without gaps
    target = renamed[codes]
    used, first, inverse = np.unique(target, return_index=True, return_inverse=True)
    rank = np.empty(len(used), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(used))
    return rank[inverse], len(used)


def _acks(transactions: pl.DataFrame, acks: pl.DataFrame) -> pl.Series:
    """Message rows of the ACKs of each INVITE transaction, empty for the others.

    An ACK of a non-2xx response shares the branch (§17.1.1.3). An ACK of a 2xx is a request of its
    own (§13.2.2.4) and is given to the transactions of its Call-ID and CSeq number that share most
    of its hop: an end with port, an end, or at least the direction; of these to those that have a 2xx, if any.
    """
    count = len(transactions)
    invites = transactions.filter(pl.col("method") == "INVITE").select(
        "transaction", *_DIALOG, "key", *_HOP, "client_port", "server_port",
        accepted=pl.col("status").is_between(200, 299).fill_null(False))
    hop = [*_DIALOG, "key", *_HOP]
    direct = acks.join(invites.unique(hop, keep="first", maintain_order=True), on=hop).select("message", "transaction")
    rest = acks.join(direct, on="message", how="anti")
    few = invites.filter(pl.int_range(pl.len()).over(_DIALOG) < INVITES_PER_ACK)
    same_client, same_server = pl.col("client") == pl.col("client_i"), pl.col("server") == pl.col("server_i")
    exact = (same_client & (pl.col("client_port") == pl.col("client_port_i"))) | (
        same_server & (pl.col("server_port") == pl.col("server_port_i")))
    level = (
        pl.when(exact).then(3).when(same_client | same_server).then(2)
        .when(pl.col("client") != pl.col("server_i")).then(1).otherwise(0)
    )
    near = rest.join(few, on=_DIALOG, suffix="_i").with_columns(level=level).filter(
        (pl.col("level") > 0) & (pl.col("level") == pl.col("level").max().over("message"))
    ).filter(pl.col("accepted") | ~pl.col("accepted").any().over("message")).select("message", "transaction")
    found = pl.concat([direct, near]).sort("transaction", "message")
    return lists(found["transaction"].to_numpy().astype(np.int64), count, found["message"])


def _counted(codes: I64, count: int) -> pl.Series:
    return pl.Series(np.minimum(np.bincount(codes, minlength=count), 0xFFFF).astype(np.uint16))
