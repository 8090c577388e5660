"""Recording a lab interface without losing a packet.

As root this is tcpdump in immediate mode (plain tcpdump and dumpcap lost packets
when stopped soon after the last one). tcpdump cannot drop its privileges inside a
rootless user namespace (``setgroups`` is denied there), so then this module is its
own recorder: ``python -m netdiag.lab.capture INTERFACE FILE [FILTER]`` copies an AF_PACKET
socket to a nanosecond pcap file until SIGINT or SIGTERM. INTERFACE "any" is all of them.

File format: the classic libpcap format, magic 0xa1b23c4d for nanoseconds
(draft-ietf-opsawg-pcap), with "any" as LINUX_SLL. Socket options: packet(7), socket(7).
"""

from __future__ import annotations

import ctypes
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from netdiag.errors import LabError

if TYPE_CHECKING:
    from netdiag.lab.process import Process

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_TIMESTAMPNS = 35  # also the type of the control message that carries it
_MAX_FRAME = 262_144  # libpcap's MAXIMUM_SNAPLEN
_LINKTYPE_ETHERNET = 1
_LINKTYPE_LINUX_SLL = 113
_SO_ATTACH_FILTER = 26
_RECEIVE_BUFFER = 4_194_304  # bytes; the kernel caps it at net.core.rmem_max


class Recorder:
    """One running or finished recording: ``path`` is the file, ``point`` its capture point."""

    def __init__(self, point: str, path: Path, process: Process) -> None:
        self.point = point
        self.path = path
        self._process = process

    @staticmethod
    def argv(iface: str, path: Path, only: str = "") -> list[str]:
        """The command that records ``iface`` to ``path``; it prints "listening on" when it is ready.

        ``only`` is a capture filter (pcap-filter(7)).
        """
        if _may_change_groups():
            # For "any" the ring has a slot of the whole snap length for each packet: eight, with the defaults.
            length = ["-s9000", "-B16384"] if iface == "any" else ["-s0", "-B8192"]
            options = ["-n", "-U", "--immediate-mode", *length, "--time-stamp-precision=nano", "-Z", "root"]
            return ["tcpdump", *options, "-i", iface, "-w", str(path), *([only] if only else [])]
        return [sys.executable, "-m", "netdiag.lab.capture", iface, str(path), only]

    def finish(self) -> None:
        """Ask the recording to end, without waiting for it."""
        self._process.send(signal.SIGINT)

    def stop(self) -> None:
        """End the recording; everything seen so far is in the file. Safe to call twice."""
        self._process.stop(signal.SIGINT)

    def check(self) -> None:
        """LabError when the finished recorder says that it lost packets."""
        output = self._process.output()
        dropped = re.search(r"(\d+) packets? dropped by kernel", output)
        if dropped is None:
            raise LabError(f"recorder {self.point}: did not finish\n{output}")
        if int(dropped[1]):
            raise LabError(f"recorder {self.point}: {dropped[1]} packets lost; the recording cannot be trusted")


def _may_change_groups() -> bool:
    try:
        return Path("/proc/self/setgroups").read_text(encoding="ascii").strip() != "deny"
    except FileNotFoundError:
        return True


def record(iface: str, out: BinaryIO, only: str = "") -> tuple[int, int]:
    """Copy frames of ``iface`` that the capture filter ``only`` passes to ``out`` until SIGINT or SIGTERM.

    Returns (frames written, frames the kernel dropped). Each frame is flushed at once.
    """
    cooked = iface == "any"
    kind, link_type = (socket.SOCK_DGRAM, _LINKTYPE_LINUX_SLL) if cooked else (socket.SOCK_RAW, _LINKTYPE_ETHERNET)
    with socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL) if cooked else 0) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if only:
            _attach(raw, only, "RAW" if cooked else "EN10MB")
        if not cooked:
            # Protocol 0 until here, so that nothing from another interface is queued before the bind.
            raw.bind((iface, _ETH_P_ALL))
        raw.setblocking(False)
        wake_out, wake_in = socket.socketpair()
        wake_in.setblocking(False)
        signal.set_wakeup_fd(wake_in.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _MAX_FRAME, link_type))
        out.flush()
        print(f"listening on {iface}", file=sys.stderr, flush=True)
        written = 0
        stopping = False
        while not stopping:
            stopping = wake_out in select.select([raw, wake_out], [], [])[0]
            # Drained after the signal too: what the kernel has queued was on the wire before it.
            written += _drain(raw, cooked, out)
        dropped: int = struct.unpack("=II", raw.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        wake_out.close()
        wake_in.close()
    return written, dropped


def _attach(raw: socket.socket, only: str, link_type: str) -> None:
    """Have the kernel drop what the filter does not pass; tcpdump translates it (bpf(4), "struct sock_fprog")."""
    argv = ["tcpdump", "-y", link_type, "-ddd", only]
    _, *lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in lines))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(lines), ctypes.addressof(program)))


def _drain(raw: socket.socket, cooked: bool, out: BinaryIO) -> int:
    written = 0
    while True:
        try:
            frame, control, _, source = raw.recvmsg(_MAX_FRAME, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return written
        if source[0] == "lo" and source[2] == socket.PACKET_OUTGOING:
            continue  # on lo each frame is seen again as it arrives
        if cooked:
            _, protocol, packet_type, hardware, address = source
            frame = struct.pack("!HHH8sH", packet_type, hardware, len(address), address[:8], protocol) + frame
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", data)
        out.write(struct.pack("<IIII", seconds, nanoseconds, len(frame), len(frame)) + frame)
        out.flush()
        written += 1


def main(arguments: list[str]) -> int:
    """``INTERFACE FILE [FILTER]``: record until SIGINT or SIGTERM, then say how much as tcpdump does."""
    iface, path, *only = arguments
    with Path(path).open("wb") as out:
        written, dropped = record(iface, out, " ".join(only))
    print(f"{written} packets captured\n{dropped} packets dropped by kernel", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
