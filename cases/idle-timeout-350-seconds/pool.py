"""A database stand-in and its connection pool: length-prefixed requests, each answered by one reply.

pool.py serve PORT
pool.py use ADDRESS PORT SHORT_REST LONG_REST PATIENCE KEEPALIVE (seconds; KEEPALIVE 0 for none)

The pool opens three connections 0.4 s apart. Each works, rests for SHORT_REST, works, rests for
LONG_REST and asks once more; a request without an answer for PATIENCE seconds counts as hung.
Meanwhile a fourth connection asks twice a second; at the end a new one is opened and works.
Prints "hung N answered M", then "done", and stays, so that the hung connections are not closed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

POOL = 3
STAGGER = 0.4  # s
BUSY_EVERY = 0.5  # s


def serve(port: int) -> None:
    with socket.create_server(("", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection:
        while (request := read_message(connection)) is not None:
            send_message(connection, request[:8] + os.urandom(200 + request[7]))


def read_message(connection: socket.socket) -> bytes | None:
    head = read_exactly(connection, 4)
    return read_exactly(connection, struct.unpack(">I", head)[0]) if head else None


def read_exactly(connection: socket.socket, length: int) -> bytes | None:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            return None
        data += part
    return data


def send_message(connection: socket.socket, body: bytes) -> None:
    connection.sendall(struct.pack(">I", len(body)) + body)


class Pooled:
    """One connection of the pool."""

    def __init__(self, address: str, port: int, keepalive: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serial = 0
        if keepalive:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def ask(self, patience: float = 5.0) -> bool:
        """Send one request; False when no answer came within ``patience`` seconds."""
        self._serial += 1
        self._socket.settimeout(patience)
        send_message(self._socket, struct.pack(">Q", self._serial) + os.urandom(56))
        try:
            return read_message(self._socket) is not None
        except TimeoutError:
            return False

    def close(self) -> None:
        self._socket.close()


def work(connection: Pooled) -> None:
    for _ in range(3):
        if not connection.ask():
            raise SystemExit("a busy connection was not answered")
        time.sleep(0.05)


def use(address: str, port: int, short_rest: float, long_rest: float, patience: float, keepalive: int) -> None:
    over = threading.Event()
    outcomes: list[bool] = []
    hung: list[Pooled] = []  # held until the end: closing one would add a FIN to its retransmissions

    def stay_busy() -> None:
        connection = Pooled(address, port, 0)
        while not over.wait(BUSY_EVERY):
            if not connection.ask():
                print("the busy connection was not answered", flush=True)
        connection.close()

    def pooled(number: int) -> None:
        time.sleep(number * STAGGER)
        connection = Pooled(address, port, keepalive)
        work(connection)
        time.sleep(short_rest)
        work(connection)
        time.sleep(long_rest)
        answered = connection.ask(patience)
        connection.close() if answered else hung.append(connection)
        outcomes.append(answered)

    busy = threading.Thread(target=stay_busy)
    busy.start()
    for number in range(POOL):
        threading.Thread(target=pooled, args=(number,), daemon=True).start()
    while len(outcomes) < POOL:
        time.sleep(0.05)
    new = Pooled(address, port, keepalive)
    work(new)
    new.close()
    over.set()
    busy.join()
    print(f"hung {outcomes.count(False)} answered {outcomes.count(True)}\ndone", flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == "serve":
        serve(int(rest[0]))
    else:
        use(rest[0], int(rest[1]), *(float(word) for word in rest[2:5]), int(rest[5]))
