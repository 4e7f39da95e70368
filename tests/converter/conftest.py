"""The stores that the documents' examples open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.converter.samples import Samples, make_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples' stores in a folder `data`, made once. Read only."""
    return make_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def in_samples(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where `data` is."""
    monkeypatch.chdir(samples.root)
    return samples.root
