"""One browser's side of a call, by aiortc: ``peer.py offer|answer FOLDER TURN-URL USER PASSWORD SECONDS``.

Offer and answer pass through files in FOLDER: they stand for the signalling over TLS, which no capture of the case
shows. Says on standard output what becomes of the connection, and ends SECONDS after it was up, or when it fails.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole
from aiortc.mediastreams import AudioStreamTrack


def put(path: Path, description: RTCSessionDescription) -> None:
    """Write a description so that a reader sees all of it or nothing."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"sdp": description.sdp, "type": description.type}))
    part.rename(path)


async def take(path: Path) -> RTCSessionDescription:
    while not path.exists():
        await asyncio.sleep(0.05)
    return RTCSessionDescription(**json.loads(path.read_text()))


async def call(role: str, folder: Path, url: str, user: str, password: str, seconds: float) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[RTCIceServer(url, user, password)]))
    sink, over = MediaBlackhole(), asyncio.Event()

    @connection.on("track")
    def on_track(track: object) -> None:
        sink.addTrack(track)

    @connection.on("connectionstatechange")
    async def on_change() -> None:
        print(connection.connectionState, flush=True)
        if connection.connectionState == "connected":
            asyncio.get_running_loop().call_later(seconds, over.set)
        elif connection.connectionState in ("failed", "closed"):
            over.set()

    connection.addTrack(AudioStreamTrack())
    if role == "offer":
        await connection.setLocalDescription(await connection.createOffer())
        put(folder / "offer.json", connection.localDescription)
        await connection.setRemoteDescription(await take(folder / "answer.json"))
    else:
        await connection.setRemoteDescription(await take(folder / "offer.json"))
        await connection.setLocalDescription(await connection.createAnswer())
        put(folder / "answer.json", connection.localDescription)
    await sink.start()
    await over.wait()
    await connection.close()


if __name__ == "__main__":
    role, folder, url, user, password, seconds = sys.argv[1:]
    asyncio.run(call(role, Path(folder), url, user, password, float(seconds)))
