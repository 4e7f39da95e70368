"""Stores and runs of strangers: whatever a JSON value is changed to, each tool works or raises an error of ours.

Every manifest is sealed over the change, so that no checksum gives it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearthnet.errors import BigEarthNetError, RunError
from bigearthnet.store.arrays import describe_images
from bigearthnet.store.manifest import read_manifest
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.summary import describe_store
from converter import report as converter_report
from converter.verify.verification import VerifyOptions, verify
from tests.manifests import seal_again
from tests.mutations import STRANGE, change_value, list_places, nest
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras, train
from trainer import Stream, StreamOptions, open_store
from trainer.model.networks import load_model
from trainer.report import write_report
from trainer.run.folder import RunFolder, locate_evaluation
from trainer.score.evaluate import evaluate
from trainer.score.predict import predict
from trainer.score.predictions import read_predictions
from trainer.training.events import StepTrained
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

MOST_MB: Final = 300
"""Beyond what the process has taken before; a report and DuckDB's own memory among it."""

_PAGE: Final = converter_report.ReportOptions(sample=2, overwrite=True)

FEW_OR_MANY = [
    pytest.param(800, 6, id="few"),
    pytest.param(10**6, 60, id="many", marks=[pytest.mark.faults, pytest.mark.timeout(3_000)]),
]
"""Changes that are tried, and those among them that the reader takes and that are tried with every tool."""


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Measure by the system's own high-water mark, which is set back first."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _read_status("VmRSS")
    yield
    assert _read_status("VmHWM") - before < MOST_MB * 2**10


def _read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def list_changes(values: Any, n_changes: int = 10**6) -> list[tuple[tuple[Any, ...], Any]]:
    """List so many changes of one value, in an order that is shuffled but always the same."""
    changes = [(place, value) for place in list_places(values) for value in STRANGE]
    random.Random(0).shuffle(changes)
    return changes[:n_changes]


def write_sealed(text: str) -> bytes:
    """Return a manifest with a true checksum."""
    return f'{text[:-1]},"checksum":"{hashlib.sha256(text.encode()).hexdigest()}"}}'.encode()


def use_store(folder: Path) -> None:
    """Use a store with every tool that is quick; errors of ours are fine."""
    with suppress(BigEarthNetError):
        describe_store(folder)
    with suppress(BigEarthNetError):
        converter_report.write_report(folder, folder.with_name("page.html"), _PAGE)
    options = StreamOptions(batch_size=8, threads=1, prefetch_bytes=0)
    with suppress(BigEarthNetError), Stream(open_store(folder).select(), options) as stream:
        stream.batch(0, 0)


def passes(read: Callable[[], object]) -> bool:
    """Tell whether a reader takes what it is given; it may refuse by an error of ours, and by no other."""
    try:
        read()
    except (BigEarthNetError, ValueError):
        return False
    return True


@pytest.mark.parametrize(("n_changes", "n_used"), FEW_OR_MANY)
def test_metadata_with_any_value_changed_are_refused_or_used(
    copy_store: Callable[[str], Path], n_changes: int, n_used: int, scheduler: str
) -> None:
    folder = copy_store("lz4")
    path = folder / "images.zarr/zarr.json"
    whole = json.loads(path.read_text())
    texts = [nest(json.dumps(change_value(whole, *change))) for change in list_changes(whole, n_changes)]
    with bounded_memory():
        taken = [text for text in texts if passes(lambda text=text: describe_images(text.encode()))]  # type: ignore[misc]
        assert n_used < len(taken) < 0.8 * len(texts)
        for number, text in enumerate(taken[:n_used]):
            path.write_text(text)
            seal_again(folder)
            use_store(folder)
            if number % 4 == 0:
                with suppress(BigEarthNetError):
                    verify(folder, VerifyOptions(scheduler=scheduler))


@pytest.mark.parametrize(("n_changes", "n_used"), FEW_OR_MANY)
def test_a_manifest_with_any_value_changed_is_refused_or_used(
    copy_store: Callable[[str], Path], n_changes: int, n_used: int
) -> None:
    folder = copy_store("lz4")
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    del whole["checksum"]
    taken = []
    changes = list_changes(whole, n_changes)
    with bounded_memory():
        for place, value in changes:
            text = write_sealed(nest(json.dumps(change_value(whole, place, value), separators=(",", ":"))))
            path.write_bytes(text)
            with suppress(BigEarthNetError):
                read_manifest(LocalObjects(folder))
                taken.append(text)
        assert 0 < len(taken) < len(changes) / 2
        for text in taken[:n_used]:
            path.write_bytes(text)
            use_store(folder)


# -- Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, measured on the test split. Read only."""
    path = tmp_path_factory.mktemp("measured") / "run"
    store = open_store(stores["lz4"])
    train(store, path, replace(RECIPE, epochs=1))
    evaluate(store, path, "test")
    return path


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """The run, to be changed."""
    return Path(shutil.copytree(measured, tmp_path / "run"))


@pytest.fixture
def begun(stores: dict[str, Path], tmp_path: Path) -> Path:
    """A run with a saved state."""
    with pytest.raises(StoppedError):
        fit(open_store(stores["lz4"]), tmp_path / "begun", RECIPE, FitOptions(checkpoint_steps=1), _stop)
    return tmp_path / "begun"


def _stop(event: Any) -> None:
    if isinstance(event, StepTrained) and (event.epoch, event.step) == (1, 2):
        raise StoppedError


