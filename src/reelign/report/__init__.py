"""What a user looks at after a run: tables with intervals, curves, side-by-side clips, and one self-contained page.

Everything here reads a run folder and nothing else; no model is loaded, no network is touched.
"""

from reelign.report.compare import Comparison, compare
from reelign.report.load import Run, load
from reelign.report.page import write

__all__ = ["Comparison", "Run", "compare", "load", "write"]
