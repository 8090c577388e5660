"""One end of an SRTP conversation: libsrtp sends GSM silence and authenticates what comes back.

    srtp_peer.py FOLDER LOCAL-ADDRESS REMOTE-ADDRESS PORT KEY SSRC FIRST-SEQUENCE [music] [renew]

SIPp steers it through files in FOLDER: the link ``told`` names the key that the signalling gave for the other side's
packets; ``start``, ``pause`` (silence, or ``music`` with an SSRC of its own), ``resume`` and ``stop`` say what to do.
With ``renew`` the sending context is made anew at each of them, as by a stack that does not look whether the key is
new.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from pylibsrtp import Error, Policy, Session

PTIME = 0.04  # s
GSM, TICKS = 3, 320  # payload type and clock ticks of a packet (RFC 3551 §4.5.8)
SILENCE = 2 * bytes.fromhex("d820a2e15a50004924924924500049249249245000492492492450004924924924")
MUSIC = 0x0B5E55ED


def context(key: str, direction: int) -> Session:
    """A libsrtp session with a master key as a=crypto writes it (AES_CM_128_HMAC_SHA1_80)."""
    return Session(Policy(key=base64.b64decode(key), ssrc_type=direction,
                          srtp_profile=Policy.SRTP_PROFILE_AES128_CM_SHA1_80))


class Source:
    """Numbers of one SSRC."""

    def __init__(self, ssrc: int, first: int) -> None:
        self.ssrc, self.number, self.sent = ssrc, first, 0

    def packet(self) -> bytes:
        header = struct.pack("!BBHII", 0x80, GSM, (self.number + self.sent) & 0xFFFF, TICKS * self.sent, self.ssrc)
        self.sent += 1
        return header + SILENCE


def main() -> None:
    folder, local, remote, port, key, ssrc, first, *options = sys.argv[1:]
    control = Path(folder)
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((local, int(port)))
    print("ready", flush=True)
    voice, music = Source(int(ssrc, 16), int(first)), Source(MUSIC, 500)
    sender = context(key, Policy.SSRC_ANY_OUTBOUND)
    told, receiver = "", None
    received: Counter[int] = Counter()
    authenticated: Counter[int] = Counter()
    state, due = "wait", time.monotonic()
    while state != "stop":
        for word in ("start", "pause", "resume", "stop"):
            if (control / word).exists():
                (control / word).unlink()
                state = word
                if "renew" in options:
                    sender = context(key, Policy.SSRC_ANY_OUTBOUND)
        if (control / "told").is_symlink() and (now := os.readlink(control / "told")) != told:
            told, receiver = now, context(now, Policy.SSRC_ANY_INBOUND)
        while True:
            try:
                data = sock.recv(2048)
            except BlockingIOError:
                break
            number = int.from_bytes(data[8:12], "big")
            received[number] += 1
            try:
                if receiver is not None:
                    receiver.unprotect(data)
                    authenticated[number] += 1
            except Error:
                pass
        source = music if state == "pause" and "music" in options else voice
        if state in ("start", "resume") or source is music:
            sock.sendto(sender.protect(source.packet()), (remote, int(port)))
        due = max(due + PTIME, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
    for number, count in sorted(received.items()):
        print(f"SSRC 0x{number:08x}: received {count}, authenticated {authenticated[number]}", flush=True)


if __name__ == "__main__":
    main()
