"""Measurements side by side: each module holds the benchmarks of one area. See `make bench`."""
