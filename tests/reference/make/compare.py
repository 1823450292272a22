"""Compare a file that a script has just made with the stored one: python compare.py new.json.gz [tolerance].

Every number is compared against the size of the largest number of its list; the largest differences are shown, and
those beyond the tolerance count. Keys that are only in one of the two files are shown too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STORED = Path(__file__).parent.parent


def read(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def size_of(value: Any) -> float:
    """Largest number in nested lists."""
    if isinstance(value, list):
        return max((size_of(part) for part in value), default=0.0)
    return abs(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def differences(
    new: Any, old: Any, skip: set[str], place: str = "", size: float | None = None
) -> Iterator[tuple[float, str]]:
    """(relative difference, where); infinite where the two have different shapes or texts."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in skip:
                continue
            if (old.get(key) is None) != (new.get(key) is None):
                yield math.inf, f"{place}/{key} is missing in the {'new' if new.get(key) is None else 'stored'} file"
            else:
                yield from differences(new.get(key), old.get(key), skip, f"{place}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield math.inf, f"{place} has {len(new)} elements instead of {len(old)}"
            return
        scale = max(size_of(old), size or 0.0)
        for i, (a, b) in enumerate(zip(new, old, strict=True)):
            yield from differences(a, b, skip, f"{place}[{i}]", scale)
    elif isinstance(old, (int, float)) and isinstance(new, (int, float)):
        # Sums that are zero but for rounding differ by as much.
        gap = max(abs(new - old) - 1e-9, 0.0)
        yield gap / max(abs(old), size or 0.0, 1e-300), f"{place}: {new!r} instead of {old!r}"
    elif new != old:
        yield math.inf, f"{place}: {new!r} instead of {old!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("new", type=Path)
    parser.add_argument("tolerance", type=float, nargs="?", default=1e-6)
    parser.add_argument(
        "--skip", nargs="*", default=["spread", "about", "tags", "R", "versions", "lme4_refit_fixef_max_abs_diff"]
    )
    parser.add_argument("--show", type=int, default=12)
    parser.add_argument("--part", action="store_true", help="the new file holds some of the models only")
    options = parser.parse_args()
    new, old = read(options.new), read(STORED / options.new.name)
    if options.part:
        old["models"] = {name: old["models"][name] for name in new["models"]}
    found = sorted(differences(new, old, set(options.skip)), key=lambda pair: -pair[0])
    beyond = sum(gap > options.tolerance for gap, _ in found)
    print(f"{options.new.name}: {len(found)} numbers and texts, {beyond} beyond {options.tolerance:g}")
    for gap, where in found[: options.show]:
        print(f"  {gap:.1e}  {where[:160]}")


if __name__ == "__main__":
    main()
