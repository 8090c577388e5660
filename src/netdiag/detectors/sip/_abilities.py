"""What a host can do, as far as its other offers and answers in the capture show."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cached_property

import polars as pl

from netdiag.tables import Tables
from netdiag.tables.offer_answer import Body, exchanges
from netdiag.tables.sip import SipMessage

KINDS = 16
"""Different descriptions of one host that are compared (practice)."""


class Abilities:
    """Descriptions that these hosts send, read all at once when first asked for."""

    def __init__(self, tables: Tables, hosts: Iterable[str]) -> None:
        self._tables, self._hosts = tables, list(hosts)

    def of(self, response: SipMessage, offer: SipMessage) -> list[Body]:
        """What the sender of a response offers or answers at the same point, some of each kind.

        In other calls, and in this one before the offer that the response refuses.
        """
        bodies = self._known.get((response.point, response.source), [])
        return [b for b in bodies if b.message.call_id != response.call_id or b.message.ts_ns < offer.ts_ns]

    @cached_property
    def _known(self) -> dict[tuple[str, str], list[Body]]:
        media = self._tables.media.filter(pl.col("signalling_source").is_in(self._hosts) & (pl.col("port") > 0))
        host = ["point", "signalling_source"]
        kinds = media.unique([*host, "codecs", "protocol", "side"], keep="first", maintain_order=True)
        calls = kinds.group_by(host, maintain_order=True).head(KINDS)["call"].unique(maintain_order=True)
        out: dict[tuple[str, str], list[Body]] = {}
        for e in itertools.chain(*exchanges(self._tables, calls).values()):
            for body in (e.offer, *e.answers):
                if body is not None:
                    out.setdefault((body.message.point, body.message.source), []).append(body)
        return out


def where(bodies: list[Body], response: SipMessage) -> str:
    """In which calls the sender of a response sent these."""
    calls = {b.message.call_id == response.call_id for b in bodies}
    return "in other calls" if True not in calls else "in this and other calls" if False in calls else \
        "earlier in this call"
