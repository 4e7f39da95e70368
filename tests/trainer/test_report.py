"""The report of a training, in a real browser and against the files that it is made of."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from bigearthnet.errors import RunError
from bigearthnet.names import SYNTHETIC_NOTE
from tests.browser import A4, DESKTOP, PHONE, Visitor
from tests.manifests import seal_again
from tests.trainer.conftest import Pixels
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, train
from trainer import Store, open_store
from trainer.commands.cli import cli
from trainer.report import write_report
from trainer.run.folder import TIMES, RunFolder, locate_evaluation
from trainer.score.evaluate import evaluate

pytestmark = OWN_WARNINGS

HOSTILE = "<img src=x onerror=alert(1)> & \"quoted\" 'names'"


@pytest.fixture(scope="module")
def trained(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was not measured. Read only."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train(open_store(stores["lz4"]), path, replace(RECIPE, epochs=2))
    return path


@pytest.fixture(scope="module")
def measured(trained: Path, stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, measured on test and validation, with its report. Read only."""
    path = Path(shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "run"))
    store = open_store(stores["lz4"])
    evaluate(store, path, "test")
    evaluate(store, path, "validation")
    write_report(path, store)
    return path


@pytest.fixture
def copy_run(measured: Path, tmp_path: Path) -> Callable[[], Path]:
    """Copy the measured run, to be changed."""
    return lambda: Path(shutil.copytree(measured, tmp_path / "run"))


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, PHONE, DESKTOP])
def test_the_page_has_no_fault_in_a_browser(measured: Path, visit: Visitor, width: int, dark: bool) -> None:
    opened = visit(measured / "report.html", width=width, dark=dark)
    assert opened.list_faults() == []
    assert opened.page.locator("img").count() > 5
    assert opened.page.locator("svg").count() > 5


@pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False), (PHONE, True)])
def test_the_page_keeps_nobody_out(measured: Path, visit: Visitor, width: int, dark: bool) -> None:
    assert visit(measured / "report.html", width=width, dark=dark).list_barriers() == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_shade_of_a_mistake_can_be_read(measured: Path, visit: Visitor, dark: bool) -> None:
    opened = visit(measured / "report.html", dark=dark)
    for table in (".matrix.added", ".matrix.missed"):
        assert opened.measure_contrast(f"{table} .cell:not(.own)", "--share", [n / 20 for n in range(21)]) > 4.5


def test_the_page_of_a_training_that_was_not_measured_has_no_fault(trained: Path, visit: Visitor) -> None:
    found = write_report(trained)
    assert any("Nothing was measured yet" in note and f"evaluate {trained}" in note for note in found.notes)
    opened = visit(found.path, width=PHONE)
    assert opened.list_faults() == []
    assert opened.page.locator("#learning svg").count() == 3
    assert opened.page.locator("#classes").count() == 0


@pytest.mark.parametrize(("width", "start"), [(PHONE, 1), (DESKTOP, 0)])
def test_a_shadow_lies_over_the_end_of_a_table_until_it_is_reached(
    measured: Path, visit: Visitor, width: int, start: int
) -> None:
    table = visit(measured / "report.html", width=width).page.get_by_role("region", name="Scores of every class")
    table.scroll_into_view_if_needed()
    shade = """async element => {
        await new Promise(frame => requestAnimationFrame(() => requestAnimationFrame(frame)));
        return Number(getComputedStyle(element, '::after').opacity);
    }"""
    assert table.evaluate(shade) == start
    table.evaluate("element => element.scrollLeft = element.scrollWidth")
    assert table.evaluate(shade) == 0
    table.evaluate("element => element.scrollLeft = 0")
    table.focus()
    table.press("ArrowRight")
    if start:
        table.page.wait_for_function("element => element.scrollLeft > 0", arg=table.element_handle())


def test_every_link_of_the_page_leads_somewhere(measured: Path, visit: Visitor) -> None:
    page = visit(measured / "report.html").page
    targets = page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
    assert len(targets) == 8
    assert all(page.locator(target).count() == 1 for target in targets)


