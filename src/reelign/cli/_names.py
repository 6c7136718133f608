"""Names that the shell completes."""

from typing import cast

import typer


def rewards(incomplete: str) -> list[str]:
    """Shipped rewards that begin like this."""
    return _beginning("reward", incomplete)


def metrics(incomplete: str) -> list[str]:
    """Shipped metrics."""
    return _beginning("metric", incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of parts."""
    from reelign import parts

    return [kind for kind in parts.PACKAGES if kind.startswith(incomplete)]


def parts_of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """Shipped parts of the kind that stands before."""
    return _beginning(ctx.params.get("kind") or "", incomplete)


def _beginning(kind: str, incomplete: str) -> list[str]:
    from reelign import parts

    if kind not in parts.PACKAGES:
        return []
    return [name for name in parts.available(cast(parts.Kind, kind)) if name.startswith(incomplete)]
