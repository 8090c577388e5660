"""Runs the fuzz targets: ``python tests/fuzz/run.py --seconds N [--target T] [--jobs 2] [--report FILE]``.

Each target gets its share of the time, in a process of its own. Where atheris is installed it chooses what to
change next by the code that an input reaches; else the same changes are made at random. An input that raises, that
takes more than a second of processor time, or that makes the process grow by more than 1 GB is saved in
``tests/fuzz/crashes``, where ``test_fuzz.py`` runs it ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import mmap
import os
import pickle
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]
if importlib.util.find_spec("netdiag") is None:
    sys.path.insert(0, str(ROOT / "src"))

CRASHES = HERE / "crashes"
SECONDS = 1.0
"""Processor time of an input of 64 kB; larger ones get more in proportion."""
MEMORY = 1 << 30
"""Bytes that one input may take, and that a process may have grown since its first inputs."""
HANG = 30
"""Seconds after which a worker is held to hang."""
HEAVY = 4
"""Shares of the time for a target that builds tables: an input takes some ten thousand times longer there."""
WARM = 200
"""Inputs after which memory is compared: imports, caches and the allocator's pools are in place by then."""
BEGIN, END = "<!-- fuzz figures: begin -->", "<!-- fuzz figures: end -->"


def grown() -> int:
    """Anonymous memory of this process, bytes: what mapped files need is the kernel's to give back."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next((int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon")), 0)


def highest() -> int:
    """Peak resident memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Failure(Exception):
    """The input broke a limit."""


class Guard:
    """Runs a target on inputs, one by one, and counts."""

    def __init__(self, run: Callable[[bytes], None], note: Callable[[bytes], None] = lambda data: None,
                 leaks: bool = True) -> None:
        """``leaks``: also fail when many inputs together leave much behind, which atheris itself does."""
        self.run, self.note, self.leaks = run, note, leaks
        self.executions = self.slowest_size = self.peak = 0
        self.slowest = 0.0
        self._base = 0

    def one(self, data: bytes) -> None:
        """Failure when the input takes too long or too much; whatever the target raises comes through."""
        self.note(data)
        before = highest()
        begin = time.process_time()
        self.run(data)
        taken = time.process_time() - begin
        if highest() - before > MEMORY:
            raise Failure(f"one input took {highest() - before >> 20} MiB")
        self.executions += 1
        if taken > self.slowest and self.executions > 3:  # the first ones import
            self.slowest, self.slowest_size = taken, len(data)
            limit = SECONDS * max(1.0, len(data) / 65536)
            if taken > limit:
                again = time.process_time()
                self.run(data)
                taken = min(taken, time.process_time() - again)
                self.slowest = taken
                if taken > limit:
                    raise Failure(f"{taken:.1f} s of processor time for {len(data)} bytes")
        if self.executions % 64 == 0 or taken > 0.2:
            now = highest()
            if now > self.peak:
                self.peak = now
                if self.leaks and self._base and grown() - self._base > MEMORY:
                    raise Failure(f"memory grew by {grown() - self._base >> 20} MiB")
        if self.executions == WARM:
            self._base = grown()


def minimal(run: Callable[[bytes], None], data: bytes, kind: str, seconds: float = 10.0) -> bytes:
    """A shorter input that fails in the same way, as far as ``seconds`` of cutting get."""
    def fails(candidate: bytes) -> bool:
        try:
            run(candidate)
        except Exception as error:
            return type(error).__name__ == kind
        return False

    stop, size = time.monotonic() + seconds, len(data) // 2
    while size and time.monotonic() < stop:
        at = 0
        while at < len(data) and time.monotonic() < stop:
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Worker:
    """One target in this process: ``state`` tells the parent about it, also when the process dies."""

    def __init__(self, name: str, seconds: float, seed: int, state: Path, seeds: Path) -> None:
        self.name, self.seconds, self.seed, self.state = name, seconds, seed, state
        self.seeds: list[bytes] = pickle.loads(seeds.read_bytes()).get(name) or [b""]
        self.random = random.Random(f"{name} {seed}")
        self.begin = self.told = time.monotonic()
        self.before = 0
        """Executions of the seeds."""
        with open(state.with_suffix(".input"), "w+b") as file:
            file.truncate(1 << 20)
            self.current = mmap.mmap(file.fileno(), 1 << 20)

    def note(self, data: bytes) -> None:
        """Keeps the input where the parent finds it if this process is killed."""
        self.current[:8] = len(data).to_bytes(8, "little")
        self.current[8 : 8 + len(data)] = data[: (1 << 20) - 8]
        now = time.monotonic()
        if now > self.told + 0.5:
            self.told = now
            self.tell()

    def tell(self, **more: Any) -> None:
        g = self.guard
        rate = (g.executions - self.before) / max(time.monotonic() - self.begin, 0.001)
        figures = {"target": self.name, "executions": g.executions, "rate": rate, "slowest_s": g.slowest,
                   "slowest_size": g.slowest_size, "peak": g.peak, **more}
        self.state.write_text(json.dumps(figures), encoding="ascii")

    def one(self, data: bytes) -> None:
        try:
            self.guard.one(data)
        except Exception as error:
            kind = type(error).__name__
            short = data if kind == "Failure" else minimal(self.guard.run, data, kind)
            self.tell(failure=f"{kind}: {str(error)[:300]}", saved=save(self.name, short))
            os._exit(1)

    def mutated(self, data: bytes, limit: int = 1 << 18) -> bytes:
        from mutations import mutate
        return mutate(self.random, self.name, data, self.random.choice(self.seeds))[:limit]

    def go(self, guided: bool) -> None:
        if guided:
            import atheris
            with atheris.instrument_imports(include=["netdiag"]):
                import targets
        else:
            import targets
        self.guard = Guard(targets.TARGETS[self.name], self.note, leaks=not guided)
        for data in self.seeds:
            self.one(data)
        self.begin, self.before = time.monotonic(), self.guard.executions  # imports and instrumentation took a while
        self.guided() if guided else self.at_random()
        self.tell()
        os._exit(0)

    def at_random(self) -> None:
        pool = list(self.seeds)
        while time.monotonic() < self.begin + self.seconds:
            data = self.mutated(self.random.choice(pool))
            self.one(data)
            if self.random.random() < 0.01:  # some go on from where others came
                pool = pool[-2000:]
                pool.append(data)

    def guided(self) -> None:
        import atheris

        def change(data: bytes, limit: int, seed: int) -> bytes:
            self.random.seed(seed)
            if self.random.random() < 0.25:
                return bytes(atheris.Mutate(data, limit))
            return self.mutated(data, limit)

        def one(data: bytes) -> None:
            if time.monotonic() > self.begin + self.seconds:
                self.tell()
                os._exit(0)
            self.one(data)

        with tempfile.TemporaryDirectory() as corpus:
            for i, data in enumerate(self.seeds):
                (Path(corpus) / str(i)).write_bytes(data)
            largest = max(1 << 16, max(map(len, self.seeds)))
            # its own limits go by the wall clock, which other work on the machine counts for: ours are in Guard
            flags = ["-rss_limit_mb=0", "-timeout=3600", "-len_control=0", "-verbosity=0", "-print_final_stats=0",
                     f"-max_len={largest}", f"-seed={self.seed + 1}", f"-artifact_prefix={corpus}/"]
            atheris.Setup([self.name, *flags, corpus], one, custom_mutator=change)
            atheris.Fuzz()


