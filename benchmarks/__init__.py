"""Benchmarks: each prints this project's figure, its rivals' and the floor's from one run."""
