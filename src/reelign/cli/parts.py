"""`reelign parts [KIND]`."""

import typer


def command(
    kind: str = typer.Argument("", help="method, reward, metric, model, dataset or stage; all of them without it."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
) -> None:
    """List the parts a recipe can name, each with its one-line description."""
    from typing import cast

    from reelign import parts
    from reelign.cli._console import emit, table
    from reelign.errors import UnknownPart

    if kind and kind not in parts.PACKAGES:
        raise UnknownPart(f"no kind called {kind!r}. Available: {', '.join(parts.PACKAGES)}.")
    rows = []
    for each in [kind] if kind else parts.PACKAGES:
        for name in parts.available(cast(parts.Kind, each)):
            doc = (parts.find(cast(parts.Kind, each), name).__doc__ or "").strip().splitlines()[0]
            rows.append({"kind": each, "name": name, "about": doc})
    emit(rows, as_json, table(("kind", "name", "about"), [list(row.values()) for row in rows]))
