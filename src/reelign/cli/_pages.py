"""Pages about parts: for the terminal, and as docs/reference. Both say what the parts' files say (`reelign.source`)."""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from reelign import parts, source
from reelign.face.table import table
from reelign.source import Page, Setting

WIDTH = 100
NOTE = "<!-- Written by `reelign parts --write docs/reference` from the docstrings in the code; change those. -->"


def text(page: Page) -> str:
    """A part's page for a terminal."""
    settings = list(source.flat(page.settings))
    lines = [
        f"{page.kind} {page.name}",
        "",
        _plain(page.about),
        "",
        page.purpose if settings else "There is nothing to set.",
    ]
    for each in settings:
        lines += ["", f"  {each.name}", textwrap.indent(_allowed(each), "      ")]
        lines += textwrap.wrap(each.meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _plain(markdown: str) -> str:
    """A docstring with its tables as columns that a terminal can show."""
    lines: list[str] = []
    for is_table, block in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        rows = list(block)
        if is_table:
            header, _, *rest = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
            rows = table(header, rest).splitlines()
        lines += rows
    return "\n".join(lines)


def write(folder: Path) -> list[Path]:
    """Write docs/reference: a page for each kind of part, one for the recipe around them, and an index."""
    from reelign.files import write_text

    written = []
    for name, content in reference().items():
        write_text(folder / name, content)
        written.append(folder / name)
    return written


def reference() -> dict[str, str]:
    """The pages of docs/reference by file name."""
    index = [
        NOTE,
        "",
        "# Reference",
        "",
        "What a recipe can say. [The recipe itself](recipe.md), and the parts it names:",
    ]
    found = {}
    for kind in parts.PACKAGES:
        pages = [source.page(kind, name) for name in parts.available(kind)]
        found[f"{kind}.md"] = "\n".join([NOTE, "", f"# {kind.capitalize()}s", "", *_sections(pages)])
        index += ["", f"## [{kind.capitalize()}s]({kind}.md)", "", "| name | what it is |", "|---|---|"]
        index += [f"| [`{page.name}`]({kind}.md#{page.name}) | {_cell(page.line)} |" for page in pages]
    recipe = [
        NOTE,
        "",
        "# Recipe",
        "",
        "The keys of a recipe, beside those of the parts it names ([all](README.md)).",
        "",
    ]
    recipe += _table(source.settings("reelign.driver.recipe", "Recipe"))
    spec = ["", "# Bake-off", "", "The keys of what `reelign bakeoff` reads ([how it works](../bakeoff.md)).", ""]
    spec += _table(source.settings("reelign.bakeoff.spec", "Spec"))
    return {"README.md": "\n".join([*index, ""]), "recipe.md": "\n".join([*recipe, *spec, ""]), **found}


def _sections(pages: Sequence[Page]) -> list[str]:
    lines = []
    for page in pages:
        about = page.about.rstrip()
        more = f" [More](../methods/{page.name}.md)." if page.kind == "method" else ""
        lines += [f"## {page.name}", "", f"{about}{more}", ""]
        lines += [page.purpose, "", *_table(page.settings), ""] if page.settings else ["There is nothing to set.", ""]
    return lines


def _table(settings: Sequence[Setting]) -> list[str]:
    lines = ["| setting | allowed | default | meaning |", "|---|---|---|---|"]
    for each in source.flat(tuple(settings)):
        default = f"`{each.default}`" if each.default is not None else "must be given"
        lines.append(f"| `{each.name}` | {_cell(each.type)} | {_cell(default)} | {_cell(each.meaning)} |")
    return lines


def _allowed(setting: Setting) -> str:
    default = f"default {setting.default}" if setting.default is not None else "must be given"
    return f"{setting.type}; {default}" if setting.type else default


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
