"""PyTorch and Lightning get each patch once, in one process and in several, or are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from bigearthnet.errors import OptionError
from tests.trainer.conftest import Pixels
from trainer import Selection, Stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own, on import
    torch = pytest.importorskip("torch")
    from trainer.adapters.torch_data import TorchBatches


def test_a_loader_takes_the_stream_epoch_by_epoch(train: Selection, pixels: Pixels) -> None:
    with Stream(train, batch_size=12) as stream:
        loader = torch.utils.data.DataLoader(TorchBatches(stream), batch_size=None)
        assert len(loader) == len(stream)
        for _ in range(2):
            seen = []
            for batch in loader:
                seen += batch["index"].tolist()
                np.testing.assert_array_equal(batch["s2_10m"].numpy(), pixels["s2_10m"][batch["index"].numpy()])
            assert sorted(seen) == train.indices.tolist()


def test_a_transform_makes_what_the_model_takes(train: Selection) -> None:
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        batches = TorchBatches(stream, lambda batch: (batch["s2_60m"] / np.float32(1e4), batch["labels"]))
        inputs, labels = next(iter(torch.utils.data.DataLoader(batches, batch_size=None)))
        assert (inputs.dtype, inputs.shape[1:], labels.shape[1:]) == (torch.float32, (2, 20, 20), (19,))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_are_refused(train: Selection, context: str) -> None:
    """Each of them would give every patch."""
    with Stream(train, batch_size=12) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of forks beside threads
        loader = torch.utils.data.DataLoader(
            TorchBatches(stream), batch_size=None, num_workers=2, multiprocessing_context=context
        )
        with pytest.raises((OptionError, RuntimeError), match="give the loader no workers"):
            next(iter(loader))


_RANK = """
import json, os, sys
import torch.distributed as dist
from trainer import Stream, open_store
from trainer.adapters.torch_data import TorchBatches

store, out, rank, n_hosts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=2)
selection = open_store(store).select("train")
with Stream(selection, bands="60m", batch_size=4, host=rank % n_hosts, n_hosts=n_hosts) as stream:
    rows = [batch["index"].tolist() for batch in TorchBatches(stream)]
with open(f"{out}/{rank}.json", "w") as file:
    json.dump(rows, file)
"""


def _run_ranks(code: str, store: Path, out: Path, n_hosts: int) -> list[subprocess.CompletedProcess[str]]:
    commands = [[sys.executable, "-c", code, str(store), str(out), str(rank), str(n_hosts)] for rank in range(2)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, None, error)
        for process, (_, error) in [(process, process.communicate(timeout=120)) for process in running]
    ]


def test_two_ranks_share_each_batch_or_are_refused(stores: dict[str, Path], train: Selection, tmp_path: Path) -> None:
    ended = _run_ranks(_RANK, stores["lz4"], tmp_path, 2)
    assert [one.returncode for one in ended] == [0, 0], ended
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    with Stream(train, bands="60m", batch_size=4) as stream:
        for batch, share in zip(stream, zip(*shares, strict=True), strict=True):
            assert list(chain.from_iterable(share)) == batch["index"].tolist()
    (tmp_path / "meet").unlink(missing_ok=True)
    for one in _run_ranks(_RANK, stores["lz4"], tmp_path, 1):
        assert "2 processes train together, but the stream is one of 1" in one.stderr


_LIGHTNING = """
import json, sys
import lightning, torch
from trainer import Stream, open_store
from trainer.adapters.torch_data import TorchBatches

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.rows = torch.nn.Linear(800, 19), []

    def train_dataloader(self):
        selection = open_store(sys.argv[1]).select("train")
        ranks = {"host": self.trainer.global_rank, "n_hosts": self.trainer.world_size}
        self.stream = Stream(selection, bands="60m", batch_size=4, drop_last=True, **ranks)
        return torch.utils.data.DataLoader(TorchBatches(self.stream), batch_size=None)

    def training_step(self, batch, _):
        self.rows.append(batch["index"].tolist())
        logits = self.layer(batch["s2_60m"].float().flatten(1) / 1e4)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["labels"])

    def on_train_end(self):
        with open(f"{sys.argv[2]}/{self.trainer.global_rank}.json", "w") as file:
            json.dump(self.rows, file)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    ranks = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    lightning.Trainer(**ranks, **quiet, max_epochs=2, default_root_dir=sys.argv[2]).fit(Model())
"""


@pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning_on_two_ranks_trains_each_patch_once(
    stores: dict[str, Path], train: Selection, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(_LIGHTNING)
    command = [sys.executable, str(script), str(stores["lz4"]), str(tmp_path)]
    ended = subprocess.run(command, check=False, timeout=200, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    with Stream(train, bands="60m", batch_size=4, drop_last=True) as stream:
        expected = [batch["index"].tolist() for _ in range(2) for batch in stream]
    assert [list(chain.from_iterable(share)) for share in zip(*shares, strict=True)] == expected
