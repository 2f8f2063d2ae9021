"""Run the benchmarks: ``python -m benchmarks [--only NAME]``; prints a table, writes ``.run/bench.json``."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import benchmarks
from benchmarks.measure import Measurement

Benchmark = Callable[[], list[Measurement]]
OUTPUT = Path(".run/bench.json")


def discover() -> dict[str, Benchmark]:
    """Collect ``BENCHMARKS`` of every module in this package, by benchmark name."""
    found: dict[str, Benchmark] = {}
    for module in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda item: item.name):
        if module.name not in {"__main__", "measure"}:
            found.update(getattr(importlib.import_module(f"benchmarks.{module.name}"), "BENCHMARKS", {}))
    return found


def write(measurements: list[Measurement], output: Path = OUTPUT) -> None:
    """Merge the measurements into the output by name, so that `ONLY=` keeps what other runs measured."""
    kept = json.loads(output.read_text()) if output.exists() else []
    new = [asdict(item) for item in measurements]
    names = {item["name"] for item in new}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([item for item in kept if item["name"] not in names] + new, indent=2) + "\n")


def show(measurement: Measurement) -> None:
    mark = "holds " if measurement.holds else "MISSED"
    print(f"{mark}  {measurement.name:<34} {measurement.value:>12.4g} {measurement.unit:<6} goal {measurement.goal}")
    for key, value in measurement.beside.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"          {key:<40} {shown}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="one benchmark's name")
    arguments = parser.parse_args()
    found = discover()
    if arguments.only and arguments.only not in found:
        print(f"No benchmark named {arguments.only!r}. There are: {', '.join(sorted(found))}", file=sys.stderr)
        return 2
    failed = False
    done: set[int] = set()
    for name, benchmark in found.items():
        if (arguments.only and name != arguments.only) or id(benchmark) in done:
            continue
        done.add(id(benchmark))  # one function may measure several names
        print(f"-- {name}", flush=True)
        try:
            measurements = benchmark()
        except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others
            traceback.print_exc()
            failed = True
            continue
        write(measurements)
        for measurement in measurements:
            show(measurement)
            failed |= not measurement.holds
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
