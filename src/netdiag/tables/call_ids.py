"""Tells calls apart that use one Call-ID: each gets a name of its own, so that no table mixes them.

A dialog is known by Call-ID and both tags (RFC 3261 §12), and all forks of a call share Call-ID and the caller's tag
(§13.2.2.4). The first call keeps the Call-ID as its name; another one has the caller's tag behind it, in the notation
of RFC 3891 (``1234@host;from-tag=5FFE``), and where even the tag is the same its CSeq number or source.

What stays one call: challenge rounds and retries, which keep Call-ID and tag (§8.1.3.5, §22), and the hops of a proxy.
What is another: another caller's tag; an INVITE with a new CSeq number and no To tag after a 2xx, or when the failure
before it is older than Timer B; an INVITE from a host that none of the others came from or went to, whose lowest Via is
not theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables.packets import IPV6
from netdiag.tables.sip_groups import MIX
from netdiag.tables.sip_sources import log

if TYPE_CHECKING:
    from netdiag.tables import Tables

INVITE_METHODS = ("INVITE", "ACK", "BYE", "PRACK", "CANCEL")
"""CSeq methods that only INVITE dialogs have (RFC 3261 §13, §15, §9; RFC 3262)."""
TIMER_B_NS = 32_000_000_000
"""64 times T1: no attempt of a call is repeated later (RFC 3261 §17.1.1.2)."""
CHALLENGES = (401, 407)
"""Somebody may have to type a password before the call goes on (RFC 3261 §22)."""
READ_INVITES = 4096
"""INVITEs that are read again for their lowest Via (practice: 0.2 s); of Call-IDs beyond, the hosts are hops."""
REASON = "Call-ID that another call uses too"

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


def separate(tables: Tables, data: pl.DataFrame) -> pl.DataFrame:
    """``data`` (rows of ``Tables.sip``) with a name in ``call_id`` for each call; each use beyond the first is logged.

    Most captures have nothing to tell apart, and pay for one look at hashes.
    """
    doubtful = _doubtful(tables, data)
    if not len(doubtful):
        return data
    chosen = data.select("call_id", "from_tag", "to_tag", "method", "status", "cseq", "cseq_method", "branch", "point",
                         "source", "destination", "ts_ns", "raw_offset", "raw_length", "packet").with_row_index("row")
    # by the text itself: equal hashes are no proof
    chosen = chosen.filter(pl.col("call_id").is_in(data["call_id"].gather(doubtful).implode()))
    rows: list[int] = []
    names: list[str] = []
    odd: list[int] = []
    reads = [READ_INVITES]
    # somebody may send what looks like one of our names
    sent = data["call_id"].drop_nulls()
    taken = set(sent.filter(sent.str.contains(";from-tag=", literal=True)).to_list())
    for group in chosen.partition_by("call_id", maintain_order=True):
        messages = [_Message(*values) for values in group.iter_rows()]
        known: set[str] = set()
        for m, name in zip(messages, _Names(tables, messages, reads, taken).all(), strict=True):
            if name != m.call_id:
                rows.append(m.row)
                names.append(name)
                if name not in known:
                    known.add(name)
                    odd.append(m.packet)
    if not rows:
        return data
    log(tables, REASON, np.sort(np.array(odd, np.int64)))
    return data.with_columns(call_id=data["call_id"].scatter(rows, names))


def _doubtful(tables: Tables, data: pl.DataFrame) -> I64:
    """Rows that show a Call-ID to be used by several calls, or may do so."""
    ours = (data["cseq_method"].is_in(INVITE_METHODS) & data["call_id"].is_not_null()).fill_null(False)
    rows = np.flatnonzero(ours.to_numpy())
    if not len(rows):
        return rows
    hashed = data.select("call_id", "from_tag", "to_tag").select(pl.all().hash())
    call, tag, other = (hashed[name].to_numpy() for name in hashed.columns)
    rows = rows[np.argsort(call[rows], kind="stable")]
    group, lead = _groups(call[rows])
    lead = rows[lead]
    first = tag[lead][group]
    strange = (tag[rows] != first) & (other[rows] != first)
    strange |= data["from_tag"].is_null().to_numpy()[lead][group]
    bare = (data["to_tag"].is_null() & (data["method"] == "INVITE").fill_null(False)).to_numpy()
    again = _repeated(tables, data, call, rows, bare)
    return np.union1d(rows[strange], again)


def _groups(sorted_keys: U64) -> tuple[I64, I64]:
    """Group number of each key, and where each group begins."""
    new = np.append(True, sorted_keys[1:] != sorted_keys[:-1])
    return np.cumsum(new) - 1, np.flatnonzero(new)


def _repeated(tables: Tables, data: pl.DataFrame, call: U64, rows: I64, bare: Mask) -> I64:
    """Initial INVITEs that may begin another call with the same tag, at the same point."""
    point = tables.packets.points(data["packet"].to_numpy()).astype(np.uint64)
    key = call + (point + np.uint64(1)) * MIX
    asked = rows[bare[rows]]
    asked = asked[np.argsort(key[asked], kind="stable")]
    if not len(asked):
        return asked
    group, lead = _groups(key[asked])
    if len(lead) == len(asked):
        return asked[:0]
    begin = asked[lead][group]
    cseq, ns = data["cseq"].fill_null(0).to_numpy(), data["ts_ns"].to_numpy()
    other = cseq[asked] != cseq[begin]
    found = [np.empty(0, np.int64)]
    if other.any():
        # a 2xx, or a long time, before it
        status = data["status"].fill_null(0).to_numpy()[rows]
        invite = (data["cseq_method"] == "INVITE").fill_null(False).to_numpy()[rows]
        agreed = rows[(status >= 200) & (status < 300) & invite]
        agreed = agreed[np.argsort(key[agreed], kind="stable")]
        late = asked[other]
        at = np.searchsorted(key[agreed], key[late])
        at = np.minimum(at, max(len(agreed) - 1, 0))
        settled = (key[agreed][at] == key[late]) & (agreed[at] < late) if len(agreed) else np.zeros(len(late), np.bool_)
        found.append(late[settled | (ns[late] - ns[begin[other]] > TIMER_B_NS)])
    p = tables.packets
    packet = data["packet"].to_numpy()[asked]
    six = (p.flags[packet] & IPV6 > 0).astype(np.uint64) << np.uint64(32)
    source, destination = p.src[packet] | six, p.dst[packet] | six
    elsewhere = source != source[lead][group]
    if elsewhere.any():
        ends = key[asked] ^ destination * MIX
        found.append(asked[elsewhere & ~np.isin(key[asked] ^ source * MIX, ends)])
    return np.concatenate(found)


class _Message(NamedTuple):
    row: int
    call_id: str
    from_tag: str | None
    to_tag: str | None
    method: str | None
    status: int | None
    cseq: int | None
    cseq_method: str | None
    branch: str | None
    point: str
    source: str
    destination: str
    ts_ns: int
    raw_offset: int
    raw_length: int
    packet: int

    @property
    def initial(self) -> bool:
        return self.method == "INVITE" and self.to_tag is None

    @property
    def ours(self) -> bool:
        return self.cseq_method in INVITE_METHODS


class _Names:
    """Names of the calls that the messages of one Call-ID belong to."""

    def __init__(self, tables: Tables, messages: list[_Message], reads: list[int], taken: set[str]) -> None:
        self._tables, self._messages, self._reads = tables, messages, reads
        self._callers = _callers(messages)
        self._taken, self._first = taken, True

    def all(self) -> list[str]:
        owner = self._owners()
        parts: dict[str, list[int]] = {}
        for i, tag in enumerate(owner):
            if tag is not None:
                parts.setdefault(tag, []).append(i)
        call_id = self._messages[0].call_id
        out = [call_id] * len(self._messages)
        for tag, places in parts.items():
            for n, (mark, members) in enumerate(self._calls([self._messages[i] for i in places])):
                name = self._name(call_id, tag, mark if n else "")
                for k in members:
                    out[places[k]] = name
        return out

    def _name(self, call_id: str, tag: str, mark: str) -> str:
        if self._first:
            self._first = False
            return call_id
        name, copy = f"{call_id};from-tag={tag}{mark}", 2
        while name in self._taken:
            name = f"{call_id};from-tag={tag}{mark};{copy}"
            copy += 1
        self._taken.add(name)
        return name

    def _owners(self) -> list[str | None]:
        """The caller's tag for each message; None for one that belongs to no call."""
        callees: dict[str, str] = {}
        requests: dict[tuple[object, ...], str] = {}
        out: list[str | None] = []
        for m in self._messages:
            tag = self._caller(m)
            out.append(tag)
            if tag is not None and m.ours:
                other = m.to_tag if tag == self._callers.get(m.from_tag or "") else m.from_tag
                if other:
                    callees.setdefault(other, tag)
                if m.method is not None:
                    requests.setdefault((m.point, m.cseq, m.cseq_method, m.branch), tag)
        loose = [i for i, tag in enumerate(out) if tag is None]
        root: dict[str, str] = {}

        def find(tag: str) -> str:
            while root.setdefault(tag, tag) != tag:
                root[tag] = tag = root[root[tag]]
            return tag

        left = []
        for i in loose:
            m = self._messages[i]
            tag = callees.get(m.from_tag or "", callees.get(m.to_tag or ""))
            if tag is None and m.method is None and m.branch:
                tag = requests.get((m.point, m.cseq, m.cseq_method, m.branch))
            if tag is not None:
                out[i] = tag
                continue
            left.append(i)
            if m.ours and m.to_tag:
                root[find(m.to_tag)] = find(m.from_tag or "")
        lead: dict[str, str] = {}
        for i in left:
            m = self._messages[i]
            if m.ours:
                lead.setdefault(find(m.from_tag or ""), m.from_tag or "")
        for i in left:
            m = self._messages[i]
            out[i] = next((lead[r] for r in (find(m.from_tag or ""), find(m.to_tag or "")) if r in lead), None)
        return out

    def _caller(self, m: _Message) -> str | None:
        found = self._callers.get(m.from_tag or "")
        return self._callers.get(m.to_tag) if found is None and m.to_tag else found

    def _calls(self, messages: list[_Message]) -> Iterable[tuple[str, list[int]]]:
        """Places of the messages of each call among these, which have one caller's tag, and what marks it."""
        out: dict[str, list[int]] = {}
        home = self._homes(messages)
        at: dict[str, _Run] = {}
        for i, m in enumerate(messages):
            run = at.setdefault(home[i], _Run())
            mark = home[i] + run.mark(m)
            out.setdefault(mark, []).append(i)
        return out.items()

    def _homes(self, messages: list[_Message]) -> list[str]:
        """"" for each message, or where the call came from that only shares the tag with the first."""
        asked = [m for m in messages if m.initial]
        served = {(m.point, m.destination) for m in asked}
        first: dict[str, str] = {}
        for m in asked:
            first.setdefault(m.point, m.source)
        strange = [m for m in asked if m.source != first[m.point] and (m.point, m.source) not in served]
        if not strange or self._reads[0] < len(asked):
            return [""] * len(messages)
        self._reads[0] -= len(asked)
        others = {m.row for m in strange}
        origin = {self._origin(m) for m in asked if m.row not in others}
        other = {(m.point, m.source): f";source={m.source}" for m in strange if self._origin(m) not in origin}
        branches = {(m.point, m.branch): other.get((m.point, m.source), "") for m in reversed(asked)}
        callees: dict[str | None, str] = {}
        out = []
        for m in messages:
            # by the branch, then by the callee's tag, then by the address
            home = branches.get((m.point, m.branch)) if m.branch else None
            tag = m.to_tag if m.from_tag == asked[0].from_tag else m.from_tag
            if home is None:
                home = callees.get(tag) if tag else None
            if home is None:
                home = other.get((m.point, m.source), other.get((m.point, m.destination), ""))
            if tag:
                callees.setdefault(tag, home)
            out.append(home)
        return out

    def _origin(self, m: _Message) -> str:
        """Lowest Via: what the request's first sender wrote (RFC 3261 §8.1.1.7)."""
        space = self._tables.packets.space
        text = space.read(m.raw_offset, min(m.raw_length, decode.HEAD_LIMIT)).decode("latin-1")
        last = [value for name, value in decode.header_lines(text) if name in ("via", "v")][-1:]
        return (decode.elements(last[0]) or [""])[-1].partition(";received")[0] if last else ""


