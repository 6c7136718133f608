"""`reelign parts [KIND [NAME]]`."""

from pathlib import Path

import typer

from reelign.cli import _names
from reelign.cli._console import emit
from reelign.errors import UnknownPart, meant, shown
from reelign.face.table import table


def command(
    kind: str = typer.Argument(
        "",
        autocompletion=_names.kinds,
        help="method, module, backbone, reward, metric, model, dataset or stage; all of them without it.",
    ),
    name: str = typer.Argument(
        "", autocompletion=_names.parts_of_kind, help="A part, or the dotted path of one of your own: its page."
    ),
    write: Path | None = typer.Option(None, "--write", help="Write all pages as Markdown into this folder."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
) -> None:
    """List the parts a recipe can name, or show one with all its settings. Nothing of them is run."""
    from dataclasses import asdict
    from typing import cast

    from reelign import parts, source
    from reelign.cli import _pages

    if kind and kind not in parts.PACKAGES:
        known = tuple(parts.PACKAGES)
        raise UnknownPart(f"no kind called {shown(kind)}{meant(kind, known)}; available: {', '.join(known)}.")
    if write:
        written = [str(path) for path in _pages.write(write)]
        emit(written, as_json, "\n".join(written))
        return
    kinds: list[parts.Kind] = [cast(parts.Kind, kind)] if kind else list(parts.PACKAGES)
    if name:
        page = source.page(kinds[0], name)
        emit(asdict(page), as_json, _pages.text(page))
        return
    found = [source.page(each, shipped) for each in kinds for shipped in parts.available(each)]
    rows = [{"kind": page.kind, "name": page.name, "about": page.line} for page in found]
    emit(rows, as_json, table(("kind", "name", "about"), [list(row.values()) for row in rows]))
