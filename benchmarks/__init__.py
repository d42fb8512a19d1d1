"""Benchmarks: each writes results/<name>.json with the machine, n and ratios. Nothing here is a test."""
