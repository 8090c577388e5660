"""``netdiag evidence --bundle``: the cut captures hold exactly the cited frames, and nothing is overwritten."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path

import pytest
from checkout import ROOT, PcapWriter, udp_frame

from netdiag import cli
from netdiag.errors import NetdiagError
from netdiag.model import Evidence, Finding
from netdiag.render import bundle
from netdiag.tables.reader import open_captures

CASE = ROOT / "captures" / "samples" / "cases" / "registration-outlives-nat-binding"
INSIDE, OUTSIDE = CASE / "broken.inside.pcap", CASE / "broken.outside.pcap"
Record = tuple[int, int, bytes]
"""Time in ns, length on the wire, bytes."""


def records(path: Path) -> tuple[int, list[Record]]:
    """Link type and records of a classic pcap, read by hand."""
    data = path.read_bytes()
    order, unit = {b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xd4\xc3\xb2\xa1": ("<", 1000)}[data[:4]]
    out, at = [], 24
    while at < len(data):
        second, part, captured, wire = struct.unpack(order + "IIII", data[at : at + 16])
        out.append((second * 10**9 + part * unit, wire, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return struct.unpack(order + "I", data[20:24])[0], out


def numbers(text: str) -> list[int]:
    """"3–5" as [3, 4, 5]."""
    first, _, last = text.partition("–")
    return list(range(int(first), int(last or first) + 1))


def mapping(text: str) -> dict[tuple[str, int], tuple[str, int]]:
    """(capture of the bundle, frame) to (original, frame), from the table of evidence.md."""
    table = text.partition("### Captures of this bundle")[2]
    out = {}
    for _, name, mine, path, theirs in re.findall(r"^\| (\S+) \| `(.*?)` \| ([\d–]+) \| `(.*?)` \| ([\d–]+) \|$", table,
                                                  re.MULTILINE):
        for a, b in zip(numbers(mine), numbers(theirs), strict=True):
            assert (name, a) not in out
            out[name, a] = (path, b)
    return out


@pytest.mark.parametrize("packed", [False, True])
def test_the_cut_captures_hold_the_cited_frames(packed: bool, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    paths = {"inside": INSIDE, "out/side": OUTSIDE}
    if packed:
        paths = {n: tmp_path / f"{p.name}.gz" for n, p in paths.items()}
        (tmp_path / f"{INSIDE.name}.gz").write_bytes(gzip.compress(INSIDE.read_bytes()))
        (tmp_path / f"{OUTSIDE.name}.gz").write_bytes(gzip.compress(OUTSIDE.read_bytes()))
    where = tmp_path / "a" / "bundle"
    points = [x for name, path in paths.items() for x in ("--point", f"{name}={path}")]
    assert cli.run(["evidence", *points, "--bundle", str(where)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{where}: wrote evidence.md, report.json, inside.pcap, out_side.pcap" in said.err
    assert sorted(p.name for p in where.iterdir()) == ["evidence.md", "inside.pcap", "out_side.pcap", "report.json"]

    document = json.loads((where / "report.json").read_text())
    cited = {(e["path"], n) for f in document["findings"] for e in f["evidence"] for n in e["frames"]}
    assert len(cited) > 10
    text = (where / "evidence.md").read_text(encoding="utf-8")
    assert text.startswith("## Evidence")
    same = mapping(text)
    assert set(same.values()) == cited
    originals = {str(path): records(plain) for path, plain in zip(paths.values(), (INSIDE, OUTSIDE), strict=True)}
    for name, path in (("inside.pcap", paths["inside"]), ("out_side.pcap", paths["out/side"])):
        link, cut = records(where / name)
        original_link, original = originals[str(path)]
        assert link == original_link
        assert [(name, i) for i in range(1, len(cut) + 1)] == [key for key in same if key[0] == name]
        assert cut == [original[same[name, i][1] - 1] for i in range(1, len(cut) + 1)]


def test_the_cut_capture_can_be_analysed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "bundle"
    cli.run(["evidence", "--point", f"inside={INSIDE}", "--point", f"outside={OUTSIDE}", "--bundle", str(where)])
    capsys.readouterr()
    assert cli.run(["analyze", str(where / "outside.pcap"), "--format", "json", "--fail-on", "never"]) == 0
    read, = json.loads(capsys.readouterr().out)["captures"]
    assert (read["frames"], read["complete"]) == (len(records(where / "outside.pcap")[1]), True)
    assert read["decoded"] == read["frames"] > 10


def test_only_the_chosen_finding(tmp_path: Path) -> None:
    where = tmp_path / "bundle"
    assert cli.run(["evidence", "--point", f"inside={INSIDE}", "--point", f"outside={OUTSIDE}",
                    "--finding", "SIP-INVITE-TIMEOUT", "--bundle", str(where)]) == 0
    document = json.loads((where / "report.json").read_text())
    assert {f["pattern"] for f in document["findings"] if not f["pattern"].startswith("CAP-")} == {"SIP-INVITE-TIMEOUT"}
    known = {f["id"] for f in document["findings"]}
    assert all({i["mechanism"], *i["impacts"]} <= known for i in document["incidents"])


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    for directory in (tmp_path, tmp_path / "mine"):
        assert cli.run(["evidence", str(INSIDE), "--bundle", str(directory)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"netdiag: --bundle {directory}: ")
        assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert cli.run(["evidence", str(INSIDE), "--bundle", str(tmp_path / "empty")]) == 0
    assert cli.run(["evidence", str(INSIDE), "--bundle", str(tmp_path / "x"), "-o", str(tmp_path / "y")]) == 2
    assert cli.run(["evidence", str(INSIDE), "--bundle", ""]) == 2


def test_nothing_to_cite(pcap: PcapWriter, tmp_path: Path) -> None:
    where = tmp_path / "bundle"
    assert cli.run(["evidence", str(pcap([(10**18, udp_frame())])), "--bundle", str(where)]) == 0
    assert sorted(p.name for p in where.iterdir()) == ["evidence.md", "report.json"]
    assert "No frame is cited" in (where / "evidence.md").read_text()


def finding(*evidence: Evidence) -> Finding:
    import sys
    sys.path.insert(0, str(ROOT / "tests" / "render"))
    from report_example import finding as made
    return made(evidence=evidence)


def test_names_of_points_become_safe_and_stay_apart() -> None:
    taken: set[str] = set()
    names = [bundle._name(point, None, taken) for point in
             ("../../etc/x", "a b", "a/b", "A_B", "..", "ü", "-rf", "x" * 300)]
    assert names == ["etc_x.pcap", "a_b.pcap", "a_b-2.pcap", "A_B-3.pcap", "point.pcap", "point-2.pcap", "rf.pcap",
                     "x" * 60 + ".pcap"]


def test_times_lengths_and_cut_frames_are_kept(pcap: PcapWriter, tmp_path: Path) -> None:
    """Nanoseconds, a snap length, big-endian input, two rotated files, and numbers that no file has."""
    start = 1_790_000_000_123_456_789
    frames = [(start + i, udp_frame(payload=bytes([i]) * 100)) for i in range(6)]
    first = pcap(frames[:3], order=">", snaplen=60)
    second = pcap(frames[3:], snaplen=60)
    tables = open_captures([str(second), str(first)])
    cut, = bundle.cut(tables, [finding(Evidence("capture", str(first), (2, 3, 99), ""),
                                       Evidence("capture", str(second), (1, 3), ""))])
    bundle._save(tmp_path / "out.pcap", cut)
    _, got = records(tmp_path / "out.pcap")
    assert got == [(t, len(f), f[:60]) for t, f in (frames[1], frames[2], frames[3], frames[5])]
    assert [line.split(" | ")[2:] for line in bundle._mapping(tables, [cut]) if line.startswith("| capture |")] == [
        ["1–2", f"`{first}`", "2–3 |"], ["3", f"`{second}`", "1 |"], ["4", f"`{second}`", "3 |"]]


def block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def pcapng(path: Path, ticks: int) -> Path:
    """Interface 0 is BSD loopback in ns, interface 1 Ethernet in µs; a custom block is frame 2."""
    null = struct.pack("<I", 2) + udp_frame()[14:]
    ethernet = udp_frame(dst="198.51.100.9")
    nanoseconds = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)
    path.write_bytes(
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 0, 0, 0) + nanoseconds)
        + block(6, struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(null), 500) + null)
        + block(0x0BAD, struct.pack("<I", 0) + b"text")
        + block(1, struct.pack("<HHI", 1, 0, 0))  # between frames: they are indexed in two batches
        + block(6, struct.pack("<IIIII", 1, *divmod(1_790_000_000_000_001, 1 << 32), len(ethernet), len(ethernet))
                + ethernet))
    return path


def test_link_types_get_a_capture_each(tmp_path: Path) -> None:
    path = pcapng(tmp_path / "x.pcapng", 1_790_000_000_000_000_007)
    cuts = bundle.cut(open_captures([str(path)]), [finding(Evidence("capture", str(path), (1, 2, 3), ""))])
    assert [(c.name, [f.number for f in c.frames]) for c in cuts] == [
        ("capture.link0.pcap", [1]), ("capture.link1.pcap", [3])]
    for one in cuts:
        bundle._save(tmp_path / one.name, one)
    assert records(tmp_path / cuts[0].name) == (
        0, [(1_790_000_000_000_000_007, 500, struct.pack("<I", 2) + udp_frame()[14:])])
    assert records(tmp_path / cuts[1].name)[1] == [
        (1_790_000_000_000_001_000, len(udp_frame()), udp_frame(dst="198.51.100.9"))]


def test_a_time_that_pcap_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = pcapng(tmp_path / "x.pcapng", (1 << 32) * 10**9)
    with pytest.raises(NetdiagError, match=r"frame 1 of .*x\.pcapng has a time outside 1970 to 2106"):
        bundle.cut(open_captures([str(path)]), [finding(Evidence("capture", str(path), (1,), ""))])
