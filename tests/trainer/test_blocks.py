"""Residual blocks that are skipped at random, in the networks that have some."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.trainer import own
from tests.trainer.trainings import OWN_WARNINGS, keras
from trainer import OptionError
from trainer.model.blocks import drop_blocks
from trainer.model.layers import DropPath
from trainer.model.networks import make_network

pytestmark = OWN_WARNINGS


def _find_drops(network: Any) -> list[DropPath]:
    return [layer for layer in network.layers if isinstance(layer, DropPath)]


@pytest.mark.parametrize(
    ("name", "n_blocks"),
    [
        ("ResNet50", 16),
        ("ResNet50V2", 16),
        ("MobileNetV2", 10),
        ("MobileNetV3Small", 6),
        ("EfficientNetB0", 9),
        ("ConvNeXtTiny", 18),
        ("Xception", 12),
    ],
)
def test_every_residual_block_is_skipped_at_a_rate_that_rises(name: str, n_blocks: int) -> None:
    """As many as the papers count: of MobileNets and EfficientNets those that neither stride nor widen."""
    network = make_network(name, (96, 96, 4))
    before = [weight.path for weight in network.weights]
    changed = drop_blocks(network, 0.15, seed=3)
    rates = [layer.rate for layer in _find_drops(changed)]
    np.testing.assert_allclose(rates, np.linspace(0, 0.15, n_blocks))
    assert len({layer.seed for layer in _find_drops(changed)}) == n_blocks
    assert [weight.path for weight in changed.weights] == before


@pytest.mark.parametrize(
    "name",
    ["small", "VGG16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("DenseNet121", "NASNetMobile"))],
)
def test_a_network_without_residual_blocks_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="has no residual blocks that drop_path could skip: leave it out"):
        drop_blocks(make_network(name, (96, 96, 4)), 0.15, seed=3)


def test_what_is_dropped_is_what_the_block_adds() -> None:
    """At a rate near one, what is left is the way round it, and its sum on average what it was."""
    pixels = np.random.default_rng(0).normal(0, 1, (400, 8, 8, 2)).astype(np.float32)
    network = make_network("tests.trainer.own:network", (8, 8, 2))
    stem = keras.Model(network.input, network.get_layer("stem").output)(pixels)
    shortcut = np.array(stem).mean((1, 2))
    branch = np.array(network(pixels)) - shortcut
    changed = drop_blocks(network, 0.75, seed=3)
    np.testing.assert_allclose(changed(pixels), shortcut + branch, atol=1e-5)
    network.get_layer("norm").trainable = False  # whose statistics would be another thing to draw
    found = np.array(changed(pixels, training=True)) - shortcut
    kept = np.abs(found).max(1) > 1e-5
    assert kept.mean() == pytest.approx(0.25, abs=0.07)
    np.testing.assert_allclose(found[kept], 4 * branch[kept], atol=1e-4)


def test_a_network_that_skips_of_itself_no_longer_does() -> None:
    network = make_network("EfficientNetB0", (64, 64, 3))
    changed = drop_blocks(network, 0.0, seed=3)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in network.layers)
    assert not any(isinstance(layer, keras.layers.Dropout | DropPath) for layer in changed.layers)
    assert changed.count_params() == network.count_params()


def test_a_network_of_ones_own_without_draws_stays_as_it_is() -> None:
    network = make_network("tests.trainer.own:network", (8, 8, 2))
    assert drop_blocks(network, 0.0, seed=3) is network
    assert own.network.__name__ == "network"
