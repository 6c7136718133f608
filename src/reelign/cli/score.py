"""`reelign score VIDEO... --reward NAME --prompt TEXT`, or `reelign score TABLE.csv --reward NAME`."""

from pathlib import Path

import typer

from reelign.cli import _names
from reelign.cli._console import INSIDE_ONLY


def command(
    videos: list[Path] = typer.Argument(..., help="One or more video files; or one .csv with the columns file,prompt."),
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What the videos should show; a .csv says it itself."
    ),
    rewards: list[str] = typer.Option(
        [], "--reward", "-r", autocompletion=_names.rewards, help="Reward by name; repeatable."
    ),
    metrics: list[str] = typer.Option(
        [], "--metric", "-m", autocompletion=_names.metrics, help="Held-out measure by name; repeatable."
    ),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Score videos against what they should show."""
    import math

    from reelign import parts
    from reelign.cli._console import emit, table
    from reelign.errors import BadConfig

    if not rewards and not metrics:
        raise BadConfig(
            f"score needs --reward or --metric; rewards: {', '.join(parts.available('reward'))}; "
            f"metrics: {', '.join(parts.available('metric'))}."
        )
    for name in rewards:
        parts.refuse_unknown("reward", name)
    for name in metrics:
        parts.refuse_unknown("metric", name)
    clips = _clips(videos, prompt)

    from reelign import config as configs
    from reelign import judges, video
    from reelign.batches import Videos

    asked = [judges.build("reward", configs.part("reward", n)) for n in rewards]
    asked += [judges.build("metric", configs.part("metric", n)) for n in metrics]
    judges.refuse_twice(asked)
    rows = []
    for path, text in clips:
        frames, fps = video.read(path)
        found = judges.ask(asked, Videos(frames[None], fps), (text,), str(path))
        values = {name: v.item() for name, v in found.items()}
        values = {name: None if math.isnan(v) else v for name, v in values.items()}  # NaN: does not apply here
        rows.append({"video": str(path), **({} if prompt else {"prompt": text}), **values})
    names = list(rows[0])
    emit(rows, as_json, table(names, [[row[n] for n in names] for row in rows]))


def _clips(videos: list[Path], prompt: str | None) -> list[tuple[Path, str]]:
    """Files with their prompts, from the command line or from a table; names in a table start from its folder."""
    from reelign.datasets import _tables
    from reelign.errors import BadConfig, BadData, shown

    tables = [path for path in videos if path.suffix.lower() == ".csv"]
    if not tables:
        if not (prompt or "").strip():
            raise BadConfig("score needs --prompt, or a .csv with the columns file,prompt.")
        found = [(path, str(prompt)) for path in videos]
    elif len(videos) > 1 or prompt is not None:
        raise BadConfig(f"{shown(str(tables[0]))} says files and prompts; give it alone, without --prompt.")
    else:
        found = []
        for number, row in _tables.csv_rows(tables[0]):
            where = f"{tables[0]}, line {number}"
            _tables.only(row, ("file", "prompt"), where)
            name, text = _tables.string(row, "file", where), _tables.line(row, "prompt", where)
            found.append((tables[0].parent / name, text))
        if not found:
            raise BadData(f"{tables[0]} has no rows; write a file and its prompt in each.")
    for path, _ in found:
        if not path.is_file():
            raise BadData(f"there is no video at {shown(str(path))}; check the path.")
    return found
