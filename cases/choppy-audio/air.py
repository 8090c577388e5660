"""A radio link: ``air.py NEAR FAR`` forwards frames between two interfaces and holds some of them back.

Frames from NEAR wait for their turn on the air: now and then the link is busy for a while, and all that came
meanwhile goes out at once. The order stays, nothing is lost. Frames from FAR pass at once.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 0x0003
BUSY_S = (0.09, 0.17)
"""How long the link is busy: others send, or frames are repeated."""
EVERY_S = (0.35, 0.7)


def opened(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((interface, ETH_P_ALL))
    return made


def main(near: str, far: str) -> None:
    chance = random.Random(29)  # the same pauses in every run
    inside, outside = opened(near), opened(far)
    waiting: deque[bytes] = deque()
    free_from = 0.0
    busy_at = time.monotonic() + chance.uniform(*EVERY_S)
    print("forwarding", flush=True)
    while True:
        now = time.monotonic()
        if now >= busy_at:
            free_from = now + chance.uniform(*BUSY_S)
            busy_at = free_from + chance.uniform(*EVERY_S)
        if now >= free_from:
            while waiting:
                outside.send(waiting.popleft())
            wait = busy_at - now
        else:
            wait = free_from - now
        readable, _, _ = select.select([inside, outside], [], [], max(0.0, wait))
        for side in readable:
            frame, origin = side.recvfrom(65535)
            if origin[2] == socket.PACKET_OUTGOING:
                continue
            if side is outside:
                inside.send(frame)
            else:
                waiting.append(frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
