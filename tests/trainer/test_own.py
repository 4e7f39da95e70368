"""Networks and losses of the user's own: what is trained, what is recorded, what is refused, what is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.documents import find_blocks
from tests.trainer import own
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, train
from trainer import OptionError, RunError, Store
from trainer.commands.cli import cli
from trainer.model.networks import load_model
from trainer.run.folder import RunFolder
from trainer.run.recipe import Recipe
from trainer.score.evaluate import evaluate
from trainer.score.predict import predict
from trainer.training.events import StepTrained
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

SHORT = replace(RECIPE, epochs=1, batch_size=20)
NETWORK = "tests.trainer.own:network"


def _stop(event: Any) -> None:
    if isinstance(event, StepTrained) and event.step == 2:
        raise StoppedError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"mine_{tmp_path.name}.py"
    path.write_text(Path(own.__file__).read_text())
    return path


def _begin(store: Store, folder: Path, recipe: Recipe) -> None:
    with pytest.raises(StoppedError):
        fit(store, folder, recipe, FitOptions(tensorboard=False, checkpoint_steps=1), _stop)


def test_a_function_and_its_name_are_the_same_recipe() -> None:
    given = Recipe(network=own.network, loss=own.loss)
    assert given == Recipe(network=NETWORK, loss="tests.trainer.own:loss")
    assert given.network == NETWORK


def test_an_own_network_with_an_own_loss_is_trained_and_loaded_without_its_module(store: Store, tmp_path: Path) -> None:
    result = train(store, tmp_path / "run", replace(SHORT, network=own.network, loss=own.loss))
    assert 0 < result["validation"]["loss"] < 1
    record = RunFolder(tmp_path / "run").read_record()
    assert (record.recipe.network, record.recipe.loss) == (NETWORK, "tests.trainer.own:loss")
    assert set(record.sources) == {"network", "loss"}
    code = "import sys; from pathlib import Path; from trainer.model.networks import load_model\n"
    code += f"load_model(Path({str(tmp_path / 'run' / 'best.keras')!r})); sys.exit('tests.trainer.own' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_the_loss_is_the_mean_of_what_the_function_gives(store: Store, tmp_path: Path) -> None:
    """With a rate at which nothing is learnt, and without draws, it is that of the saved model on these patches."""
    still: dict[str, Any] = {
        "learning_rate": 1e-12,
        "warmup_steps": 0,
        "dropout": 0.0,
        "augment": "none",
        "batch_size": 60,
    }
    recipe = replace(SHORT, network=own.network_with_own_layer, loss=own.loss, **still)
    result = train(store, tmp_path / "run", recipe)
    predicted = tmp_path / "train.parquet"
    found = predict(
        tmp_path / "run" / "best.keras", store, predicted, split="train", recommended=True, network=str(recipe.network)
    )
    assert found.truth is not None
    assert result["validation"]["loss"] == pytest.approx(np.mean((found.truth - found.probabilities) ** 2), rel=1e-4)


@pytest.mark.parametrize("option", ["network", "loss"])
def test_a_training_does_not_go_on_with_another_source(
    store: Store, tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    changes: dict[str, Any] = {option: f"{module.stem}:{option}"}
    recipe = replace(SHORT, **changes)
    _begin(store, tmp_path / "run", recipe)
    monkeypatch.delitem(sys.modules, module.stem)
    text = module.read_text()
    module.write_text(text + "\n# changed\n")
    with pytest.raises(RunError, match=rf"was begun when {option}={module.stem}:{option} was another \(hash \w+, not"):
        train(store, tmp_path / "run", recipe)
    monkeypatch.delitem(sys.modules, module.stem)
    module.write_text(text)
    train(store, tmp_path / "run", recipe)


def test_a_training_goes_on_with_another_function_no_more_than_with_another_network(
    store: Store, tmp_path: Path
) -> None:
    _begin(store, tmp_path / "run", replace(SHORT, loss=own.loss))
    with pytest.raises(RunError, match=r"was begun with loss='tests\.trainer\.own:loss', not 'bce'"):
        train(store, tmp_path / "run", SHORT)


def test_a_layer_of_ones_own_is_known_once_the_network_is_named(
    store: Store, stores: dict[str, Path], tmp_path: Path
) -> None:
    name = "tests.trainer.own:network_with_own_layer"
    train(store, tmp_path / "run", replace(SHORT, network=name))
    with pytest.raises(RunError, match=r"Could not locate class 'Scale'; if it is a layer of yours, name the function"):
        evaluate(store, tmp_path / "run")
    assert evaluate(store, tmp_path / "run", network=name)["patches"] == 20
    model = tmp_path / "run" / "best.keras"
    for command in (
        ["evaluate", str(tmp_path / "run"), "--network", name],
        ["predict", str(model), str(stores["lz4"]), "--split", "test", "--network", name],
        ["export", str(model), str(tmp_path / "out"), "--network", name],
    ):
        ended = CliRunner().invoke(cli, command)
        assert ended.exit_code == 0, ended.output
        ended = CliRunner().invoke(cli, [word.replace("out", "other") for word in command[:-2]])
        assert ended.exit_code == 1, ended.output


def test_a_module_that_only_a_foreign_run_or_model_names_is_never_imported(
    store: Store, tmp_path: Path, module: Path
) -> None:
    """The module would leave a file; it can be found, by a training that names it."""
    name = f"{module.stem}:network_with_own_layer"
    module.write_text(module.read_text() + "\nfrom pathlib import Path\nPath('imported').touch()\n")
    train(store, tmp_path / "run", replace(SHORT, network=name, loss=f"{module.stem}:loss"))
    assert (tmp_path / "imported").exists()
    (tmp_path / "imported").unlink()
    calls = (
        "evaluate(store, run)",
        "load_model(run / 'best.keras')",
        "write_report(run)",
        "fit(store, run, Recipe(bands='60m', epochs=1, batch_size=20, patience=0))",
    )
    code = f"""
