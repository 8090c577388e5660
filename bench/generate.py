"""Writes large, reproducible captures for measuring: the same arguments give the same bytes.

    python bench/generate.py mixed --packets 1000000 -o mixed.pcap

Classic little-endian pcap, Ethernet and IPv4, RFC 1918 and documentation addresses only. The traffic is made in
windows of time and written as it is made, so memory does not grow with the number of packets.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np
from records import PCAP_HEADER, Batch, Packet, batch_of, render
from traffic_calls import dialog_of, media, signalling
from traffic_dns import lookup
from traffic_flows import PCAP_HEADER_NS, append
from traffic_tcp import bulk_transfer
from traffic_tls import tls_connection, tls_template

BEGIN = 1_700_000_000_000_000
"""Time of the first packet, microseconds since the epoch (November 2023)."""
WINDOW = 10_000_000
"""Microseconds of traffic made at once: about 45 000 packets of the mix."""

# A second of the mix: 90 % RTP, 5 % SIP, 5 % TCP (half of it TLS, half bulk transfer), about 4 400 packets.
MEDIA_CALLS, DIALOGS, TLS_CONNECTIONS, TRANSFERS = 2.2, 32, 2, 0.25


def starts(rate: float, rng: np.random.Generator, window: int) -> list[int]:
    """Begin times of ``rate`` events a second in a window, ascending."""
    count = round(rate * WINDOW / 1e6)
    times: list[int] = np.sort(BEGIN + window * WINDOW + rng.integers(0, WINDOW, count)).tolist()
    return times


def mixed(seed: int) -> Iterator[list[Batch]]:
    """Calls with media among many without, TLS connections, and bulk transfers with loss."""
    template, dialogs, connections, transfers = tls_template(), itertools.count(), itertools.count(), itertools.count()
    for window in itertools.count():
        rng = np.random.default_rng((seed, window))
        singles: list[Packet] = []
        batches = []
        for begin, has_media in zip(starts(DIALOGS, rng, window), _spread(MEDIA_CALLS / DIALOGS), strict=False):
            d = dialog_of(next(dialogs), begin)
            singles += signalling(d)
            if has_media and not d.busy:
                batches.append(media(d, rng))
        for begin in starts(TLS_CONNECTIONS, rng, window):
            singles += tls_connection(next(connections), begin, rng, template)
        for begin in starts(TRANSFERS, rng, window):
            singles += bulk_transfer(next(transfers), begin, rng)
        yield [*batches, batch_of(singles)]


def _spread(share: float) -> Iterator[bool]:
    """True for ``share`` of the places, evenly; the tenth that is busy is made up for."""
    for i in itertools.count(1):
        yield int(i * share * 1.1) > int((i - 1) * share * 1.1)


Maker = Callable[[int, int, np.random.Generator], list[Packet]]


def only(make: Maker, rate: float) -> Callable[[int], Iterator[list[Batch]]]:
    """A mix of one kind of conversation."""
    def mix(seed: int) -> Iterator[list[Batch]]:
        number = itertools.count()
        for window in itertools.count():
            rng = np.random.default_rng((seed, window))
            yield [batch_of([p for begin in starts(rate, rng, window) for p in make(next(number), begin, rng)])]
    return mix


MIXES: dict[str, Callable[[int], Iterator[list[Batch]]]] = {
    "mixed": mixed,
    "sip": only(lambda n, t, _: signalling(dialog_of(n, t)), 80),
    "tcp": only(bulk_transfer, 7),
    "dns": only(lookup, 1000),
}


def write(mix: str, packets: int, path: str, seed: int = 7) -> None:
    """Writes exactly ``packets`` packets of a mix."""
    waiting: list[Batch] = []
    with open(path, "wb") as out:
        out.write(PCAP_HEADER)
        for window, made in enumerate(MIXES[mix](seed)):
            parts = [b.split(BEGIN + (window + 1) * WINDOW) for b in waiting + made]
            waiting = [rest for _, rest in parts if len(rest.ts)]
            ready = [now for now, _ in parts if len(now.ts)]
            out.write(render(ready, packets))
            packets -= min(packets, sum(len(b.ts) for b in ready))
            if not packets:
                return


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes a large, reproducible capture for measuring.")
    parser.add_argument("mix", choices=[*sorted(MIXES), "flows"])
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=1000, help="number of flows of the mix `flows`")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--seed", type=int, default=7, help="without effect on `flows`, where nothing is random")
    options = parser.parse_args(arguments)
    if options.packets < 1 or options.flows < 1:
        parser.error("--packets and --flows must be at least 1")
    if options.mix == "flows":
        with open(options.output, "wb") as out:
            out.write(PCAP_HEADER_NS)
            append(out, options.flows, 0, options.packets)
    else:
        write(options.mix, options.packets, options.output, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
