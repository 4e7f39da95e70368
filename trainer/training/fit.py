"""Train a model from a store, in a folder from which a killed training goes on exactly."""

from __future__ import annotations

import copy
import math
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, RunError
from trainer.model.devices import QueuedModel, Wanted, find_mesh
from trainer.model.hosts import Hosts, find_hosts
from trainer.model.layers import WeightedCrossEntropy, make_own_loss
from trainer.model.networks import ModelCard, build_model, check_saving, describe_model, save_model
from trainer.model.weights import begin_with, read_weights
from trainer.run.folder import Position, RunFolder, RunRecord, describe_provenance
from trainer.run.function import is_function_name
from trainer.run.recipe import FINAL_RATE, Recipe
from trainer.score.match import select_split
from trainer.score.metrics import baseline_average_precision, cross_entropy, measure_ranking
from trainer.score.predict import BATCH_SIZE, predict_selection
from trainer.source.store import Selection, Store
from trainer.stream.options import StreamOptions, check_at_least, count_threads
from trainer.stream.stream import Stream
from trainer.training.events import EpochEnded, OnEvent, StepTrained, TrainingStarted
from trainer.training.meter import survey_devices
from trainer.training.steps import Steps, make_steps
from trainer.training.tensorboard import open_log

_FOCAL_GAMMA: Final = 2.0
"""Lin et al., "Focal Loss for Dense Object Detection", 2017."""

MAX_STEPS: Final = 32
_CALL_S: Final = 1.0
"""Of a call: it has so many steps at most, and no more than pass in about that time, since nothing is shown, and Ctrl-C
does nothing, until it ends."""


@dataclass(frozen=True)
class FitOptions:
    """What does not change what comes out of a training."""

    threads: int | None = None
    """Threads that decode; one a core if None."""
    checkpoint_steps: int = 250
    """Steps between two saved states within an epoch: a minute of a large network on a fast device."""
    tensorboard: bool = True
    devices: Wanted = 1
    """How many devices of this process share each batch, see `trainer.model.devices`."""
    command: str = ""
    """What the user typed."""

    def __post_init__(self) -> None:
        check_at_least("checkpoint_steps", self.checkpoint_steps, 1)


def fit(
    store: Store,
    path: Path | str,
    recipe: Recipe,
    options: FitOptions | None = None,
    on_event: OnEvent = lambda _: None,
) -> dict[str, Any]:
    """Train a model, or go on with a training that was killed.

    Args:
        store: Needs the splits train and validation.
        path: Folder of the training; see `trainer.run.folder`.
        recipe: How to train.
        options: How to work.
        on_event: Called with each event.

    Returns:
        The result: best epoch, its metrics on validation, the baseline.

    Raises:
        OptionError: The recipe does not suit the store.
        SelectionError: The store lacks a split.
        RunError: The folder holds something else.
        BusyError: Another process trains there.
    """
    return _Training(store, RunFolder(path), recipe, options or FitOptions(), on_event).run()


