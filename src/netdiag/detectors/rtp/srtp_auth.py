"""SRTP packets do not fit the key that their receiver was told: it drops them all, and the meters look perfect.

Each SRTP packet ends with a tag that only somebody with the key can make, and a receiver must drop a packet whose tag
does not fit (RFC 3711 §3.3). With SDES each side writes the key of its own packets into its description (RFC 4568
§6.1); where those descriptions are readable here, or a key log gives the keys of DTLS-SRTP (RFC 5764 §4.2), the tags
of a sample of packets are computed. If they fit no roll-over counter from 0 to 15, the receiver hears silence, or
noise if it does not check. Then all other keys that were captured are tried: the one that fits tells who mixed them
up: the line of another branch of a fork, of another leg, of the peer, the key before the last offer.

**What lifts the suspicion.** The tags are computed, not inferred: confirmed. A sender that keeps its old key after a
new one was agreed: probable, as the message with the new key may have got lost behind this point.

**What looks alike and is not it.** Both keys within two seconds of a change. Tags of 32 and of 80 bits, packets with a
key identifier (MKI), and suites with AES-GCM, each as agreed. UNENCRYPTED_SRTCP, which concerns RTCP alone.
UNAUTHENTICATED_SRTP, where no tag was agreed. A wrong roll-over counter (RTP-SRTP-ROC). Some packets with a wrong tag
among good ones: damage or injection. A new key that is used before its message is seen. Where tags fit, the verdict is
clear, and the keys are not what is wrong. Not judged are calls whose keys cannot be read, keys that are derived anew on
the way (KDR), packets captured in part, and RTCP. Never all packets are verified, but some thirty of each sender, and
more around each change.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from netdiag.detectors.rtp import _share
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
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.srtp import agreed

PATTERN = Pattern(
    id="RTP-SRTP-AUTH",
    title="SRTP keys disagree",
    severity=Severity.HIGH,
    cases=("srtp-keys-disagree",),
    needs=("srtp", "media", "rtp", "sip", "packets"),
    references=(Reference("RFC 3711 §3.3, §4.2"), Reference("RFC 4568 §6.1–6.3"), Reference("RFC 7714"),
                Reference("RFC 5764 §4.2")),
    filter="sdp.media_attr contains \"crypto\" || rtp || dtls.handshake",
    mitigation="Have the call re-keyed by a re-INVITE, or switch SRTP off on the leg where the key is changed.",
    fix="Let each element that terminates media answer with a key of its own for each leg and each branch.",
    prevention="Alarm on the count of authentication failures of media endpoints; test forks and transfers with SRTP.",
    next_capture="Signalling with keys (clear, or with the key log of its TLS sessions) and media, on the last hop to "
                 "the receiver.",
    settings=(Setting("min_packets", 5, "packets", "practice: a forged or damaged packet or two prove nothing"),
              Setting("min_failing", 80, "%", "practice: of the packets that were verified")),
    explains=("RTP-RTCP-REMOTE-LOSS", "RTP-TIMEOUT-BYE"),
)

DETAILED = 200
"""Stretches whose signalling is looked up (practice)."""
_TITLES = {
    "": "SRTP packets fit no key of the signalling", "old": "The sender keeps its old SRTP key",
    "same call": "The receiver was told another SRTP key than the sender uses",
    "other call": "The receiver was told another SRTP key than the sender uses",
    "other side": "A sender encrypts with its peer's SRTP key", "plain": "Plain RTP is sent where SRTP was agreed",
    "tag length": "SRTP tags have another length than was agreed",
    "key identifier": "SRTP packets lack the key identifier that was agreed",
}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Stretches of SRTP streams whose tags do not fit the key in force."""
    checked = tables.srtp
    if not checked.height:
        if agreed(tables):
            return inconclusive("SRTP was agreed, and none of its packets was captured", PATTERN.next_capture)
        return not_applicable("no SRTP was agreed in this capture")
    judged = checked.filter(pl.col("sampled") > 0)
    share = pl.when(pl.col("relation").is_in(["", "plain"])).then(pl.col("sampled") - pl.col("matched")).otherwise(
        pl.col("matched")) * 100 / pl.col("sampled")
    failing = judged.filter(~pl.col("relation").is_in(["agreed", "early"]), share >= settings["min_failing"])
    wrong = failing.filter(pl.col("sampled") >= settings["min_packets"])
    if wrong.height:
        ends = tables.rtp.select("stream", "flow", "ssrc", "source_port", "destination", "destination_port").join(
            _share.senders(tables), on="stream", maintain_order="left")
        each = judged.join(ends, on="stream").unique(["call_id", "ssrc", "host"])
        counts = dict(each.group_by("host").len().iter_rows())
        found_here = [_occurrence(tables, row, i < DETAILED) for i, row in enumerate(wrong.join(
            ends, on="stream", maintain_order="left").iter_rows(named=True))]
        examined = Counter({o.group: counts[o.group[1]] for o in found_here})
        return found(found_here, population="SRTP senders", examined=examined)
    open_ones = checked.filter(pl.col("sampled") == 0)
    notes = ", ".join(f"{n} not judged ({note})" for note, n in sorted(
        open_ones.group_by("note").len().iter_rows()))
    if not judged.height:
        return inconclusive(f"SRTP senders: {notes}", PATTERN.next_capture)
    fit, computed = (int(judged.filter(pl.col("relation").is_in(["agreed", "early"]))["matched"].sum()),
                     int(judged["sampled"].sum()))
    senders = judged["chain"].n_unique()
    if failing.height and not fit:
        return inconclusive(f"none of {number_of(int(failing['sampled'].sum()), 'tags')} that could be computed fits, "
                            f"fewer than {settings['min_packets']:g} of a sender: too few to judge by",
                            PATTERN.next_capture)
    return clear(f"{fit} of {computed} tags computed, of {senders} SRTP sender{'s'[: senders - 1]}, fit the keys that "
                 "were agreed" + (f"; besides, {notes}" if notes else ""))


