"""TensorBoard: curves of every stage and of the held-out measures, in tensorboard/ of the run folder.

Needs `pip install 'reelign[tensorboard]'`; look at it with `tensorboard --logdir runs`. A run that is taken up again
takes back what it had told of the steps that it repeats.
"""

from pathlib import Path
from typing import Any

from reelign.events import About, Event
from reelign.parts import PartConfig
from reelign.sinks._tracking import check, held_out


class Config(PartConfig):
    """Nothing to set."""

    name: str = "tensorboard"


class Board:
    """Owns a writer for each stage, so that their curves lie over one another."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._writers = folder, {}

    def send(self, event: Event) -> None:
        """Add points to the curves."""
        if event.kind == "stage":
            self._writer(event.stage, event.step)
        elif event.kind == "step":
            self._add(event, event.data)
        elif event.kind == "evaluation":
            self._add(event, held_out(event))

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()

    def _add(self, event: Event, values: Any) -> None:
        writer = self._writer(event.stage, event.step)
        for name, value in values.items():
            writer.add_scalar(name, value, event.step)

    def _writer(self, stage: str, step: int) -> Any:
        """Of a stage; what an earlier start has told from `step` on is taken back."""
        from torch.utils.tensorboard import SummaryWriter

        if stage not in self._writers:
            self._writers[stage] = SummaryWriter(str(self._folder / stage), purge_step=step + 1)
        return self._writers[stage]


def build(config: Config, run: About) -> Board:
    """Write into the run folder."""
    check(config)
    return Board(run.folder / "tensorboard")
