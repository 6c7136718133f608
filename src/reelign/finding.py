"""Where a module would come from, told without importing anything."""

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
    for number in range(1, len(steps) + 1):
        name = ".".join(steps[:number])
        if name in sys.modules:
            places = getattr(sys.modules[name], "__path__", ())
            continue
        try:
            found = (finder.find_spec(name, places) for finder in sys.meta_path if hasattr(finder, "find_spec"))
            spec = next((each for each in found if each is not None), None)
        except (ImportError, ValueError, OSError):
            return ""
        if spec is None:
            return name
        if number < len(steps) and _makes_modules(spec):
            return ""
        places = _below(spec, sys.path if places is None else places)
    return ""


def _below(spec: ModuleSpec, places: Sequence[str]) -> Sequence[str]:
    """Where modules below one would lie; nowhere if it is no package."""
    if spec.submodule_search_locations is None:
        return ()
    if spec.origin is not None:
        return list(spec.submodule_search_locations)
    # Folders without a file: Python's own list of them cannot be read before the package above is imported.
    own = [Path(place or ".") / spec.name.rpartition(".")[2] for place in places]
    return [str(folder) for folder in own if folder.is_dir()]


def _makes_modules(spec: ModuleSpec) -> bool:
    """Whether a module may, when it is imported, say itself what lies below it."""
    if spec.origin is None:
        return False  # a folder without a file of its own
    try:
        text = Path(spec.origin).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True
    return "__path__" in text or "sys.modules" in text
