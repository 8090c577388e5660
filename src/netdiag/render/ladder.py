"""Who sent what to whom: a call or a handshake as a ladder, in text for a ticket and as Mermaid.

Both are drawn from the same steps. The text is plain ASCII in the frame so that it survives
any ticket system; what comes from the wire is escaped when it is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.cells import cell_len

from netdiag.model import Confidence
from netdiag.render import words
from netdiag.render.escape import mermaid as for_mermaid
from netdiag.render.escape import plain
from netdiag.render.layout import clip, wrap
from netdiag.render.timeline import Entry, endpoint, fold, timeline
from netdiag.tables.sip_details import detail

if TYPE_CHECKING:
    from netdiag.tables import Tables

CUT = ".."
OTHERS = 3
"""Calls that a note names (practice)."""
HOSTS = 12
"""Hosts in one picture; hostile input may name thousands (practice)."""
LABEL = 120
"""Characters of a label or note in Mermaid."""
NOTE = 2
"""Cells before the second and further lines of a note."""
LEFT = 24
"""Columns for time and delta."""
SPAN_LEAST, SPAN_MOST = 16, 34
"""Cells between two hosts (practice: a method and its URI's user are readable in 16)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One arrow. ``count`` > 1: sent again so often, until ``last_ns``."""

    ts_ns: int
    source: str
    destination: str
    label: str
    note: str
    frame: int
    key: tuple[object, ...] = ()
    """Equal keys are the same message sent again."""
    count: int = 1
    last_ns: int = 0
    media: bool = False


@dataclass(frozen=True, slots=True)
class Ladder:
    """A picture of one exchange at one capture point; ``hosts`` in order of appearance."""

    title: str
    about: str
    """Who with whom, or ""."""
    point: str
    path: str
    hosts: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: int = 0
    """Steps between hosts that have no place in the picture."""
    notes: tuple[str, ...] = ()
    """Lines above the picture: how its legs belong together."""


def of_call(tables: Tables, call_id: str, legs: bool = True) -> list[Ladder]:
    """The messages of that call, the media bound to it and ICMP errors about it: one ladder a capture point.

    ``call_id`` as the tables name the call. With ``legs`` all calls that a B2BUA joined with it are drawn as one.
    """
    ids, notes = _legs(tables, call_id) if legs else ([call_id], [])
    others = _others(tables, ids)
    if others:
        notes.append(f"Not drawn, other calls with a Call-ID that is used here: {words.join(others, OTHERS)}")
    found = tables.sip.filter(pl.col("call_id").is_in(ids)).sort("ts_ns", "message")
    return [_call(tables, ids, call_id, point, found.filter(pl.col("point") == point), tuple(notes))
            for point in found["point"].unique(maintain_order=True).to_list()]


def named(tables: Tables, text: str) -> list[str]:
    """Names of the calls whose Call-ID is, or else begins with, this text; the mark of a cut is taken off."""
    known = tables.sip["call_id"].drop_nulls()
    if text in known:
        return [text]
    begin = text.removesuffix("…")
    return known.filter(known.str.starts_with(begin)).unique(maintain_order=True).to_list() if begin else []


def _others(tables: Tables, ids: Sequence[str]) -> list[str]:
    """Names of the calls that use a Call-ID of these, but are others."""
    wires = {name.partition(";from-tag=")[0] for name in ids}
    known = tables.sip["call_id"].drop_nulls()
    known = known.filter(known.str.split(";from-tag=").list.first().is_in(list(wires))) if len(known) else known
    return [name for name in known.unique(maintain_order=True).to_list() if name not in ids]


def _legs(tables: Tables, call_id: str) -> tuple[list[str], list[str]]:
    """Call-IDs of all legs of a call, this one among them, and what joins each pair."""
    from netdiag.tables.legs import family
    ids, notes = [call_id], []
    for one, two, level, evidence in family(tables, call_id).select(
            "call_id", "next_call_id", "confidence", "evidence").iter_rows():
        ids += [name for name in (one, two) if name not in ids]
        notes.append(f"Leg {one} goes on as {two}: {Confidence(level).label} ({'; '.join(evidence)})")
    return ids, notes


def _call(tables: Tables, ids: Sequence[str], call_id: str, point: str, messages: pl.DataFrame,
          legs: tuple[str, ...]) -> Ladder:
    from netdiag.render.frames import sdp_notes, sip_text, with_lines
    captures, frames = tables.packets.locate(messages["packet"].to_list())
    notes = sdp_notes(tables, messages["packet"].to_list())
    steps = []
    for m, frame in zip(with_lines(tables, messages).to_dicts(), frames.tolist(), strict=True):
        key = (m["source"], m["source_port"], m["destination"], m["destination_port"], m["method"], m["status"],
               m["cseq"], m["cseq_method"], m["branch"], m["to_tag"], m["call_id"])
        label = m["method"] or sip_text(m).removesuffix(" (INVITE)")  # what most answers in a call belong to
        steps.append(_Raw(m["ts_ns"], (m["source"], m["source_port"]), (m["destination"], m["destination_port"]),
                          label, "; ".join(notes.get(m["message"], ())), frame, key))
    flows = messages["flow"].unique().to_list()
    streams = tables.rtp.filter(pl.col("call_id").is_in(list(ids)) & (pl.col("point") == point)).to_dicts()
    steps += [_stream(tables, s) for s in streams]
    errors = tables.icmp.filter(pl.col("quoted_flow").is_in([*flows, *{s["flow"] for s in streams}])).to_dicts()
    for e in errors:
        steps.append(_Raw(e["ts_ns"], (e["source"], 0), (e["destination"], 0), f"ICMP {e['name']}",
                          f"about port {e['quoted_destination_port']}" if e["quoted_destination_port"] else "",
                          int(tables.packets.locate([e["packet"]])[1][0]), ("icmp", e["source"], e["destination"],
                                                                           e["name"], e["quoted_destination_port"])))
    path = tables.captures[int(captures[0])].path if len(captures) else ""
    first = detail(tables, messages["message"][0])
    about = f"From {first.from_uri or '?'} to {first.to_uri or '?'}"
    return dataclasses.replace(_ladder(f"Call {call_id}", about, point, path, steps), notes=legs)


def _stream(tables: Tables, s: dict[str, Any]) -> _Raw:
    seconds = (s["last_ns"] - s["first_ns"]) / 1e9
    lost = f", {s['lost'] / s['expected']:.1%} lost" if s["expected"] and s["lost"] else ""
    codec = s["codec"].split("/")[0] or f"PT {s['payload_type']}"
    return _Raw(s["first_ns"], (s["source"], s["source_port"]), (s["destination"], s["destination_port"]),
                f"RTP {codec} {s['packets']:,} pkts", f"to {endpoint(s['destination'], s['destination_port'])}, "
                f"{words.duration(seconds)}{lost}", int(tables.packets.locate([s["first_packet"]])[1][0]), (), True)


def of_handshake(tables: Tables, handshake: int) -> Ladder | None:
    """The frames of one TLS handshake that the tables name; None when there is no such row."""
    found = tables.handshakes.filter(pl.col("handshake") == handshake).to_dicts()
    if not found:
        return None
    h = found[0]
    rows = [h[k] for k in ("client_hello_packet", "server_hello_packet", "certificate_packet",
                           "client_certificate_packet", "alert_packet", "close_packet") if h[k] is not None]
    rows += tables.alerts.filter(pl.col("handshake") == handshake)["packet"].to_list()
    for c in tables.tcp.filter(pl.col("connection") == h["connection"]).to_dicts():
        rows += c["syn_packets"] + ([c["syn_ack_packet"]] if c["syn_ack_packet"] is not None else [])
    return of_entries(f"TLS handshake {endpoint(h['client'], h['client_port'])} to "
                      f"{endpoint(h['server'], h['server_port'])}", timeline(tables, rows))


def of_entries(title: str, entries: Sequence[Entry]) -> Ladder | None:
    """Any frames as a ladder; those without addresses are left out. None when nothing remains."""
    from netdiag.render.frames import AGAIN
    known = [e for e in fold(entries) if e.source and e.destination]
    if not known:
        return None
    steps = []
    for e in known:
        label, again, _ = e.text.partition(AGAIN)
        ends = (e.source, e.source_port), (e.destination, e.destination_port)
        key = (*ends, label) if again or label == "TCP SYN" else ()
        steps.append(_Raw(e.ts_ns, *ends, label, e.note, e.frame, key, False, e.count, e.last_ns))
    return _ladder(title, "", known[0].point, known[0].path, steps)


@dataclass(frozen=True, slots=True)
class _Raw:
    """A step before it is known whether a host needs its port to be told from itself."""

    ts_ns: int
    source: tuple[str, int]
    destination: tuple[str, int]
    label: str
    note: str
    frame: int
    key: tuple[object, ...]
    media: bool = False
    count: int = 1
    last_ns: int = 0


def _ladder(title: str, about: str, point: str, path: str, raw: Iterable[_Raw]) -> Ladder:
    ordered = sorted(raw, key=lambda r: r.ts_ns)
    ported = any(r.source[0] == r.destination[0] for r in ordered)

    def host(where: tuple[str, int]) -> str:
        return endpoint(*where) if ported else where[0]

    steps: list[Step] = []
    first: dict[tuple[object, ...], int] = {}
    for r in ordered:
        if r.key and r.key in first:
            old = steps[first[r.key]]
            steps[first[r.key]] = dataclasses.replace(old, count=old.count + 1, last_ns=r.ts_ns)
            continue
        if r.key:
            first[r.key] = len(steps)
        steps.append(Step(r.ts_ns, host(r.source), host(r.destination), r.label, r.note, r.frame, r.key, r.count,
                          r.last_ns or r.ts_ns, r.media))
    hosts = list(dict.fromkeys(h for s in steps for h in (s.source, s.destination)))[:HOSTS]
    drawn = tuple(s for s in steps if s.source in hosts and s.destination in hosts)
    return Ladder(title, about, point, path, tuple(hosts), drawn, len(steps) - len(drawn))


def text(ladder: Ladder, width: int = 100) -> str:
    """The ladder in lines of at most ``width`` cells, or wider where many hosts need it. No final newline."""
    at = _columns(ladder, width)
    lines = [clip(plain(t), max(width, LABEL), CUT) for t in (ladder.title, ladder.about) if t]
    for note in ladder.notes:
        first, *rest = wrap(plain(note), max(width - NOTE, LEFT))
        lines += [first, *(" " * NOTE + line for line in rest)]
    if not ladder.steps:
        return "\n".join(lines)
    start = ladder.steps[0].ts_ns
    lines += [plain(f"Point {ladder.point}, {ladder.path}"), f"{words.utc(start)} UTC", "",
              *_hosts(ladder.hosts, at, width)]
    for step in ladder.steps:
        left = f"{words.clock(step.ts_ns)} {_delta(step.ts_ns - start)}"
        lines.append(f"{left:<{LEFT}}" + _arrow(step, ladder.hosts, at) + f" #{step.frame}")
        again = f"until {_delta(step.last_ns - start).strip()}" if step.count > 1 else ""
        for note in (t for t in (*step.note.split("; "), again) if t):
            lines.append(" " * LEFT + _beside(note, step, ladder.hosts, at, width))
    if ladder.left_out:
        lines.append(f"and {ladder.left_out} steps between more than {HOSTS} hosts")
    return "\n".join(line.rstrip() for line in lines)


def _delta(ns: int) -> str:
    return f"{'+' if ns >= 0 else '-'}{abs(ns) / 1e9:.3f}".rjust(10)


def _columns(ladder: Ladder, width: int) -> list[int]:
    """Where each host's line stands, from the right edge of the time."""
    gaps = max(1, len(ladder.hosts) - 1)
    frame = len(str(max((s.frame for s in ladder.steps), default=0))) + 3
    gap = (width - LEFT - frame - 1) // gaps
    return [i * max(SPAN_LEAST, min(SPAN_MOST, gap)) for i in range(len(ladder.hosts))]


def _hosts(hosts: Sequence[str], at: list[int], width: int) -> list[str]:
    """Names centred above their lines; one that would touch its neighbour goes a line lower."""
    rows: list[str] = []
    for host, column in zip(hosts, at, strict=True):
        name = plain(host)
        size = cell_len(name)
        start = max(0, min(LEFT + column - size // 2, max(width, LEFT + at[-1]) - size))
        for i, row in enumerate(rows):
            if cell_len(row) < start:
                rows[i] = row + " " * (start - cell_len(row)) + name
                break
        else:
            rows.append(" " * start + name)
    return [*rows, " " * LEFT + _rails(at)]


def _rails(at: list[int]) -> str:
    line = [" "] * (at[-1] + 1)
    for column in at:
        line[column] = "|"
    return "".join(line)


def _arrow(step: Step, hosts: Sequence[str], at: list[int]) -> str:
    """The rails with an arrow from source to destination, its label inside."""
    a, b = at[hosts.index(step.source)], at[hosts.index(step.destination)]
    rails = _rails(at)
    label = plain(step.label) + (f" x{step.count}" if step.count > 1 else "")
    if a == b:
        return rails[: a + 1] + f"< {clip(label, SPAN_LEAST - 4, CUT)} " + rails[a + 1 + SPAN_LEAST :]
    low, high = min(a, b), max(a, b)
    stroke = "=" if step.media else "-"
    room = high - low - 1
    if room - 5 < cell_len(label) < room:  # just fits without the stroke
        tight = label + stroke * (room - 1 - cell_len(label))
        return rails[: low + 1] + (f"{tight}>" if a < b else f"<{tight}") + rails[high:]
    shown = clip(label, room - 5, CUT)
    fill = room - 4 - cell_len(shown)
    body = f"{stroke} {shown} " + stroke * fill + ">" if a < b else f"<{stroke} {shown} " + stroke * fill
    return rails[: low + 1] + body + rails[high:]


def _beside(note: str, step: Step, hosts: Sequence[str], at: list[int], width: int) -> str:
    """The rails with a note under the arrow; a note that is too long for its span runs over the rails to its right."""
    low = min(at[hosts.index(step.source)], at[hosts.index(step.destination)])
    rails = _rails(at)
    shown = f"   {clip(plain(note), max(width - LEFT - low - 4, SPAN_LEAST), CUT)}"
    rest = rails[low + 1 + cell_len(shown) :]
    return rails[: low + 1] + shown + rest


def mermaid(ladder: Ladder, limit: int = 60) -> str:
    """A Mermaid ``sequenceDiagram``; steps beyond ``limit`` are counted in a last note."""
    lines = ["sequenceDiagram"]
    names = {host: f"h{i}" for i, host in enumerate(ladder.hosts)}
    lines += [f"    participant {name} as {for_mermaid(host)}" for host, name in names.items()]
    if names:
        lines += [f"    Note over h0: {for_mermaid(words.short(note, LABEL))}" for note in ladder.notes]
    for step in ladder.steps[:limit]:
        a, b = names[step.source], names[step.destination]
        arrow = "-)" if step.media else "-->>" if step.label[:1].isdigit() else "->>"
        again = f" ×{step.count} until {words.clock(step.last_ns)}" if step.count > 1 else ""
        lines.append(f"    {a}{arrow}{b}: {for_mermaid(words.short(step.label, LABEL))}{again} "
                     f"— {words.clock(step.ts_ns)}, frame {step.frame}")
        if step.note:
            over = a if a == b else ",".join(sorted((a, b), key=lambda n: int(n[1:])))
            lines.append(f"    Note over {over}: {for_mermaid(words.short(step.note, LABEL))}")
    rest = max(0, len(ladder.steps) - limit) + ladder.left_out
    if rest > 0 and names:
        lines.append(f"    Note over h0: and {rest} more steps")
    return "\n".join(lines)