def _callers(messages: list[_Message]) -> dict[str, str]:
    """The tags of callers, each with the one that stands for it: a challenge may be answered under a new tag."""
    out: dict[str, str] = {}
    challenged: dict[tuple[str, str], tuple[str, int]] = {}
    for m in messages:
        tag = m.from_tag or ""
        if m.initial and tag not in out:
            before = challenged.get((m.point, m.source))
            out[tag] = before[0] if before and (m.cseq or 0) > before[1] else tag
        elif m.status in CHALLENGES and m.cseq_method == "INVITE" and tag in out:
            challenged[m.point, m.destination] = out[tag], m.cseq or 0
    return out


class _Run:
    """Calls that follow each other with one Call-ID and one caller's tag."""

    def __init__(self) -> None:
        self._callers: set[str | None] = set()
        self._now = ""
        self._by_cseq: dict[int | None, str] = {}
        self._by_tag: dict[str, str] = {}
        self._agreed: set[str] = set()
        self._failed_ns: dict[str, int] = {}

    def mark(self, m: _Message) -> str:
        if m.initial:
            self._callers.add(m.from_tag)
        if m.initial and m.cseq not in self._by_cseq:
            failed = self._failed_ns.get(self._now)
            if self._by_cseq and (self._now in self._agreed or (
                    failed is not None and m.ts_ns - failed > TIMER_B_NS)):
                self._now = f";cseq={m.cseq}"
            self._by_cseq[m.cseq] = self._now
        by_caller = m.from_tag in self._callers
        early = by_caller and m.cseq_method in ("INVITE", "ACK", "CANCEL") and m.cseq in self._by_cseq
        tags = [t for t in (m.to_tag, m.from_tag) if t in self._by_tag]
        mark = self._by_cseq[m.cseq] if early else self._by_tag[tags[0]] if tags else self._now
        if m.status is not None and m.cseq_method == "INVITE" and by_caller:
            if 200 <= m.status < 300:
                self._agreed.add(mark)
            elif m.status >= 300 and m.status not in CHALLENGES:
                self._failed_ns[mark] = m.ts_ns
            if m.to_tag and m.status > 100:
                self._by_tag[m.to_tag] = mark
        return mark
