"""What every detector promises, made from the registry: a new pattern gets these tests by being there."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zlib
from functools import cache, cached_property
from pathlib import Path

import pytest
import recipes
from checkout import ROOT, real_captures

from netdiag import cases, engine, registry
from netdiag.errors import CaptureError
from netdiag.model import Pattern, Report, Severity, Status
from netdiag.tables import Tables
from netdiag.tables.reader import open_captures

SAMPLES = list(recipes.samples())
HITS = [s for s in SAMPLES if s.hit]
MISSES = [s for s in SAMPLES if not s.hit]
PATTERNS = registry.patterns()


def name(sample: recipes.Sample) -> str:
    return f"{sample.pattern}-{sample.name}"


def report(paths: tuple[tuple[str, str], ...], select: tuple[str, ...] = ()) -> Report:
    points = [] if paths[0][0] == "" else list(paths)
    plain = [paths[0][1]] if paths[0][0] == "" else []
    return engine.analyze(open_captures(plain, points), select=select)


@cache
def of(sample: recipes.Sample, select: tuple[str, ...] = ()) -> Report:
    return report(tuple((point, str(path)) for point, path in sample.paths.items()), select)


@pytest.mark.parametrize("sample", SAMPLES, ids=name)
def test_recipe_reproduces_its_bytes(sample: recipes.Sample) -> None:
    made = sample.packets()
    assert sample.paths == {point: sample.path(point) for point in made}
    for point, packets in made.items():
        path = sample.path(point)
        assert recipes.encode(packets) == path.read_bytes(), f"run tests/recipes.py {sample.pattern}"
        assert path.stat().st_size < 200_000


def test_every_sample_has_a_recipe() -> None:
    written = {path for s in SAMPLES for path in s.paths.values()}
    assert set(recipes.SAMPLES.glob("*/*.pcap")) == written


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda p: p.id)
def test_pattern_has_hit_and_near_misses(pattern: Pattern) -> None:
    mine = [s for s in SAMPLES if s.pattern == pattern.id]
    assert any(s.hit for s in mine), "no hit sample"
    assert any(not s.hit for s in mine), "no near miss"
    for sample in mine:
        if not sample.hit:
            doc = sample.make.__doc__ or ""
            assert doc.startswith("Condition:"), f"{sample.name}: say which condition it tests"


@pytest.mark.parametrize("sample", HITS, ids=name)
def test_hit_is_found_with_exactly_the_stated_frames_and_nothing_else_is(sample: recipes.Sample) -> None:
    allowed = {sample.pattern, *PATTERNS[sample.pattern].explains, *getattr(sample.module, "ALSO", ())}
    assert {f.pattern for f in of(sample).findings if not PATTERNS[f.pattern].gate} <= allowed
    assert [o for o in of(sample).outcomes if o.status is Status.ERROR] == []
    found = [f for f in of(sample).findings if f.pattern == sample.pattern]
    assert found, [o for o in of(sample).outcomes if o.pattern == sample.pattern]
    stated = sample.frames
    assert stated is not None, "the recipe must state the frames in HIT_FRAMES"
    if isinstance(stated, dict):
        cited = {e.point: sorted(e.frames) for f in found for e in f.evidence}
        assert cited == stated
    else:
        assert sorted({n for f in found for e in f.evidence for n in e.frames}) == stated


@pytest.mark.parametrize("sample", MISSES, ids=name)
def test_near_miss_ends_clear(sample: recipes.Sample) -> None:
    outcome = next(o for o in of(sample, (sample.pattern,)).outcomes if o.pattern == sample.pattern)
    allowed = {Status.CLEAR} | ({Status.INCONCLUSIVE} if "inconclusive" in sample.name else set())
    assert outcome.status in allowed, outcome


@pytest.mark.parametrize("sample", HITS, ids=name)
def test_cutting_the_capture_anywhere_never_raises(sample: recipes.Sample, tmp_path: Path) -> None:
    for point, source in sample.paths.items():
        whole = source.read_bytes()
        # Six places a sample, others in each: together the samples are cut at all kinds of places.
        step = max(1, len(whole) // 6)
        for size in range(25 + zlib.crc32(name(sample).encode()) % step, len(whole), step):
            path = tmp_path / f"{point or 'cut'}.pcap"
            path.write_bytes(whole[:size])
            try:
                result = engine.analyze(open_captures([str(path)]), select=[sample.pattern])
            except CaptureError:
                continue
            assert not [o for o in result.outcomes if o.status is Status.ERROR], size
            assert result.captures[0].complete is (result.captures[0].damage == "")


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda p: p.id)
def test_metadata_is_complete_and_the_same_when_imported(pattern: Pattern) -> None:
    entry = registry.get(pattern.id)
    module = importlib.import_module(entry.module)
    assert pattern == module.PATTERN
    assert len(entry.page) > 400
    assert pattern.references
    for text in (pattern.title, pattern.filter, pattern.mitigation, pattern.fix, pattern.prevention,
                 pattern.next_capture):
        assert text.strip() == text != ""
    assert isinstance(pattern.severity, Severity)
    for need in pattern.needs:
        assert need in TABLES, f"unknown table {need}"
    for setting in pattern.settings:
        assert setting.source
    lines = entry.path.read_text().count("\n")
    assert lines < 260, f"{entry.path}: {lines} lines"


TABLES = {"packets"} | {n for n, v in vars(Tables).items() if isinstance(v, cached_property | property)}


def recording(touched: set[str]) -> type[Tables]:
    """``Tables`` that note which of them a detector asks for."""

    class Recording(Tables):
        def __getattribute__(self, name: str) -> object:
            if name in TABLES and sys._getframe(1).f_globals["__name__"].startswith("netdiag.detectors."):
                touched.add(name)
            return super().__getattribute__(name)

    return Recording


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda p: p.id)
def test_a_detector_reads_no_more_tables_than_it_names(pattern: Pattern) -> None:
    for sample in (s for s in HITS if s.pattern == pattern.id):
        paths = sample.paths
        named = [(point, str(path)) for point, path in paths.items() if point]
        tables = open_captures([] if named else [str(paths[""])], named)
        touched: set[str] = set()
        tables.__class__ = recording(touched)
        registry.detector(pattern.id)(tables, registry.settings(pattern, {}))
        # Any may look up the packets of a row; naming them says that it looks for its traffic among them.
        assert touched <= {*pattern.needs, "packets"}, sample.name


@pytest.mark.parametrize("family", ["cap/clock.hit", "fw/reject.hit", "sip/options_flap.hit", "rtp/loss.hit",
                                    "tls/ca_unknown.hit"])
def test_what_the_engine_passes_over_its_detector_would_not_apply_to(family: str) -> None:
    tables = open_captures([str(recipes.SAMPLES / f"{family}.pcap")])
    for pattern in PATTERNS.values():
        if engine._absent(pattern, tables):
            detection = registry.detector(pattern.id)(tables, registry.settings(pattern, {}))
            assert detection.status is Status.NOT_APPLICABLE, pattern.id


def test_patterns_and_cases_name_each_other() -> None:
    known = cases.all_cases()
    for pattern in PATTERNS.values():
        for slug in pattern.cases:
            assert slug in known, f"{pattern.id} names the case {slug}, which does not exist"
            assert pattern.id in known[slug].patterns, f"case {slug} does not list {pattern.id}"
    for slug, case in known.items():
        for pattern_id in case.patterns:
            assert pattern_id in PATTERNS, f"case {slug} lists {pattern_id}, which does not exist"
            assert slug in PATTERNS[pattern_id].cases, f"{pattern_id} does not name the case {slug}"


@pytest.mark.tshark
@pytest.mark.parametrize("sample", HITS, ids=name)
def test_tshark_shows_the_frames_with_the_filter(sample: recipes.Sample) -> None:
    assert shutil.which("tshark"), "tshark is needed: make install-system"
    stated = sample.frames
    pattern = PATTERNS[sample.pattern]
    shown: dict[str, list[int]] = {}
    for point, path in sample.paths.items():
        out = subprocess.run(["tshark", "-r", str(path), "-Y", pattern.filter, "-T", "fields", "-e", "frame.number"],
                             capture_output=True, text=True, check=True)
        shown[point] = [int(x) for x in out.stdout.split()]
    wanted = stated if isinstance(stated, dict) else {"": stated or []}
    assert any(set(wanted[p]) & set(shown.get(p, [])) for p in wanted), (wanted, shown)


LEDGER = ROOT / "tests" / "accepted_alarms.tsv"


def ledger() -> dict[tuple[str, str], str]:
    """(capture, pattern) to the reason why the alarm is accepted."""
    out = {}
    for line in LEDGER.read_text().splitlines()[1:]:
        capture, pattern, reason = line.split("\t")
        assert len(reason) > 20, line
        out[capture, pattern] = reason
    return out


@pytest.mark.parametrize("path", real_captures(), ids=lambda p: p.name)
def test_alarms_on_real_captures_are_signed_for(path: Path) -> None:
    result = report((("", str(path)),))
    assert [o for o in result.outcomes if o.status is Status.ERROR] == []
    accepted = ledger()
    fired = {(path.name, f.pattern) for f in result.findings}
    assert fired == {key for key in accepted if key[0] == path.name}


def test_ledger_has_no_leftovers(real: Path) -> None:
    present = {p.name for p in real_captures()}
    for capture, pattern in ledger():
        assert capture in present
        assert pattern in PATTERNS
