"""Timeline, ladder and evidence of a capture made byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_call import CALL_ID, GATEWAY, PHONE, SERVER, START, call, lost_syn, write
from rich.cells import cell_len

from netdiag.model import Evidence
from netdiag.render import ladder
from netdiag.render.timeline import fold, packet_rows, timeline
from netdiag.tables import Tables
from netdiag.tables.packets import FileMap
from netdiag.tables.reader import open_captures


@pytest.fixture
def made(tmp_path: Path) -> Tables:
    return open_captures([write(tmp_path / "call.pcap", call())])


@pytest.fixture
def points(tmp_path: Path) -> Tables:
    return open_captures([], [("a", write(tmp_path / "a.pcap", call())), ("b", write(tmp_path / "b.pcap", lost_syn()))])


def test_rows_are_the_inverse_of_locate(points: Tables) -> None:
    rows = np.array([0, 3, 108, 109, 113])
    capture, frame = points.packets.locate(rows)
    evidence = [Evidence(points.captures[c].point, points.captures[c].path, (f,), "")
                for c, f in zip(capture.tolist(), frame.tolist(), strict=True)]
    assert packet_rows(points, evidence) == rows.tolist()


def test_rows_of_files_whose_frames_are_interleaved(points: Tables) -> None:
    files = points.packets.files
    total = points.packets.n
    points.packets.files = FileMap(files.capture, files.point, files.start, total,
                                   (np.arange(total) % 2).astype(np.uint16),
                                   (np.arange(total) // 2 + 1).astype(np.uint32))
    assert packet_rows(points, [Evidence("b", points.captures[1].path, (1, 3), "")]) == [1, 5]


def test_frames_that_do_not_exist_are_left_out(points: Tables) -> None:
    path = points.captures[0].path
    assert packet_rows(points, [Evidence("a", path, (0, 110, 10**9), ""), Evidence("a", "other", (1,), "")]) == []
    assert timeline(points, [-1, 10**9]) == []


def test_timeline_says_what_each_frame_is(made: Tables) -> None:
    told = {e.frame: (e.text, e.source, e.destination) for e in timeline(made, range(made.packets.n))}
    assert told[1] == ("INVITE sip:bob@b.example", PHONE, SERVER)
    assert told[4] == ("200 OK (INVITE)", SERVER, PHONE)
    assert told[6] == ("RTP PCMU, SSRC 0x0000abcd", PHONE, GATEWAY)
    assert told[107] == ("ICMP port unreachable", PHONE, GATEWAY)
    assert len(told) == 109


def test_notes_hold_what_belongs_to_the_frame(made: Tables) -> None:
    notes = {e.frame: e.note for e in timeline(made, range(made.packets.n))}
    assert notes[1] == f"SDP audio {PHONE}:4000 PCMU; Call-ID {CALL_ID}; CSeq 1"
    assert notes[2].endswith("sent again")
    assert notes[107] == f"about UDP {GATEWAY}:6000 to {PHONE}:4000"


def test_media_is_folded_and_messages_are_not(made: Tables) -> None:
    folded = fold(timeline(made, range(made.packets.n)))
    media = [e for e in folded if e.text.startswith("RTP")]
    assert [(e.source, e.count) for e in media] == [(PHONE, 50), (GATEWAY, 51)]
    assert media[1].last_ns == START + 2_300_000_000
    assert sum(e.text.startswith("INVITE") for e in folded) == 2


def test_syns_are_numbered_and_repeated_data_is_marked(tmp_path: Path) -> None:
    tables = open_captures([write(tmp_path / "syn.pcap", lost_syn())])
    entries = timeline(tables, range(5))
    assert [e.text for e in entries] == ["TCP SYN", "TCP SYN, sent again (1)", "TCP SYN, sent again (2)",
                                         "TCP data, 18 bytes", "TCP data, 18 bytes"]
    assert [e.note for e in entries[3:]] == ["seq 500", "seq 500; sent again"]


def test_a_table_that_fails_leaves_the_frame_in_the_timeline(made: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Tables):
        @property
        def sip(self) -> object:  # type: ignore[override]
            raise RuntimeError("broken")

    made.__class__ = Broken
    entry = timeline(made, [2])[0]
    assert (entry.frame, entry.text) == (3, "UDP, 262 bytes")


def test_ladder_of_a_call(made: Tables) -> None:
    drawn, = ladder.of_call(made, CALL_ID)
    assert drawn.hosts == (PHONE, SERVER, GATEWAY)
    assert [(s.label, s.count) for s in drawn.steps if not s.media] == [
        ("INVITE", 2), ("100 Trying", 1), ("200 OK", 1), ("ACK", 1), ("ICMP port unreachable", 1), ("BYE", 1),
        ("200 OK (BYE)", 1)]
    media = [s for s in drawn.steps if s.media]
    assert [(s.source, s.label) for s in media] == [(PHONE, "RTP PCMU 50 pkts"), (GATEWAY, "RTP PCMU 51 pkts")]
    assert drawn.steps[0].note == f"SDP audio {PHONE}:4000 PCMU"
    assert drawn.steps[0].frame == 1


@pytest.mark.parametrize("width", [80, 100, 120])
def test_ladder_text_fits_and_is_ascii(made: Tables, width: int) -> None:
    drawn, = ladder.of_call(made, CALL_ID)
    lines = ladder.text(drawn, width).splitlines()
    assert all(line.isascii() for line in lines)
    assert max(map(cell_len, lines[4:])) <= width


def test_ladder_lines_stand_in_columns(made: Tables) -> None:
    drawn, = ladder.of_call(made, CALL_ID)
    lines = ladder.text(drawn, 100).splitlines()
    rails = next(line for line in lines if set(line) == {" ", "|"})
    columns = [i for i, c in enumerate(rails) if c == "|"]
    assert len(columns) == 3
    arrows = [line for line in lines if "#" in line]
    assert len(arrows) == len(drawn.steps)
    assert all(line[columns[0]] in "|" and line[columns[-1]] == "|" for line in arrows)
    assert any("- INVITE x2 ---" in line and line.endswith("#1") for line in arrows)
    assert any("<- 200 OK -" in line for line in arrows)


def test_a_call_within_one_host_is_told_apart_by_port(tmp_path: Path) -> None:
    from made_call import sip, udp
    invite = udp("127.0.0.1", 5060, "127.0.0.1", 5070, sip("INVITE sip:b@b SIP/2.0"))
    path = write(tmp_path / "local.pcap", [(0.0, invite)])
    drawn, = ladder.of_call(open_captures([path]), CALL_ID)
    assert drawn.hosts == ("127.0.0.1:5060", "127.0.0.1:5070")


def test_mermaid_is_whole_and_hostile_text_ends_no_line(tmp_path: Path) -> None:
    from made_call import sip, udp
    bad = "x;y#z%%{init}<b>@h"
    path = write(tmp_path / "bad.pcap", [
        (0.0, udp(PHONE, 5060, SERVER, 5060, sip("INVITE sip:b@b SIP/2.0", call_id=bad))),
        (0.1, udp(SERVER, 5060, PHONE, 5060, sip("SIP/2.0 486 Busy; `here`", call_id=bad)))])
    drawn, = ladder.of_call(open_captures([path]), bad)
    text = ladder.mermaid(drawn)
    assert text.splitlines()[:3] == [
        "sequenceDiagram", f"    participant h0 as {PHONE}", f"    participant h1 as {SERVER}"]
    assert "h1-->>h0: 486 Busy#59; #96;here#96;" in text
    assert "Note over h0: and 1 more steps" in ladder.mermaid(drawn, 1)


def test_a_picture_does_not_grow_with_hostile_input(tmp_path: Path) -> None:
    from made_call import sip, udp
    many = [(i / 100, udp(f"10.0.{i // 200}.{i % 200 + 1}", 5060, SERVER, 5060,
                          sip(f"INVITE sip:{'b' * 2000}@b SIP/2.0", call_id="x" * 900))) for i in range(300)]
    drawn, = ladder.of_call(open_captures([write(tmp_path / "many.pcap", many)]), "x" * 900)
    assert len(drawn.hosts) == ladder.HOSTS
    assert len(drawn.steps) + drawn.left_out == 300
    text = ladder.text(drawn, 80)
    assert text.endswith(f"and {drawn.left_out} steps between more than 12 hosts")
    assert max(map(len, text.splitlines())) < 300
    assert max(map(len, ladder.mermaid(drawn).splitlines())) < 300


def test_no_ladder_for_an_unknown_call(made: Tables) -> None:
    assert ladder.of_call(made, "nobody") == []
    assert ladder.of_entries("x", []) is None
