"""The rules by which modules may import one another, walked over the syntax trees of both packages."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from converter.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("converter", "trainer")

CONVERTER = """
errors interrupts quantity
output
model
bigearthnet
annotation colours footprint lists plan raster receipt scan shard statistics store tiff
metadata
archive croissant patch picture table target
events finish info inspection run task
convert query verify
album export geopackage sheet
preview
report.census report.footprints report.gallery report.pixels
report.charts
report.page
report
sample.surface
sample.encoding sample.landcover sample.mgrs sample.noise
sample.landscape sample.order
sample.listing sample.optics sample.radar
sample.product
sample.write
sample
display
commands
commands.convert commands.export commands.info
commands.preview commands.query commands.report commands.sample commands.verify
cli
__main__
"""
"""The modules of the converter from the bottom up: each imports only what stands above it, or on its own line in
`BESIDE`."""

BESIDE = {("receipt", "shard"), ("receipt", "statistics"), ("store", "shard"), ("raster", "tiff")}
"""Imports within a line, as (who imports, whom)."""

ONLY_IMPORTERS = {
    "rasterio": {"converter.raster", "converter.footprint"},
    "shapely": {"converter.footprint"},
    "zarr": {"converter.store"},
    "pyarrow": {"converter.table", "converter.metadata", "converter.geopackage", "converter.sample.listing"},
    "dask": {"converter.run"},
    "distributed": {"converter.run"},
    "click": {"converter.cli", *(f"converter.commands.{name}" for name in COMMANDS)},
    "duckdb": {"converter.query"},
    "tqdm": {
        "converter.display",
        *(f"converter.commands.{name}" for name in ("export", "preview", "report", "sample")),
    },
    "numcodecs": {"converter.shard"},
    "pyogrio": {"converter.geopackage"},
    "google_crc32c": {"converter.shard"},
    "PIL": {"converter.sheet", "converter.report.gallery"},
    "jinja2": {"converter.report.page"},
}
"""Who may import a library, in the converter; the trainer's own rules for the same names are its own."""

DISTRIBUTIONS = {"PIL": "pillow"}
"""What must be declared for a library of another name."""

FRAMEWORKS = {"tensorflow", "keras", "torch", "jax", "sklearn"}
"""The converter never needs these."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    importer: str
    imported: str
    line: int
    deferred: bool
    """Inside a function."""


@cache
def find_modules(package: str) -> dict[str, Path]:
    """Find the modules of a package by dotted name."""
    modules = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


@cache
def find_imports(package: str) -> tuple[Import, ...]:
    return tuple(found for module, path in find_modules(package).items() for found in _walk(package, module, path))


def _walk(package: str, module: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(), str(path))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    deferred = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in find_modules(package) else node.module for name in inner]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(module, name, node.lineno, id(node) in deferred)


def library_of(name: str) -> str:
    return name.partition(".")[0]


def test_there_is_something_to_check() -> None:
    assert len(find_modules("converter")) > 25
    assert len(find_imports("converter")) > 100
    assert any(found.deferred for found in find_imports("converter"))


@pytest.mark.parametrize(("package", "other"), [PACKAGES, PACKAGES[::-1]])
def test_neither_package_imports_the_other(package: str, other: str) -> None:
    assert [found for found in find_imports(package) if library_of(found.imported) == other] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_the_tests_or_the_benchmarks(package: str) -> None:
    assert [found for found in find_imports(package) if library_of(found.imported) in {"tests", "benchmarks"}] == []


def ranks() -> dict[str, int]:
    lines = CONVERTER.split("\n")[1:-1]
    return {"converter": -1} | {f"converter.{name}": rank for rank, line in enumerate(lines) for name in line.split()}


def test_every_module_of_the_converter_has_its_place() -> None:
    assert set(ranks()) == set(find_modules("converter"))


def test_a_module_imports_only_what_stands_above_it() -> None:
    rank_of = ranks()
    wrong = []
    for found in find_imports("converter"):
        if library_of(found.imported) != "converter":
            continue
        importer, imported = found.importer.removeprefix("converter."), found.imported.removeprefix("converter.")
        above = rank_of[found.imported] < rank_of[found.importer]
        if not above and (importer, imported) not in BESIDE:
            wrong.append(found)
    assert wrong == []


def test_every_exception_to_the_order_is_used() -> None:
    rank_of = ranks()
    used = {(found.importer, found.imported) for found in find_imports("converter")}
    for importer, imported in BESIDE:
        assert (f"converter.{importer}", f"converter.{imported}") in used
        assert rank_of[f"converter.{importer}"] == rank_of[f"converter.{imported}"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    left = {module: set[str]() for module in find_modules(package)}
    for found in find_imports(package):
        if found.imported in left and found.imported != found.importer and not found.deferred:
            left[found.importer].add(found.imported)
    while ready := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in ready}
    assert left == {}


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_a_library_is_imported_only_where_it_may_be(library: str) -> None:
    importers = {found.importer for found in find_imports("converter") if library_of(found.imported) == library}
    allowed = {module for module in ONLY_IMPORTERS[library] if library_of(module) == "converter"}
    assert importers <= allowed
    if library != "dask":  # `distributed` is all that is needed of it today
        assert importers == allowed


def test_rasterio_is_imported_only_when_it_is_needed() -> None:
    """It takes a third of a second in each worker, and plain archives never need it."""
    found = [found for found in find_imports("converter") if library_of(found.imported) == "rasterio"]
    assert len(found) >= 2
    assert all(one.deferred for one in found)


def test_the_trainer_opens_rasters_in_one_module_and_only_when_needed() -> None:
    found = [found for found in find_imports("trainer") if library_of(found.imported) == "rasterio"]
    assert {one.importer for one in found} == {"trainer.raw"}
    assert all(one.deferred for one in found)


def test_what_only_an_extra_installs_is_imported_only_when_it_is_needed() -> None:
    found = [found for found in find_imports("converter") if library_of(found.imported) == "pyogrio"]
    assert found
    assert all(one.deferred for one in found)


def test_the_converter_needs_no_framework() -> None:
    assert [found for found in find_imports("converter") if library_of(found.imported) in FRAMEWORKS] == []


def test_whoever_may_import_a_library_alone_says_so() -> None:
    for module, library in {"store": "zarr", "footprint": "shapely", "run": "dask"}.items():
        docstring = ast.get_docstring(ast.parse(find_modules("converter")[f"converter.{module}"].read_text())) or ""
        assert f"nly importer of {library}" in " ".join(docstring.split())


def test_everything_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["geo"]]
    declared = {name.replace("-", "_").lower() for name in map(_name_of, requirements)}
    used = {DISTRIBUTIONS.get(name, name) for name in map(library_of, {x.imported for x in find_imports("converter")})}
    assert used - set(sys.stdlib_module_names) - {"converter"} <= declared


def _name_of(requirement: str) -> str:
    return re.split(r"[>=\[]", requirement, maxsplit=1)[0].strip()
