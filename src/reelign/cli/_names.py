"""Names that the shell completes."""

from collections.abc import Callable

import typer


def kinds(incomplete: str) -> list[str]:
    """Kinds of parts that begin like this."""
    from reelign import parts

    return [kind for kind in parts.PACKAGES if kind.startswith(incomplete)]


def _parts(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """What completes the names of shipped parts of a kind, or of the kind that stands before."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from reelign import parts

        wanted = kind or ctx.params.get("kind")
        names = [name for each in parts.PACKAGES if each == wanted for name in parts.available(each)]
        return [name for name in names if name.startswith(incomplete)]

    return complete


rewards, metrics, parts_of_kind = (_parts(kind) for kind in ("reward", "metric", ""))
