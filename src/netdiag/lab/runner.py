"""Runs the variants of a case and compares what the analysis finds with what the case expects.

Each variant runs in a child process of its own (``python -m netdiag.lab.runner FOLDER VARIANT
WORKDIR``): its signal handling and clean-up cannot disturb another variant, and a user who is
not root gets a user, network and mount namespace for that child alone.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

from netdiag.cases import Case, load_case
from netdiag.errors import LabError
from netdiag.lab import process
from netdiag.lab.topology import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

Analyse = Callable[[Mapping[str, Path]], Iterable[str]]
"""Captures by point -> ids of the patterns found in them."""

TIMEOUT_S = 180.0
"""A variant that takes longer is stopped (practice; the longest shipped one takes under 30 s)."""

KEPT_PLAIN = 300_000
"""Bytes up to which a recording is kept as it is; a larger one is compressed (practice)."""

TIMING = {"RTP-JITTER", "RTP-MOS-LOW"}
"""Faults of timing: on a busy machine the phones of a lab really send unevenly. Live, only a variant that names them
is judged by them; recordings are judged by all."""

JOBS = 4
"""Variants at a time: they mostly wait for timers, so more than the cores (practice)."""


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What one variant showed: ``missing`` was expected and not found, ``unexpected`` the reverse.

    ``seconds`` is the wall time of the lab (0.0 for recorded captures); ``recorded`` says that the
    captures were the ones kept with the case, not made now. ``captures`` of a live run are gone
    afterwards unless `run_case` was told where to keep them.
    """

    variant: str
    expected: tuple[str, ...]
    found: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    seconds: float
    recorded: bool
    captures: Mapping[str, Path]

    @property
    def ok(self) -> bool:
        """Whether exactly the expected patterns were found."""
        return not self.missing and not self.unexpected


def run_case(
    case: Case,
    analyse: Analyse,
    variants: Sequence[str] | None = None,
    keep: Path | None = None,
    recorded: bool = False,
    record: bool = False,
    jobs: int = JOBS,
) -> list[VariantResult]:
    """Run (or, with ``recorded``, replay) variants of ``case``, all by default, and judge each.

    ``keep`` is a folder for captures and logs (``<variant>/<point>.pcap``), else a temporary one.
    ``record`` copies the captures to the case's recordings. LabError when a lab cannot run, a
    component crashes, or a recording is missing.
    """
    chosen = list(variants or case.variants)
    for name in chosen:
        if name not in case.variants:
            raise LabError(f"{case.slug} has no variant {name!r}: {', '.join(case.variants)}")
    if recorded:
        return [_judge(case, name, recorded_captures(case, name), analyse, None) for name in chosen]
    with tempfile.TemporaryDirectory(prefix="netdiag-lab-") as temporary:
        root = (keep or Path(temporary)).resolve()
        live = _run_all(case, chosen, root, jobs)
        if record:
            for name, (captures, _) in live.items():
                _keep_recording(case, name, captures)
        return [_judge(case, name, captures, analyse, seconds) for name, (captures, seconds) in live.items()]


def run_variant(case: Case, variant: str, workdir: Path) -> dict[str, Path]:
    """Run one variant live in a child process; the captures by point. LabError with the reason if it fails."""
    return _run_child(case, variant, workdir.resolve(), _Children())


def recorded_captures(case: Case, variant: str) -> dict[str, Path]:
    """The recorded captures of ``variant`` by point; LabError when one is missing."""
    captures = {point: case.recording(variant, point) for point in case.points}
    for path in captures.values():
        if not path.is_file():
            raise LabError(f"{case.slug}: no recording {path.name}; make it with `netdiag lab run --record`")
    return captures


def _judge(
    case: Case, name: str, captures: Mapping[str, Path], analyse: Analyse, seconds: float | None
) -> VariantResult:
    expected = case.variants[name].expect
    passed_over = TIMING.difference(expected, case.variants[name].absent) if seconds is not None else set()
    found = tuple(sorted(set(analyse(captures)) - passed_over))
    return VariantResult(
        variant=name,
        expected=expected,
        found=found,
        missing=tuple(pattern for pattern in expected if pattern not in found),
        unexpected=tuple(pattern for pattern in found if pattern not in expected),
        seconds=seconds or 0.0,
        recorded=seconds is None,
        captures=captures,
    )


