"""How to train, as one frozen record that checks itself. No framework.

The defaults of the optimizer are those of the authors of BigEarthNet v2.0: Clasen et al., "reBEN: Refined BigEarthNet
Dataset for Remote Sensing Image Analysis", 2024 (https://arxiv.org/abs/2407.03653), and their published configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from bigearthnet.errors import OptionError
from trainer.stream.options import check_at_least, check_choice
from trainer.stream.order import ORDERS, Order

Loss = Literal["bce", "focal"]
Resize = Literal["nearest", "bilinear"]
Augment = Literal["none", "flips", "symmetries"]
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]

LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
RESIZES: Final[tuple[Resize, ...]] = get_args(Resize)
AUGMENTS: Final[tuple[Augment, ...]] = get_args(Augment)
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

SMALL: Final = "small"
"""Name of our own network."""
BALANCED: Final = "balanced"

FINAL_RATE: Final = 0.1
"""Learning rate at the end of the cosine, as a share of the highest (reBEN)."""
_BATCH_SIZE: Final = 512
_WARMUP_STEPS: Final = 1000
"""Both reBEN's, for 237,871 training patches; smaller sets get less, see `Recipe.fit_to`."""
_MIN_STEPS: Final = 24
"""Of an epoch, before the default batch becomes smaller."""
_MIN_BATCH_SIZE: Final = 16
_MAX_WARMUP: Final = 0.1
"""Share of all steps that the default warm-up takes at most."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out of a training."""

    network: str = SMALL
    """`small`, or a network of `keras.applications` by its name, such as `ResNet50`."""
    bands: str = "10m,20m"
    """Bands or sets of bands of the store, joined by commas or plus signs; reBEN leaves out those of 60 m."""
    labels: int = 19
    """Classes, 19 or 43."""
    epochs: int = 40
    """At most; the cosine ends with the last one."""
    batch_size: int | None = None
    """Patches of a step, on all devices together. None is reBEN's 512, or less if an epoch would have few steps."""
    learning_rate: float = 1e-3
    """The highest."""
    warmup_steps: int | None = None
    """Steps to reach it. None is reBEN's 1000, or less if the training has few steps."""
    weight_decay: float = 0.01
    dropout: float = 0.15
    """Before the last layer."""
    loss: Loss = "bce"
    """Binary cross-entropy, or the focal loss with gamma 2."""
    pos_weight: str = "1"
    """How much more a present class counts than an absent one; `balanced` is absent/present patches of each class."""
    augment: Augment = "flips"
    """Layers of the model, on the device: random flips (reBEN), or one of all eight symmetries of the square."""
    resize: Resize = "nearest"
    """How 20 m and 60 m bands are brought to 10 m."""
    precision: Precision = "float32"
    patience: int = 5
    """Epochs without a better validation macro average precision before training stops; 0 never stops."""
    order: Order = "global"
    """How patches are shuffled; `window` for remote stores and spinning disks."""
    seed: int = 0
    deterministic: bool = True
    """The same seed gives the same run on the same machine; without it, some devices are faster."""

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_choice("augment", self.augment, AUGMENTS)
        check_choice("resize", self.resize, RESIZES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("order", self.order, ORDERS)
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_steps", 0), ("patience", 0), ("seed", 0)):
            if (number := getattr(self, name)) is not None:
                check_at_least(name, number, least)
        if self.learning_rate <= 0 or self.weight_decay < 0 or not 0 <= self.dropout < 1:
            raise OptionError(
                "learning_rate must be positive, weight_decay not negative, dropout at least 0 and below 1, "
                f"not {self.learning_rate}, {self.weight_decay}, {self.dropout}"
            )
        self.fixed_pos_weight()
        if self.loss == "focal" and self.pos_weight != "1":
            raise OptionError(f"the focal loss weighs by itself: pos_weight={self.pos_weight} goes with loss=bce only")

    def fixed_pos_weight(self) -> float | None:
        """Return the weight that all classes share; None if it is balanced."""
        if self.pos_weight == BALANCED:
            return None
        try:
            weight = float(self.pos_weight)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise OptionError(f"pos_weight must be {BALANCED} or a positive number, not {self.pos_weight!r}")
        return weight

    def fit_to(self, n_patches: int) -> Recipe:
        """Fill in what depends on the number of training patches.

        Args:
            n_patches: Patches of the training split.

        Raises:
            OptionError: They do not fill one batch.
        """
        batch_size = self.batch_size
        if batch_size is None:
            batch_size = _BATCH_SIZE
            while batch_size > _MIN_BATCH_SIZE and n_patches // batch_size < _MIN_STEPS:
                batch_size //= 2
            batch_size = min(batch_size, n_patches)
        if batch_size > n_patches:
            raise OptionError(f"{n_patches:,} training patches do not fill one batch of {batch_size:,}")
        n_steps = n_patches // batch_size * self.epochs
        warmup = min(_WARMUP_STEPS, int(n_steps * _MAX_WARMUP)) if self.warmup_steps is None else self.warmup_steps
        if warmup >= n_steps:
            raise OptionError(f"warmup_steps must be below all {n_steps:,} steps of the training, not {warmup:,}")
        return replace(self, batch_size=batch_size, warmup_steps=warmup)

    def list_differences(self, saved: Mapping[str, Any]) -> list[str]:
        """Say in which options this recipe differs from a saved one."""
        return [
            f"{name}={saved.get(name)!r}, not {value!r}"
            for name, value in asdict(self).items()
            if saved.get(name) != value
        ]
