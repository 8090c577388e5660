"""The commands that are compared: what each is asked, and what in its output shows that it did the work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAPTURE = "CAPTURE"
"""Stands for the file in a command."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One command."""

    name: str
    command: tuple[str, ...]
    work: str = ""
    """Pattern over the output, in which (count) is a number; without a group, matches are counted."""
    noun: str = ""
    """What is counted."""
    allowed: tuple[int, ...] = (0,)
    discard: bool = False
    """Its output goes to /dev/null."""
    package: str = ""
    """Name and version on PyPI, for a tool that gets a virtual environment of its own."""

    def on(self, capture: str) -> list[str]:
        """The command for one capture."""
        return [capture if part == CAPTURE else part for part in self.command]

    def seen(self, output: Path) -> str:
        """What the output says that was read, as text; "" when there is nothing to look for."""
        if not self.work:
            return ""
        pattern, count, number = re.compile(self.work), 0, ""
        with open(output, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if found := pattern.search(line):
                    count += 1
                    number = found[1] if pattern.groups else ""
        if pattern.groups:
            return f"{int(re.sub(r'[^0-9]', '', number) or 0):,} {self.noun}"
        return f"{count:,} {self.noun}"


def netdiag_command() -> tuple[str, ...]:
    """The installed script beside this interpreter, else the package in the checkout."""
    script = Path(sys.executable).with_name("netdiag")
    return (str(script),) if script.exists() else (sys.executable, "-c", "from netdiag.cli import main; main()")


NETDIAG = Tool("netdiag", (*netdiag_command(), "analyze", CAPTURE), r"contents +([\d,]+) packet", "packets", (0, 1))
NETDIAG_JSON = Tool("netdiag, JSON with SHA-256", (*netdiag_command(), "analyze", CAPTURE, "--format", "json"),
                    r'"packets": *(\d+)', "packets", (0, 1))

STATISTICS = Tool("tshark, three statistics", (
    "tshark", "-q", "-z", "expert", "-z", "rtp,streams", "-z", "sip,stat", "-r", CAPTURE),
    r"Number of SIP messages: (\d+)", "SIP messages")
EXPERT = Tool("tshark, expert", ("tshark", "-q", "-z", "expert", "-r", CAPTURE),
              r"^ +(\d+) .*\(suspected\) retransmission", "retransmissions")

SIP_FIELDS = {
    "packet": ("frame.number",), "ts_ns": ("frame.time_epoch",), "flow": ("udp.stream",),
    "source": ("ip.src",), "source_port": ("udp.srcport",),
    "destination": ("ip.dst",), "destination_port": ("udp.dstport",), "transport": ("ip.proto",),
    "method": ("sip.Method",), "status": ("sip.Status-Code",),
    "call_id": ("sip.Call-ID",), "cseq": ("sip.CSeq.seq",), "cseq_method": ("sip.CSeq.method",),
    "from_tag": ("sip.from.tag",), "to_tag": ("sip.to.tag",), "branch": ("sip.Via.branch",),
    "has_reason": ("sip.Reason",), "sdp_offset": ("sdp.version",), "size": ("udp.length",),
    "cut": ("frame.cap_len", "frame.len"), "retransmission": ("sip.resend",),
}
"""Column of netdiag's table of SIP messages to the fields of tshark that say the same."""
OWN_COLUMNS = {"message", "point", "raw_offset", "raw_length"}
"""Columns that only place a row within netdiag."""
FIELDS = Tool("tshark, fields", (
    "tshark", "-r", CAPTURE, "-T", "fields",
    *(part for fields in SIP_FIELDS.values() for field in fields for part in ("-e", field))),
    r"z9hG4bK", "messages")

SIP_DOCTOR = Tool("sip-doctor", ("sip-doctor", "read", CAPTURE), r"━━ Call #(\d+)", "calls",
                  (0, 1), package="sip-doctor==0.8.0")
NETVERDICT = Tool("netverdict", ("netverdict", "analyze", CAPTURE), r"^(\d+) packets read", "packets read",
                  (0, 1), package="netverdict==0.9.0")

CAT = Tool("cat", ("cat", CAPTURE), discard=True)
CAPINFOS = Tool("capinfos, count of packets", ("capinfos", "-c", "-M", CAPTURE), r"Number of packets: +(\d+)",
                "packets")
TCPDUMP = Tool("tcpdump, libpcap's loop", ("tcpdump", "-r", CAPTURE, "-w", os.devnull))
PYTHON = (Tool("Python, start only", (sys.executable, "-c", "pass")),
          Tool("Python, import of NumPy and Polars", (sys.executable, "-c", "import numpy, polars")))
FLOORS = (CAT, CAPINFOS, TCPDUMP)


def environment(tool: Tool = NETDIAG) -> dict[str, str]:
    """What a command runs with: netdiag of this checkout, and with its byte code, as an installed package has."""
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if tool.name.startswith("netdiag"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), env.get("PYTHONPATH", "")]))
    return env


def located(tool: Tool, packages: Path | None) -> Tool | str:
    """The tool with the path of its program, installed first where need be; or why it is not measured.

    ``packages`` is the directory of the virtual environments of tools on PyPI; None leaves these tools out.
    """
    program = tool.command[0]
    if not tool.package:
        return tool if shutil.which(program) else "not installed"
    if packages is None:
        return "left out (--no-peers)"
    home = packages / tool.package.replace("==", "-")
    script = home / "bin" / program
    if not script.exists():
        print(f"installing {tool.package} into {home}", file=sys.stderr)
        for command in ([sys.executable, "-m", "venv", str(home)],
                        [str(home / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check",
                         tool.package]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(home, ignore_errors=True)
                reason = (done.stderr or done.stdout).strip().splitlines()
                return f"{tool.package} could not be installed" + (f": {reason[-1]}" if reason else "")
    return replace(tool, command=(str(script), *tool.command[1:]))


def version(tool: Tool) -> str:
    """Version of the program behind a tool, in its own words."""
    if tool.name.startswith("netdiag"):
        import_versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("numpy", "polars"))
        return f"netdiag {_own_version()}, Python {platform.python_version()}, {import_versions}"
    if tool.package:
        return tool.package.replace("==", " ")
    done = subprocess.run([tool.command[0], "--version"], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("Running as user")]
    return lines[0].rstrip(".") if lines else tool.command[0]


def _own_version() -> str:
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "src" / "netdiag" / "__init__.py").read_text())
    return found[1] if found else "of this checkout"


def machine() -> str:
    """Processor, memory and kernel."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GB of memory, {platform.system()} {platform.release()}"
