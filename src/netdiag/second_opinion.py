"""A second opinion on findings: does tshark, an independent dissector, show the frames that they cite?

Asked through pyshark (extra ``tshark``), only for the cited frames and only when the user wants it. A file is
dissected up to its last cited frame: once for all patterns that cite different frames of it, once more for each
pattern that shares frames with another, and once for what their filters do not show. Each answer proves itself: what
the filters show and what their negations show must together be all that was asked for, or else it is no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netdiag import registry
from netdiag.errors import NetdiagError
from netdiag.model import Finding, Report, SecondOpinion

TOOL = "tshark"
TIMEOUT_S = 300.0
"""For one pass over one file (practice: tshark reads some 100,000 packets a second)."""
EXIT_S = 5.0
"""For tshark to exit when its output has ended (practice)."""
UNAVAILABLE = "second opinion not available"

# Layers up to IP: the frame was found by its number, so these say nothing.
_BELOW = frozenset({"ip", "ipv6"})
_WRAPPER = "fake-field-wrapper"
"""tshark's name for fields outside any protocol: no protocol."""


class _UnansweredError(NetdiagError):
    """tshark gave no usable answer on one file; the message says why."""


@dataclass(slots=True)
class _Answer:
    """What tshark says about one file."""

    shown: dict[str, set[int]] = field(default_factory=dict)
    """Pattern to the cited frames that its filter shows."""
    protocols: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Frame to the protocols above IP."""


def ask(report: Report, keylog: str | None = None, timeout_s: float = TIMEOUT_S,
        progress: Callable[[str], None] | None = None) -> Report:
    """``report`` with `SecondOpinion` on each finding; what was not to be had is a line of ``Report.notes``."""
    wanted = _wanted(report.findings)
    if not wanted:
        return report
    try:
        pyshark, program, version = _load()
    except NetdiagError as error:
        return dataclasses.replace(report, notes=(*report.notes, f"{UNAVAILABLE}: {error}"))
    filters = {i: p.filter for i, p in registry.patterns().items()}
    answers: dict[str, _Answer] = {}
    notes = []
    for path, cited in wanted.items():
        if progress:
            progress(f"asking {TOOL} about {path}")
        try:
            answers[path] = _File(pyshark, program, path, keylog, timeout_s).ask(cited, filters)
        except _UnansweredError as error:
            notes.append(f"{UNAVAILABLE} on {path}: {error}")
    findings = tuple(dataclasses.replace(f, second_opinion=_opinion(f, answers, version)) for f in report.findings)
    return dataclasses.replace(report, findings=findings, notes=(*report.notes, *notes))


def _wanted(findings: Iterable[Finding]) -> dict[str, dict[str, set[int]]]:
    """File to pattern to the frames it cites there."""
    out: dict[str, dict[str, set[int]]] = {}
    for f in findings:
        for e in f.evidence:
            if e.frames:
                out.setdefault(e.path, {}).setdefault(f.pattern, set()).update(e.frames)
    return out


def _opinion(finding: Finding, answers: Mapping[str, _Answer], version: str) -> SecondOpinion | None:
    cited = sorted({(e.path, n) for e in finding.evidence for n in e.frames if e.path in answers})
    if not cited:
        return None
    shown = sum(number in answers[path].shown[finding.pattern] for path, number in cited)
    protocols = dict.fromkeys(name for path, number in cited for name in answers[path].protocols[number])
    return SecondOpinion(TOOL, version, shown, len(cited), tuple(protocols))


def _load() -> tuple[Any, str, str]:
    """pyshark, the path of tshark and its version; NetdiagError, with the way out, when one is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pyshark
            from pyshark import config
            from pyshark.tshark.tshark import get_tshark_version
    except ImportError as error:
        raise NetdiagError(f"pyshark cannot be imported ({error}); install netdiag[tshark]") from None
    program = shutil.which(TOOL)
    if program is None:
        raise NetdiagError(f"{TOOL} is not installed or not on the PATH")
    # pyshark looks for a config.ini in the current directory; one that came with a capture must not choose what is run.
    config.fp_config_path = config.pyshark_config_path
    try:
        return pyshark, program, str(get_tshark_version(program))
    except Exception as error:  # whatever the program does when asked for its version
        raise NetdiagError(f"{program} does not say its version ({_line(error)})") from None


