"""Network namespaces, veth pairs and routes: the wires of a lab.

``Lab`` is a context manager. Whatever happens inside (an exception, Ctrl-C,
SIGTERM), it stops exactly the programs it started and deletes exactly the
namespaces it made, by name.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from netdiag.errors import LabError
from netdiag.lab import process
from netdiag.lab.capture import Recorder
from netdiag.lab.process import Process

_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
_INTERFACE = re.compile(r"[a-z][a-z0-9_.-]{1,14}")  # IFNAMSIZ is 16 with the final NUL
SETTLE_S = 0.1
"""Time for the packets under way to reach every recorder before the recordings end (practice)."""
_HOST_HAS_IPV6 = Path("/proc/sys/net/ipv6").exists()


class Node:
    """One host of the lab: a network namespace of its own. Made by `Lab.node`."""

    def __init__(self, lab: Lab, name: str, index: int) -> None:
        self.lab = lab
        self.name = name
        self.namespace = f"nd-{os.getpid()}-{name}"
        self.interfaces: list[str] = []
        self._index = index

    @property
    def prefix(self) -> list[str]:
        """The argv prefix that runs a program on this node."""
        return ["ip", "netns", "exec", self.namespace]

    def run(
        self,
        argv: Sequence[str],
        check: bool = True,
        timeout: float = 30.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` here to its end (timeout in seconds); LabError with its last output when ``check`` fails."""
        return process.run([*self.prefix, *argv], check=check, timeout=timeout, input=input, env=env, cwd=cwd)

    def start(
        self,
        argv: Sequence[str],
        name: str | None = None,
        ready: Callable[[], bool] | str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> Process:
        """Start ``argv`` here; it lives until the lab ends.

        ``ready`` is polled for at most ``timeout`` seconds: a callable, or a text to appear
        in the log (workdir/``<node>.<name>.log``). LabError with the log's end if it dies first.
        """
        label = f"{self.name}.{name or Path(argv[0]).name}"
        started = self.lab.adopt(
            lambda log: Process(label, [*self.prefix, *argv], log, env=env, cwd=cwd or self.lab.workdir), label
        )
        if ready is not None:
            started.wait_ready(ready, timeout)
        return started

    def python(self, code: str | Path, *arguments: str, name: str | None = None, ready: str | None = None) -> Process:
        """Start a Python program here: a file, or source text (unbuffered output)."""
        source = [str(code)] if isinstance(code, Path) else ["-c", code]
        return self.start([sys.executable, "-u", *source, *arguments], name=name or "python", ready=ready)

    def route(self, dst: str, via: str) -> None:
        """Add a route: ``dst`` is a prefix or "default", ``via`` the next hop's address."""
        self.run(["ip", "route", "add", dst, "via", via])

    def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset (one statement a line; nft 1.0.6 refuses ``; } }`` on one line)."""
        self.run(["nft", "-f", "-"], input=ruleset)

    def sysctl(self, key: str, value: str | int) -> None:
        """Write a kernel setting and read it back; LabError when the kernel keeps another value.

        Dots separate the key's parts; write it with slashes when a part has a dot of its own.
        """
        path = "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))
        script = 'printf "%s\\n" "$2" >"$1"; cat "$1"'
        done = self.run(["sh", "-c", script, "sh", path, str(value)], check=False)
        if done.stdout.split() != str(value).split():
            kept = " ".join(done.stdout.split()) or done.stderr.strip()
            raise LabError(f"{self.name}: {key}: wrote {value}, the kernel has {kept}")

    def listening(self, proto: str, port: int) -> bool:
        """Whether a socket listens on ``port`` ("tcp" or "udp") now."""
        for line in self.run(["ss", "-H", "-lnut"]).stdout.splitlines():
            columns = line.split()
            if len(columns) >= 5 and columns[0] == proto and columns[4].rpartition(":")[2] == str(port):
                return True
        return False

    def wait_port(self, proto: str, port: int, timeout: float = 10.0) -> None:
        """Wait until a socket listens on ``port`` ("tcp" or "udp"); LabError after ``timeout`` seconds."""
        process.wait_until(lambda: self.listening(proto, port), f"{self.name} {proto}/{port}", timeout)

    def next_mac(self) -> str:
        """The address of the next interface: locally administered, from the order of node and interface alone."""
        return f"02:00:00:00:{self._index:02x}:{len(self.interfaces) + 1:02x}"


class Lab:
    """The namespaces, programs and recorders of one run; files go to ``workdir``, an existing or new folder."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.nodes: dict[str, Node] = {}
        self.recorders: dict[str, Recorder] = {}
        self._processes: list[Process] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._starting = False
        self._interrupted: signal.Signals | None = None
        self._closed = False

    def __enter__(self) -> Lab:
        self.workdir.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._on_signal)
        # Second chance for a signal that arrives inside __exit__ itself.
        atexit.register(self.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        crashed = [reason for started in self._processes if (reason := started.crash())]
        self.close(failed=error is not None)
        if error is None:
            if crashed:
                raise LabError("; ".join(crashed))
            for recorder in self.recorders.values():
                recorder.check()

    def node(self, name: str, forward: bool = False) -> Node:
        """Add a host: loopback up, no IPv6 duplicate-address detection, a router when ``forward``."""
        if not _NAME.fullmatch(name) or name in self.nodes:
            raise LabError(f"{name!r}: node names are [a-z][a-z0-9-]*, each used once")
        node = Node(self, name, len(self.nodes) + 1)
        # Remembered before it exists, so that an interrupted creation is cleaned up as well.
        self.nodes[name] = node
        process.run(["ip", "netns", "add", node.namespace])
        node.run(["ip", "link", "set", "dev", "lo", "up"])
        if forward:
            node.sysctl("net.ipv4.ip_forward", 1)
        if _HOST_HAS_IPV6:
            for scope in ("all", "default"):
                node.sysctl(f"net.ipv6.conf.{scope}.accept_dad", 0)
            if forward:
                node.sysctl("net.ipv6.conf.all.forwarding", 1)
        return node

    def link(self, a: Node, a_if: str, a_addr: str, b: Node, b_if: str, b_addr: str) -> None:
        """Wire two nodes with a veth pair; addresses are "ADDRESS/PREFIX". Offloads are off, both ends up."""
        for name in (a_if, b_if):
            if not _INTERFACE.fullmatch(name):
                raise LabError(f"{name!r}: interface names have 2 to 15 characters of [a-z0-9_.-]")
        end_a = ["name", a_if, "netns", a.namespace, "address", a.next_mac()]
        end_b = ["name", b_if, "netns", b.namespace, "address", b.next_mac()]
        process.run(["ip", "link", "add", *end_a, "type", "veth", "peer", *end_b])
        for node, name, address in ((a, a_if, a_addr), (b, b_if, b_addr)):
            node.interfaces.append(name)
            self._bring_up(node, name, address)

    def _bring_up(self, node: Node, name: str, address: str) -> None:
        if ipaddress.ip_interface(address).version == 4:
            if _HOST_HAS_IPV6:
                # Router solicitations and MLD reports would be noise in the recordings.
                node.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            node.run(["ip", "address", "add", address, "dev", name])
        else:
            node.run(["ip", "address", "add", address, "dev", name, "nodad"])
        # With offloads on, captures show super-frames and unfinished checksums.
        node.run(["ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
        node.run(["ip", "link", "set", "dev", name, "up"])

    def capture(self, node: Node, iface: str, point: str, only: str = "") -> Recorder:
        """Record ``iface`` ("any": all) to workdir/``<point>.pcap`` from now on until the lab ends (or ``stop()``).

        ``only`` is a capture filter (pcap-filter(7)).
        """
        if not _NAME.fullmatch(point) or point in self.recorders:
            raise LabError(f"{point!r}: point names are [a-z][a-z0-9-]*, each used once")
        path = self.workdir / f"{point}.pcap"
        argv = [*node.prefix, *Recorder.argv(iface, path, only)]
        started = self.adopt(lambda log: Process(f"recorder.{point}", argv, log), f"recorder.{point}")
        started.wait_ready("listening on")
        recorder = Recorder(point, path, started)
        self.recorders[point] = recorder
        return recorder

    def adopt(self, start: Callable[[Path], Process], label: str) -> Process:
        """Start a process with a log of its own and end it with the lab."""
        log = self.workdir / f"{label}.log"
        serial = 2
        while log.exists():
            log = self.workdir / f"{label}.{serial}.log"
            serial += 1
        self._starting = True
        try:
            started = start(log)
            self._processes.append(started)
        finally:
            self._starting = False
        if self._interrupted is not None:
            _leave(self._interrupted)
        return started

    def close(self, failed: bool = False) -> None:
        """Stop the recorders, then the programs, newest first, then delete the namespaces.

        The recorders get a moment for the last packets unless the lab ``failed``. Safe to call twice.
        """
        if self._closed:
            return
        guarded = (signal.SIGINT, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, guarded)
        try:
            # Recorders first, so that the programs' dying packets are never in a recording.
            if self.recorders and not failed:
                time.sleep(SETTLE_S)
            # All are told before any is waited for, so that they end at the same packet.
            for recorder in self.recorders.values():
                recorder.finish()
            for recorder in self.recorders.values():
                recorder.stop()
            for started in reversed(self._processes):
                started.stop()
            left = [node.namespace for node in self.nodes.values() if not _delete(node.namespace)]
            self._closed = True
        finally:
            atexit.unregister(self.close)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, guarded)
        if left:
            raise LabError(f"could not delete: {', '.join(left)}")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A program between its start and its entry in the list would be forgotten: wait for that.
        if self._starting:
            self._interrupted = signal.Signals(number)
        else:
            _leave(signal.Signals(number))


def _delete(namespace: str) -> bool:
    done = process.run(["ip", "netns", "delete", namespace], check=False)
    return done.returncode == 0 or not Path("/run/netns", namespace).exists()


def _leave(number: signal.Signals) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
