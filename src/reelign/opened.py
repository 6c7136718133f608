"""The datasets of a run: each is opened once, whoever asks for it."""

from collections.abc import Iterable

from reelign import config as configs
from reelign import parts
from reelign.parts import PartConfig
from reelign.protocols import Dataset


class Datasets:
    """Opens datasets by their settings and keeps them; draws have no position, so that many may share one."""

    def __init__(self) -> None:
        self._open: dict[str, Dataset] = {}

    def __call__(self, config: PartConfig) -> Dataset:
        """The dataset of these settings.

        Raises:
            UserError: what the dataset refuses.
        """
        key = configs.digest(config)
        if key not in self._open:
            self._open[key] = parts.build("dataset", config)
        return self._open[key]

    def keep(self, wanted: Iterable[PartConfig]) -> None:
        """Let go of all others, and of what they hold in memory."""
        kept = {configs.digest(config) for config in wanted}
        self._open = {key: dataset for key, dataset in self._open.items() if key in kept}