def _occurrence(tables: Tables, row: dict[str, Any], detailed: bool) -> Occurrence:
    relation = row["relation"]
    seconds = (row["last_ns"] - row["first_ns"]) / 1e9
    told = f"the key of {_message(tables, row, 'key_packet')}" if detailed else "the key that was agreed"
    fails = row["sampled"] - row["matched"] if relation in ("", "plain") else row["matched"]
    reasons = [f"{fails} of {row['sampled']} tags computed do not fit {told} ({row['suite']}), with any roll-over "
               "counter from 0 to 15"]
    if row["used_packet"] is not None and detailed:
        used = _message(tables, row, "used_packet")
        reasons.append({
            "tag length": "they fit with a tag of another length",
            "key identifier": "they fit without a key identifier",
            "old": f"they fit the key before, of {used}",
        }.get(relation, f"they fit the key of {used}") + f", with roll-over counter {row['roc']}")
    elif relation == "plain":
        reasons.append("the packets are exactly as long as the codec makes them, without room for a tag")
    packets = [row["key_packet"], row["first_packet"], row["last_packet"]]
    if row["used_packet"] is not None:
        packets.append(row["used_packet"])
    return Occurrence(
        subject=str(row["call_id"] or f"{row['host']}:{row['source_port']} → {row['destination']}:"
                    f"{row['destination_port']}"),
        group=(relation, row["host"]),
        summary=f"{row['destination']} cannot authenticate what {row['host']} sends for {seconds:.1f} s: SSRC "
                f"0x{row['ssrc']:08x} does not fit {told}.",
        confidence=Confidence.PROBABLE if relation == "old" else Confidence.CONFIRMED, reasons=tuple(reasons),
        evidence=tables.evidence(packets, {
            "srtp.suite": row["suite"], "srtp.tags.computed": row["sampled"], "srtp.tags.failed": fails,
            "rtp.ssrc": f"0x{row['ssrc']:08x}", "sip.call_id": row["call_id"] or ""}),
        scope={"source.ip": row["host"], "destination.ip": row["destination"],
               "destination.port": row["destination_port"]},
        flows=(row["flow"],), keys=frozenset({f"call:{row['call_id']}"} if row["call_id"] else ()),
        start_ns=row["first_ns"], end_ns=row["last_ns"], title=_TITLES[relation],
        alternatives=(Alternative("a newer key was agreed in signalling that is not in the capture",
                                  "it takes another way, or was lost by the capture",
                                  "the key that fits is in the capture" if row["used_packet"] is not None
                                  else "no message between them is missing here that one knows of"),))


def _message(tables: Tables, row: dict[str, Any], column: str) -> str:
    """For example "the 200 from 192.0.2.1 in frame 9", with the call where it is another one."""
    capture, frame = tables.packets.locate([row[column]])
    point = f" at {tables.captures[int(capture[0])].point}" if len(tables.points) > 1 else ""
    where = f"frame {int(frame[0])}{point}"
    sip = tables.sip.filter(pl.col("packet") == row[column]).head(1)
    for method, status, source, call in sip.select("method", "status", "source", "call_id").iter_rows():
        return f"the {method or status} from {source} in {where}" + (f", call {call}" if call != row["call_id"] else "")
    return f"the DTLS handshake in {where}"
