"""Leave these tests out of a run that does not ask for them by their marks: they need root, and take minutes."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if {"slurm", "hosts"} & set(config.option.markexpr.split()) else True
