"""Recipes check themselves and suit themselves to a store."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click import ClickException

from bigearthnet.errors import OptionError
from trainer.commands.cli import cli
from trainer.run.recipe import Recipe, follow_reben


def test_the_full_training_split_gets_the_numbers_of_the_paper() -> None:
    recipe = Recipe().fit_to(237_871)
    assert (recipe.batch_size, recipe.warmup_steps) == (512, 1000)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.dropout) == (1e-3, 0.01, 0.15)


def test_a_small_split_gets_smaller_batches_and_a_shorter_warm_up() -> None:
    recipe = Recipe(epochs=10).fit_to(500)
    assert (recipe.batch_size, recipe.warmup_steps) == (16, 31)
    assert Recipe().fit_to(3).batch_size == 3


def test_what_was_asked_for_stays() -> None:
    recipe = Recipe(batch_size=100, warmup_steps=7).fit_to(500)
    assert (recipe.batch_size, recipe.warmup_steps) == (100, 7)
    assert recipe.fit_to(500) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse"}, "loss must be one of bce, focal, module:function, not 'mse'"),
        ({"order": "any"}, "order must be one of"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"dropout": 1.0}, "dropout and drop_path at least 0 and below 1"),
        ({"drop_path": 1.0}, "dropout and drop_path at least 0 and below 1"),
        ({"pos_weight": "much"}, "pos_weight must be balanced or a positive number, not 'much'"),
        ({"pos_weight": "-1"}, "positive number"),
        ({"loss": "focal", "pos_weight": "2"}, "pos_weight=2 goes with loss=bce only"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 41}, "40 training patches do not fill one batch of 41"),
        ({"batch_size": 20, "epochs": 2, "warmup_steps": 4}, "warmup_steps must be below all 4 steps"),
    ],
)
def test_a_recipe_that_does_not_suit_the_split_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**changes).fit_to(40)


def test_differences_are_named() -> None:
    recipe = Recipe(seed=3)
    assert recipe.list_differences(asdict(recipe)) == []
    assert replace(recipe, seed=4).list_differences(asdict(recipe)) == ["seed=3, not 4"]


def test_the_protocol_of_reben_is_for_its_splits_and_leaves_little_open() -> None:
    recipe = follow_reben("BigEarthNet v2.0", seed=3, precision="mixed_bfloat16")
    assert (recipe.network, recipe.bands, recipe.labels, recipe.epochs) == ("ResNet50", "10m,20m,s1", 19, 100)
    assert (recipe.batch_size, recipe.warmup_steps, recipe.drop_path, recipe.dropout) == (512, 1000, 0.15, 0.15)
    assert (recipe.seed, recipe.precision) == (3, "mixed_bfloat16")
    with pytest.raises(OptionError, match=r"for the splits of BigEarthNet v2.0, and this store is of BigEarthNet v1.0"):
        follow_reben("BigEarthNet v1.0")
    for choice in ({"labels": 43}, {"classes": "Pastures"}, {"fraction": 0.5}, {"batch_size": 64}):
        with pytest.raises(OptionError, match=f"the protocol of reBEN fixes {next(iter(choice))}"):
            follow_reben("BigEarthNet v2.0", **choice)


def test_the_command_refuses_what_the_protocol_does_not_leave_open(stores: dict[str, Path], tmp_path: Path) -> None:
    command = ["fit", str(stores["lz4"]), str(tmp_path / "run"), "--protocol", "reben"]
    with pytest.raises(ClickException, match=r"this store is of BigEarthNet v1.0"):
        cli(command, standalone_mode=False)
    assert not (tmp_path / "run").exists()
