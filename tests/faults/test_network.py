"""Stores on servers that die, full disks, killed neighbours, Ctrl-C in a training: one clear error, or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigearthnet.errors import OutputError
from tests.faults.test_disk import fill, mount_tmpfs
from tests.servers import run_s3, serve, stall, stall_in_the_middle
from trainer import Stream, open_store
from trainer.stream.stream import Batch

pytest.importorskip("requests")
pytest.importorskip("botocore")
pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

ONE_AT_A_TIME: dict[str, Any] = {"batch_size": 2, "order": "window", "window": 1, "prefetch_bytes": 1}


def _expect_same(found: Iterator[Batch], folder: Path, n_batches: int) -> None:
    with Stream(open_store(folder).select(), **ONE_AT_A_TIME) as expected:
        for batch, wanted in islice(zip(found, expected.forever(), strict=True), n_batches):
            for name, array in wanted.items():
                np.testing.assert_array_equal(batch[name], array)


@pytest.mark.filterwarnings("default")  # botocore's own deprecations
def test_an_s3_server_that_is_killed_and_restarted_in_mid_epoch(reference: Path, tmp_path: Path) -> None:
    with run_s3(tmp_path / "weed") as server:
        server.upload(reference, "bucket")
        store = open_store(
            "s3://bucket/store", cache_dir=tmp_path / "cache", cache_bytes=1, storage_options=server.options
        )
        with Stream(store.select(), **ONE_AT_A_TIME) as stream:

            def disturb() -> Iterator[Batch]:
                for number, batch in enumerate(stream.forever()):
                    if number == 2:
                        server.kill()
                        threading.Timer(3, server.start).start()
                    yield batch

            _expect_same(disturb(), reference, 2 * len(stream))


def test_a_cache_on_a_full_disk_is_named_and_the_same_training_goes_on(reference: Path, tmp_path: Path) -> None:
    with serve(reference) as server, mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        store = server.open(disk / "cache")
        fill(disk / "big", 100_000)
        with Stream(store.select(), **ONE_AT_A_TIME) as stream:
            with pytest.raises(OutputError) as error:
                list(stream)
            for part in (str(disk / "cache"), "No space left on device", "fewer cache_bytes than", "another cache_dir"):
                assert part in str(error.value)
            while [path for path in disk.rglob(".*") if path.is_file()]:
                time.sleep(0.01)  # what was fetched ahead fails, too
            (disk / "big").unlink()
            stream.seek(0)
            _expect_same(stream.forever(), reference, len(stream))


def test_a_cache_that_is_read_only_is_named(reference: Path, tmp_path: Path) -> None:
    with serve(reference) as server, mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(
            OutputError, match=f"{disk}/cache: .*cannot be kept there .Read-only file system.; make room"
        ):
            server.open(disk / "cache")


def test_a_process_that_is_killed_while_it_fetches_leaves_a_cache_to_use(reference: Path, tmp_path: Path) -> None:
    code = (
        "import sys, trainer\n"
        "store = trainer.open_store(sys.argv[1], cache_dir=sys.argv[2])\n"
        "list(trainer.Stream(store.select(), batch_size=2))"
    )
    with serve(reference, [stall_in_the_middle]) as server:
        process = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path)])
        assert server.stalling.wait(60)
        process.kill()
        process.wait()
        left = [path for path in tmp_path.rglob(".*") if path.is_file()]
        assert left
        with Stream(server.open(tmp_path).select(), **ONE_AT_A_TIME) as stream:
            _expect_same(stream.forever(), reference, len(stream))
        for path in left:
            os.utime(path, (0, 0))
        next(tmp_path.rglob("s2_10m/c/0/0/0/0")).unlink()
        with Stream(server.open(tmp_path, cache_bytes=1).select(), **ONE_AT_A_TIME) as stream:
            _expect_same(stream.forever(), reference, len(stream))
        assert not any(map(Path.exists, left))


def test_ctrl_c_ends_a_training_that_waits_for_a_stalled_server(reference: Path, tmp_path: Path) -> None:
    """It would wait for ten minutes."""
    with serve(reference, [stall] * 20) as server:
        program = subprocess.Popen(
            [sys.executable, "-m", "trainer", "fit", server.url, tmp_path / "run", "--batch-size", "2"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        )
        assert server.stalling.wait(120)
        time.sleep(1)  # until its main thread waits, too: Python may lose a thread whose start is interrupted
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=60)
        assert program.returncode == 130
        assert "Traceback" not in err
        assert err.endswith("\nInterrupted.\n")
        server.faults.clear()
