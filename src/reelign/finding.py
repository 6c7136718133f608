"""Where a module would come from, told without importing anything."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path


def lost(path: str) -> str:
    """The first module on a dotted path that Python would not find; nothing if all are there or it cannot be told.

    The finders are asked that an import asks, and nothing is imported. So a package that makes its modules itself, when
    it is imported, must be let pass.
    """
    steps = path.split(".")
    places: Sequence[str] | None = None
    for number, step in enumerate(steps, start=1):
        name = ".".join(steps[:number])
        if name in sys.modules:
            places = list(getattr(sys.modules[name], "__path__", ()))
            continue
        folders = [str(Path(place) / step) for place in places or ()]
        try:
            spec = _spec(name, places)
        except (ImportError, ValueError, OSError):
            return ""
        if spec is None:
            return name
        if number < len(steps) and _makes_modules(spec):
            return ""
        if places is not None and _is_folder(spec):
            # Python's own list of where it lies cannot be read before the package above is imported.
            places = [folder for folder in folders if os.path.isdir(folder)]
        else:
            places = list(spec.submodule_search_locations or ())
    return ""


def _spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """What the finders say of a module, as they would when it is imported."""
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, places) if hasattr(finder, "find_spec") else None
        except KeyError:  # a folder without a file, which asks for the package above it
            return ModuleSpec(name, None, is_package=True)
        if found is not None:
            return found
    return None


def _is_folder(spec: ModuleSpec) -> bool:
    """Whether a package is a folder without a file of its own."""
    return spec.origin is None and spec.submodule_search_locations is not None


def _makes_modules(spec: ModuleSpec) -> bool:
    """Whether a module may, when it is imported, say itself what lies below it."""
    if _is_folder(spec):
        return False
    try:
        text = Path(spec.origin or "").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True
    return "__path__" in text or "sys.modules" in text
