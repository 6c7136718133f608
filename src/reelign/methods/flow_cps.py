"""Flow-CPS: stochastic steps that replace part of the predicted noise and so keep every level's amount of noise."""

from pydantic import Field

from reelign.engines.config import Kind, WindowConfig
from reelign.engines.method import build as build


class Config(WindowConfig):
    """Flow-CPS (arXiv 2509.05952)."""

    name: str = "flow_cps"
    kind: Kind = "cps"
    eta: float = Field(default=0.7, ge=0.001, le=1)
    """Share of the quarter turn by which the predicted noise is replaced; the paper uses 0.5 to 0.9."""
