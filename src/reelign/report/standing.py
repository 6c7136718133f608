"""Where a run stands that is not done: what it is at, how long that still takes, and whether it lives at all."""

import os
import socket
import time
from datetime import datetime

from reelign.records import OVER, Status
from reelign.report import words
from reelign.report.run import BASE

SILENT_S, SILENT_STEPS = 600.0, 20.0
"""A run on another machine is taken for dead after so many seconds of silence, or steps if those take longer."""
DOING = {"checking": "checking its recipe", "saving": "saving", "exporting": "writing the final model"}


def lives(status: Status, now: float | None = None) -> bool:
    """Whether the process of a run still is there; of one on another machine only its silence tells."""
    if status.phase in OVER:
        return False
    if status.host == socket.gethostname():
        return _runs(status.pid)
    silent = (time.time() if now is None else now) - status.updated
    return silent < max(SILENT_S, SILENT_STEPS * (status.each_s or 0.0))


def said(status: Status | None) -> str:
    """A sentence on a run that is not done; nothing for one that is, and for one that does not say."""
    if status is None or status.phase == "done":
        return ""
    if status.phase in OVER:
        why = f": {status.why}" if status.why else ""
        return words.sentence(f"the run {'was stopped' if status.phase == 'stopped' else 'failed'}{why}")
    if lives(status):
        left = None if status.phase in DOING else status.left_s
        ahead = f", about {words.seconds(left)} left" if left is not None and status.step < status.of else ""
        return words.sentence(f"the run is under way: {_at(status)}{ahead}")
    since = datetime.fromtimestamp(status.updated).strftime("%Y-%m-%d %H:%M:%S")
    return f"There has been no sign of life since {since}: the run was {_at(status)}; go on with --resume."


def _at(status: Status) -> str:
    """What it is at, such as "training GRPO, step 12 of 40"."""
    if status.phase in DOING:
        return DOING[status.phase]
    noun, at = ("clip", "judging") if status.phase == "evaluating" else ("step", "training")
    whom = "the base" if status.stage == BASE else words.title(status.stage)
    return f"{at} {whom}" + (f", {noun} {status.step:,} of {status.of:,}" if status.of else "")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0
