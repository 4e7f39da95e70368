"""Errors travel between processes, and all descend from one."""

from __future__ import annotations

import pickle

import pytest

from bigearthnet import errors
from bigearthnet.errors import BigEarthNetError, OptionError, PatchError, SourceError, StoreError, VerificationError


@pytest.mark.parametrize(
    "error",
    [
        BigEarthNetError("text"),
        SourceError("/data: expected a folder"),
        PatchError("S2A_patch", "S2A_patch_B02.tif", "the file is missing"),
        OptionError("codec must be one of lz4"),
        StoreError("/store: cannot be written"),
        VerificationError("shard 3 differs"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_survives_pickling(error: BigEarthNetError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_bad_patch_is_named_with_its_file() -> None:
    error = PatchError("S2A_patch", "S2A_patch_B02.tif", "the file is missing")
    assert str(error) == "S2A_patch/S2A_patch_B02.tif: the file is missing"


def test_every_error_is_a_converter_error_and_drawn_in_the_docstring() -> None:
    classes = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, Exception)]
    assert len(classes) >= 6
    for found in classes:
        assert issubclass(found, BigEarthNetError)
        assert found.__name__ in (errors.__doc__ or "")
