"""Pages of the site that are no files of this folder, and what GitHub shows in another way than the site."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

import click
import mmdr
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

import trainer
from bigearthnet import errors
from converter import conversion, sample
from trainer import _DEFERRED

_DOCS: Final = Path(__file__).parent
_ROOT: Final = _DOCS.parent
_NEIGHBOURS: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
}
"""Files beside this folder, and what they are called in the site."""
_CONVERTER: Final = {
    "Converting": [f"conversion.{name}" for name in conversion.__all__],
    "Verifying": [
        "verify.verification.verify",
        "verify.verification.VerifyOptions",
        "verify.verification.Verification",
    ],
    "Staging": ["staging.stage", "staging.StageOptions", "staging.Staged"],
    "Samples": [f"sample.{name}" for name in sample.__all__],
}
_TRAINER: Final = {
    "Streaming": [name for name in trainer.__all__ if name not in _DEFERRED and not hasattr(errors, name)],
    "Adapters": [
        "adapters.keras_data.to_tf_dataset",
        "adapters.keras_data.KerasBatches",
        "adapters.torch_data.TorchBatches",
        "adapters.grain_data.to_grain_dataset",
    ],
    "Training": [f"{module.removeprefix('trainer.')}.{name}" for name, module in _DEFERRED.items()],
    "Models": ["model.networks.load_model", "model.networks.describe_model", "model.plain.PlainModel"],
}
_ERRORS: Final = [name for name, value in vars(errors).items() if isinstance(value, type)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {
        **{page: _read_neighbour(name) for name, page in _NEIGHBOURS.items()},
        "reference/ben-convert.md": "\n".join(_describe_program("ben-convert", "converter.commands.cli")),
        "reference/ben-train.md": "\n".join(_describe_program("ben-train", "trainer.commands.cli")),
        "reference/converter.md": "\n".join(_list_names("converter", _CONVERTER)),
        "reference/trainer.md": "\n".join(_list_names("trainer", _TRAINER)),
        "reference/errors.md": "\n".join(
            ("# Errors", "", str(errors.__doc__), *_place_names("bigearthnet.errors", _ERRORS))
        ),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Show what the tutorial printed and drew, mend links, draw diagrams, and keep `|` in tables.

    Links lead to pages instead of files, and call them by their titles where the text calls them by their files.
    """
    if page.file.src_uri == "tutorial.md":
        markdown = _read_tutorial()
    markdown = re.sub(r"\]\((?:docs/|\.\./)([\w.-]+)", r"](\1", markdown).replace("(tutorial.ipynb)", "(tutorial.md)")
    markdown = re.sub(r"\]\(([A-Z]+(?:\.md)?)\b", lambda link: f"]({_NEIGHBOURS.get(link[1], link[1])}", markdown)
    markdown = re.sub(r"\[(?:docs/)?([\w-]+\.md)\](?=\()", lambda found: f"[{_read_title(found[1])}]", markdown)
    markdown = re.sub(r"`[^`\n]*`", lambda code: code[0].replace(r"\|", "|"), markdown)
    return re.sub(r"^```mermaid\n(.*?)^```$", _draw, markdown, flags=re.MULTILINE | re.DOTALL)


def _read_neighbour(name: str) -> str:
    text = (_ROOT / name).read_text()
    if name == "LICENSE":
        return f"# Licence\n\n```text\n{text}```\n"
    return f"---\nhide: [navigation]\n---\n{text}" if name == "README.md" else text


def _read_tutorial() -> str:
    """Read the notebook as a page, with its pictures in it."""
    text, resources = MarkdownExporter().from_filename(str(_DOCS / "tutorial.ipynb"))
    for name, picture in resources["outputs"].items():
        text = text.replace(f"({name})", f"(data:image/png;base64,{b64encode(picture).decode()})")
    return str(text).replace("[tutorial.ipynb](tutorial.ipynb) has", "this page has")


def _read_title(name: str) -> str:
    path = _DOCS / name
    return path.read_text().partition("\n")[0].removeprefix("# ") if path.is_file() else name


def _draw(diagram: re.Match[str]) -> str:
    picture = b64encode(mmdr.render(diagram[1]).svg().encode()).decode()
    return f'<img class="diagram" alt="Diagram of what the text says" src="data:image/svg+xml;base64,{picture}">'


def _describe_program(name: str, module: str) -> Iterator[str]:
    program = import_module(module).cli
    context = click.Context(program, info_name=name, **program.context_settings)
    yield from (f"# {name}", "", *_describe_command(program, context))
    for word in program.list_commands(context):
        command = program.get_command(context, word)
        yield from (f"## {word}", "", *_describe_command(command, click.Context(command, context, info_name=word)))


def _describe_command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from ("```text", command.get_usage(context).removeprefix("Usage: "), "```", "")
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):  # click's mark for what is not to be wrapped
            yield from ("```text", paragraph.removeprefix("\b\n"), "```", "")
        else:
            yield from (_escape(paragraph), "")
    for option in command.get_params(context):
        if isinstance(option, click.Option) and (record := option.get_help_record(context)):
            yield from (f"`{record[0]}`", f":   {_escape(record[1])}", "")


def _escape(text: str) -> str:
    return text.replace("<", "&lt;")


def _list_names(package: str, sections: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from (f"# {package}", "")
    for title, names in sections.items():
        yield from (f"## {title}", "", *_place_names(package, names))


def _place_names(package: str, names: Sequence[str]) -> Iterator[str]:
    for path in names:
        name = path.rpartition(".")[2]
        place = f"{package}.{name if package == 'trainer' and name in trainer.__all__ else path}"
        options = f"{{heading: {place}, toc_label: {name}}}"  # where it is imported from
        yield from (f"::: {package}.{path}", f"    options: {options}", "")
