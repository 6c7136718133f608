"""`python -m reelign.cli` is `reelign`."""

from reelign.cli import main

main()
