"""Captures read once from their start, through a window: what is found is what the file itself gives."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import random
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard
from checkout import ROOT, PcapWriter, real_captures, udp_frame

from netdiag import cli, engine
from netdiag.capture import interrupt, scratch, stream
from netdiag.capture.interrupt import Interrupts
from netdiag.capture.records import FileNotes, Records
from netdiag.capture.source import Source, Stream, open_source
from netdiag.capture.space import Space
from netdiag.decode import keep
from netdiag.decode.keep import MEDIA
from netdiag.errors import CaptureError
from netdiag.render import bundle
from netdiag.render import json as as_json
from netdiag.tables import intake
from netdiag.tables.excerpt import frames
from netdiag.tables.packets import CUT, KIND_RTP
from netdiag.tables.reader import open_captures

NS = 1_767_225_600_000_000_000
SAMPLES = sorted((ROOT / "captures" / "samples").glob("*/*.pcap*"))
STEP = 12
"""Every so many samples are compared here; all were when this was written, and each is small."""


def pack_lz4(data: bytes) -> bytes:
    packed: bytes = lz4.frame.compress(data, store_size=False, content_checksum=True)
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1), "zstd": zstandard.ZstdCompressor().compress, "xz": lzma.compress,
    "bzip2": lambda data: bz2.compress(data, 1), "lz4": pack_lz4,
}


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def pcapng(some: list[tuple[int, bytes]]) -> bytes:
    """Two sections of different byte order, the second with a custom block between its packets."""
    out = b""
    for order, mine in (("<", some[: len(some) // 3]), (">", some[len(some) // 3 :])):
        out += block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
        out += block(1, struct.pack(order + "HHI", 1, 0, 0) + struct.pack(order + "HH", 9, 1) + b"\x09\0\0\0", order)
        for i, (ts, frame) in enumerate(mine):
            head = struct.pack(order + "IIIII", 0, ts >> 32, ts & 0xFFFFFFFF, len(frame), len(frame))
            out += block(6, head + frame, order)
            out += block(0x0BAD, b"\0" * 4, order) if i == 5 else b""
    return out


def varied(n: int) -> list[tuple[int, bytes]]:
    """Frames of RTP, RTCP, SIP-like text and noise, of all lengths."""
    noise = random.Random(n)
    out = []
    for i in range(n):
        rtp = struct.pack(">BBHII", 0x80, 8, i & 0xFFFF, i * 160, 77) + noise.randbytes(noise.randrange(1200))
        rtcp = struct.pack(">BBHI", 0x80, 201, 1, 77) + noise.randbytes(200)
        text = b"OPTIONS sip:a@pbx.example SIP/2.0\r\nCall-ID: %d\r\n\r\n" % i
        payload = (rtp, rtp, rtcp, text, noise.randbytes(noise.randrange(1400)))[noise.randrange(5)]
        out.append((NS + i * 1_000_003, udp_frame(payload=payload, ident=i & 0xFFFF)))
    return out


def read_all(space: Space, extent: Any, notes: FileNotes) -> tuple[list[tuple[int, int, int, int, bytes]], list[int]]:
    """Every frame with its bytes, and the number of frames of each batch."""
    out, sizes = [], []
    for r in intake.batches(space, extent, notes, "x"):
        sizes.append(len(r.offset))
        out += [(t, w, k, c, space.read(o, c)) for t, w, k, c, o in zip(
            r.ts.tolist(), r.wire.tolist(), r.link.tolist(), r.captured.tolist(), r.offset.tolist(), strict=True)]
    return out, sizes


def through_windows(path: Path) -> tuple[list[tuple[int, int, int, int, bytes]], list[int], FileNotes]:
    source, notes = open_source(str(path)), FileNotes()
    assert source.stream
    space = Space([], stream.WINDOW)
    window = stream.Window(space, source.stream)
    window.refill(window.start)
    out = read_all(space, window, notes)
    source.close()
    return *out, notes


def straight(path: Path) -> tuple[list[tuple[int, int, int, int, bytes]], list[int], FileNotes]:
    source, notes = open_source(str(path)), FileNotes()
    space = Space([(source.fd, source.size)])
    out = read_all(space, space.extents[0], notes)
    source.close()
    return *out, notes


# --- windows


@pytest.mark.parametrize("fill", [70_000, 100_003, 400_000, 1 << 25])
@pytest.mark.parametrize("kind", ["pcap", "big-endian", "pcapng"])
def test_records_over_windows_are_those_of_the_file(kind: str, fill: int, pcap: PcapWriter, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    some = varied(1500)
    plain = tmp_path / "plain"
    plain.write_bytes(pcapng(some) if kind == "pcapng" else pcap(some, order=">" if kind[0] == "b" else "<")
                      .read_bytes())
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
    expected, _, notes = straight(plain)
    monkeypatch.setattr(stream, "FILL", fill)
    found, sizes, over = through_windows(packed)
    assert found == expected
    assert over == notes
    assert len(sizes) > 3 or fill > 300_000 or kind == "pcapng"
    assert len(expected) == 1500 + 2 * (kind == "pcapng")


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_cut_is_said_at_the_same_byte(kind: str, pcap: PcapWriter, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FILL", 70_000)
    data = pcap(varied(300)).read_bytes() if kind == "pcap" else pcapng(varied(300))
    for cut in (1, 9, 700, 1300):
        plain, packed = tmp_path / "plain", tmp_path / "packed"
        plain.write_bytes(data[:-cut])
        packed.write_bytes(gzip.compress(data[:-cut], 1))
        damage = straight(plain)[2].damage
        assert damage.startswith("cut in ")
        assert through_windows(packed)[2].damage == damage


def test_a_record_longer_than_a_window(pcap: PcapWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FILL", 1000)
    some = [(NS + i, udp_frame(payload=bytes([i]) * size)) for i, size in enumerate((10, 65_000, 1, 65_000, 9))]
    plain = pcap(some)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert through_windows(packed)[0] == straight(plain)[0]


def test_many_short_sections_cost_no_moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a step of its own, and must not move the rest of the window."""
    data = pcapng(varied(30))
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(data + block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) * 6_000, 1))
    monkeypatch.setattr(stream, "FILL", 1 << 16)
    moved: list[int] = []
    fill = Stream.fill
    monkeypatch.setattr(Stream, "fill", lambda self, view: moved.append(len(view)) or fill(self, view))
    found, _, notes = through_windows(packed)
    assert (len(found), notes.damage) == (32, "")
    assert len(moved) < 20


