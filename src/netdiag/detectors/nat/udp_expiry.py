"""A NAT forgets a UDP mapping in a silence, and packets to the old port get lost until the client speaks again.

Seen from outside, a client goes on with the same SIP registration (AoR, Call-ID, Contact), from the same address and
*another source port*, after a silence in which requests to its old port were not answered. A NAT that drops its
mapping gives the next packet a new port. RFC 4787 REQ-5 asks for two minutes at least and recommends five; many
devices keep a UDP mapping for 30 or 60 s. Both ends of the bracket are reported: the longest silence after which the
mapping still held, and the shortest after which it had changed.

**What lifts the suspicion.** Several changes behind one NAT, all after longer silences than any that the NAT bore
(probable). A capture inside that shows the client's own port unchanged (confirmed): it is the only place that tells
the NAT from the client.

**What looks alike and is not it.** A client that opens a new socket: its Contact, its Call-ID, or the inside port
changes too. Another source address is another network (mobile handover, load sharing over lines), not a mapping. A
change without silence is a NAT that restarts or balances. If the same client's mapping bore a longer silence before,
it did not expire now. Where nothing was sent to the old port nothing was lost.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    not_applicable,
    number_of,
    seconds,
)
from netdiag.tables import Tables
from netdiag.tables.mappings import Flows, clients
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="NAT-UDP-EXPIRY",
    title="UDP mapping of a NAT expires in a silence",
    severity=Severity.HIGH,
    cases=("registration-outlives-nat-binding",),
    needs=("registrations", "transactions", "sip", "icmp"),
    references=(Reference("RFC 4787 §4.3, REQ-5, REQ-6"), Reference("RFC 5626 §4.4.2"),
                Reference("Linux nf_conntrack-sysctl: nf_conntrack_udp_timeout")),
    filter="sip && udp",
    mitigation="Let the server ping clients behind NAT (OPTIONS) at half the shortest timeout, so that they answer.",
    fix="Keep-alives by the client every 24 to 29 s (RFC 5626 §4.4.2), a longer UDP timer on the NAT, or TCP or TLS.",
    prevention="Measure the UDP timeout of each site, and test calls after a silence longer than it.",
    next_capture="Capture inside the NAT: does the client's own port stay the same while the outer one changes?",
    settings=(Setting("min_silence", 5, "s", "practice: device defaults begin at 30 s, laboratories use less"),),
    explains=("SIP-REG-NAT-EXPIRY", "SIP-INVITE-TIMEOUT"),
)

LATE_NS = 32_000_000_000
"""Requests to the old port for that long after the change count as well: 64 times T1 (RFC 3261 §17.1.1.2)."""
SHORT_S = 1.0
"""A NAT that bore less has shown nothing: what comes in a second is one exchange (practice)."""
DETAILED = 200
"""Clients whose frames are listed; the others of a flood are counted (practice)."""
KEY = ("point", "identity")


class _Change(NamedTuple):
    """One client's REGISTER from a new port."""

    row: dict[str, object]
    silence_s: float
    """From the client's last packet to the new REGISTER."""
    lost_s: float
    """From the client's last packet to the first packet that was lost at the old port."""
    frames: tuple[int, ...]
    """REGISTER, last packet, what was sent to the old port in vain, new REGISTER."""
    vain: int
    errors: int
    inside: tuple[int, ...] | None
    """Packets of these REGISTERs inside, from one port; None without such a capture."""
    where: str


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Clients that come back from another port after a silence in which packets to the old one were lost."""
    every = clients(tables)
    if not len(every):
        return not_applicable("no client registers over UDP in this capture")
    before = [pl.col(c).shift().over(KEY).alias("old_" + c) for c in (
        "source", "source_port", "contact_uri", "flow", "request_packet", "transaction", "call_id")]
    moved = every.with_columns(before).filter(
        (pl.col("old_source") == pl.col("source")) & (pl.col("old_source_port") != pl.col("source_port"))
        & (pl.col("old_contact_uri") == pl.col("contact_uri")) & (pl.col("old_call_id") == pl.col("call_id"))
        & ~pl.col("removes"))
    if not len(moved):
        return clear(f"{number_of(every['identity'].n_unique(), 'clients')} registered over UDP; each keeps its "
                     "address and port, or changes more than the port")
    flows, twins = Flows(tables), SipTwins(tables)
    held = _held(every, flows)
    times = Counter((row["point"], row["source"]) for row in moved.iter_rows(named=True)
                    if _rested(flows, row) >= settings["min_silence"])
    changes = [c for row in moved.iter_rows(named=True) if (c := _change(tables, flows, twins, row, held, settings))]
    if not changes:
        return clear(f"{number_of(len(moved), 'REGISTERs')} from a new port; none after a silence in which the old "
                     "one was lost")
    bore: dict[tuple[str, str], float] = {}
    for (point, source, _), longest in held.items():
        bore[point, source] = max(longest, bore.get((point, source), 0.0))
    lost: dict[tuple[str, str], float] = {}
    for c in changes:
        s = str(c.row["point"]), str(c.row["source"])
        lost[s] = min(c.lost_s, lost.get(s, c.lost_s))
    occurrences = []
    for i, c in enumerate(changes):
        s = str(c.row["point"]), str(c.row["source"])
        occurrences.append(_occurrence(tables, c, bore[s], lost[s], times[s], i < DETAILED))
    examined = Counter((source,) for source, _ in every.select("source", "aor").unique().iter_rows())
    return found(occurrences, population="clients", examined={(source,): n for (source,), n in examined.items()})


def _held(every: pl.DataFrame, flows: Flows) -> dict[tuple[str, str, str], float]:
    """Longest silence between two packets of each client from one port, seconds; by point, address and identity."""
    out: dict[tuple[str, str, str], float] = {}
    for point, source, identity, flow, packet in every.select(
            "point", "source", "identity", "flow", "request_packet").unique(["flow"], maintain_order=True).iter_rows():
        times = flows.of(flow, packet).out_ns
        longest = float(np.diff(times).max()) / 1e9 if len(times) > 1 else 0.0
        out[point, source, identity] = max(longest, out.get((point, source, identity), 0.0))
    return out


def _rested(flows: Flows, row: dict[str, object]) -> float:
    """Seconds from the client's last packet from the old port to its REGISTER from the new one."""
    quiet = flows.of(_number(row["old_flow"]), _number(row["old_request_packet"])).silence(_number(row["ts_ns"]))
    return quiet[0] if quiet else 0.0