class _Training:
    """One training between its start in this process and its end."""

    def __init__(self, store: Store, folder: RunFolder, recipe: Recipe, options: FitOptions, on_event: OnEvent) -> None:
        self.folder, self.options, self.on_event = folder, options, on_event
        bands = store.resolve_bands(recipe.bands)
        if not recipe.target and not (store.labels_43 if recipe.labels == 43 else store.labels_19):
            raise OptionError(f"{store.name}: has no list of {recipe.labels} classes; choose the other number")
        self.train = select_split(store, recipe, "train", bands)
        self.validation = select_split(store, recipe, "validation", bands)
        self.recipe = recipe.fit_to(len(self.train))
        sources = recipe.hash_sources()
        weights = read_weights(self.recipe) if self.recipe.weights else None
        scales = {name: store.scale_of(names) for name, names in bands.items()}
        self.record = RunRecord(
            recipe=self.recipe,
            fingerprint=store.fingerprint,
            train=self.train.digest,
            validation=self.validation.digest,
            n_patches={"train": len(self.train), "validation": len(self.validation)},
            bands=bands,
            classes=self.train.classes,
            store=store.name,
            command=options.command,
            versions=_list_versions(),
            provenance=describe_provenance(store.attributes),
            sources=sources | ({} if weights is None else {"weights": weights.digest}),
        )
        if self.recipe.deterministic and keras.config.backend() == "tensorflow":  # others have no such switch
            import tensorflow as tf  # noqa: PLC0415 - other backends do without

            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(self.recipe.seed)
        self.hosts = find_hosts()
        self.mesh = find_mesh(options.devices, self.hosts)
        if self.mesh:
            self.mesh.check_batch(self.recipe.batch_size or 0)
        self.model = build_model(
            self.recipe,
            [info for info in store.arrays if info.name in bands],
            bands,
            {name: (mean.tolist(), std.tolist()) for name, (mean, std) in scales.items()},
            self.train.classes,
        )
        self.card: ModelCard = describe_model(self.model)
        if weights is not None:
            begin_with(self.model, weights)
        self.stream = Stream(self.train, _stream_options(self.recipe, self.card, options, self.hosts))
        _compile(self.model, self.recipe, self.train, len(self.stream))
        self.worker = self.model
        if keras.config.backend() == "jax":  # each of several processes predicts by itself
            self.worker = QueuedModel(self.model, self.mesh if self.hosts.n == 1 else None)
        self.variables = [*self.model.variables, *self.model.optimizer.variables]
        self.truth = self.validation.labels
        if "network" in sources:
            check_saving(self.model, str(self.recipe.network))
        self.n_wanted = 1
        """Steps of the next call, if nothing cuts it short."""
        self.writer: Executor
        self.saving: Future[None] | None = None
        """The last state, and the model, while they are written."""

    def run(self) -> dict[str, Any]:
        """Train to the end, while no other process may."""
        with ExitStack() as stack:
            self.hosts.do_first(lambda: stack.enter_context(self.folder.hold(self.on_event)))
            self._begin()
            self.position = self._restore()
            self.named_devices, self.meter = survey_devices(self.mesh.n_local if self.mesh else 1)
            if self.named_devices not in self.position.devices:
                self.position.devices.append(self.named_devices)
            return self._run()

    def _run(self) -> dict[str, Any]:
        baseline = baseline_average_precision(self.truth)
        at = self.position
        self.on_event(
            TrainingStarted(
                recipe=self.recipe,
                n_train=len(self.train),
                n_validation=len(self.validation),
                n_weights=self.model.count_params(),
                n_steps=len(self.stream),
                baseline=baseline,
                n_devices=len(self.mesh) if self.mesh else 1,
                named_devices=self.named_devices,
                digest=self.train.digest,
                epoch=at.epoch,
                step=at.step,
            )
        )
        steps = make_steps(self.model, self.card, self.stream, self.mesh)
        is_logged = self.options.tensorboard and self.hosts.is_first
        log = open_log(self.folder.events_path) if is_logged else nullcontext()
        with ThreadPoolExecutor(1) as self.writer, steps, self.stream, log as write:
            while not at.is_over(self.recipe):
                self._train_epoch(steps)
                record = self._end_epoch()
                if write:
                    write(record)
            self._finish_saving()
        result = {
            "best_epoch": at.best_epoch + 1,
            "epochs": at.epoch,
            "validation": at.history[at.best_epoch],
            "baseline_macro_ap": baseline,
            "devices": at.devices,
        }
        self.hosts.do_first(lambda: self.folder.finish(result))
        return result

    def _begin(self) -> None:
        """Record the training, or check that the folder holds this very one; all processes must mean the same one."""
        if self.hosts.do_first(lambda: self.record.digest) != self.record.digest:
            raise OptionError(
                f"{self.folder.path}: process {self.hosts.rank} was asked for another training than the first; give "
                "all of them the same options, store and versions"
            )
        self.hosts.do_first(lambda: self.folder.begin(self.record))

    def _restore(self) -> Position:
        saved = self.hosts.do_first(lambda: self.folder.load_state(self.record.digest, self._values()))
        if saved is None:
            return Position()
        position, values = saved
        if position.step >= len(self.stream) or position.epoch > self.recipe.epochs:
            raise RunError(
                f"{self.folder.path}: its state is at step {position.step:,} of epoch {position.epoch + 1:,}, beyond "
                f"the {len(self.stream):,} of {self.recipe.epochs:,}; remove state.npz to begin again"
            )
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        self.stream.seek(position.epoch, position.step)
        return position

    def _values(self) -> list[NDArray[Any]]:
        return [keras.ops.convert_to_numpy(variable) for variable in self.variables]

    def _save(self, *, best: bool = False) -> None:
        """Save the state in the background, and before it the model if it is the best so far."""
        if not self.hosts.is_first:
            return
        start = time.perf_counter()
        self._finish_saving()
        self.position.energy_j += self.meter.take_j()
        self.saving = self.writer.submit(self._write, copy.deepcopy(self.position), self._values(), best)
        self.position.save_s += time.perf_counter() - start

    def _write(self, position: Position, values: Sequence[NDArray[Any]], is_best: bool) -> None:
        """Write what all variables and the position were when training went on."""
        if is_best:
            save_model(self.model, self.folder.model_path, values[: len(self.model.variables)])
        self.folder.save_state(self.record.digest, position, values)

    def _finish_saving(self) -> None:
        """Wait until model and state are written, so that files appear one after the other."""
        if self.saving:
            self.saving.result()
            self.saving = None

    def _train_epoch(self, steps: Steps) -> None:
        """Train the steps of the epoch that are left, some in each call."""
        at, every = self.position, self.options.checkpoint_steps
        while at.step < len(self.stream):
            n_steps = min(self.n_wanted, every - at.step % every, len(self.stream) - at.step)
            start = time.perf_counter()
            outcome = steps.train(n_steps)
            took_s = time.perf_counter() - start
            for loss in outcome.losses.tolist():
                if not math.isfinite(loss):
                    raise RunError(
                        f"{self.folder.path}: the loss is {loss} in step {at.step + 1} of epoch {at.epoch + 1}; "
                        "begin anew with a lower learning rate"
                    )
                at.loss_sum += loss
                at.step += 1
                self.on_event(StepTrained(at.epoch, at.step, at.loss_sum / at.step))
            at.busy_s += took_s
            at.wait_s += outcome.wait_s
            at.copy_s += outcome.copy_s
            if at.step % every == 0 and at.step < len(self.stream):
                steps.publish()
                self._save()
            self.n_wanted = max(1, min(2 * n_steps, MAX_STEPS, int(n_steps * _CALL_S / max(took_s, 1e-9))))
        steps.publish()

    def _predict(self) -> NDArray[np.float32]:
        """Predict the validation patches, of which each process takes its share."""
        part = self.validation.take(self.hosts.take_part(len(self.validation)))
        probabilities = np.zeros((0, len(self.card.classes)), np.float32)
        if len(part):
            probabilities = predict_selection(
                self.worker,
                self.card,
                part,
                batch_size=max(self.stream.options.batch_size, BATCH_SIZE),  # what trains fits the device
                threads=self.options.threads,
            )
        return self.hosts.gather(probabilities, len(self.validation))

    def _end_epoch(self) -> dict[str, float]:
        """Validate, keep the model if it is the best so far, and save where we are."""
        at, start = self.position, time.perf_counter()
        probabilities = self._predict()
        scores = measure_ranking(self.truth, probabilities)
        at.energy_j += self.meter.take_j()
        record = {
            "epoch": at.epoch + 1,
            "loss": at.loss_sum / at.step,
            "val_loss": cross_entropy(self.truth, probabilities),
            "val_macro_ap": scores["macro"]["average_precision"],
            "val_micro_ap": scores["micro"]["average_precision"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "patches_per_s": at.step * self.stream.options.batch_size / at.busy_s,
            "waiting_s": at.wait_s,
            "copying_s": at.copy_s,
            "computing_s": at.busy_s - at.wait_s - at.copy_s,
            "validating_s": time.perf_counter() - start,
            "saving_s": at.save_s,
            "energy_j": at.energy_j,
        }
        at.history.append(record)
        self._finish_saving()
        if self.hosts.is_first:
            self.folder.write_log(at.history)  # before the state, without which the epoch is trained again
        is_best = record["val_macro_ap"] > at.best_score
        if is_best:
            at.best_epoch, at.best_score = at.epoch, record["val_macro_ap"]
        at.begin_epoch()
        self._save(best=is_best)
        self.on_event(EpochEnded(record, is_best))
        return record


def _stream_options(recipe: Recipe, card: ModelCard, options: FitOptions, hosts: Hosts) -> StreamOptions:
    assert recipe.batch_size is not None
    return StreamOptions(
        bands=card.band_names,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        order=recipe.order,
        drop_last=True,  # a few patches left over would spoil the batch normalisation; each epoch leaves out others
        threads=options.threads or count_threads(),
        host=hosts.rank,
        n_hosts=hosts.n,
    )


def _compile(model: Any, recipe: Recipe, train: Selection, n_steps: int) -> None:
    """Compile a model and make the variables of its optimizer."""
    assert recipe.warmup_steps is not None
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if recipe.warmup_steps else recipe.learning_rate,
        decay_steps=recipe.epochs * n_steps - recipe.warmup_steps,
        alpha=FINAL_RATE,
        warmup_target=recipe.learning_rate if recipe.warmup_steps else None,
        warmup_steps=recipe.warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    model.compile(optimizer, _make_loss(recipe, train))
    model.optimizer.build(model.trainable_variables)


def _make_loss(recipe: Recipe, train: Selection) -> Any:
    if is_function_name(str(recipe.loss)):
        return make_own_loss(str(recipe.loss), len(train.classes))
    if recipe.loss == "focal":
        return keras.losses.BinaryFocalCrossentropy(gamma=_FOCAL_GAMMA, from_logits=True)
    fixed = recipe.fixed_pos_weight()
    if fixed is not None:
        return WeightedCrossEntropy([fixed] * len(train.classes))
    present = train.labels.sum(0, dtype=np.float64)
    weights = np.where(present > 0, (len(train) - present) / np.maximum(present, 1), 1.0)
    return WeightedCrossEntropy(weights.tolist())


def _list_versions() -> dict[str, str]:
    backend = keras.config.backend()
    return {
        "bigearthnet-store": version("bigearthnet-store"),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: sys.modules[backend].__version__,
        "numpy": np.__version__,
    }
