"""What to keep in mind before believing a bake-off."""

from reelign.bakeoff.headline import few
from reelign.bakeoff.rank import Analysis
from reelign.report import words
from reelign.report.caveats import Caveat, Caveats

_UNEVEN = 0.02
"""Spending that differs by a larger share of the budget is worth a caveat."""
_UNSTEADY = 1.3
"""Runs of one entry whose times differ by a larger factor were not alone on the machine."""
_ALWAYS = (
    "Every entry ran with its own settings and no others. Another learning rate may turn an order around: this "
    "compares settings, and methods only as far as the settings do them justice.",
    "Each interval covers 95 % over training seeds and held-out prompts at once. Verdicts are corrected for "
    "all comparisons on a measure (Holm for levels, Bonferroni for times), but not for the number of measures.",
    "With few seeds a real difference is easily missed: no difference means that none was shown, not that none "
    "is there.",
    "The time to the target is where the mean curve first crosses it, on straight lines between checks. One "
    "sample through the network once is a forward-unit, with a gradient it is three; evaluation is free. "
    "Seconds are those of this machine, and of what else it did.",
)


def caveats(analysis: Analysis, budget: int) -> Caveats:
    """What to keep in mind, what was found before what always holds."""
    trained = [words.plain(b.measure.name) for b in analysis.boards if b.measure.trained_on]
    if trained:
        verb = "were" if len(trained) > 1 else "was"
        yield Caveat(f"{words.join(trained)} {verb} also trained on, so a rise there proves nothing.", True)
    if not analysis.decided:
        yield Caveat(f"{few(analysis)} too few to call anything a difference, however the numbers look.", True)
    if analysis.stops:
        yield Caveat(
            f"{words.count(len(analysis.stops), 'run')} stopped early. The weights of then are judged at every "
            "later check, and time goes on as if the run had idled.",
            True,
        )
    if analysis.missing:
        yield Caveat(f"{words.join(list(analysis.missing))}: not run yet, and not on this page.", True)
    if analysis.spare:
        left = words.count(analysis.spare, "finished run")
        yield Caveat(f"{left} left out: not every entry has finished that seed yet.")
    spent = [cost.units for cost in analysis.costs]
    if max(spent) - min(spent) > _UNEVEN * budget:
        yield Caveat(
            f"Iterations are not cut, so entries spent between {min(spent):,.0f} and {max(spent):,.0f} of a budget "
            f"of {budget:,} forward-units.",
            True,
        )
    uneven = [c.label for c in analysis.costs if c.slowest_s > _UNSTEADY * c.fastest_s]
    if uneven:
        yield Caveat(
            f"Runs of {words.join(uneven)} took very unlike times with different seeds: the machine had other "
            "work. Compare forward-units, not seconds.",
            True,
        )
    yield from map(Caveat, _ALWAYS)
