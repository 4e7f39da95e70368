"""The folder of a training: what it is, how far it is, what came of it. No framework.

RUN/
├── run.json      recipe, store and selections: written first, never changed
├── state.npz     all variables and the position, from which a killed training goes on; gone when finished
├── best.keras    the model of the best epoch so far
├── log.csv       a line for each epoch
├── tensorboard/
├── result.json   written last: the training is finished
├── evaluation/   metrics and predictions of each split that was measured
├── report.html   all of it to look at
└── .lock/        while a process trains, see `bigearthnet.lock`
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import RunError
from bigearthnet.files import (
    convert_values,
    find_leftovers,
    flush,
    hash_file,
    make_folder,
    open_regular,
    read_json,
    read_regular,
    write_json,
    write_new,
)
from bigearthnet.lock import Lock, OnWatching, hold_lock
from trainer.run.recipe import Recipe

_STATE_VERSION: Final = 1

TIMES: Final = {
    "waiting_s": "waiting for data",
    "copying_s": "copying",
    "computing_s": "computing",
    "validating_s": "validating",
    "saving_s": "saving",
}
"""Where the time of an epoch goes, and how that is called: while the device waits for a batch to be decoded, then for
it to be copied; the rest of the training; validation; what saving holds up."""

RECORDED: Final = (
    *("epoch", "loss", "val_loss", "val_macro_ap", "val_micro_ap", "learning_rate", "patches_per_s"),
    *TIMES,
    "energy_j",
)
"""What is recorded of each epoch."""

_MAX_LOG_BYTES: Final = 16 * 2**20
_MAX_NOTE_BYTES: Final = 16 * 2**20


class Provenance(TypedDict, total=False):
    """What a store says of its data."""

    dataset: str | None
    license: str | None
    citation: str | None
    counts: Mapping[str, int] | None
    synthetic: bool


def describe_provenance(attributes: Mapping[str, Any]) -> Provenance:
    """Take what a store says of its data from its root attributes."""
    said = {name: attributes[name] for name in ("dataset", "license", "citation", "counts")}
    return convert_values(said | ({"synthetic": True} if attributes.get("synthetic") else {}), Provenance)


class SplitSizes(TypedDict):
    """Patches of either split."""

    train: int
    validation: int


@dataclass(frozen=True)
class RunRecord:
    """What a training is. The first part decides whether another call continues it."""

    recipe: Recipe
    """With everything filled in."""
    fingerprint: str
    """Of the store."""
    train: str
    """Digest of the training patches."""
    validation: str
    """Digest of the validation patches."""
    n_patches: SplitSizes
    bands: Mapping[str, tuple[str, ...]]
    """For each array, the bands that the model takes."""
    classes: tuple[str, ...]
    store: str
    """Where the store was when the training began."""
    command: str
    """What began the training."""
    versions: Mapping[str, str]
    """Of the libraries."""
    provenance: Provenance
    sources: Mapping[str, str] = field(default_factory=dict)
    """Of each option that names something outside of the store: functions, weights; the hash of what it names."""

    @property
    def digest(self) -> str:
        """Identify the training."""
        deciding = [asdict(self.recipe), self.fingerprint, self.train, self.validation, dict(self.bands), self.classes]
        deciding.append(dict(self.sources))
        return hashlib.blake2b(json.dumps(deciding).encode(), digest_size=16).hexdigest()


@dataclass
class Position:
    """How far a training is; everything that is not a variable of the model or of the optimizer."""

    epoch: int = 0
    step: int = 0
    """Steps of the epoch that were trained."""
    loss_sum: float = 0.0
    """Sum of the losses of these steps."""
    busy_s: float = 0.0
    """Time of these steps."""
    wait_s: float = 0.0
    """Part of it in which the device waited until a batch was decoded."""
    copy_s: float = 0.0
    """Part of it in which the device waited until a batch was copied."""
    save_s: float = 0.0
    """Time in which states were written since the last epoch was recorded."""
    energy_j: float = 0.0
    """What the devices drew since then; 0 if they do not tell."""
    devices: list[str] = field(default_factory=list)
    """What trained so far, each kind once."""
    best_epoch: int = -1
    """-1 until there is one."""
    best_score: float = float("-inf")
    """Validation macro average precision of the best epoch."""
    history: list[dict[str, int | float]] = field(default_factory=list)
    """A record for each epoch that is over."""

    def __post_init__(self) -> None:
        if not (0 <= self.epoch == len(self.history) and self.step >= 0 and -1 <= self.best_epoch <= self.epoch):
            raise ValueError(
                f"epoch {self.epoch}, step {self.step} and best epoch {self.best_epoch} do not go together "
                f"with {len(self.history)} epochs"
            )
        numbers = (self.loss_sum, self.busy_s, self.wait_s, self.copy_s, self.save_s, self.energy_j)
        if not all(map(math.isfinite, numbers)) or math.isnan(self.best_score):
            raise ValueError("a number is infinite or none")
        _check_records(self.history)

    def begin_epoch(self) -> None:
        """Go to the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum = self.busy_s = self.wait_s = self.copy_s = self.save_s = self.energy_j = 0.0

    def is_over(self, recipe: Recipe) -> bool:
        """Say whether the last epoch is over, or patience has run out."""
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= recipe.epochs or (0 < recipe.patience <= waited and self.epoch > 0)


