"""Calls whose offers and answers plainly fit, set aside in columns: what remains is read again and compared."""

from __future__ import annotations

import numpy as np
import polars as pl

from netdiag.tables import Tables

_LINE = ["index", "type", "address", "port", "protocol", "payload_types", "codecs", "direction"]


def doubtful(tables: Tables) -> list[int]:
    """Calls (rows of ``Tables.calls``) where an answer is missing or does not fit, or a later description is changed.

    Some of them are right; none of the others can break a rule that ``Tables.media`` shows.
    """
    media = tables.media
    if not len(media):
        return []
    call = media["call"].to_numpy()
    offer = (media["role"] == "offer").to_numpy()
    count = int(call.max()) + 1
    lines = np.bincount(call, minlength=count)
    offers = np.bincount(call[offer], minlength=count)
    simple = (lines <= 2) & (offers == 1) & (lines - offers <= 1)
    answered = np.zeros(count, np.bool_)
    status = tables.calls["status"].head(count).fill_null(0).to_numpy()
    answered[: len(status)] = (status >= 200) & (status < 300)
    first = np.full((2, count), -1, np.int64)
    rows = np.flatnonzero(simple[call])
    first[offer[rows].astype(np.int64), call[rows]] = rows
    pairs = np.flatnonzero(simple & (first[0] >= 0))
    said = media.select("codecs", "port", "type", "index")
    wrong = pairs[~_fits(said[first[1, pairs]], said[first[0, pairs]])]
    found = set(wrong.tolist()) | set(np.flatnonzero(simple & (first[0] < 0) & answered).tolist())
    rest = np.flatnonzero(~simple & (lines > 0))
    if len(rest):
        found |= _among(tables, media.filter(pl.Series(~simple[call])))
    return sorted(found | _without_answer(tables))


def _fits(offer: pl.DataFrame, answer: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Does each answered line have a codec of the offered line? Those that are refused fit too."""
    codec = answer["codecs"].list.first()
    common = pl.DataFrame({"all": offer["codecs"], "one": codec}).select(
        pl.col("all").list.contains(pl.col("one")) & (pl.col("one") != "")).to_series().fill_null(False)
    return (((answer["port"] == 0) | common) & (offer["type"] == answer["type"])
            & (offer["index"] == answer["index"])).to_numpy()


def _among(tables: Tables, media: pl.DataFrame) -> set[int]:
    """The doubtful ones of calls with several media lines or several exchanges."""
    sip = tables.sip.select("cseq", "cseq_method", "branch", "source", "destination")[media["message"]]
    kind = pl.when(pl.col("cseq_method") == "ACK").then(pl.lit("INVITE")).otherwise(pl.col("cseq_method"))
    lines = media.select("call", "message", "role", *_LINE).hstack(sip).with_columns(
        kind=kind, said=pl.struct(_LINE).hash())
    bodies = lines.group_by("message", maintain_order=True).agg(
        pl.col("call", "role", "cseq", "kind", "branch", "source", "destination").first(),
        pl.col("said").sum(), lines=pl.len())
    hop = ["call", "source", "destination"]
    changed = bodies.group_by(hop).agg(pl.col("said").n_unique()).filter(pl.col("said") > 1)["call"]
    found = set(changed.to_list())
    offers, answers = bodies.filter(pl.col("role") == "offer"), bodies.filter(pl.col("role") == "answer")
    alone = ["call", "cseq", "kind"]
    once = [b.filter(pl.len().over(alone) == 1) for b in (offers, answers)]
    plain = once[0].join(once[1], on=alone, suffix="_answer")
    by_branch = offers.join(answers, on=[*alone, "branch"], suffix="_answer")
    paired = pl.concat([plain.select("call", "message", "message_answer", "lines", "lines_answer"),
                        by_branch.select("call", "message", "message_answer", "lines", "lines_answer")]).unique()
    found |= set(paired.filter(pl.col("lines") != pl.col("lines_answer"))["call"])
    found |= set(answers.join(paired, left_on="message", right_on="message_answer", how="anti")["call"])
    late = offers.filter(tables.sip["method"].gather(offers["message"]).is_null())
    found |= set(late.join(paired, on="message", how="anti")["call"])
    both = paired.select("call", "message", "message_answer").join(lines, on="message").join(
        lines, left_on=["message_answer", "index"], right_on=["message", "index"], suffix="_answer")
    if len(both):
        columns = ["codecs", "port", "type"]
        fits = _fits(both.select(*columns, "index"), both.select(
            *(pl.col(f"{c}_answer").alias(c) for c in columns), "index"))
        found |= set(both.filter(pl.Series(~fits))["call"])
    return found


def _without_answer(tables: Tables) -> set[int]:
    """Calls with a 2xx that has no SDP, though its request had."""
    offset = tables.sip["sdp_offset"]
    final = tables.transactions.select("method", "status", "midstream", "final_message").with_row_index("row").filter(
        (pl.col("method") == "INVITE") & pl.col("status").is_between(200, 299) & ~pl.col("midstream"))
    bare = tables.transactions[final["row"].filter(offset.gather(final["final_message"]).is_null())]
    if not len(bare):
        return set()
    bare = bare.filter(offset.gather(bare["request_messages"].list.first()).is_not_null())
    return set(tables.calls.join(bare.select("point", "call_id").unique(), on=["point", "call_id"], how="semi")["call"])
