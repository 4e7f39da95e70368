"""A training on a terminal, or in a notebook."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from bigearthnet.commandline import echo, open_bar
from bigearthnet.lock import Watching
from bigearthnet.quantity import format_seconds
from trainer.run.folder import describe_times
from trainer.training.events import EpochEnded, StepTrained, TrainingStarted


class FitDisplay(AbstractContextManager["FitDisplay"]):
    """Shows a training on stderr, with a bar on a terminal or in a notebook: `fit(..., on_event=FitDisplay())`."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._n_epochs = 0
        self._n_steps = 0

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def __call__(self, event: Watching | TrainingStarted | StepTrained | EpochEnded) -> None:
        """Show an event."""
        if isinstance(event, Watching):
            waiting = format_seconds(event.seconds)
            echo(f"{event.holder} was training here; looking for {waiting} if it still does", err=True)
        elif isinstance(event, TrainingStarted):
            self._show_start(event)
        elif isinstance(event, StepTrained):
            self._show_step(event)
        else:
            self._show_epoch(event)

    def _show_start(self, event: TrainingStarted) -> None:
        recipe = event.recipe
        self._n_epochs, self._n_steps = recipe.epochs, event.n_steps
        lines = [
            f"Network    {recipe.network}, {event.n_weights:,} weights, bands {recipe.bands}, "
            f"{recipe.target or f'{recipe.labels} classes'}",
            f"Patches    {event.n_train:,} train, {event.n_validation:,} validation; batches of {recipe.batch_size}"
            f" on {event.named_devices}, "
            f"{event.n_steps:,} an epoch, {recipe.warmup_steps:,} to warm up",
            f"Train on   {'all' if recipe.fraction == 1 else f'a fraction of {recipe.fraction:g}'}"
            f"{f' where {recipe.train_where}' if recipe.train_where else ''} (digest {event.digest})",
            f"Baseline   validation macro AP {event.baseline:.4f} (label frequency)",
        ]
        if event.epoch or event.step:
            lines.append(f"Goes on    in epoch {event.epoch + 1} after step {event.step} of {event.n_steps}")
        echo("\n".join(lines), err=True)

    def _show_step(self, event: StepTrained) -> None:
        if self._bar is None:
            doing = f"Epoch {event.epoch + 1}/{self._n_epochs}"
            self._bar = open_bar(doing, " steps", total=self._n_steps, initial=event.step - 1)
        self._bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
        self._bar.update()

    def _show_epoch(self, event: EpochEnded) -> None:
        self._close_bar()
        record = event.record
        echo(
            f"Epoch {record['epoch']:.0f}/{self._n_epochs}  loss {record['loss']:.4f}  "
            f"val_loss {record['val_loss']:.4f}  val_macro_ap {record['val_macro_ap']:.4f}"
            f"{' *' if event.is_best else '  '}  "
            f"{record['patches_per_s']:,.0f} patches/s; {describe_times(record)}",
            err=True,
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
