"""Packages that a sink needs and Reelign does not bring."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from reelign.errors import MissingExtra


def need(name: str) -> None:
    """See that a package is there; nothing is imported.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec(name) is None:
        raise MissingExtra(
            f"the sink {name!r} needs a package that is not installed; run pip install 'reelign[{name}]', or leave the "
            "sink out."
        )


def bring(name: str) -> Any:
    """The package.

    Raises:
        MissingExtra: it is not there.
    """
    need(name)
    return import_module(name)