@pytest.mark.parametrize(("n_changes", "n_used"), FEW_OR_MANY)
@pytest.mark.parametrize("name", ["run.json", "result.json", "evaluation/test.json"])
def test_a_run_with_any_value_changed_is_refused_or_used(
    run: Path, stores: dict[str, Path], name: str, n_changes: int, n_used: int
) -> None:
    path, store = run / name, open_store(stores["lz4"])
    whole = json.loads(path.read_text())
    changes = list_changes(whole, n_changes)
    with bounded_memory():
        for number, (place, value) in enumerate(changes):
            path.write_text(nest(json.dumps(change_value(whole, place, value))))
            if name == "run.json":
                with suppress(BigEarthNetError):
                    RunFolder(run).read_record()
            if number < n_used:
                with suppress(BigEarthNetError):
                    write_report(run, store)
            if number < n_used / 3:
                with suppress(BigEarthNetError):
                    evaluate(store, run, "validation")


def _rewrite_note(path: Path, edit: Callable[[str], str]) -> None:
    with np.load(path) as saved:
        arrays = dict(saved)
    arrays["note"] = np.array(edit(str(arrays["note"])))
    np.savez(path, **arrays)


def test_a_state_with_any_value_changed_is_refused_or_taken(begun: Path) -> None:
    folder = RunFolder(begun)
    path = begun / "state.npz"
    with np.load(path) as saved:
        note = json.loads(str(saved["note"]))
        variables = [saved[name] for name in sorted(set(saved.files) - {"note"})]
    digest = note["run"]
    assert folder.load_state(digest, variables) is not None
    with bounded_memory():
        for place, value in list_changes(note, 400):
            text = nest(json.dumps(change_value(note, place, value)))
            _rewrite_note(path, lambda _, text=text: text)  # type: ignore[misc]
            with suppress(RunError):
                folder.load_state(digest, variables)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 10**9},
        {"step": 7},
        {"step": -1},
        {"epoch": -5},
        {"epoch": 4},
        {"epoch": 0},
        {"best_epoch": 2},
        {"best_score": float("nan")},
        {"loss_sum": float("inf")},
        {"history": []},
        {"history": [{"epoch": 1}]},
    ],
)
def test_a_state_at_an_impossible_place_is_refused(
    begun: Path, stores: dict[str, Path], changes: dict[str, Any]
) -> None:
    def edit(text: str) -> str:
        note = json.loads(text)
        note["position"] |= changes
        return json.dumps(note)

    _rewrite_note(begun / "state.npz", edit)
    with pytest.raises(RunError, match=r"state(\.npz)?"):
        train(open_store(stores["lz4"]), begun)


def test_a_state_of_other_arrays_is_refused_before_they_are_read(begun: Path, stores: dict[str, Path]) -> None:
    path = begun / "state.npz"
    with np.load(path) as saved:
        arrays = dict(saved)
    bomb = {"v00000": np.zeros(100 * 2**20, np.uint8)}
    with bounded_memory():
        for change, form in (
            (bomb, np.savez_compressed),
            ({"v00000": arrays["v00000"].astype(str)}, np.savez),
            ({"v00000": arrays["v00000"].astype(np.float64)}, np.savez),
            ({"v00000": np.array([{}], object)}, np.savez),
        ):
            form(path, **(arrays | change))
            with pytest.raises(RunError, match=r"state\.npz"):
                train(open_store(stores["lz4"]), begun)
    for name in ("state.npz", "run.json"):
        (begun / name).unlink(missing_ok=True)
        os.mkfifo(begun / name)
        with pytest.raises(RunError):
            train(open_store(stores["lz4"]), begun)


def test_predictions_of_another_kind_are_refused(run: Path) -> None:
    path = locate_evaluation(run, "test").predictions
    whole = pq.read_table(path)
    kinds: tuple[Any, ...] = (None, 1, 1.5, "x", ["x"], [None], {"x": 1})
    for name in whole.column_names:
        for kind in kinds:
            place = whole.column_names.index(name)
            pq.write_table(whole.set_column(place, name, pa.array([kind] * len(whole))), path)
            with suppress(RunError):
                read_predictions(path)
        pq.write_table(whole.drop_columns(name), path)
        with suppress(RunError):
            read_predictions(path)
    note = {key.decode(): json.loads(value) for key, value in whole.schema.metadata.items() if key != b"ARROW:schema"}
    for place, value in list_changes(note, 200):
        changed = change_value(note, place, value)
        if isinstance(changed, dict):
            metadata = {key: nest(json.dumps(inner)) for key, inner in changed.items()}
            pq.write_table(whole.replace_schema_metadata(metadata), path)
            with suppress(RunError):
                read_predictions(path)


def test_a_model_that_inflates_is_refused_before_it_is_loaded(run: Path, stores: dict[str, Path]) -> None:
    path = run / "best.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.writestr("assets/more", bytes(300 * 2**20))
    assert path.stat().st_size < 2**20
    with bounded_memory(), pytest.raises(RunError, match=r"best\.keras: it inflates from"):
        predict(path, open_store(stores["lz4"]))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="there is no model"):
        load_model(path)


def test_a_model_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Keras's own safe mode, which is never switched off."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.save(tmp_path / "code.keras")
    with pytest.raises(RunError, match=r"code\.keras"):
        load_model(tmp_path / "code.keras")
