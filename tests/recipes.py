"""Loads the recipes of ``captures/samples`` and writes their captures."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

SAMPLES = Path(__file__).parents[1] / "captures" / "samples"


@dataclass(frozen=True)
class Sample:
    """One capture set of a recipe."""

    pattern: str
    name: str
    recipe: Path
    make: Callable[[], Any]
    module: ModuleType

    @property
    def hit(self) -> bool:
        return self.name.startswith("hit")

    @property
    def frames(self) -> list[int] | dict[str, list[int]] | None:
        """Frames that the finding must cite."""
        return getattr(self.module, "HIT_FRAMES", {}).get(self.name)

    def packets(self) -> dict[str, list[Any]]:
        made = self.make()
        return made if isinstance(made, dict) else {"": made}

    def path(self, point: str) -> Path:
        tail = f".{point}" if point else ""
        return self.recipe.with_name(f"{self.recipe.stem}.{self.name}{tail}.pcap")

    @property
    def paths(self) -> dict[str, Path]:
        """The captures that are there, by point; "" for one that has no point."""
        alone = self.path("")
        if alone.exists():
            return {"": alone}
        written = sorted(self.recipe.parent.glob(f"{self.recipe.stem}.{self.name}.*.pcap"))
        return {path.name.split(".")[-2]: path for path in written}


def load(path: Path) -> ModuleType:
    """Imports a recipe by its path; recipes share the package ``_craft`` beside them."""
    if str(SAMPLES) not in sys.path:
        sys.path.insert(0, str(SAMPLES))
    name = f"recipe_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipes() -> Iterator[Path]:
    for path in sorted(SAMPLES.glob("*/*.py")):
        if not path.parent.name.startswith("_") and path.parent.name != "cases":
            yield path


def samples() -> Iterator[Sample]:
    """Every ``hit*`` and ``near_miss_*`` function of every recipe."""
    for path in recipes():
        module = load(path)
        pattern = f"{path.parent.name}-{path.stem}".upper().replace("_", "-")
        for name in vars(module):
            if name.startswith(("hit", "near_miss_")) and callable(getattr(module, name)):
                yield Sample(pattern, name, path, getattr(module, name), module)


def encode(packets: list[Any]) -> bytes:
    """A nanosecond pcap (LINKTYPE_ETHERNET) of crafted frames."""
    import struct
    out = io.BytesIO()
    out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
    for packet in packets:
        data = bytes(packet)
        whole = round(float(packet.time) * 1_000_000) * 1000  # µs: float time holds no more
        wire = max(getattr(packet, "wirelen", None) or 0, len(data))
        out.write(struct.pack("<IIII", whole // 10**9, whole % 10**9, len(data), wire))
        out.write(data)
    return out.getvalue()


def main() -> None:
    """``python tests/recipes.py [PATTERN-ID…]`` writes the captures of all, or the named, recipes."""
    for sample in samples():
        if len(sys.argv) < 2 or sample.pattern in sys.argv[1:]:
            for point, packets in sample.packets().items():
                sample.path(point).write_bytes(encode(packets))
                print(sample.path(point).relative_to(SAMPLES), len(packets))


if __name__ == "__main__":
    main()
