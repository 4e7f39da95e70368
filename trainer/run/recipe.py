"""How to train, as one frozen record that checks itself. No framework.

The defaults of the optimizer are those of the authors of BigEarthNet v2.0: Clasen et al., "reBEN: Refined BigEarthNet
Dataset for Remote Sensing Image Analysis", 2024 (https://arxiv.org/abs/2407.03653), and their published configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from bigearthnet.errors import OptionError
from bigearthnet.files import hash_file
from bigearthnet.labels import split_names
from bigearthnet.names import TITLES
from trainer.run.function import hash_source, is_function_name, name_function
from trainer.stream.options import check_at_least, check_choice
from trainer.stream.order import ORDERS, Order

if TYPE_CHECKING:
    Function = str | Callable[..., Any]
else:
    Function = str
"""A function may be given, and is kept by its name: a record of a training can hold nothing else."""

Resize = Literal["nearest", "bilinear"]
Augment = Literal["none", "flips", "symmetries"]
Pixels = Literal["stored", "reflectance", "standardised"]
"""What a model of another origin takes. `stored`: numbers as they are stored, of Sentinel-2 from 0 to some 10,000 and
more, of Sentinel-1 dB. `reflectance`: those of Sentinel-2 divided by 10,000, those of Sentinel-1 as stored.
`standardised`: less the mean of the store's band, divided by its standard deviation, as `ben-train fit` does it."""
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]

LOSSES: Final = ("bce", "focal")
RESIZES: Final[tuple[Resize, ...]] = get_args(Resize)
AUGMENTS: Final[tuple[Augment, ...]] = get_args(Augment)
PIXELS: Final[tuple[Pixels, ...]] = get_args(Pixels)
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

    network: Function = SMALL
    """`small`, a network of `keras.applications` by its name, such as `ResNet50`, or a function of your own, given as
    it is or as `module:function`: standardised pixels (patch, row, col, band) to features (patch, feature)."""
    weights: str = ""
    """What it begins with: the folder of a run, a `.keras` file of one, an `.h5` file of weights of the network of
    `keras.applications`, or `imagenet`, which Keras downloads. Empty to draw all weights."""
    freeze: str = ""
    """Layers of the network that keep their weights: names joined by commas, with `*` for any letters."""
    drop_path: float = 0.0
    """How often the last residual block is skipped for a patch while training; earlier ones less, the first never."""
    bands: str = "10m,20m"
    """Bands or sets of bands of the store, joined by commas or plus signs; reBEN leaves out those of 60 m."""
    labels: int = 19
    """Classes, 19 or 43."""
    classes: str = ""
    """Only these of them, joined by semicolons; empty for all."""
    target: str = ""
    """A column that names the classes of each patch instead, see `Store.select`."""
    join: str = ""
    """Path of a CSV or Parquet file of further columns by `patch_id`, for `target` and for conditions."""
    train_where: str = ""
    """Train only on patches for which this condition in SQL holds."""
    validation_where: str = ""
    """Likewise for validation, by which the best epoch and, in evaluations, the thresholds are chosen."""
    fraction: float = 1.0
    """Train on this share of these patches, drawn by `seed`, with its share of every class; see `Store.select`."""
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
    loss: Function = "bce"
    """Binary cross-entropy, the focal loss with gamma 2, or a function of your own, given as it is or as
    `module:function`: labels and logits, each (patch, class), to the loss of each patch, (patch,)."""
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
        for name in ("network", "loss"):
            if callable(given := getattr(self, name)):
                object.__setattr__(self, name, name_function(given))
        if not is_function_name(str(self.loss)):
            check_choice("loss", str(self.loss), (*LOSSES, "module:function"))
        check_choice("augment", self.augment, AUGMENTS)
        check_choice("resize", self.resize, RESIZES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("order", self.order, ORDERS)
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_steps", 0), ("patience", 0), ("seed", 0)):
            if (number := getattr(self, name)) is not None:
                check_at_least(name, number, least)
        if self.learning_rate <= 0 or self.weight_decay < 0 or not (0 <= self.dropout < 1 and 0 <= self.drop_path < 1):
            raise OptionError(
                "learning_rate must be positive, weight_decay not negative, dropout and drop_path at least 0 and "
                f"below 1, not {self.learning_rate}, {self.weight_decay}, {self.dropout}, {self.drop_path}"
            )
        if not 0 < self.fraction <= 1:
            raise OptionError(f"fraction must be above 0 and at most 1, not {self.fraction}")
        split_names(self.classes)
        self.fixed_pos_weight()
        if self.loss != "bce" and self.pos_weight != "1":
            raise OptionError(
                f"the loss {self.loss} weighs by itself: pos_weight={self.pos_weight} goes with loss=bce only"
            )

    def name_functions(self) -> dict[str, str]:
        """List the options that name a function of the user's own, with its name."""
        named = {"network": str(self.network), "loss": str(self.loss)}
        return {option: name for option, name in named.items() if is_function_name(name)}

    def describe_choice(self) -> dict[str, Any]:
        """Say which bands of which patches it trains on."""
        names = ("bands", "fraction", "train_where", "validation_where")
        return {name: getattr(self, name) for name in names}

    def hash_sources(self) -> dict[str, str]:
        """Hash what functions and files of columns are, by the option that names them.

        Raises:
            OptionError: There is no such function or file.
        """
        hashes = {option: hash_source(name) for option, name in self.name_functions().items()}
        if self.join:
            try:
                hashes["join"] = hash_file(self.join)
            except OSError as error:
                raise OptionError(f"{self.join}: the file to join cannot be read ({error})") from error
        return hashes

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


REBEN: Final = Recipe(
    network="ResNet50",
    bands="10m,20m,s1",
    epochs=100,
    batch_size=_BATCH_SIZE,
    warmup_steps=_WARMUP_STEPS,
    drop_path=0.15,
)
"""What the authors of v2.0 trained ResNet-50 with (model card of version 0.2.0); the rest are defaults."""

FREE: Final = ("seed", "precision", "order", "deterministic")
"""Options that a protocol leaves open."""


def follow_reben(dataset: object, **choice: Any) -> Recipe:
    """Return the recipe of reBEN's authors, for a result that can be held against theirs.

    Args:
        dataset: What the store says it is.
        choice: Options that the protocol leaves open.

    Raises:
        OptionError: The store has other splits than theirs, or an option is not open.
    """
    if dataset != TITLES["v2"]:
        raise OptionError(
            f"the protocol of reBEN is for the splits of {TITLES['v2']}, and this store is of {dataset}: those "
            "have neighbouring patches in train and test, and other labels"
        )
    if fixed := [name for name in choice if name not in FREE]:
        raise OptionError(f"the protocol of reBEN fixes {', '.join(fixed)}; it leaves open {', '.join(FREE)}")
    return replace(REBEN, **choice)
