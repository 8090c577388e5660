"""SIPp user agents inside a lab node, driven through pysipp.

The only module that imports pysipp. pysipp 0.1.0 is the current release and was written for the
pluggy and the Python of 2019; what it misses since then is supplied while it is imported and taken
away again:

* ``pluggy.PluginManager(implprefix=...)``: the argument left in pluggy 1.0;
* the modules ``imp`` and ``distutils``: gone since Python 3.12 (PEP 594, PEP 632);
* ``Logger.warn``: deprecated for ``warning`` (it was gone in the 3.13 alphas); pysipp calls it at run time,
  so its own logger, and no other, keeps it.

pysipp quotes each value as one shell word. ``_words`` joins several words so that they come apart again.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import shutil
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from netdiag.errors import LabError
from netdiag.lab import process
from netdiag.lab.topology import Node

# Seconds after which SIPp ends by itself (-timeout), so that no agent outlives a broken lab.
_LIFETIME_S = 60


@contextlib.contextmanager
def _compatible() -> Iterator[None]:
    """Supply what pysipp 0.1.0 imports and today's Python and pluggy lack; undo it afterwards."""
    import pluggy

    added: list[str] = []

    def supply(name: str, **attributes: object) -> None:
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            return
        module = types.ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module
        added.append(name)

    manager = pluggy.PluginManager

    def without_implprefix(project_name: str, implprefix: str | None = None) -> Any:
        # Every hook of pysipp carries the marker, so the name prefix was redundant.
        return manager(project_name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeprecationWarning of imp, SyntaxWarning of pysipp's source
        spawn = types.SimpleNamespace(find_executable=shutil.which)
        supply("imp")
        supply("distutils", spawn=spawn)
        vars(pluggy)["PluginManager"] = without_implprefix
        try:
            yield
        finally:
            vars(pluggy)["PluginManager"] = manager
            for name in added:
                del sys.modules[name]


def load() -> Any:
    """Import pysipp. Raises :class:`LabError` when it, pluggy or SIPp is not installed."""
    if process.which("sipp") is None:
        raise LabError("SIPp is not installed (Debian package sip-tester)")
    if "pysipp" in sys.modules:
        return sys.modules["pysipp"]
    try:
        with _compatible():
            module = importlib.import_module("pysipp")
    except ImportError as error:
        raise LabError(f"pysipp cannot be imported ({error}); install netdiag[labs]") from error
    logger = logging.getLogger("pysipp")
    vars(logger)["warn"] = logger.warning
    # What it logs about a failed call is in the LabError; without a handler Python would print it too.
    logger.addHandler(logging.NullHandler())
    return module


def _words(argv: Sequence[str]) -> str:
    """Join words so that pysipp's quoting (one pair of apostrophes around all) yields them one by one."""
    if any("'" in word for word in argv):
        raise LabError(f"an apostrophe cannot be passed to SIPp: {argv}")
    return "' '".join(argv)


class _Subprocess:
    """The part of :mod:`subprocess` that pysipp's runner uses; the agent's own directory, no terminal."""

    PIPE = subprocess.PIPE

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd

    def Popen(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        env = process.environment()
        return subprocess.Popen(
            argv, cwd=self._cwd, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **streams
        )


class Agent:
    """One SIPp process that plays a scenario; leaving its ``with`` block ends it.

    Made by :func:`uac` and :func:`uas`, already running.
    """

    def __init__(self, name: str, directory: Path, runner: Any, finalize: Callable[..., object]) -> None:
        self.name = name
        self._directory = directory
        self._runner = runner
        self._finalize = finalize

    @property
    def running(self) -> bool:
        """Whether SIPp has not ended yet."""
        return bool(self._runner.is_alive())

    def wait(self, timeout: float = _LIFETIME_S) -> None:
        """Block until every call has ended; LabError with SIPp's log if one failed or ``timeout`` seconds passed."""
        for running in self._processes():
            try:
                running.wait(timeout)
            except subprocess.TimeoutExpired:
                self.stop()
                raise LabError(f"SIPp {self.name}: still running after {timeout:g} s\n{self._log()}") from None
        try:
            self._finalize(timeout=process.STOP_S)
        except Exception as error:  # pysipp raises RuntimeError, SIPpFailure and a TimeoutError of its own
            raise LabError(f"SIPp {self.name}: {error}\n{self._log()}") from error

    def send(self, number: signal.Signals) -> None:
        """Send a signal to SIPp: SIGSTOP makes a server that hangs, with its port open, until SIGCONT."""
        for running in self._processes():
            running.send_signal(number)

    def stop(self) -> None:
        """End the process if it still runs."""
        # Not through pysipp: its SIGUSR1 lets calls finish first, which a broken call never does.
        for running in self._processes():
            running.terminate()
            try:
                running.wait(process.STOP_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [running for _, running in self._runner.iterprocs()]

    def _log(self) -> str:
        path = self._directory / "errors.log"
        return process.tail(path.read_text(errors="replace")) if path.exists() else ""

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _agent(
    role: str,
    node: Node,
    workdir: Path,
    name: str,
    scenario: str,
    local: tuple[str, int],
    other: str | None,
    calls: int,
    keys: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> Agent:
    pysipp = load()
    directory = workdir / f"sipp-{name}"
    directory.mkdir(parents=True, exist_ok=True)
    # pysipp takes an agent's role from its file name.
    main = directory / f"{role}_{name}.xml"
    main.write_text(scenario)
    settings: dict[str, Any] = {
        "prefix": _words(node.prefix),
        # SIPp refuses to run several sockets when its default of 50000 is above the limit of open files.
        "bin_path": _words([process.which("sipp") or "sipp", "-nostdin", "-max_socket", "1000"]),
        "scen_file": str(main),
        # Not logdir: pysipp compares a character by identity when it is set, which fails at random.
        "screen_file": str(directory / "screen.log"),
        "log_file": str(directory / "actions.log"),
        "error_file": str(directory / "errors.log"),
        "trace_error": True,
        "local_host": local[0],
        "local_port": local[1],
        "call_count": calls,
        "limit": max(calls, 1),
        "timeout": _LIFETIME_S,
        "timeout_error": True,
        "recv_timeout": 1000 * _LIFETIME_S,
        "key_vals": dict(keys or {}),
        **options,
    }
    if other is not None:
        (directory / "other.xml").write_text(other)
        settings["ooc_scen_file"] = str(directory / "other.xml")

    agent = (pysipp.client if role == "uac" else pysipp.server)(**settings)
    runner = pysipp.launch.PopenRunner(subprocmod=_Subprocess(directory))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pysipp leaves its /dev/null to the collector
        finalize = agent(block=False, runner=runner)
    return Agent(name, directory, runner, finalize)


def uac(
    node: Node,
    workdir: Path,
    name: str,
    scenario: str,
    *,
    local: tuple[str, int],
    remote: tuple[str, int],
    other: str | None = None,
    calls: int = 1,
    keys: Mapping[str, str] | None = None,
    **options: Any,
) -> Agent:
    """Start a SIPp client in ``node`` that plays ``scenario`` (SIPp XML) ``calls`` times towards ``remote``.

    ``other`` is the scenario for messages outside these calls (SIPp's out-of-call scenario), ``keys`` become
    ``[key]`` in the XML; ``options`` are further pysipp attributes (``media_port``, ``uri_username``, ...).
    Scenario and logs are kept in ``workdir/sipp-NAME``. Raises :class:`LabError`.
    """
    target = {"remote_host": remote[0], "remote_port": remote[1]}
    return _agent("uac", node, workdir, name, scenario, local, other, calls, keys, {**target, **options})


def uas(
    node: Node,
    workdir: Path,
    name: str,
    scenario: str,
    *,
    local: tuple[str, int],
    calls: int = 1,
    keys: Mapping[str, str] | None = None,
    **options: Any,
) -> Agent:
    """Start a SIPp server in ``node`` and return once it listens on ``local``; see :func:`uac`."""
    agent = _agent("uas", node, workdir, name, scenario, local, None, calls, keys, options)
    try:
        process.wait_until(lambda: not agent.running or node.listening("udp", local[1]), f"SIPp {name}")
        if not agent.running:
            agent.wait()
            raise LabError(f"SIPp {name}: ended before it listened")
    except BaseException:
        agent.stop()
        raise
    return agent