class _File:
    """One capture file, as tshark sees it."""

    def __init__(self, pyshark: Any, program: str, path: str, keylog: str | None, timeout_s: float) -> None:
        self.pyshark, self.program, self.path, self.timeout_s = pyshark, program, path, timeout_s
        self.preferences = {"tls.keylog_file": os.path.abspath(keylog)} if keylog else None

    def ask(self, cited: Mapping[str, set[int]], filters: Mapping[str, str]) -> _Answer:
        if self.path == "-" or not os.path.isfile(self.path):
            raise _UnansweredError("only a file can be read a second time; save it to one for that")
        answer = _Answer()
        troubles: list[str] = []
        for group in _disjoint(cited):
            found, trouble = self._show({p: cited[p] for p in group}, filters)
            troubles += [trouble] if trouble else []
            answer.protocols |= found
            for pattern in group:
                answer.shown[pattern] = cited[pattern] & set(found)
        missing = {p: frames - answer.shown[p] for p, frames in cited.items() if frames - answer.shown[p]}
        if missing:
            negated = {p: f"!({filters.get(p) or 'frame'})" for p in missing}
            # Several patterns may miss one frame: what it must fail is then all of their filters.
            found, trouble = self._show_all(missing, negated)
            troubles += [trouble] if trouble else []
            answer.protocols |= found
            if not set().union(*missing.values()) <= set(found):
                raise _UnansweredError(troubles[0] if troubles else "it did not read as far as the cited frames")
        return answer

    def _show(self, cited: Mapping[str, set[int]], filters: Mapping[str, str]
              ) -> tuple[dict[int, tuple[str, ...]], str]:
        return self._pass(" || ".join(f"({_numbers(n)} && ({filters.get(p) or 'frame'}))" for p, n in cited.items()),
                          max(max(n) for n in cited.values()))

    def _show_all(self, missing: Mapping[str, set[int]], negated: Mapping[str, str]
                  ) -> tuple[dict[int, tuple[str, ...]], str]:
        by_patterns: dict[tuple[str, ...], set[int]] = {}
        for number in sorted(set().union(*missing.values())):
            by_patterns.setdefault(tuple(p for p in missing if number in missing[p]), set()).add(number)
        clauses = [" && ".join([_numbers(n), *(negated[p] for p in patterns)]) for patterns, n in by_patterns.items()]
        return self._pass(" || ".join(f"({c})" for c in clauses), max(max(n) for n in missing.values()))

    def _pass(self, display_filter: str, last: int) -> tuple[dict[int, tuple[str, ...]], str]:
        """Frames that tshark shows with their protocols, reading up to frame ``last``; and what went wrong, or ""."""
        found: dict[int, tuple[str, ...]] = {}

        def keep(packet: Any) -> None:
            found[int(packet.number)] = _protocols(layer.layer_name for layer in packet.layers)

        trouble = ""
        loop = asyncio.new_event_loop()  # pyshark would take, and warn about, the one of the thread
        loop.set_debug(False)
        with warnings.catch_warnings():
            # What a tshark that had to be killed leaves behind is no business of the user.
            warnings.simplefilter("ignore")
            try:
                capture = _patient(self.pyshark.FileCapture)(
                    os.path.abspath(self.path), display_filter=display_filter, keep_packets=False, eventloop=loop,
                    tshark_path=self.program, override_prefs=self.preferences, custom_parameters=["-c", str(last)])
                try:
                    capture.apply_on_packets(keep, timeout=self.timeout_s)
                finally:
                    capture.close()
                trouble = capture.trouble
            except TimeoutError:
                trouble = f"no answer in {self.timeout_s:g} s"
            except Exception as error:  # of pyshark or of its XML parser: every bad byte may bring a new one
                trouble = _line(error)
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()
                del loop
                gc.collect()
        return found, trouble


def _patient(file_capture: Any) -> Any:
    """pyshark kills tshark as soon as its output ends, which hides the exit status and makes asyncio warn of a child
    that it no longer finds; this one lets it exit first. A bad exit is kept in ``trouble``: raised, it would be raised
    again when the object is deleted.
    """
    class Patient(file_capture):  # type: ignore[misc]
        trouble = ""

        async def _cleanup_subprocess(self, process: Any) -> None:
            if self._eof_reached and process.returncode is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), EXIT_S)
            try:
                await super()._cleanup_subprocess(process)
            except Exception as error:
                self.trouble = _line(error)

    return Patient


def _disjoint(cited: Mapping[str, set[int]]) -> list[list[str]]:
    """Patterns in groups that share no frame, so that one pass tells whose filter shows a frame."""
    groups: list[tuple[list[str], set[int]]] = []
    for pattern, frames in cited.items():
        for names, taken in groups:
            if not taken & frames:
                names.append(pattern)
                taken |= frames
                break
        else:
            groups.append(([pattern], set(frames)))
    return [names for names, _ in groups]


def _numbers(frames: Iterable[int]) -> str:
    """A filter for these frames; runs as ``a..b``, because one argument of a program has 128 KiB at most (Linux)."""
    runs: list[list[int]] = []
    for number in sorted(frames):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "frame.number in {" + ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs) + "}"


def _protocols(layers: Iterable[str]) -> tuple[str, ...]:
    """Names above the outermost IP header, each once; all names where there is none."""
    names = [str(name) for name in layers if name != _WRAPPER]
    start = next((i + 1 for i, name in enumerate(names) if name in _BELOW), 0)
    return tuple(dict.fromkeys(names[start:]))


def _line(error: BaseException) -> str:
    """The last line of an error: pyshark ends with advice, and tshark's own words stand after "Last error line"."""
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line.partition(":")[2].strip() for line in lines if line.startswith("Last error line:")), "")
    if said and set(said) <= {"^", "~"}:  # the mark below a display filter
        return "it does not understand the display filter"
    return said or (lines[0] if lines else type(error).__name__)
