"""Reelign realigns pretrained video generators: supervised shaping, reward-driven RL, preference refinement."""

__version__ = "0.1.0"
