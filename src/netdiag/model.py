"""What netdiag says: patterns, occurrences, findings, outcomes, incidents and the report.

Only frozen data; nothing here reads a capture. Times are int64 nanoseconds since the
Unix epoch (UTC), durations are float seconds, frame numbers are Wireshark's (from 1, per file).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args


class Severity(enum.IntEnum):
    """Impact if the finding is true."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        return self.name.lower()


class Confidence(enum.IntEnum):
    """How well the capture supports the finding; apart from its severity."""

    SUSPECTED = 0
    PROBABLE = 1
    CONFIRMED = 2

    @property
    def label(self) -> str:
        return self.name.lower()


class Status(enum.Enum):
    """What became of one pattern on one set of captures."""

    FOUND = "found"
    CLEAR = "clear"
    NOT_APPLICABLE = "not-applicable"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


Cap = Literal["absence", "size", "clock"]
"""What a finding may rest on that a gate calls into question: that something was not seen, sizes of segments and
packets, or times of different files and points compared with each other or with a date."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A number of a detector that the user may change with ``--set ID.name=value``."""

    name: str
    default: float
    unit: str
    """For example "packets", "s", "%"."""
    source: str
    """RFC with section, kernel or vendor default, or "practice"."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A public source that a pattern rests on."""

    title: str
    """For example "RFC 3261 §13.3.1.4"."""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Metadata of one failure pattern; the page is the docstring of its module."""

    id: str
    title: str
    severity: Severity
    cases: tuple[str, ...]
    """Slugs of the case studies that teach it."""
    needs: tuple[str, ...]
    """Names of the fact tables the detector reads; where all are empty, it does not apply and is not run."""
    references: tuple[Reference, ...]
    filter: str
    """Wireshark display filter that shows the pattern's frames."""
    mitigation: str
    """What to do now."""
    fix: str
    """The durable repair."""
    prevention: str
    next_capture: str
    """What to capture when the verdict is open."""
    settings: tuple[Setting, ...] = ()
    explains: tuple[str, ...] = ()
    """Ids of the patterns that are an impact of this one."""
    caps: tuple[Cap, ...] = ()
    """For CAP-* patterns: which findings they cap, by the fields of ``Occurrence`` with the same names."""

    def __post_init__(self) -> None:
        unknown = set(self.caps) - set(get_args(Cap))
        if unknown:
            raise ValueError(f"caps {sorted(unknown)}: there are {', '.join(get_args(Cap))}")

    @property
    def gate(self) -> bool:
        """It says what a capture could not have shown or shows wrongly: most cap others, and none is a fault itself."""
        return self.id.startswith("CAP-")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Frames of one capture file, seen at one capture point, that show a finding."""

    point: str
    path: str
    frames: tuple[int, ...]
    """Wireshark frame numbers in ``path``."""
    filter: str
    """Display filter that shows these frames."""
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    """ECS/Packetbeat-style names (``sip.call_id``, ``tls.alert``) to values."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another explanation of an incident, with what speaks for and against it."""

    title: str
    speaks_for: str
    speaks_against: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that a pattern was met: one call, one connection, one host. Detectors produce these."""

    subject: str
    """What failed, the same text at every capture point: a Call-ID, a five-tuple, a certificate."""
    group: tuple[str, ...]
    """What makes several occurrences one fault, e.g. the server's address."""
    summary: str
    """One sentence with the numbers that matter, for this occurrence alone."""
    confidence: Confidence
    reasons: tuple[str, ...]
    """Why that confidence: one clause per reason."""
    evidence: tuple[Evidence, ...]
    scope: Mapping[str, str | int | float]
    """What is affected, by ECS-style field names."""
    flows: tuple[int, ...] = ()
    """Flow ids (``flows.flow``) that it touches: findings are capped by the gates that share one of them.

    A gate that names no flow and has ``capture.point`` in its scope touches all that was seen at that point; with
    neither it caps nothing.
    """
    keys: frozenset[str] = frozenset()
    """Join keys for incidents: ``call:<Call-ID>``, ``flow:<end → end>``, ``host:<address>``, ``aor:<aor>``,
    ``ssrc:<hex>`` of what concerns single RTP streams, ``sender:<address>`` of what concerns all that a host sends."""
    more: int = 0
    """Further subjects of the group that it stands for, each with its flow in ``flows``: where a capture has hundreds
    of thousands of them, an account of each would take longer than the rest of the analysis."""
    absence: bool = False
    """The key fact is that something was not seen; gates that cap "absence" cap it at suspected."""
    size: bool = False
    """It rests on sizes of segments or packets; gates that cap "size" cap it at suspected."""
    clock: bool = False
    """It compares times of different files or points, or with a date; gates that cap "clock" cap it at probable."""
    constant: float | None = None
    """A duration in seconds that repeats when the cause is a timer; three equal ones lift the confidence once."""
    start_ns: int = 0
    end_ns: int = 0
    limitations: tuple[str, ...] = ()
    title: str = ""
    """Overrides the pattern's title when the occurrence knows it better."""
    severity: Severity | None = None
    """Overrides the pattern's severity."""
    alternatives: tuple[Alternative, ...] = ()
    """Other explanations that these packets leave open, with what speaks for and against each."""
    next_capture: str = ""
    """Overrides the pattern's next capture: what would settle this very case."""
    mitigation: str = ""
    """Overrides the pattern's, where what to do now depends on the kind of the fault."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What ``detect`` returns: a status with its reason, and the occurrences when the status is FOUND."""

    status: Status
    reason: str
    occurrences: tuple[Occurrence, ...] = ()
    examined: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """For each group, how many subjects could have shown the fault (the m of "n of m")."""
    population: str = "flows"
    """What is counted: "calls", "connections", "handshakes"."""
    next_capture: str = ""
    """For INCONCLUSIVE: what to capture next."""


