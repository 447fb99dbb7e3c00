"""`module:function` as an object: the function's own folder comes first on the import path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from qpipe.errors import ConfigError, nearest


def load_function(reference: str, folder: Path | None) -> Callable[..., object]:
    """Import `module:function`.

    Raises:
        ConfigError: not of that form, or no such module or function.
    """
    module_name, function_name = split_reference(reference)
    with first_on_path(folder):
        module = _import(module_name, folder, reference)
    found: object = getattr(module, function_name, None)
    if not callable(found):
        names = [name for name in vars(module) if callable(getattr(module, name))]
        raise ConfigError(
            f"{reference}: module {module_name!r} ({module.__file__}) has no function {function_name!r}"
            f"{nearest(function_name, names)}",
            hint="write it as module:function",
        )
    return found


def function_file(reference: str, folder: Path | None) -> Path:
    """The source file of `module:function`, found without importing it.

    Raises:
        ConfigError: not of that form, or no such module.
    """
    module_name, _ = split_reference(reference)
    own = _own_file(module_name, folder)
    if own is not None:
        return own
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise _no_module(module_name, folder, reference)
    return Path(spec.origin)


def split_reference(reference: str) -> tuple[str, str]:
    """`module:function` in its two parts."""
    module_name, _, function_name = reference.partition(":")
    if not function_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{reference!r} is not of the form module:function", hint='e.g. "my_data:batches"')
    return module_name, function_name


@contextmanager
def first_on_path(folder: Path | None) -> Iterator[None]:
    """The folder as the first entry of `sys.path`, for as long as the block runs."""
    if folder is None:
        yield
        return
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _import(module_name: str, folder: Path | None, reference: str) -> ModuleType:
    own = _own_file(module_name, folder)
    loaded = sys.modules.get(module_name)
    if own is not None and loaded is not None and Path(str(loaded.__file__)).resolve() != own.resolve():
        del sys.modules[module_name]  # a module of that name from another pipeline's folder
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise _no_module(module_name, folder, reference) from error
        raise ConfigError(
            f"{reference}: {error}", hint=f"install the module {error.name!r} where qpipe runs"
        ) from error


def _own_file(module_name: str, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    base = folder.joinpath(*module_name.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _no_module(module_name: str, folder: Path | None, reference: str) -> ConfigError:
    files = [file.stem for file in folder.glob("*.py")] if folder is not None else []
    return ConfigError(
        f"{reference}: no module {module_name!r}{nearest(module_name, files)}",
        hint=f"put {module_name.replace('.', '/')}.py into {folder}" if folder else "is it installed?",
    )
