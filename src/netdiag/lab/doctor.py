"""What this host has for running labs, and which Debian package gives what it lacks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from netdiag.errors import LabError
from netdiag.lab import process
from netdiag.lab.runner import isolated

PACKAGES = {
    "ip": "iproute2",
    "ss": "iproute2",
    "unshare": "util-linux",
    "ethtool": "ethtool",
    "nft": "nftables",
    "tcpdump": "tcpdump",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "sipp": "sip-tester",
    "kamailio": "kamailio",
    "baresip": "baresip-core",
    "rtpengine": "rtpengine-daemon",
    "turnserver": "coturn",
}
"""Program -> Debian package."""

MODULES = ("pysipp", "aiortc", "pylibsrtp")
"""Python modules of the extra ``labs``."""

_VETH = "ip link add name ndprobe0 type veth peer name ndprobe1 && ip link set dev ndprobe0 up"
_MASQUERADE = """nft -f - <<'END'
table ip probe {
  chain post {
    type nat hook postrouting priority srcnat
    masquerade
  }
}
END
"""
_CONNTRACK = "echo 5 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a lab may need: whether it is there, what was seen, and what to do when it is not."""

    name: str
    ok: bool
    detail: str
    hint: str


def checks() -> list[Check]:
    """Look at this host; nothing is changed on it (kernel features are tried in a throw-away namespace)."""
    found = [_privilege(), *(_program(name, package) for name, package in PACKAGES.items())]
    found += [_module(name) for name in MODULES]
    found.append(_kernel("veth pairs", _VETH, "the kernel module veth"))
    found.append(_kernel("nft masquerade", _MASQUERADE, "apt install nftables; kernel modules nf_tables and nft_masq"))
    found.append(_kernel("conntrack timers", _CONNTRACK, "the kernel module nf_conntrack"))
    found.append(_leftovers())
    return found


def _privilege() -> Check:
    name = "network namespaces"
    hint = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces)"
    how = "root" if os.geteuid() == 0 else "user namespace"
    reason = _try("true")
    return Check(name, reason is None, how if reason is None else reason, "" if reason is None else hint)


def _program(name: str, package: str) -> Check:
    where = process.which(name)
    return Check(name, where is not None, where or "not found", "" if where else f"apt install {package}")


def _module(name: str) -> Check:
    there = importlib.util.find_spec(name) is not None
    hint = "" if there else "pip install 'netdiag[labs]'"
    return Check(name, there, "importable" if there else "not installed", hint)


def _kernel(name: str, script: str, hint: str) -> Check:
    reason = _try(script)
    return Check(name, reason is None, "works" if reason is None else reason, "" if reason is None else hint)


def _leftovers() -> Check:
    """Namespaces of labs that were killed outright (SIGKILL, power): named, never removed here."""
    folder = Path("/run/netns")
    names = sorted(entry.name for entry in folder.glob("nd-*-*")) if folder.is_dir() else []
    dead = [name for name in names if not Path("/proc", name.split("-")[1]).exists()]
    hint = "; ".join(f"ip netns delete {name}" for name in dead)
    return Check("no leftovers", not dead, ", ".join(dead) or "none", hint)


def _try(script: str) -> str | None:
    """Run a shell script in a new network namespace; None when it works, else why not."""
    argv = ["sh", "-c", script]
    wrapped = ["unshare", "--net", *argv] if os.geteuid() == 0 else isolated(argv)
    try:
        done: subprocess.CompletedProcess[str] = process.run(wrapped, check=False, timeout=10)
    except LabError as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