def _change(tables: Tables, flows: Flows, twins: SipTwins, row: dict[str, object],
            held: dict[tuple[str, str, str], float], settings: dict[str, float]) -> _Change | None:
    old, now = _number(row["old_flow"]), _number(row["ts_ns"])
    traffic = flows.of(old, _number(row["old_request_packet"]))
    quiet = traffic.silence(now)
    if quiet is None or quiet[0] < settings["min_silence"]:
        return None
    begin = now - int(quiet[0] * 1e9)
    late = (traffic.in_ns > begin + _round_trip(traffic.in_ns, begin)) & (traffic.in_ns < now + LATE_NS)
    vain = traffic.into[late]
    if not len(vain):
        return None
    lost_s = (int(traffic.in_ns[late][0]) - begin) / 1e9
    if held.get((str(row["point"]), str(row["source"]), str(row["identity"])), 0.0) >= lost_s:
        return None
    errors = tables.icmp.filter((pl.col("quoted_flow") == old) & (pl.col("ts_ns") > begin))["packet"].to_list()
    inside, where = None, ""
    messages = tables.transactions["request_messages"].gather(
        [_number(row["old_transaction"]), _number(row["transaction"])]).explode()
    twin = twins.of(messages.to_list())
    # Under the same address no NAT is between the points: it stands before both, or there is none.
    twin = twin.filter(pl.col("source") != str(row["source"]))
    if len(twin):
        if twin["source_port"].n_unique() > 1:
            return None  # the client itself changed its port
        inside, where = tuple(twin["packet"].to_list()), str(twin["point"][0])
    frames = (_number(row["old_request_packet"]), quiet[1], *vain.tolist(), _number(row["request_packet"]), *errors[:3])
    return _Change(row, quiet[0], lost_s, frames, len(vain), len(errors), inside, where)


def _round_trip(times: np.ndarray[tuple[int], np.dtype[np.int64]], begin: int) -> int:
    """The answer to the client's own last packet comes within T1 (RFC 3261 §17.1.1.1) and is no attempt to reach it."""
    return 500_000_000 if ((times > begin) & (times <= begin + 500_000_000)).any() else 0


def _number(value: object) -> int:
    return int(str(value))


def _occurrence(tables: Tables, c: _Change, bore: float, lost: float, times: int, detailed: bool) -> Occurrence:
    row, source = c.row, str(c.row["source"])
    bracket = f"this NAT forgot a mapping within {seconds(lost)} of silence"
    if bore >= lost:
        bracket += f", and kept another one over {seconds(bore)}: its timers differ, or it was no timer"
    elif bore >= SHORT_S:
        bracket = f"this NAT bore {seconds(bore)} of silence and no longer {seconds(lost)}"
    reasons = [f"port {row['old_source_port']} became {row['source_port']} after {seconds(c.silence_s)} without a "
               "packet of the client, with the same Call-ID and Contact",
               f"{number_of(c.vain, 'packets')} to the old port got lost, the first after {seconds(c.lost_s)} of that "
               "silence"]
    confidence = Confidence.SUSPECTED
    if times > 1 and bore < lost:
        confidence = Confidence.PROBABLE
        reasons.append(f"{times} changes of a port after a silence behind this address; {bracket}")
    if c.inside is not None:
        confidence = Confidence.CONFIRMED
        reasons.append(f"at {c.where} the client's own port stays the same")
    if c.errors:
        reasons.append(f"{c.errors} ICMP errors about the old port")
    return Occurrence(
        subject=str(row["aor"]), group=(source,),
        summary=f"{row['aor']} moved from {source}:{row['old_source_port']} to port {row['source_port']} after "
                f"{seconds(c.silence_s)} of silence; {bracket}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence((*c.frames, *(c.inside or ())), {
            "sip.aor": str(row["aor"]), "source.ip": source, "nat.silence_s": round(c.silence_s, 3)})
        if detailed else (),
        scope={"source.ip": source}, flows=(_number(row["old_flow"]), _number(row["flow"])),
        keys=frozenset({f"aor:{row['aor']}", f"host:{source}"}), absence=c.inside is None and not c.errors,
        start_ns=_number(row["ts_ns"]) - int(c.silence_s * 1e9), end_ns=_number(row["ts_ns"]), alternatives=(
            Alternative("the client opened a new socket, for example after a restart", "from outside it looks the same",
                        f"at {c.where} its port is the same" if c.inside else "Call-ID and Contact go on unchanged"),))