def test_the_page_fits_on_paper_in_light_colours(measured: Path, visit: Visitor) -> None:
    page = visit(measured / "report.html", width=A4, dark=True).page
    page.emulate_media(media="print", color_scheme="dark")
    excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(excess) <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_dark_is_dark(measured: Path, visit: Visitor) -> None:
    colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    assert max(visit(measured / "report.html", dark=True).page.evaluate(colour)) < 50
    assert min(visit(measured / "report.html").page.evaluate(colour)) > 240


def test_scores_are_those_of_the_evaluation(measured: Path, visit: Visitor) -> None:
    page = visit(measured / "report.html").page
    found = json.loads(locate_evaluation(measured, "test").metrics.read_text())
    assert page.locator(".tile .figure").first.inner_text() == f"{found['ranking']['macro']['average_precision']:.3f}"
    shown = {
        row[0]: row[1:]
        for row in page.eval_on_selector_all(
            "#classes tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
    }
    assert set(shown) == set(found["classes"])
    for name, values in found["classes"].items():
        expected = [values["average_precision"], values["auroc"], *(values["at_tuned"][m] for m in ("f1", "precision"))]
        cells = [shown[name][column] for column in (0, 4, 5, 6)]
        assert cells == ["–" if value is None else f"{value:.3f}" for value in expected]
        assert shown[name][2] == f"{values['support']:.0f}"
        low, high = found["intervals"]["classes"][name]
        assert shown[name][1] == ("–" if low is None else f"{low:.2f} – {high:.2f}")
    for column in ("country", "season"):
        rows = page.locator(f"[aria-label='Scores by {column}'] tbody th").all_inner_texts()
        assert sorted(rows) == sorted(found["slices"][column])


def test_it_says_how_long_all_epochs_took_on_what_and_with_what_energy(
    copy_run: Callable[[], Path], store: Store
) -> None:
    folder = RunFolder(copy_run())
    log = folder.read_log()
    folder.write_log([record | dict.fromkeys(TIMES, 600.0) | {"energy_j": 1.8e6} for record in log])
    result = json.loads((folder.path / "result.json").read_text())
    (folder.path / "result.json").write_text(json.dumps(result | {"devices": ["2 cores of a <b>", "1 NVIDIA H200"]}))
    page = write_report(folder.path, store).path.read_text()
    assert "All epochs took 1 h 40 min on 2 cores of a &lt;b&gt;, then 1 NVIDIA H200 with 1 kWh." in page


def test_a_heading_sorts_its_table(measured: Path, visit: Visitor) -> None:
    page = visit(measured / "report.html").page
    table = page.locator("#classes table")
    values = "cells => cells.map(cell => cell.dataset.value)"

    def read(column: int) -> list[str]:
        return list(page.eval_on_selector_all(f"#classes tbody tr > :nth-child({column})", values))

    table.get_by_role("button", name="Average precision").click()
    falling = read(2)
    known = [float(value) for value in falling if value]
    assert known == sorted(known, reverse=True)
    assert falling[len(known) :] == [""] * (len(falling) - len(known))
    assert "" in falling  # a class that no patch has
    table.get_by_role("button", name="Average precision").click()
    rising = [float(value) for value in read(2) if value]
    assert rising == sorted(known)
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    table.get_by_role("button", name="Class").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names, key=str.casefold)


def test_pictures_show_the_patches_that_are_named(measured: Path, store: Store, pixels: Pixels, visit: Visitor) -> None:
    page = visit(measured / "report.html").page
    table = pq.read_table(store.table, columns=["patch_id", "index"]).to_pydict()
    index_of = dict(zip(table["patch_id"], table["index"], strict=True))
    cards = page.eval_on_selector_all(
        ".card", "cards => cards.map(card => [card.querySelector('h4').textContent, card.querySelector('img').src])"
    )
    assert len({name for name, _ in cards}) == len(cards) > 5
    for name, source in cards:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
        planes = pixels["s2_10m"][index_of[name]][[2, 1, 0]]  # the array has B02, B03, B04, B08
        expected = np.minimum(planes.astype(float) / 1600, 1).transpose(1, 2, 0) * 255
        assert np.abs(picture - expected).max() <= 0.5