def _keep_recording(case: Case, variant: str, captures: Mapping[str, Path]) -> None:
    for point, path in captures.items():
        case.recording(variant, point).unlink(missing_ok=True)
        target = case.recording(variant, point)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size <= KEPT_PLAIN:
            shutil.copyfile(path, target)
        else:
            # No time in its header: the same capture gives the same bytes.
            target.with_name(f"{target.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


class _Children:
    """The child processes under way, so that an interrupted run can end them and wait for their clean-up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def start(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._ended:
                raise LabError("stopped")
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=child_environment(),
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
            return child

    def finished(self, child: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(child)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for child in self._running:
                child.terminate()


def _run_all(case: Case, names: Sequence[str], root: Path, jobs: int) -> dict[str, tuple[dict[str, Path], float]]:
    children = _Children()

    def timed(name: str) -> tuple[dict[str, Path], float]:
        begun = time.monotonic()
        captures = _run_child(case, name, root / name, children)
        return captures, time.monotonic() - begun

    with _terminate_as_exit(), ThreadPoolExecutor(max_workers=jobs) as pool:
        pending = {name: pool.submit(timed, name) for name in names}
        try:
            return {name: future.result() for name, future in pending.items()}
        except BaseException:
            children.end()
            raise


def _run_child(case: Case, variant: str, workdir: Path, children: _Children) -> dict[str, Path]:
    missing = [name for name in case.requires if not process.which(name) and not importlib.util.find_spec(name)]
    if missing:
        raise LabError(f"{case.slug} needs {', '.join(missing)}: not found on this host (see `netdiag lab doctor`)")
    if workdir.exists() and any(workdir.iterdir()):
        raise LabError(f"{workdir}: not empty")
    workdir.mkdir(parents=True, exist_ok=True)
    inner = [sys.executable, "-m", "netdiag.lab.runner", str(case.folder.resolve()), variant, str(workdir)]
    child = children.start(isolated(inner))
    try:
        output, _ = child.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        output, _ = child.communicate()
        raise LabError(f"{case.slug}/{variant}: stopped after {TIMEOUT_S:g} s\n{process.tail(output)}") from None
    finally:
        children.finished(child)
    if child.returncode != 0:
        raise LabError(f"{case.slug}/{variant}: {output.strip() or f'exit status {child.returncode}'}")
    captures = {point: workdir / f"{point}.pcap" for point in case.points}
    for point, path in captures.items():
        if not path.is_file():
            raise LabError(f"{case.slug}/{variant}: lab.py did not record point {point!r}")
    return captures


def isolated(argv: Sequence[str]) -> list[str]:
    """``argv`` so that it may make network namespaces: as it is for root, else inside a user namespace.

    ``ip netns`` keeps its names below /run, which belongs to the real root: a private tmpfs covers it.
    """
    if os.geteuid() == 0:
        return list(argv)
    script = 'mount -t tmpfs tmpfs /run && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script, "sh", *argv]


def child_environment() -> dict[str, str]:
    """The environment in which a child finds this very netdiag, and ``ip`` and ``nft``."""
    source = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return process.environment({"PYTHONPATH": f"{source}:{path}" if path else source})


@contextmanager
def _terminate_as_exit() -> Iterator[None]:
    """Make SIGTERM an exception while labs run, so that they are ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def load_run(file: Path) -> Callable[[Lab, str], None]:
    """The ``run(lab, variant)`` of a lab.py; LabError when it has none."""
    spec = importlib.util.spec_from_file_location("netdiag_lab_case", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise LabError(f"{file}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    run = getattr(module, "run", None)
    if not callable(run):
        raise LabError(f"{file}: has no run()")
    return cast("Callable[[Lab, str], None]", run)


def main(arguments: Sequence[str]) -> int:
    """``FOLDER VARIANT WORKDIR``: run one variant in this process, which must be allowed to make namespaces."""
    folder, variant, workdir = arguments
    case = load_case(Path(folder))
    try:
        with Lab(Path(workdir)) as lab:
            load_run(case.lab_file)(lab, variant)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
