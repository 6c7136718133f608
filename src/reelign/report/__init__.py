"""What a user looks at after a run: tables with intervals, curves, side-by-side clips, and one self-contained page.

`page.write` builds the page, `compare.compare` compares two runs, `load.load` reads a run folder. Everything here reads
run folders and nothing else; no model is loaded, and no network is touched but by `live`, which serves this machine.
"""