def test_cards_name_every_true_and_every_predicted_label(measured: Path, visit: Visitor) -> None:
    page = visit(measured / "report.html").page
    rows = {row["patch_id"]: row for row in pq.read_table(locate_evaluation(measured, "test").predictions).to_pylist()}
    script = """cards => cards.map(card => [
        card.querySelector('h4').textContent,
        [...card.querySelectorAll('.labels li')].map(one => [one.children[0].className, one.children[1].textContent]),
    ])"""
    cards = page.eval_on_selector_all(".card", script)
    for patch_id, labels in cards:
        true, predicted = set(rows[patch_id]["labels"]), set(rows[patch_id]["predicted"])
        found = {kind: {name for mark, name in labels if mark == f"mark {kind}"} for kind in ("hit", "missed", "added")}
        assert found == {"hit": true & predicted, "missed": true - predicted, "added": predicted - true}


def test_foreign_names_cannot_become_markup(copy_run: Callable[[], Path], visit: Visitor) -> None:
    run = copy_run()
    record = json.loads((run / "run.json").read_text())
    _edit(run / "run.json", command=HOSTILE, store=HOSTILE, provenance=record["provenance"] | {"dataset": HOSTILE})
    evaluation = locate_evaluation(run, "test").metrics
    found = json.loads(evaluation.read_text())
    slices = {"country": {HOSTILE: next(iter(found["slices"]["country"].values()))}, "season": {}}
    _edit(evaluation, slices=slices)
    opened = visit(write_report(run).path, width=PHONE)
    assert opened.list_faults() == []
    assert opened.page.locator("img[onerror]").count() == 0
    assert opened.page.locator("pre").inner_text() == HOSTILE
    assert opened.page.locator("[aria-label='Scores by country'] tbody th").inner_text() == HOSTILE
    assert HOSTILE in opened.page.title()


def test_the_same_files_give_the_same_page(measured: Path, store: Store) -> None:
    before = (measured / "report.html").read_bytes()
    write_report(measured, store)
    assert (measured / "report.html").read_bytes() == before
    assert len(before) < 1_500_000
    assert not list(measured.glob(".report*"))


def test_without_its_store_the_page_has_no_pictures_and_says_so(copy_run: Callable[[], Path], visit: Visitor) -> None:
    run = copy_run()
    _edit(run / "run.json", store=str(run / "gone"))
    found = write_report(run)
    assert any("No pictures" in note and "say where" in note for note in found.notes)
    opened = visit(found.path, width=PHONE)
    assert opened.list_faults() == []
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator(".card").count() > 5


def test_a_store_without_visible_bands_gives_no_pictures(copy_run: Callable[[], Path], store: Store) -> None:
    blind = replace(store, arrays=tuple(info for info in store.arrays if info.name != "s2_10m"))
    assert "<img" not in write_report(copy_run(), blind).path.read_text()


def test_what_is_not_finished_or_out_of_date_is_said(copy_run: Callable[[], Path], visit: Visitor) -> None:
    run = copy_run()
    (run / "result.json").unlink()
    with open(run / "best.keras", "ab") as file:
        file.write(b"another epoch")
    locate_evaluation(run, "test").metrics.unlink()
    notes = write_report(run).notes
    assert any("is not finished: 2 of at most 2 epochs" in note for note in notes)
    assert any("test split was not measured yet" in note for note in notes)
    assert any("model has changed since the split validation was measured" in note for note in notes)
    (run / "log.csv").unlink()
    (run / "best.keras").unlink()
    shutil.rmtree(run / "evaluation")
    opened = visit(write_report(run).path, width=PHONE)  # as it is in the first epoch
    assert opened.list_faults() == []
    assert opened.page.locator("#provenance").is_visible()


