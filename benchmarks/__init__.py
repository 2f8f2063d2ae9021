"""Measurements side by side: each module holds the benchmarks of one area. See `make bench`."""

import sys
from pathlib import Path

# `scones` is a folder of Airflow's plugins: found by every benchmark, however it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins"))