import sys, warnings; warnings.simplefilter("ignore"); sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from trainer import BigEarthNetError, open_store
from trainer.model.networks import load_model
from trainer.report import write_report
from trainer.run.recipe import Recipe
from trainer.score.evaluate import evaluate
from trainer.training.fit import fit
store, run = open_store({store.name!r}), Path("run")
for call in {calls!r}:
    try: eval(call)
    except BigEarthNetError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Could not locate class") == 2
    assert not (tmp_path / "imported").exists()
    assert module.stem in json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["network"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "nowhere:network"}, r"nowhere:network: the module 'nowhere' cannot be imported \(ModuleNotFound"),
        ({"network": "tests.trainer.own:none"}, "there is no such function"),
        ({"network": "tests.trainer.own:network_of_maps"}, r"expected features of shape \(patch, feature\), found"),
        ({"network": "tests.trainer.own:network_that_fails"}, r"fails on pixels of shape .*own\.py, line \d+\)"),
        ({"network": "tests.trainer.own:network_with_code"}, "and Lambda layers are never loaded"),
        ({"network": "tests.trainer.own:layers"}, "expected a function, found module"),
        ({"loss": "tests.trainer.own:loss_of_all"}, r"expected the loss of each patch, of shape \(2,\)"),
        ({"loss": "tests.trainer.own:network"}, "fails on labels and logits of 2 patches"),
        ({"loss": "tests.trainer.own:tversky"}, "expected a function, found Tversky"),
    ],
)
def test_what_is_no_network_or_loss_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        train(store, tmp_path / "run", replace(SHORT, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("function", [own.make_loss(), lambda truth, logits: truth - logits])
def test_a_function_without_a_name_is_refused(function: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(OptionError, match="a function that stands at the top of its module"):
        Recipe(loss=function)


def test_an_own_loss_takes_no_weight_of_classes() -> None:
    with pytest.raises(OptionError, match="weighs by itself: pos_weight=3 goes with loss=bce only"):
        Recipe(loss=own.loss, pos_weight="3")


def test_a_command_finds_a_module_in_the_current_folder(stores: dict[str, Path], tmp_path: Path, module: Path) -> None:
    options = ["--bands", "60m", "--epochs", "1", "--batch-size", "20", "--no-tensorboard"]
    command = ["fit", str(stores["lz4"]), str(tmp_path / "run"), *options, "--network", f"{module.stem}:network"]
    ended = CliRunner().invoke(cli, [*command, "--loss", f"{module.stem}:loss"])
    assert ended.exit_code == 0, ended.output
    assert f"Network    {module.stem}:network" in ended.stderr
    assert str(tmp_path) not in sys.path
    assert load_model(tmp_path / "run" / "best.keras").get_layer("own").get_layer("stem").kernel.shape == (3, 3, 2, 8)


def test_the_module_of_the_documentation_trains(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (one for one in find_blocks("training.md", "python") if one.heading == "Your own network and loss")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(block.code)
    train(store, tmp_path / "run", replace(SHORT, network="mine:network", loss="mine:loss"))
    assert set(RunFolder(tmp_path / "run").read_record().sources) == {"network", "loss"}