def describe_times(record: Mapping[str, float]) -> str:
    """Say which share of the time of an epoch went where."""
    total = sum(record[name] for name in TIMES)
    return ", ".join(f"{record[name] / (total or 1):.0%} {what}" for name, what in TIMES.items())


def _check_records(records: Sequence[Mapping[str, float]]) -> None:
    for record in records:
        if tuple(record) != RECORDED or any(map(math.isinf, record.values())):
            raise ValueError(f"expected numbers {', '.join(RECORDED)} of each epoch, found {record}")


class _Note(msgspec.Struct):
    """What is in a state beside variables."""

    version: int
    run: str
    position: Position


class Result(TypedDict):
    """What came of a training."""

    best_epoch: int
    epochs: int
    validation: dict[str, int | float]
    baseline_macro_ap: float
    devices: list[str]
    """What trained, one after the other."""


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the evaluation of a split is written."""

    metrics: Path
    predictions: Path


def locate_evaluation(run: Path | str, split: str, where: str = "") -> EvaluationFiles:
    """Name the files of the evaluation of a split, or of those of its patches that meet a condition."""
    folder = Path(run) / "evaluation"
    if where:
        split += f"-{hashlib.blake2b(where.encode(), digest_size=4).hexdigest()}"
    return EvaluationFiles(folder / f"{split}.json", folder / f"{split}.parquet")


class RunFolder:
    """The folder of one training.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.model_path = self.path / "best.keras"
        self.log_path = self.path / "log.csv"
        self.report_path = self.path / "report.html"
        self.events_path = self.path / "tensorboard"
        self._record_path = self.path / "run.json"
        self._state_path = self.path / "state.npz"
        self._result_path = self.path / "result.json"
        self._lock_path = self.path / ".lock"
        self._lock: Lock | None = None
        self._files = (self._record_path, self._state_path, self.model_path, self.log_path, self._result_path)

    @contextmanager
    def hold(self, on_event: OnWatching) -> Iterator[None]:
        """Keep other processes from training here; the folder is made if it is not there.

        Whatever is written meanwhile raises OutputError if this process was held up for so long that another may have
        gone on.

        Args:
            on_event: Called when whoever trained here last may still do so.

        Raises:
            BusyError: One does.
            RunError: It is no folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._refuse()
        with hold_lock(self._lock_path, self.path, on_event) as self._lock:
            yield

    def _check_lock(self) -> None:
        if self._lock:
            self._lock.check()

    def begin(self, record: RunRecord) -> None:
        """Record what the training is, or check that it holds this very training, unfinished.

        Raises:
            RunError: It holds something else.
        """
        leftovers = [leftover for path in self._files for leftover in find_leftovers(path)]
        if self._record_path.is_file():
            self._check_same(record)
        elif self.path.exists() and {*self.path.iterdir()} - {*leftovers, self._lock_path}:
            raise self._refuse()
        else:
            make_folder(self.path)
            write_json(self._record_path, asdict(record))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)

    def _refuse(self) -> RunError:
        return RunError(f"{self.path}: exists and holds no training; choose another folder")

    @property
    def has_record(self) -> bool:
        """Whether the folder holds a training."""
        return self._record_path.is_file()

    def read_record(self) -> RunRecord:
        """Read what the training is.

        Raises:
            RunError: The folder holds no training.
        """
        try:
            return read_json(self._record_path, RunRecord)
        except FileNotFoundError as error:
            raise RunError(f"{self.path}: there is no run.json; give a folder that `ben-train fit` made") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{self._record_path}: damaged, or of another version ({error})") from error

    def save_state(self, digest: str, position: Position, variables: Sequence[NDArray[Any]]) -> None:
        """Save everything that is needed to go on; the old state is there until the new one is."""
        self._check_lock()
        note = {"version": _STATE_VERSION, "run": digest, "position": asdict(position)}
        arrays: dict[str, Any] = {f"v{number:05}": value for number, value in enumerate(variables)}
        with write_new(self._state_path, overwrite=True) as temporary:
            np.savez(temporary, note=np.array(json.dumps(note)), **arrays)

    def load_state(self, digest: str, variables: Sequence[NDArray[Any]]) -> tuple[Position, list[NDArray[Any]]] | None:
        """Load the state, if there is one.

        Args:
            digest: Of the training that is to go on.
            variables: Arrays like those expected.

        Raises:
            RunError: The state is damaged, or that of another training or model.
        """
        if not self._state_path.exists():
            return None
        try:
            note, values = self._read_state(sum(variable.nbytes for variable in variables))
        except Exception as error:  # NumPy and zipfile promise nothing about what they raise
            raise RunError(f"{self._state_path}: damaged ({error}); remove it to begin again") from error
        shapes, expected = ([(one.shape, one.dtype) for one in arrays] for arrays in (values, variables))
        if note.run != digest or shapes != expected:
            raise RunError(
                f"{self._state_path}: belongs to another training or model ({note.run}, {len(shapes)} variables) than "
                f"this one ({digest}, {len(expected)}); remove it to begin again"
            )
        return note.position, values

    def _read_state(self, n_bytes: int) -> tuple[_Note, list[NDArray[Any]]]:
        """Read the state, whose variables should take so many bytes."""
        with open(open_regular(self._state_path), "rb") as file:
            with zipfile.ZipFile(file) as archive:
                n_inflated = sum(member.file_size for member in archive.infolist())
            if n_inflated > n_bytes + _MAX_NOTE_BYTES:
                raise ValueError(f"expected {n_bytes:,} bytes of variables, found {n_inflated:,} of all")
            file.seek(0)
            with np.load(file) as saved:
                note = convert_values(json.loads(str(saved["note"])), _Note)  # -Infinity is none of JSON, but of Python
                return note, [saved[name] for name in sorted(set(saved.files) - {"note"})]

    def write_log(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the log anew, so that a training that was killed and went on has each epoch once."""
        self._check_lock()
        with write_new(self.log_path, overwrite=True) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    def read_log(self) -> list[dict[str, float]]:
        """Read a record for each epoch that is over.

        Raises:
            RunError: The log is damaged.
        """
        if not self.log_path.exists():
            return []
        try:
            text = read_regular(self.log_path, _MAX_LOG_BYTES).decode()
            rows = csv.DictReader(io.StringIO(text, newline=""))
            records = [{name: float(value) for name, value in row.items()} for row in rows]
            _check_records(records)
            return records
        except (OSError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"{self.log_path}: damaged, or of another version ({error})") from error

    def hash_model(self) -> str | None:
        """Identify the model of the best epoch so far; None if there is none."""
        return hash_file(self.model_path) if self.model_path.is_file() else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, then remove what only an unfinished training needs."""
        self._check_lock()
        write_json(self._result_path, result)
        self._state_path.unlink(missing_ok=True)

    def read_result(self) -> Result | None:
        """Read the result; None while the training is not finished.

        Raises:
            RunError: It is damaged.
        """
        if not self._result_path.exists():
            return None
        try:
            result = read_json(self._result_path, Result)
            _check_records([result["validation"]])
            return result
        except (OSError, ValueError) as error:
            raise RunError(f"{self._result_path}: damaged, or of another version ({error})") from error

    def _check_same(self, record: RunRecord) -> None:
        begun = self.read_record()
        advice = "choose another folder"
        if self._result_path.is_file():
            flush(self.path)  # whoever wrote that may have been killed before this
            raise RunError(f"{self.path}: this training is finished; {advice}")
        differences = record.recipe.list_differences(asdict(begun.recipe))
        if differences:
            raise RunError(f"{self.path}: was begun with {'; '.join(differences)}; give the same, or {advice}")
        changed = [name for name, hashed in record.sources.items() if begun.sources.get(name) != hashed]
        if changed:
            named = ", ".join(f"{name}={getattr(record.recipe, name)}" for name in changed)
            raise RunError(
                f"{self.path}: was begun when {named} was another (hash {begun.sources.get(changed[0])}, not "
                f"{record.sources[changed[0]]}); restore it, or {advice}"
            )
        if begun.digest != record.digest:
            raise RunError(
                f"{self.path}: was begun on another store or selection (fingerprint {begun.fingerprint} of "
                f"{begun.store}, not {record.fingerprint} of {record.store}); {advice}"
            )
