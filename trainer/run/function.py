"""Functions of the user's own, by name. No framework.

A name is imported only because the user gave it: those in the folder of a run, which may be a stranger's, are compared
with what the user gives, and never imported.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from bigearthnet.errors import OptionError


def is_function_name(name: str) -> bool:
    """Tell `module:function` from the names that this package knows."""
    return ":" in name


def name_function(function: Callable[..., Any]) -> str:
    """Return the name by which another process finds a function: `module:function`.

    Raises:
        OptionError: There is none, as for a lambda or a function that is made inside another.
    """
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    if load_function(name) is not function:
        raise OptionError(f"{name} is another function than the one given; give it a name of its own in its module")
    return name


def import_module_of(name: str) -> ModuleType:
    """Import the module of a function by the function's name, from where Python looks or from the current folder.

    Raises:
        OptionError: It cannot be imported.
    """
    module = name.partition(":")[0]
    if module in sys.modules:
        return sys.modules[module]
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return import_module(module)
    except Exception as error:  # a module of the user's may raise anything
        raise OptionError(
            f"{name}: the module {module!r} cannot be imported ({type(error).__name__}: {error}); expected "
            "module:function, a module that Python finds or that lies in the current folder"
        ) from error
    finally:
        sys.path.remove(here)


def load_function(name: str) -> Callable[..., Any]:
    """Find a function by its name, `module:function`.

    Raises:
        OptionError: There is no such function.
    """
    try:
        function = attrgetter(name.partition(":")[2])(import_module_of(name))
    except AttributeError as error:
        raise OptionError(
            f"{name}: there is no such function ({error}); expected module:function, a function that stands at the "
            "top of its module, not a lambda nor one inside another"
        ) from error
    if not inspect.isfunction(inspect.unwrap(function)):
        raise OptionError(f"{name}: expected a function, found {type(function).__name__}; write a function around it")
    return function  # type: ignore[no-any-return]


def hash_source(name: str) -> str:
    """Identify a function by its name and by the source file of the module that defines it.

    What that module imports is not hashed. In a notebook, which has no file, it is the source of the function alone.

    Raises:
        OptionError: There is no such function, or no source of it.
    """
    function = inspect.unwrap(load_function(name))
    try:
        path = inspect.getsourcefile(function)
        text = inspect.getsource(function).encode() if path is None or not Path(path).is_file() else None
        source = Path(path or "").read_bytes() if text is None else text
    except (OSError, TypeError) as error:
        raise OptionError(f"{name}: its source cannot be read ({error}); write it into a file") from error
    hashed = hashlib.blake2b(function.__qualname__.encode() + b"\n" + source, digest_size=16)
    return hashed.hexdigest()
