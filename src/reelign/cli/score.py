"""`reelign score VIDEO... --reward NAME --prompt TEXT`."""

from pathlib import Path

import typer


def command(
    videos: list[Path] = typer.Argument(..., help="One or more mp4 files."),
    prompt: str = typer.Option(..., "--prompt", "-p", help="What the videos should show."),
    rewards: list[str] = typer.Option([], "--reward", "-r", help="Reward by name; repeatable."),
    metrics: list[str] = typer.Option([], "--metric", "-m", help="Held-out measure by name; repeatable."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
) -> None:
    """Score videos against a prompt."""
    import math

    from reelign import config as configs
    from reelign import judges, parts, video
    from reelign.batches import Videos
    from reelign.cli._console import emit, table
    from reelign.errors import BadConfig

    if not rewards and not metrics:
        raise BadConfig(
            f"score needs --reward or --metric; rewards: {', '.join(parts.available('reward'))}; "
            f"metrics: {', '.join(parts.available('metric'))}."
        )
    asked = [judges.build("reward", configs.part("reward", n)) for n in rewards]
    asked += [judges.build("metric", configs.part("metric", n)) for n in metrics]
    judges.refuse_twice(asked)
    rows = []
    for path in videos:
        frames, fps = video.read(path)
        found = judges.ask(asked, Videos(frames[None], fps), (prompt,), str(path))
        values = {name: v.item() for name, v in found.items()}
        values = {name: None if math.isnan(v) else v for name, v in values.items()}  # NaN: does not apply here
        rows.append({"video": str(path), **values})
    names = list(rows[0])
    emit(rows, as_json, table(names, [[row[n] for n in names] for row in rows]))
