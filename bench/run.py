"""Measures ``netdiag analyze`` beside other tools on the same capture and writes docs/performance.md.

    python bench/run.py                          makes the capture first, if it is not there
    python bench/run.py --capture big.pcap --repeat 5

CPU seconds are user and system time of the whole command with its children, as the kernel counts them at wait(). Runs
alternate between the tools, so that a busy machine burdens all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import generate

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "performance.md"
POLL_S = 0.05
"""How often memory is read; a shorter peak is missed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One command, measured."""

    cpu_s: float
    wall_s: float
    rss_mb: float
    """Peak resident memory: with mapped pages of the capture, which the kernel may drop at any time."""
    anonymous_mb: float
    """Peak of RssAnon: memory that is the program's own. 0 where /proc is not there."""


def measure(command: list[str], allowed: tuple[int, ...], env: dict[str, str], directory: str) -> Run:
    """Runs a command without its output; RuntimeError when it ends with an exit status that is not allowed."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=env, cwd=directory)
        peak = [0]
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(child.pid, peak, done))
        watcher.start()
        _, status, usage = os.wait4(child.pid, 0)  # the kernel's figures of this one child and of its children
        wall = time.perf_counter() - begin
        done.set()
        watcher.join()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in allowed:
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()[-2000:]
            raise RuntimeError(f"{shlex.join(command)} ended with {child.returncode}:\n{text}")
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, peak[0] / 1024)


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(POLL_S):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return
        peak[0] = max(peak[0], sum(_anonymous(p) for p in (str(pid), *children)))


def _anonymous(pid: str) -> int:
    """RssAnon of one process, kB; 0 when it has ended."""
    try:
        _, _, rest = Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")
    except OSError:
        return 0
    return int(rest.split()[0]) if rest else 0


def netdiag_command() -> list[str]:
    """The installed script beside this interpreter, else the package in the checkout."""
    script = Path(sys.executable).with_name("netdiag")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from netdiag.cli import main; main()"]


def tools(capture: str) -> dict[str, tuple[list[str], tuple[int, ...]]]:
    """Name to command and exit statuses that mean success (netdiag: 1 is findings)."""
    return {
        "netdiag": ([*netdiag_command(), "analyze", capture], (0, 1)),
        "netdiag, JSON with checksum": (
            [*netdiag_command(), "analyze", capture, "--format", "json", "-o", os.devnull], (0, 1)),
        "tshark": (["tshark", "-q", "-z", "expert", "-z", "rtp,streams", "-z", "sip,stat", "-r", capture], (0,)),
    }


def version(name: str) -> str:
    if name.startswith("netdiag"):
        packages = ("numpy", "polars")
        parts = [f"{p} {importlib.metadata.version(p)}" for p in packages]
        return f"netdiag, Python {platform.python_version()}, " + ", ".join(parts)
    out = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
    return out.splitlines()[0] if out else name


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"


def median(runs: list[Run], field: str) -> float:
    return statistics.median(getattr(r, field) for r in runs)


def compare(capture: str, repeat: int) -> tuple[dict[str, list[Run]], list[str], float]:
    """Runs of each tool, the tools that are not installed, and CPU seconds of ``netdiag --help``."""
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), env.get("PYTHONPATH", "")]))
    every = tools(capture)
    absent = [name for name, (command, _) in every.items() if not shutil.which(command[0])]
    runs: dict[str, list[Run]] = {name: [] for name in every if name not in absent}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(repeat):
            for name, found in runs.items():
                run = measure(*every[name], env, directory)
                found.append(run)
                print(f"{turn + 1}/{repeat} {name}: {run.cpu_s:.2f} CPU s, {run.wall_s:.2f} s", file=sys.stderr)
        help_runs = [measure([*netdiag_command(), "--help"], (0,), env, directory) for _ in range(max(repeat, 5))]
    return runs, absent, median(help_runs, "cpu_s")


def report(runs: dict[str, list[Run]], absent: list[str], help_s: float, what: str, packets: int, made_by: str) -> str:
    """The page, as Markdown."""
    base = median(runs["netdiag"], "cpu_s")
    lines = [
        "# Performance", "", f"Written by `{made_by}`; run it again rather than edit this page.", "",
        f"Capture: {what}. Machine: {machine()}.", "",
        "| tool | runs | CPU s, median | CPU s, range | wall s | peak RSS, MB | own memory, MB | CPU against netdiag |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in runs.items():
        cpu = sorted(r.cpu_s for r in found)
        middle = median(found, "cpu_s")
        lines.append(
            f"| {name} | {len(found)} | {middle:.2f} | {cpu[0]:.2f}–{cpu[-1]:.2f} | {median(found, 'wall_s'):.2f} "
            f"| {median(found, 'rss_mb'):.0f} | {median(found, 'anonymous_mb'):.0f} | {middle / base:.1f}× |")
    lines += [
        "", "CPU is user and system time of the whole command with the start of the interpreter; wall and memory are "
        "medians. Own memory is RssAnon of the process and its child, read every "
        f"{POLL_S * 1000:.0f} ms; RSS counts mapped pages of the capture too.",
        "", f"netdiag: {packets / base / 1e6:.2f} million packets a CPU second. "
        f"`netdiag --help`: {help_s:.2f} CPU s.", "",
        "Commands, CAPTURE being the file:", "",
    ]
    for name in runs:
        command = tools("CAPTURE")[name][0]
        if name.startswith("netdiag"):
            command = ["netdiag", *command[command.index("analyze"):]]
        lines += [f"- `{shlex.join(command)}` ({version(name)})"]
    lines += [f"- {name}: not measured, not installed here" for name in absent]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures netdiag beside tshark and writes docs/performance.md.")
    parser.add_argument("--capture", help="measure on this file instead of a generated one")
    parser.add_argument("--mix", choices=sorted(generate.MIXES), default="mixed")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=REPORT, help="page to write (default: docs/performance.md)")
    options = parser.parse_args(arguments)
    if options.capture:
        capture, what = os.path.abspath(options.capture), f"`{Path(options.capture).name}`"
    else:
        capture = str(Path(tempfile.gettempdir()) / f"netdiag-bench-{options.mix}-{options.packets}.pcap")
        command = f"python bench/generate.py {options.mix} --packets {options.packets}"
        what = f"`{command}`, {options.packets} packets"
        print(f"writing {capture}", file=sys.stderr)
        generate.write(options.mix, options.packets, capture)
    size = os.path.getsize(capture)
    runs, absent, help_s = compare(capture, options.repeat)
    source = f"--mix {options.mix} --packets {options.packets}"
    if options.capture:
        source = f"--capture {Path(capture).name}"
    made_by = f"python bench/run.py {source} --repeat {options.repeat}"
    packets = options.packets if not options.capture else _frames(capture)
    page = report(runs, absent, help_s, f"{what}, {size / 1e6:.0f} MB", packets, made_by)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(page)
    print(page)
    return 0


def _frames(capture: str) -> int:
    """Packets of a foreign capture."""
    sys.path.insert(0, str(ROOT / "src"))
    from netdiag.tables.reader import open_captures
    return sum(c.frames for c in open_captures([capture]).captures)


if __name__ == "__main__":
    sys.exit(main())
