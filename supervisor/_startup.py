"""What a start does later or not at all: the one place for it. Figures: docs/decisions/0026-what-a-start-imports.md.

Beside this, `tars_config` and `actors` look their exports up at first use, a model's validator is built with its first value
(`schemas.base`), structlog is kept from rich (`supervisor.logging`), and the web stack is imported while the store is opened
(`supervisor.wiring`).
"""

import contextlib
import gc
import importlib
import os
import re
import sys
import threading
from _pickle import PicklingError
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

PUT_OFF: Final[Mapping[str, str]] = {
    "bz2": "for archives that `shutil` would unpack",
    "ctypes": "for the holder, whose program we import for its words alone",
    "difflib": "for the suggestions in messages about mistakes",
    "html.entities": "for names of characters in HTML that is read: half a MiB",
    "importlib.metadata": "for plugins of Pydantic; it imports most of `email`, zipfile and csv: 20 ms, 2 MiB",
    "logging.config": "for a log that uvicorn or Litestar would set up",
    "lzma": "for archives that `shutil` would unpack",
    "pdb": "for Litestar's debug mode",
    "pickle": "for loggers that are sent to another process, which structlog refuses",
    "sysconfig": "for time zones: `zoneinfo`, which Pydantic imports, reads all of Python's build settings for one of them",
    "uvicorn": "its `__init__` imports its command line; the parts of it that are used here are submodules",
    "yaml": "for a document in YAML that Litestar would make",
}
"""Modules that are executed when something in them is first used, and what that would be for."""

_HOMES: Final[Mapping[str, str]] = {"uvicorn.Config": "uvicorn.config"}
"""Names that a put off package's own submodules look up in it, and where they are: that does not wake it."""


def _entry_points(**wanted: Any) -> Any:
    return _awake("importlib.metadata").entry_points(**wanted)


def _version(distribution: str) -> str:
    """Give its version by the name of its folder (the specification "Recording installed projects"), if there is one such."""
    stem = re.sub(r"[-_.]+", "_", distribution).lower()
    found = {path.stem.partition("-")[2] for folder in sys.path for path in Path(folder).glob(f"{stem}-*.dist-info")}
    return found.pop() if len(found) == 1 else _awake("importlib.metadata").version(distribution)


def _config_var(name: str) -> Any:
    # As CPython's configure has it; asked for by `zoneinfo`, and nothing here names a time zone.
    zones = "/usr/share/zoneinfo:/usr/lib/zoneinfo:/usr/share/lib/zoneinfo:/etc/zoneinfo"
    return zones if name == "TZPATH" else _awake("sysconfig").get_config_var(name)


class _Library:
    """A `ctypes.CDLL` that is loaded when something is looked up in it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._how = arguments, options

    def __getattr__(self, name: str) -> Any:
        arguments, options = self._how
        function = getattr(_awake("ctypes").CDLL(*arguments, **options), name)
        setattr(self, name, function)
        return function


class _Entities(Mapping[str, str]):
    """`html.entities.html5`, which is executed when something is looked up in it."""

    def __getitem__(self, name: str) -> str:
        found: str = _awake("html.entities").html5[name]
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_awake("html.entities").html5)

    def __len__(self) -> int:
        return len(_awake("html.entities").html5)


_INSTEAD: Final[Mapping[str, Any]] = {
    "ctypes.CDLL": _Library,
    # `html` imports it, whatever it is used for.
    "html.entities.html5": _Entities(),
    # Pydantic imports it, and calls it where plugins are wanted; Litestar wants its own version.
    "importlib.metadata.entry_points": _entry_points,
    "importlib.metadata.version": _version,
    "pickle.PicklingError": PicklingError,
    "sysconfig.get_config_var": _config_var,
}
"""What others look up in a put off module while they are imported: they are given these, which wake it where they must."""


class _Later(ModuleType):
    """A module that has been found, and is executed when something is looked up that it does not have yet.

    The standard library's `LazyLoader` is not enough: a second `import` statement, or one of a submodule, wakes what it loaded.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":
            # Each `from` import asks for that; a package has it from its specification.
            raise AttributeError(name)
        home = _HOMES.get(f"{self.__name__}.{name}")
        if home is not None:
            return getattr(importlib.import_module(home), name)
        instead = _INSTEAD.get(f"{self.__name__}.{name}")
        if instead is not None and self in _waiting:
            return instead
        _execute(self)
        return object.__getattribute__(self, name)


def _execute(module: ModuleType) -> None:
    with _lock:
        loader = _waiting.pop(module, None)
        if loader is not None:
            try:
                loader.exec_module(module)
            except BaseException:
                _waiting[module] = loader
                raise
            module.__class__ = ModuleType


def _awake(name: str) -> Any:
    module = sys.modules[name]
    _execute(module)
    return module


_waiting: dict[ModuleType, Any] = {}
"""Modules that were not executed yet, and the loader of each."""
# A thread that comes second waits for the first one; the first may come again, since the module may look into itself.
_lock = threading.RLock()


class _LaterLoader:
    # No `importlib.abc.Loader`, which does nothing more and takes 1 MiB: it imports `importlib.resources`.
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        _waiting[module] = self._loader
        module.__class__ = _Later


class _Finder(PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PUT_OFF:
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LaterLoader(spec.loader)  # type: ignore[assignment]  # all that is asked of one
        return spec


@contextlib.contextmanager
def short_start() -> Iterator[None]:
    """Put imports off, and collect no garbage until `started` or the end: a start makes objects and drops next to none."""
    # Plugins of Pydantic would be looked for in the metadata of every distribution.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.meta_path.insert(0, _Finder)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.meta_path.remove(_Finder)


def started() -> None:
    """Collect garbage again, but without ever looking through what the start has made: it stays."""
    gc.freeze()
    gc.enable()
