"""`python -m tests.faults.table`: writes the counts of the last `make test-all` into docs/reliability.md."""

import json
from pathlib import Path
from typing import Any

from tests.faults.counts import FILE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- counts -->\n", "<!-- end of counts -->\n"
HEAD = "| fault | injected | same bits | one sentence | other | command |\n|---|---|---|---|---|---|\n"


def render(rows: list[dict[str, Any]]) -> str:
    """Rows of all tests as one table: a line a kind of fault, and their sum."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        line = kinds.setdefault((row["suite"], row["kind"]), [0, 0, 0])
        for column, count in enumerate((row["same"], row["sentence"], len(row["other"]))):
            line[column] += count
    lines = [
        _line(kind, numbers, f"`pytest --whole tests/faults/{suite}`")
        for (suite, kind), numbers in sorted(kinds.items())
    ]
    total = [sum(column) for column in zip(*kinds.values(), strict=True)]
    return HEAD + "".join([*lines, _line("**sum**", total, "`make test-all`")])


def _line(kind: str, numbers: list[int], command: str) -> str:
    return f"| {kind} | {' | '.join(f'{n:,}' for n in (sum(numbers), *numbers))} | {command} |\n"


def main() -> None:
    """Put the table in its place."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{render(rows)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