def found(occurrences: tuple[Occurrence, ...] | list[Occurrence], *, population: str = "flows",
          examined: Mapping[tuple[str, ...], int] | None = None, reason: str = "") -> Detection:
    """The pattern was met at least once."""
    items = tuple(occurrences)
    if not items:
        raise ValueError("found() needs at least one occurrence")
    return Detection(Status.FOUND, reason or f"{sum(1 + o.more for o in items)} met", items, examined or {}, population)


def clear(reason: str) -> Detection:
    """The capture could have shown the fault, and does not."""
    return Detection(Status.CLEAR, reason)


def not_applicable(reason: str) -> Detection:
    """Nothing in the capture is of the kind that can have this fault."""
    return Detection(Status.NOT_APPLICABLE, reason)


def inconclusive(reason: str, next_capture: str) -> Detection:
    """The capture could not have shown it; ``next_capture`` says what would."""
    return Detection(Status.INCONCLUSIVE, reason, next_capture=next_capture)


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What an independent dissector says about the frames that a finding cites."""

    tool: str
    version: str
    frames_shown: int
    """Cited frames that it shows with the pattern's display filter."""
    frames_cited: int
    """Cited frames it was asked about: those of the files it could read."""
    protocols: tuple[str, ...]
    """Its names of the protocols above IP in all of these frames, in the order met."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Occurrences of one pattern with one cause, over all flows and capture points."""

    id: str
    pattern: str
    title: str
    severity: Severity
    confidence: Confidence
    reasons: tuple[str, ...]
    summary: str
    scope: Mapping[str, str | int | float]
    case: str
    """Slug of the case study, "" when none is linked."""
    evidence: tuple[Evidence, ...]
    affected: tuple[str, ...]
    """Subjects, the first ones first; ``affected_total`` of ``examined_total``."""
    affected_total: int
    examined_total: int
    population: str
    limitations: tuple[str, ...]
    mitigation: str
    fix: str
    prevention: str
    next_capture: str
    references: tuple[Reference, ...]
    keys: frozenset[str]
    start_ns: int
    end_ns: int
    alternatives: tuple[Alternative, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    second_opinion: SecondOpinion | None = None
    """None when nobody asked for one, or none was to be had."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pattern."""

    pattern: str
    status: Status
    reason: str
    next_capture: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One mechanism with its impacts."""

    id: str
    title: str
    severity: Severity
    confidence: Confidence
    mechanism: str
    """Id of the finding that is the mechanism."""
    impacts: tuple[str, ...]
    """Ids of the findings that follow from it."""
    alternatives: tuple[Alternative, ...]
    next_capture: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """Frame accounting of one capture file: ``frames == decoded + sum(skipped.values())``."""

    path: str
    point: str
    format: str
    sha256: str
    size: int
    frames: int
    decoded: int
    skipped: Mapping[str, int]
    """Reason to number of frames that no table uses, e.g. {"link type 105 (IEEE802_11)": 4}."""
    first_ns: int
    last_ns: int
    complete: bool
    """False when the file is cut or damaged; ``damage`` then says where."""
    damage: str = ""
    comments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Odd input that was met on the way: never an exception, never lost."""

    table: str
    reason: str
    count: int
    point: str
    path: str
    first_frame: int


@dataclass(frozen=True, slots=True)
class Report:
    """All that one analysis has to say."""

    version: str
    captures: tuple[CaptureSummary, ...]
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    incidents: tuple[Incident, ...]
    anomalies: tuple[Anomaly, ...]
    inventory: Mapping[str, int]
    """Counts that say what is in the capture: packets, SIP messages, calls, handshakes…"""
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How often calls, registrations, handshakes, connections and lookups did not succeed, by kind and by outcome."""
    at_ns: int | None = None
    """The time certificates were judged at, when the user gave one."""
    notes: tuple[str, ...] = ()
    """What else is to be known about this run, such as a second opinion that was not available."""

    @property
    def complete(self) -> bool:
        """False when a capture was damaged or a detector errored."""
        return all(c.complete for c in self.captures) and all(o.status is not Status.ERROR for o in self.outcomes)


def singular(noun: str) -> str:
    """"calls with a timer" is "call with a timer": the first word that ends in s, other than in ss, loses it."""
    words = noun.split(" ")
    for i, word in enumerate(words):
        if word.endswith("sses"):
            words[i] = word[:-2]
        elif word.endswith("s") and not word.endswith("ss"):
            words[i] = word[:-1]
        else:
            continue
        break
    return " ".join(words)


def number_of(n: int, nouns: str) -> str:
    """"1 answered call" and "12 answered calls" of "answered calls"."""
    return f"{n} {singular(nouns) if n == 1 else nouns}"


def times(n: int) -> str:
    """"once" and "12 times"."""
    return "once" if n == 1 else f"{n} times"


def seconds(s: float) -> str:
    """"0.25 s", "35.2 s" and "3700 s": three digits, and never a power of ten for a long time."""
    return f"{s:.0f} s" if s >= 100 else f"{s:.3g} s"


def stable_id(*parts: str) -> str:
    """Twelve hex digits that are the same for the same parts in every run."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]