def test_what_is_kept_is_closed_up_without_a_byte_changed() -> None:
    """Frames at any alignment, cut anywhere, next to each other or not."""
    dice = random.Random(5)
    space = Space([], 1 << 20, 1 << 22)
    space.array[space.window.start : space.window.end] = np.frombuffer(dice.randbytes(space.window.size), np.uint8)
    kept = stream.Kept()
    expected, where, batches = [], [], []
    for _ in range(9):
        n, at = dice.randrange(1, 400), space.window.start + dice.randrange(9)
        offset, captured, sizes = [], [], []
        for _ in range(n):
            at += dice.choice([0, 0, 16, 16, 17])
            captured.append(dice.choice([0, 1, 7, 8, 60, 150, 214, 1400]))
            sizes.append(captured[-1] if dice.random() < 0.4 else dice.randrange(captured[-1] + 1))
            offset.append(at)
            at += captured[-1]
        records = Records(np.array(offset, np.int64), np.array(captured, np.uint32), np.array(captured, np.uint32),
                          np.arange(n, dtype=np.int64), np.full(n, 1, np.uint16))
        assert kept.fits(space, records)
        moved = kept.add(space, records, np.array(sizes, np.uint32))
        where += (records.offset + moved).tolist()
        expected += [space.read(o, s) for o, s in zip(offset, sizes, strict=True)]
        batches.append(sizes)
    place = kept.finish(space)
    kept.close()
    assert [space.read(at, len(e)) for at, e in zip(where, expected, strict=True)] == expected
    assert [r.captured.tolist() for r in place.records(space)] == batches
    assert [o for r in place.records(space) for o in r.offset.tolist()] == where
    total = sum(map(len, expected))
    assert place.size < total + len(expected) * (26 + 17 + 16) + 9 * 24


# --- the same findings


def judged(path: str) -> dict[str, Any]:
    """The report, without what says where it comes from."""
    report: dict[str, Any] = json.loads(as_json.render(engine.analyze(open_captures([path]))))
    for capture in report["captures"]:
        for name in ("sha256", "size", "format", "notes"):
            capture.pop(name, None)
    return report


