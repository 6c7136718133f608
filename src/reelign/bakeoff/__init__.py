"""Bake-offs: training methods compared at equal compute, over several seeds, with intervals.

`spec` says what is compared, `count` what compute is, `run` makes the runs, `results` reads them back, `means`, `race`
and `rank` find what they show, and `page` shows it, in the words of `headline` and the pictures of `chart`.
"""
