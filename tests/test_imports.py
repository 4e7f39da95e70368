"""The rules by which modules may import one another, walked over the syntax trees of all three packages."""

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

ROOT = Path(__file__).parents[1]
PACKAGES = ("bigearthnet", "converter", "trainer")

HOUSE = {
    # folder: the folders below it that it may import; its own files always, in no circle
    "bigearthnet": "",
    "bigearthnet.archive": "bigearthnet",
    "bigearthnet.store": "bigearthnet bigearthnet.archive",
    "bigearthnet.look": "bigearthnet bigearthnet.archive bigearthnet.store",
    "converter": "bigearthnet bigearthnet.archive bigearthnet.store",
    "converter.sample": "bigearthnet bigearthnet.archive",
    "converter.verify": "bigearthnet bigearthnet.archive bigearthnet.store converter",
    "converter.report": "bigearthnet bigearthnet.store bigearthnet.look",
    "converter.export": "bigearthnet bigearthnet.archive bigearthnet.store",
    "converter.commands": "bigearthnet.* converter.*",
    "trainer.source": "bigearthnet bigearthnet.store",
    "trainer.stream": "bigearthnet trainer.source",
    "trainer.adapters": "trainer.stream",
    "trainer": "bigearthnet trainer.source trainer.stream",
    "trainer.run": "bigearthnet trainer.stream",
    "trainer.model": "bigearthnet bigearthnet.store trainer.run",
    "trainer.score": "bigearthnet bigearthnet.archive trainer.source trainer.stream trainer.run trainer.model",
    "trainer.training": "bigearthnet trainer.source trainer.stream trainer.run trainer.model trainer.score",
    "trainer.report": "bigearthnet bigearthnet.look trainer.source trainer.run trainer.score",
    "trainer.commands": "bigearthnet.* trainer.*",
}
"""The rooms of the house from the bottom up; `x.*` is x and every folder in it."""

LIBRARIES = {
    # library: where it may be imported, a module or a folder
    "isal": "bigearthnet.archive.compression",
    "zstandard": "bigearthnet.archive.compression",
    "rasterio": "bigearthnet.archive.raster bigearthnet.store.footprint",
    "shapely": "bigearthnet.store.footprint",
    "zarr": "bigearthnet.store.images",
    "pyarrow": "bigearthnet.archive.lists bigearthnet.archive.metadata bigearthnet.store.table "
    "converter.export converter.sample trainer.score",
    "duckdb": "bigearthnet.store.database bigearthnet.store.query bigearthnet.store.rows",
    "botocore": "bigearthnet.store.server",
    "requests": "bigearthnet.store.server",
    "urllib3": "bigearthnet.store.server",
    "msgspec": "bigearthnet.files bigearthnet.store trainer.run trainer.score.evaluation",
    "numcodecs": "bigearthnet.store.shard trainer.source.decode",
    "google_crc32c": "bigearthnet.store.shard",
    "PIL": "bigearthnet.look",
    "jinja2": "bigearthnet.look",
    "markupsafe": "bigearthnet.look",
    "dask": "converter.cluster converter.scheduler converter.workers",
    "distributed": "converter.cluster converter.scheduler converter.workers",
    "pyogrio": "converter.export",
    "click": "bigearthnet.commandline converter.commands trainer.commands",
    "tqdm": "bigearthnet.commandline converter.commands",
    "tensorstore": "trainer.source.read",
    "keras": "trainer.adapters trainer.model trainer.training",
    "tensorflow": "trainer.adapters trainer.model trainer.training",
    "torch": "trainer.adapters trainer.training",
    "grain": "trainer.adapters",
    "jax": "trainer.model trainer.training",
    "onnx": "trainer.model.export",
    "tensorboard": "trainer.training.tensorboard",
    "matplotlib": "trainer.training",
    "pynvml": "trainer.training.meter",
}
"""Who may import a library; numpy is everybody's."""

DEFERRED = {
    "rasterio",
    "botocore",
    "requests",
    "urllib3",
    "pyogrio",
    "tensorstore",
    "jax",
    "onnx",
    "tensorboard",
    "pynvml",
}
"""Imported inside functions only: they take long, or an extra installs them."""

DISTRIBUTIONS = {"PIL": "pillow", "pynvml": "nvidia_ml_py"}
"""What must be declared for a library of another name."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    importer: str
    imported: str
    line: int
    deferred: bool
    """Inside a function."""

    @property
    def library(self) -> str:
        return self.imported.partition(".")[0]


@cache
def find_modules() -> dict[str, Path]:
    """Find all modules by dotted name."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def name_folder(module: str) -> str:
    return ".".join(find_modules()[module].relative_to(ROOT).parent.parts)


@cache
def find_imports() -> tuple[Import, ...]:
    return tuple(found for module, path in find_modules().items() for found in _walk(module, path))