def test_the_split_is_chosen(copy_run: Callable[[], Path], store: Store) -> None:
    run = copy_run()
    assert "the split <b>test</b>" in (run / "report.html").read_text()
    assert "the split <b>validation</b>" in write_report(run, store, "validation").path.read_text()
    with pytest.raises(RunError, match=r"'train' was not measured, only test, validation; run: .* --split train"):
        write_report(run, store, "train")


def test_what_does_not_belong_together_is_refused(copy_run: Callable[[], Path], store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run\.json"):
        write_report(tmp_path)
    run = copy_run()
    with pytest.raises(RunError, match=r"is another store \(fingerprint 0000"):
        write_report(run, replace(store, fingerprint="0" * 32))
    files = locate_evaluation(run, "test")
    whole = files.metrics.read_text()
    shutil.copy(locate_evaluation(run, "validation").predictions, files.predictions)
    with pytest.raises(
        RunError, match=r"test\.parquet: its macro average precision is .* but the metrics beside it say"
    ):
        write_report(run, store)
    ranking = json.loads(whole)["ranking"]
    _edit(files.metrics, ranking=ranking | {"macro": ranking["macro"] | {"average_precision": None}})
    with pytest.raises(RunError, match=r"macro average precision is 0\.\d+, but the metrics beside it say nothing"):
        write_report(run, store)
    _edit(files.metrics, run="0" * 32)
    with pytest.raises(RunError, match=r"test\.json: belongs to another training"):
        write_report(run, store)
    files.metrics.write_text(whole[:100])
    with pytest.raises(RunError, match=r"test\.json: damaged"):
        write_report(run, store)
    (run / "log.csv").write_text("epoch,loss\n1,much\n")
    files.metrics.write_text(whole)
    files.predictions.unlink()
    with pytest.raises(RunError, match=r"test\.parquet: cannot be read"):
        write_report(run, store)


def test_the_command_writes_it_and_says_what_is_missing(trained: Path, stores: dict[str, Path]) -> None:
    found = CliRunner().invoke(cli, ["report", str(trained), "--store", str(stores["lz4"])])
    assert found.exit_code == 0, found.output
    assert "Note: Nothing was measured yet" in found.stdout
    assert f"Written: {trained / 'report.html'}" in found.stdout


def test_evaluating_writes_it_too(copy_run: Callable[[], Path]) -> None:
    run = copy_run()
    (run / "report.html").unlink()
    found = CliRunner().invoke(cli, ["evaluate", str(run)])
    assert found.exit_code == 0, found.output
    assert f"{run / 'report.html'}" in found.stdout
    assert "<h2>Mistakes</h2>" in RunFolder(run).report_path.read_text()


def test_no_framework_is_loaded_for_it() -> None:
    code = "import sys, trainer.report; print(sorted({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_training_on_a_sample_says_so_above_its_title_and_on_every_picture(
    measured: Path, copy_store: Callable[[str], Path], tmp_path: Path
) -> None:
    path = copy_store("lz4")
    metadata = json.loads((path / "images.zarr" / "zarr.json").read_text())
    metadata["attributes"]["synthetic"] = True
    (path / "images.zarr" / "zarr.json").write_text(json.dumps(metadata))
    seal_again(path)
    store = open_store(path)
    train(store, tmp_path / "run", replace(RECIPE, epochs=1))
    evaluate(store, tmp_path / "run", "test")
    page = write_report(tmp_path / "run", store).path.read_text()
    assert "<title>Synthetic: " in page
    assert page.index(SYNTHETIC_NOTE) < page.index("<h1>")
    real = (measured / "report.html").read_text()
    assert "synthetic" not in re.sub(r"<style>.*?</style>", "", real, flags=re.DOTALL).lower()
    for text, is_marked in ((page, True), (real, False)):
        pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
        assert len(pictures) > 5
        for content in pictures:
            with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                assert (picture.getpixel((2, picture.height - 3)) == (0x8A, 0x15, 0x38)) == is_marked