def compare(paths: list[Path], tmp_path: Path, leave_out: frozenset[str] = frozenset()) -> None:
    for path in paths:
        reports = []
        for data in (path.read_bytes(), gzip.compress(path.read_bytes(), 1)):
            here = tmp_path / "capture.pcap"
            here.write_bytes(data)
            report = judged(str(here))
            for part in ("findings", "outcomes"):
                report[part] = [x for x in report[part] if x["pattern"] not in leave_out]
            reports.append(report)
        assert reports[1] == reports[0], path


@pytest.mark.parametrize("family", sorted({p.parent.name for p in SAMPLES}))
def test_samples_give_the_same_report(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without those whose SRTP tags are computed: of cut media too few packets are whole."""
    monkeypatch.setattr(stream, "FILL", 9000)
    monkeypatch.setattr(keep, "WHOLE", 0)
    compare([p for p in SAMPLES if p.parent.name == family and "srtp_auth" not in p.name][::STEP], tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_real_captures_give_the_same_report(whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where media is cut, checksums are looked at in fewer packets, so that other frames are cited."""
    paths = [p for p in real_captures() if p.suffix not in (".gz", ".zst")]
    if not paths:
        pytest.skip("no real captures")
    monkeypatch.setattr(stream, "FILL", 9000)
    if whole:
        compare([p for p in paths if "rtp" in p.name], tmp_path)
    else:
        monkeypatch.setattr(keep, "WHOLE", 0)
        compare(paths[::2] + [p for p in paths if "rtp" in p.name], tmp_path, frozenset({"CAP-OFFLOAD"}))


def test_streams_and_files_side_by_side(pcap: PcapWriter, tmp_path: Path) -> None:
    parts = [pcap(varied(60)[i : i + 20]) for i in (0, 20, 40)]
    packed = []
    for part in parts:
        packed.append(tmp_path / f"{part.name}.gz")
        packed[-1].write_bytes(gzip.compress(part.read_bytes()))
    whole = open_captures(map(str, parts))
    for mixed in ([packed[0], parts[1], packed[2]], [packed[0], packed[1], packed[2]]):
        tables = open_captures(map(str, mixed), [("other", str(packed[0]))])
        assert tables.packets.n == 80
        own = tables.packets.points(np.arange(80)) == 0
        for name in ("ts", "src", "sport", "wire", "kind"):
            assert (getattr(tables.packets, name)[own] == getattr(whole.packets, name)).all()
        for row, size in zip(np.flatnonzero(own).tolist(), range(60), strict=True):
            assert tables.packets.payload(row) == whole.packets.payload(size)[: int(tables.packets.length[row])]


# --- what is kept


@pytest.fixture
def media(pcap: PcapWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RTP of 1,000 bytes, RTCP of 300, and a datagram that is neither; nothing is kept for being at the start."""
    monkeypatch.setattr(keep, "WHOLE", 0)
    rtp = [struct.pack(">BBHII", 0x80, 96, i, i * 3000, 5) + bytes([i]) * 988 for i in range(40)]
    others = [struct.pack(">BBHI", 0x80, 200, 74, 5) + b"r" * 292, b"x" * 1000]
    path = tmp_path / "media.gz"
    path.write_bytes(gzip.compress(pcap([(NS + i * 1_000_000, udp_frame(payload=p, ident=i))
                                         for i, p in enumerate(rtp + others)]).read_bytes()))
    return path


def test_media_payload_is_cut_and_nothing_else(media: Path) -> None:
    tables = open_captures([str(media)])
    packets = tables.packets
    assert (packets.kind[:41] == KIND_RTP).all()
    assert packets.length.tolist() == [1000 if i in (15, 31) else MEDIA for i in range(40)] + [300, 1000]
    assert packets.wire.tolist() == [1000] * 40 + [300, 1000]
    assert not (packets.flags & CUT).any()
    assert packets.payload(7) == struct.pack(">BBHII", 0x80, 96, 7, 7 * 3000, 5) + b"\x07" * (MEDIA - 12)
    assert packets.payload(41) == b"x" * 1000
    assert [n for n in tables.captures[0].notes if "SRTP authentication" in n]
    assert tables.packets.space.extents[0].size < 40 * 200 + 5000


def test_the_start_of_a_stream_is_kept_whole(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "WHOLE", 1 << 20)
    tables = open_captures([str(media)])
    assert (tables.packets.length == tables.packets.wire).all()
    assert tables.captures[0].notes == ()


def test_frames_of_a_stream_can_be_cut_out(media: Path, tmp_path: Path) -> None:
    tables = open_captures([str(media)])
    found = frames(tables, 0, [1, 8, 42, 99])
    assert sorted(found) == [1, 8, 42]
    assert (found[8].captured, found[8].wire, found[8].ts_ns) == (42 + MEDIA, 1042, NS + 7_000_000)
    assert found[8].data == udp_frame(payload=struct.pack(">BBHII", 0x80, 96, 7, 21000, 5) + b"\x07" * 988,
                                      ident=7)[: 42 + MEDIA]
    assert found[42].data == udp_frame(payload=b"x" * 1000, ident=41)


def test_a_bundle_of_a_stream_says_that_media_is_cut(media: Path, tmp_path: Path) -> None:
    tables = open_captures([str(media)])
    report = engine.analyze(tables)
    bundle.write(str(tmp_path / "out"), tables, report, report.findings)
    text = (tmp_path / "out" / "evidence.md").read_text()
    assert f"first {MEDIA} payload bytes" in text


def test_no_more_room_ends_the_reading_with_a_message(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "free", lambda descriptor: 10_000)
    capture = open_captures([str(media)]).captures[0]
    assert "reading stopped after 0 frames: no more room for temporary files" in capture.damage
    assert capture.sha256 == hashlib.sha256(media.read_bytes()).hexdigest()


def test_a_stream_that_is_no_capture_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 9999))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CaptureError, match="not a capture"):
        open_captures([str(path)])
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_bomb_of_zeros_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 GiB behind a file header: little of it is unpacked, and none of it is written."""
    path = tmp_path / "bomb.zst"
    pack = zstandard.ZstdCompressor().compressobj()
    header = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    path.write_bytes(b"".join([pack.compress(header), *(pack.compress(bytes(1 << 20)) for _ in range(1 << 10)),
                               pack.flush()]))
    written: list[int] = []
    monkeypatch.setattr(stream.Kept, "write", lambda self, data: written.append(len(data)))
    start = time.process_time()
    capture = open_captures([str(path)]).captures[0]
    assert "zeros where frame 1 should start" in capture.damage
    assert sum(written) == 0
    assert time.process_time() - start < 2
    assert capture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# --- compression


@pytest.mark.parametrize("kind", PACK)
def test_each_compression(kind: str, pcap: PcapWriter, tmp_path: Path) -> None:
    data, path = pcap(varied(600)).read_bytes(), tmp_path / "packed"
    path.write_bytes(PACK[kind](data[:30_000]) + PACK[kind](data[30_000:]) + bytes(64) * (kind != "zstd"))
    capture = open_captures([str(path)]).captures[0]
    assert (capture.frames, capture.damage) == (600, "")
    assert capture.format.endswith(f", {kind}")
    assert capture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert capture.size == path.stat().st_size
    whole = PACK[kind](data)
    path.write_bytes(whole[: len(whole) // 2])
    cut = open_captures([str(path)]).captures[0]
    assert 0 < cut.frames < 600
    assert not cut.complete
    assert kind == "zstd" or f"{kind} stream is cut or damaged" in cut.damage


# --- pipes


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[[list[bytes]], tuple[Path, threading.Thread]]]:
    threads = []

    def write(chunks: list[bytes]) -> tuple[Path, threading.Thread]:
        path = tmp_path / f"fifo{len(threads)}"
        os.mkfifo(path)

        def run() -> None:
            try:
                with open(path, "wb", buffering=0) as out:
                    for chunk in chunks:
                        out.write(chunk)
                        time.sleep(0.01)
            except BrokenPipeError:
                pass
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return path, threads[-1]

    yield write
    for thread in threads:
        thread.join(10)


Fifo = Callable[[list[bytes]], tuple[Path, threading.Thread]]


def test_a_pipe_that_trickles(fifo: Fifo, pcap: PcapWriter) -> None:
    data = pcap(varied(30)).read_bytes()
    path, _ = fifo([data[:3], data[3:24], data[24:31], data[31:9000], data[9000:]])
    capture = open_captures([str(path)]).captures[0]
    assert (capture.frames, capture.complete, capture.size) == (30, True, len(data))
    assert capture.sha256 == hashlib.sha256(data).hexdigest()


def test_a_pipe_is_left_where_its_capture_broke(fifo: Fifo, pcap: PcapWriter) -> None:
    """The rest may be endless: it is neither waited for nor part of a checksum that would be of no file."""
    data = pcap(varied(3)).read_bytes()
    path, _ = fifo([data, *[bytes(1 << 20)] * 100])
    capture = open_captures([str(path)]).captures[0]
    assert "zeros where frame 4 should start" in capture.damage
    assert (capture.frames, capture.sha256) == (3, "")
    assert capture.size < 100 << 20


def test_standard_input_that_is_a_file_is_mapped(pcap: PcapWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pcap(varied(3))
    with open(path, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = open_source("-")
        assert source.stream is None
        assert (source.path, source.size) == ("-", path.stat().st_size)
        source.close()
        stdin.seek(24 + 16)
        again: Source = open_source("-")
        assert again.stream is not None
        assert again.stream.input.read(5) == path.read_bytes()[40:45]
        again.close()


def start(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "netdiag.cli", *arguments], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, **more)


def test_a_writer_behind_a_pipe(pcap: PcapWriter) -> None:
    """As `tcpdump -w - | netdiag analyze -`, with a writer that needs a while."""
    data = pcap(varied(400)).read_bytes()
    running = start("analyze", "-", "--format", "json")
    assert running.stdin
    for at in range(0, len(data), 50_000):
        running.stdin.write(data[at : at + 50_000])
        running.stdin.flush()
        time.sleep(0.02)
    out, err = running.communicate(timeout=60)
    assert running.returncode in (0, 1), err
    capture, = json.loads(out)["captures"]
    assert (capture["path"], capture["frames"], capture["complete"]) == ("-", 400, True)
    assert capture["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("closes", [True, False])
def test_an_interrupt_ends_the_stream_and_not_the_analysis(closes: bool, pcap: PcapWriter) -> None:
    """With a writer that ends its stream in the middle of a frame, and one that never does."""
    data = pcap(varied(50)).read_bytes()
    running = start("analyze", "-", "--format", "json", start_new_session=True)
    assert running.stdin
    assert running.stderr
    running.stdin.write(data[:-5])
    running.stdin.flush()
    waiting = b"\1\0\0\0"
    while any(waiting):  # until it has read what there is
        time.sleep(0.05)
        waiting = fcntl.ioctl(running.stdin, termios.FIONREAD, bytes(4))
    os.killpg(running.pid, signal.SIGINT)  # as the terminal does: the parent and the child
    if closes:
        running.stdin.close()
    try:
        running.wait(30)
    finally:
        running.kill()
    assert running.stdout
    capture, = json.loads(running.stdout.read())["captures"]
    assert running.returncode in (0, 1)
    assert (capture["frames"], capture["complete"]) == (49, True)
    assert "interrupted: what was read until then is analysed" in capture["notes"]
    for pipe in (running.stdin, running.stdout, running.stderr):
        pipe.close()


def test_a_second_interrupt_aborts(pcap: PcapWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_S", 0.05)
    before = signal.getsignal(signal.SIGINT)
    reading, writing = os.pipe()
    try:
        with Interrupts() as interrupts:
            os.write(writing, b"x")
            assert interrupts.wait(reading)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # the same one, passed on by the guard
            assert interrupts.at is not None
            assert interrupts.wait(reading)
            os.read(reading, 1)
            monkeypatch.setattr(interrupt, "GRACE_S", 0.1)
            assert not interrupts.wait(reading)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(reading)
        os.close(writing)


def test_an_interrupt_wakes_a_silent_pipe() -> None:
    before = signal.getsignal(signal.SIGINT)
    reading, writing = os.pipe()
    try:
        with Interrupts() as interrupts:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Timer(0.3, os.close, (writing,)).start()
            assert interrupts.wait(reading)  # its end can be read
            assert interrupts.at is not None
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(reading)


def test_the_command_reads_a_compressed_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.lz4"
    path.write_bytes(pack_lz4((ROOT / "captures" / "samples" / "fw" / "syn_drop.hit.pcap").read_bytes()))
    assert cli.run(["analyze", str(path), "--select", "FW"]) == 1
    assert "FW-SYN-DROP" in capsys.readouterr().out
