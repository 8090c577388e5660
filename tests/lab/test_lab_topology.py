"""Namespaces, programs and settings of a lab: made, checked, and gone afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest

InLab = Callable[..., str]

pytestmark = pytest.mark.lab

TWO_NODES = """
import os, signal, subprocess, sys, time
from pathlib import Path
from netdiag.errors import LabError
from netdiag.lab.topology import Lab

def names():
    return [name for name in os.listdir("/run/netns") if name.startswith(f"nd-{os.getpid()}-")]

def two_nodes(lab):
    a, b = lab.node("a"), lab.node("b")
    lab.link(a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
    return a, b

workdir = Path(sys.argv[1])
"""


def test_namespaces_and_programs_are_gone_after_an_exception(in_lab: InLab, tmp_path: Path) -> None:
    source = """
try:
    with Lab(workdir) as lab:
        a, b = two_nodes(lab)
        sleeper = a.start(["sh", "-c", "sleep 100 & sleep 100"])
        group = sleeper.pid
        print("during", sorted(names()) == sorted([a.namespace, b.namespace]))
        raise KeyError("fault in a lab")
except KeyError as error:
    print("raised", error)
print("after", names())
try:
    os.killpg(group, 0)
    print("group lives")
except ProcessLookupError:
    print("group gone")
"""
    lines = in_lab(TWO_NODES + source, str(tmp_path)).splitlines()
    assert lines == ["during True", "raised 'fault in a lab'", "after []", "group gone"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_namespaces_are_gone_after_a_signal(in_lab: InLab, tmp_path: Path, number: str) -> None:
    source = f"""
child = os.fork()
if child == 0:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
    with Lab(workdir) as lab:
        two_nodes(lab)
        (workdir / "up").write_text(" ".join(names()))
        time.sleep(30)
    os._exit(0)
deadline = time.monotonic() + 20
while not (workdir / "up").exists() or not (workdir / "up").read_text():
    assert time.monotonic() < deadline
    time.sleep(0.02)
os.kill(child, signal.{number})
status = os.waitpid(child, 0)[1]
made = (workdir / "up").read_text().split()
print(len(made), [name for name in made if os.path.exists("/run/netns/" + name)], os.waitstatus_to_exitcode(status))
"""
    made, left, status = in_lab(TWO_NODES + source, str(tmp_path)).split()[-3:]
    assert (made, left) == ("2", "[]")
    assert status != "0"


def test_a_setting_that_the_kernel_refuses_is_an_error(in_lab: InLab, tmp_path: Path) -> None:
    # nf_conntrack_max is read-only in a namespace: writing it must not pass as done.
    source = """
with Lab(workdir) as lab:
    a = lab.node("a")
    a.sysctl("net.netfilter.nf_conntrack_udp_timeout", 7)
    print(a.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"]).stdout.strip())
    try:
        a.sysctl("net.netfilter.nf_conntrack_max", 5)
    except LabError as error:
        print(error)
"""
    kept, error = in_lab(TWO_NODES + source, str(tmp_path)).splitlines()
    assert kept == "7"
    assert error.startswith("a: net.netfilter.nf_conntrack_max: wrote 5, the kernel has ")


def test_a_crash_is_reported_with_the_end_of_the_log(in_lab: InLab, tmp_path: Path) -> None:
    source = """
for script, ready in (("echo no licence; exit 3", "started"), ("echo up; sleep 0.2; echo out of paper; exit 4", "up")):
    try:
        with Lab(workdir) as lab:
            a = lab.node("a")
            started = a.start(["sh", "-c", script], name="daemon", ready=ready)
            while started.returncode is None:
                time.sleep(0.02)
    except LabError as error:
        print(str(error).replace("\\n", " |"))
"""
    assert in_lab(TWO_NODES + source, str(tmp_path)).splitlines() == [
        "a.daemon: ended with status 3 before it was ready |  no licence",
        "a.daemon: ended with status 4 |  up |  out of paper",
    ]


def test_ports_are_polled_and_addresses_of_cards_are_the_same_in_every_run(in_lab: InLab, tmp_path: Path) -> None:
    source = """
with Lab(workdir) as lab:
    a, b = two_nodes(lab)
    b.python("import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 5000)); time.sleep(60)")
    b.wait_port("udp", 5000)
    print(b.listening("udp", 5000), b.listening("tcp", 5000), b.listening("udp", 500))
    try:
        b.wait_port("tcp", 5000, timeout=0.1)
    except LabError as error:
        print(error)
    print(b.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip())
"""
    assert in_lab(TWO_NODES + source, str(tmp_path)).splitlines() == [
        "True False False",
        "b tcp/5000: not ready after 0.1 s",
        "02:00:00:00:02:01",
    ]
