"""Input that cannot be used, or only in part: one clear line on standard error, and the right exit status."""

from __future__ import annotations

import gzip
import json
import os
import pty
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard
from checkout import ROOT, udp_frame

from netdiag import cli

SAMPLE = (ROOT / "captures" / "samples" / "fw" / "syn_drop.hit.pcap").read_bytes()
FIRST = struct.unpack_from("<I", SAMPLE, 32)[0]
SECOND = 24 + 16 + FIRST
"""Where the second record starts."""


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, value)
    return bytes(out)


def block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def packet(interface: int = 0) -> bytes:
    frame = udp_frame()
    return block(6, struct.pack("<IIIII", interface, 0x5D000, 1, len(frame), len(frame)) + frame)


SECTION = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
INTERFACE = block(1, struct.pack("<HHI", 1, 0, 65535))
BAD_MAGIC = put(SECTION, 8, "<I", 0x04030201)
PCAPNG = SECTION + INTERFACE + packet() * 3
ARP = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x06" + bytes(28)


def lines(err: str) -> list[str]:
    """What was said, beside progress on a loaded machine and the usage line before an error."""
    return [x for x in err.splitlines() if x.startswith(("netdiag:", "Error:")) and not x.startswith(
        ("netdiag: reading", "netdiag: checking", "netdiag: listing"))]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    code = cli.run(["analyze", *arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    return code, said.out, lines(said.err)


def process(*arguments: str | bytes, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "netdiag.cli", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, **more)


UNUSABLE = {
    "empty": (b"", "the file is empty (0 bytes)"),
    "text": (b"hello world\n" * 9, "a text file, not a capture"),
    "json": (json.dumps({"a": [1] * 50}).encode(), "a text file, not a capture"),
    "three-bytes": (SAMPLE[:3], "not a capture"),
    "file-header": (SAMPLE[:20], "the pcap file header is cut (20 of 24 bytes)"),
    "ng-magic": (BAD_MAGIC + INTERFACE + packet(), "the section header at byte 0 has no byte-order magic"),
    "ng-file-header": (SECTION[:20], "the pcapng section header is cut (20 of 28 bytes)"),
    "ng-file-length": (put(PCAPNG, 4, "<I", 37), "broken block at byte 0"),
    "ng-file-lengths": (put(PCAPNG, 24, "<I", 32), "its two lengths differ"),
    "gzip-of-text": (gzip.compress(b"hello\n" * 99), "a text file"),
    "gzip-of-nothing": (gzip.compress(b""), "empty after unpacking gzip"),
    "gzip-head": (gzip.compress(SAMPLE)[:5], "after 0 unpacked bytes"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, says = UNUSABLE[name]
    path = tmp_path / name
    path.write_bytes(data)
    code, out, err = run(capsys, str(path))
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"netdiag: {path}: ")
    assert says in err[0]


DAMAGED = {
    "record-header": (SAMPLE[: 24 + 9], 0, "cut in the record header of frame 1 at byte 24 (9 of 16 bytes)"),
    "second-header": (SAMPLE[: SECOND + 7], 1, f"cut in the record header of frame 2 at byte {SECOND}"),
    "packet": (SAMPLE[: SECOND + 26], 1, f"cut in frame 2 at byte {SECOND}: 10 of "),
    "absurd-length": (put(SAMPLE, SECOND + 8, "<I", 0xFFFFFFFF), 1, "claims 4294967295 captured bytes"),
    "absurd-at-once": (put(SAMPLE, 32, "<I", 0x7FFFFFFF), 0, "claims 2147483647 captured bytes"),
    "zeros": (SAMPLE[:SECOND] + bytes(9999), 1, f"zeros where frame 2 should start, at byte {SECOND}"),
    "ng-header-only": (SECTION + INTERFACE[:9], 0, "cut in a block header at byte 28"),
    "ng-second-magic": (PCAPNG + BAD_MAGIC + INTERFACE, 3, "has no byte-order magic"),
    "ng-interface": (SECTION + INTERFACE + packet() + packet(7), 1, "names interface 7"),
    "ng-no-interface": (SECTION + packet(), 0, "names interface 0"),
    "ng-lengths": (put(PCAPNG, len(SECTION + INTERFACE + packet()) + 4, "<I", 36), 1, "its two lengths differ"),
    "ng-odd-length": (put(PCAPNG, len(SECTION + INTERFACE) + 4, "<I", 37), 0, "claims a length of 37"),
    "ng-cut": (PCAPNG[:-10], 2, "cut in a block at byte"),
    "gzip-cut": (gzip.compress(SAMPLE)[:150], None, "gzip stream is cut or damaged"),
    "gzip-checksum": (gzip.compress(SAMPLE)[:-6] + b"abcdef", 12, "gzip stream is cut or damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_is_read_as_far_as_it_goes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, frames, says = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(data)
    code, out, err = run(capsys, str(path), "--format", "json")
    capture, = json.loads(out)["captures"]
    assert (code, len(err)) == (3, 1)
    assert err[0].startswith(f"netdiag: {path}: incomplete, ")
    assert says in err[0]
    assert says in capture["damage"]
    assert frames is None or capture["frames"] == frames
    assert capture["frames"] == capture["decoded"] + sum(capture["skipped"].values())


def test_one_file_as_two_points_is_analyzed_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by another name or packed; a copy is another file."""
    path, link, copy = (tmp_path / f"{n}.pcap.gz" for n in ("x", "link", "copy"))
    path.write_bytes(gzip.compress(SAMPLE))
    link.hardlink_to(path)
    copy.write_bytes(path.read_bytes())
    code, out, err = run(capsys, "--point", f"a={path}", "--point", f"b={link}", "--point", f"c={copy}")
    out = " ".join(out.split())
    assert (code, err) == (1, [])
    assert out.count("note: the same file as point a: these two cannot confirm each other") == 1
    assert out.count("note: the same file as point b: these two cannot confirm each other") == 1
    assert "the same file as point c" not in out
    for points in (["a", "b"], ["b", "a"]):
        pairs = [f"--point={p}={path}" for p in points]
        assert run(capsys, *pairs)[1].count("note: the same file as point") == 2


def test_frames_longer_than_the_snap_length_are_kept_and_noted(tmp_path: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(put(SAMPLE, 16, "<I", 20))
    code, out, err = run(capsys, str(path), "--format", "json")
    assert (code, err) == (1, [])
    assert "longer than the snap length 20" in json.loads(out)["captures"][0]["notes"][0]


@pytest.mark.parametrize(("data", "skipped"), [
    (put(SAMPLE, 20, "<I", 147), "link type 147 (USER0)"), (put(SAMPLE, 20, "<I", 60000), "link type 60000 (unknown)"),
    (SAMPLE[:24] + (struct.pack("<IIII", 1, 0, len(ARP), len(ARP)) + ARP) * 5, "ARP")])
def test_a_capture_without_ip_is_not_called_healthy(data: bytes, skipped: str, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(data)
    code, out, err = run(capsys, str(path))
    assert (code, err) == (0, [])
    assert "Nothing was judged: no frame holds an IP packet" in out
    assert "No fault found" not in out
    assert skipped in out


def test_a_missing_file_a_directory_and_a_file_without_permission(tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed.pcap"
    closed.write_bytes(SAMPLE)
    assert run(capsys, str(closed))[0] == 1  # and whatever is imported late is imported now
    closed.chmod(0)
    for path, says in ((tmp_path / "none.pcap", "No such file or directory"), (tmp_path, "is a directory"),
                       (closed, "Permission denied")):
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            code = cli.run(["analyze", str(path)])
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert len(lines(said.err)) == 1
        assert says in said.err or (path != closed and os.getuid() == 0 and "Permission denied" in said.err)


@pytest.mark.parametrize(("arguments", "says"), [
    (["--point", "a=x.pcap", "--point", "a=y.pcap"], "--point a: given twice"),
    (["--point", "x.pcap"], "is not NAME=FILE"), (["--point", "=x.pcap"], "is not NAME=FILE"),
    (["--point", "a="], "is not NAME=FILE"), (["--point", "a\x1b[2J=x.pcap"], "must be printable"),
    (["-", "-"], "only once"), (["--point", "a=-", "--point", "b=-"], "only once"),
    (["x.pcap", "./x.pcap"], "given twice"), (["x.pcap", "--keylog", "noise"], "holds no TLS secret"),
    (["x.pcap", "--ca-file", "noise"], "no certificate in PEM form"), (["-dash.pcap"], "No such option"),
    (["x.pcap", "-o", "no\x1b[2J/file"], r"no\x1b[2J/file"), (["a\nb\x1b[2J"], r"a\x0ab\x1b[2J: No such file"),
    ([os.fsdecode(b"\xff.pcap")], r"\xff.pcap: No such file")])
def test_wrong_arguments(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.pcap", "y.pcap"):
        Path(name).write_bytes(SAMPLE)
    Path("noise").write_bytes(b"\xff\xfe\0garbage\nCLIENT_RANDOM zz zz\n" + bytes(range(256)))
    code, out, err = run(capsys, *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert says in err[0]


@pytest.mark.parametrize("name", [b"a\x1b]0;x\x07.pcap", b"a\nb.pcap", b"-dash.pcap", b"\xff\xfe.pcap", b"`|<b>.pcap"])
def test_odd_file_names(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(name)).write_bytes(SAMPLE)
    for form in ("terminal", "markdown", "json"):
        code, out, err = run(capsys, "--format", form, "--", os.fsdecode(name))
        assert (code, err) == (1, [])
        assert all(line.isprintable() for line in out.split("\n")), form
        assert out.encode()


def test_a_pipe_as_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for data, code in ((SAMPLE, 1), (b"", 2)):
        writer = threading.Thread(target=path.write_bytes, args=(data,))
        writer.start()
        assert run(capsys, str(path))[0] == code
        writer.join(10)


def test_standard_input_that_is_a_terminal_or_closed() -> None:
    master, slave = pty.openpty()
    try:
        done = process("analyze", "-", stdin=slave)
        assert b"standard input is a terminal" in done.communicate(timeout=30)[1]
        assert done.returncode == 2
    finally:
        os.close(master)
        os.close(slave)
    done = process("analyze", "-", preexec_fn=lambda: os.close(0))
    assert done.communicate(timeout=30) == (b"", b"netdiag: standard input: is closed\n")
    assert done.returncode == 2


def test_a_small_file_that_unpacks_to_much_costs_little(tmp_path: Path) -> None:
    """256 MiB of zeros behind a file header: they are no frames of no bytes, but a hole."""
    path = tmp_path / "bomb.pcap.zst"
    pack = zstandard.ZstdCompressor().compressobj()
    path.write_bytes(b"".join([pack.compress(SAMPLE[:24]), *(pack.compress(bytes(1 << 20)) for _ in range(256)),
                               pack.flush()]))
    done = process("connections", str(path))
    pid, status, used = os.wait4(done.pid, 0)
    assert pid == done.pid
    assert os.waitstatus_to_exitcode(status) == 3
    assert b"zeros where frame 1 should start" in done.communicate()[1]
    assert used.ru_utime + used.ru_stime < 20
    assert used.ru_maxrss < 1 << 20  # kB; the temporary file's pages count while they are mapped


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """It ends in a message, or in a report when the work was done with it before; never in a crash."""
    path = tmp_path / "shrinking.pcap"
    frame = udp_frame(payload=bytes(1000))
    record = struct.pack("<IIII", 1, 0, len(frame), len(frame)) + frame
    path.write_bytes(SAMPLE[:24] + record * 60_000)
    running = process("analyze", str(path), "--format", "json")
    time.sleep(0.7)
    os.truncate(path, 5_000)
    out, err = running.communicate(timeout=60)
    assert running.returncode in (0, 3)
    assert b"Traceback" not in err
    if running.returncode == 3:
        assert len(lines(err.decode())) == 1
        assert b"cut" in err
    else:
        assert json.loads(out)["captures"][0]["frames"] == 60_000