def save(name: str, data: bytes) -> str:
    """Writes an input that failed; its file name begins with its target."""
    CRASHES.mkdir(exist_ok=True)
    path = CRASHES / f"{name}--{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return str(path.relative_to(ROOT))


def fuzz(name: str, seconds: float, seed: int, work: Path, guided: bool) -> dict[str, Any]:
    """Runs a worker and says what came of it; one that hangs or dies gives its last input."""
    state = work / f"{name}.json"
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds), "--seed", str(seed),
               "--work", str(work), *([] if guided else ["--random"])]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with open(work / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        quiet = time.monotonic()
        told = 0.0
        while process.poll() is None:
            time.sleep(0.2)
            changed = state.stat().st_mtime if state.exists() else 0.0
            if changed != told:
                told, quiet = changed, time.monotonic()
            if time.monotonic() > quiet + HANG + 30 * (not told):  # imports and instrumentation come first
                process.send_signal(signal.SIGKILL)
                process.wait()
    out: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"target": name, "executions": 0}
    if process.returncode and "failure" not in out:
        last = (work / f"{name}.input").read_bytes() if (work / f"{name}.input").exists() else bytes(8)
        size = int.from_bytes(last[:8], "little")
        text = (work / f"{name}.log").read_text("utf-8", "replace")[-2000:]
        out |= {"failure": f"ended with {process.returncode}: {text}", "saved": save(name, last[8 : 8 + size])}
    return out


def table(figures: list[dict[str, Any]], guided: bool, seconds: float) -> str:
    """The figures as Markdown."""
    total = sum(f["executions"] for f in figures)
    broken = [f for f in figures if "failure" in f]
    how = "coverage-guided (atheris)" if guided else "random changes"
    lines = [
        f"{total:,} executions in {seconds:.0f} s, {how}; Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d', time.gmtime())}. "
        f"Inputs that failed: {len(broken)}.", "",
        "| target | executions | each second | slowest input | its size | peak memory of the process |",
        "|---|---:|---:|---:|---:|---:|"]
    for f in sorted(figures, key=lambda f: str(f["target"])):
        lines.append(f"| {f['target']} | {f['executions']:,} | {f.get('rate', 0.0):,.0f} | "
                     f"{f.get('slowest_s', 0.0) * 1000:.0f} ms | {f.get('slowest_size', 0):,} B | "
                     f"{f.get('peak', 0) >> 20} MiB |")
    return "\n".join(lines) + "\n"


def write_report(path: Path, text: str) -> None:
    """Puts the figures between the two marks of a document."""
    old = path.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz netdiag")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--target", action="append", default=[], help="only this one; can be repeated")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="without atheris")
    parser.add_argument("--report", type=Path, help="document whose marked block is replaced by the figures")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    guided = not given.random and importlib.util.find_spec("atheris") is not None
    if given.worker:
        Worker(given.worker, given.seconds, given.seed, given.work / f"{given.worker}.json",
               given.work / "seeds.pickle").go(guided)
    from seeds import collect
    from targets import CAPTURES, CHUNKED, TARGETS
    unknown = sorted(set(given.target) - set(TARGETS))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = given.target or list(TARGETS)
    weight = {name: HEAVY if name in CAPTURES | CHUNKED | {"segments", "sip-tcp"} else 1 for name in names}
    share = given.seconds * given.jobs / sum(weight.values())
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "seeds.pickle").write_bytes(pickle.dumps(collect()))
        with ThreadPoolExecutor(given.jobs) as pool:
            figures = list(pool.map(lambda name: fuzz(name, share * weight[name], given.seed, work, guided), names))
    text = table(figures, guided, time.monotonic() - begin)
    print(text)
    for f in figures:
        if "failure" in f:
            print(f"{f['target']}: {f['failure']}\n  input: {f.get('saved', '')}", file=sys.stderr)
    if given.report:
        write_report(given.report, text)
    return 1 if any("failure" in f for f in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
