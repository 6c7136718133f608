"""What was measured on the way of a stage: a curve with intervals for each held-out measure."""

from reelign.report import curves, words
from reelign.report.quantities import Chart
from reelign.report.run import Run

Level = tuple[float, float, float, float]
"""A step, and mean and limits then."""


def charts(run: Run, stage: str) -> tuple[Chart, ...]:
    """A chart for each measure: the weights that entered the stage, those on its way, and those it left."""
    found = []
    for measure, about in run.measures.items() if stage in run.looks else ():
        levels = _levels(run, stage, measure)
        if len(levels) > 1:
            rate, name = measure in run.rates, words.plain(measure)
            svg = curves.level_chart(levels, name=name, rate=rate)
            told = "; ".join(filter(None, [about.description, "" if about.higher_is_better else "lower is better"]))
            found.append(Chart(measure, name, "", told, svg, 0, aside=False))
    return tuple(found)


def _levels(run: Run, stage: str, measure: str) -> list[Level]:
    entered, steps = run.before(stage), dict(run.looks.get(stage, {}))
    known = {step: measures[measure] for step, measures in steps.items() if measure in measures}
    if entered is not None and measure in entered.measures:
        known[0] = entered.measures[measure]
    row = next((row for row in run.stages if row.stage == stage), None)
    left = run.evaluations.get(stage)
    # With a best step the stage has left that one's weights, not its last ones.
    if row is not None and row.best is None and left is not None and measure in left.measures:
        known[row.steps] = left.measures[measure]
    levels = []
    for step, found in sorted(known.items()):
        if found.mean is not None:
            low, high = (found.mean if limit is None else limit for limit in (found.low, found.high))
            levels.append((float(step), found.mean, low, high))
    return levels