def _walk(module: str, path: Path) -> Iterator[Import]:
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
            names = [name if name in find_modules() else node.module for name in inner]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(module, name, node.lineno, id(node) in deferred)


def test_there_is_something_to_check() -> None:
    assert len(find_modules()) > 100
    assert len(find_imports()) > 300
    assert any(found.deferred for found in find_imports())


def test_every_folder_has_its_line_and_says_what_it_is_for() -> None:
    assert set(HOUSE) == {name_folder(module) for module in find_modules()}
    for folder in HOUSE:
        docstring = ast.get_docstring(ast.parse((ROOT / folder.replace(".", "/") / "__init__.py").read_text()))
        assert docstring, folder


def _allows(folder: str, other: str) -> bool:
    def matches(allowed: str) -> bool:
        return other == allowed or (allowed.endswith(".*") and f"{other}.".startswith(allowed[:-1]))

    return folder == other or any(map(matches, HOUSE[folder].split()))


@pytest.mark.parametrize("folder", HOUSE)
def test_a_folder_imports_only_what_its_line_says(folder: str) -> None:
    inner = [
        found for found in find_imports() if name_folder(found.importer) == folder and found.imported in find_modules()
    ]
    assert [found for found in inner if not _allows(folder, name_folder(found.imported))] == []


def test_every_permission_is_used_and_points_downwards() -> None:
    used = {
        (name_folder(found.importer), name_folder(found.imported))
        for found in find_imports()
        if found.imported in find_modules()
    }
    folders = list(HOUSE)
    for folder, line in HOUSE.items():
        for allowed in line.split():
            if not allowed.endswith(".*"):
                assert (folder, allowed) in used
                assert folders.index(allowed) < folders.index(folder)


def _draw_house() -> str:
    """Draw which folder imports which, less what follows from the rest."""
    below: dict[str, set[str]] = {folder: set() for folder in HOUSE}
    for found in find_imports():
        if found.imported in find_modules() and name_folder(found.imported) != name_folder(found.importer):
            below[name_folder(found.importer)].add(name_folder(found.imported))

    def reach(folder: str) -> set[str]:
        return below[folder].union(*map(reach, below[folder]))

    lines = ["flowchart BT"]
    for package in PACKAGES:
        lines.append(f"  subgraph {package}-package[{package}]")
        lines += [f"    {folder}" for folder in HOUSE if folder.partition(".")[0] == package]
        lines.append("  end")
    for folder, others in below.items():
        direct = others - set().union(*map(reach, others))
        lines += [f"  {folder} --> {other}" for other in HOUSE if other in direct]
    return "\n".join(lines)


def test_the_picture_of_the_house_is_true() -> None:
    assert f"```mermaid\n{_draw_house()}\n```" in (ROOT / "docs/architecture.md").read_text()


def test_every_place_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    places = re.findall(r"`((?:bigearthnet|converter|trainer|tests)/[\w/.]*)`", text)
    assert len(places) > 20
    for place in places:
        assert (ROOT / place).exists() or (ROOT / f"{place}.py").exists(), place


def test_converter_and_trainer_never_import_each_other() -> None:
    for found in find_imports():
        assert {found.importer.partition(".")[0], found.library} != {"converter", "trainer"}


def test_no_package_imports_the_tests_or_the_benchmarks() -> None:
    assert [found for found in find_imports() if found.library in {"tests", "benchmarks"}] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: set[str]() for module in find_modules()}
    for found in find_imports():
        if found.imported in left and found.imported != found.importer and not found.deferred:
            left[found.importer].add(found.imported)
    while ready := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in ready}
    assert left == {}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_may_be(library: str) -> None:
    found = [found for found in find_imports() if found.library == library]
    allowed = tuple(LIBRARIES[library].split())
    assert [one for one in found if not one.importer.startswith(allowed)] == []
    if library in DEFERRED:
        assert [one for one in found if not one.deferred] == []


def test_every_library_has_its_line_and_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {
        package: {
            _name_of(one) for one in [*project["dependencies"], *(one for extra in names for one in extras[extra])]
        }
        for package, names in {
            "bigearthnet": ["geo", "remote"],
            "converter": ["geo"],
            "trainer": ["train", "torch", "jax", "grain", "onnx"],
        }.items()
    }
    for found in find_imports():
        if found.library in sys.stdlib_module_names or found.library in PACKAGES:
            continue
        assert found.library in LIBRARIES or found.library == "numpy", found
        distribution = DISTRIBUTIONS.get(found.library, found.library).lower()
        assert distribution in declared[found.importer.partition(".")[0]], found


def _name_of(requirement: str) -> str:
    return re.split(r"[>=\[]", requirement, maxsplit=1)[0].strip().replace("-", "_").lower()
