"""Bake-offs: training methods compared at equal compute, over several seeds, with intervals.

`spec` says what is compared, `run` has the driver make each run as `one` paces it, `results` reads them back, `means`,
`race` and `rank` find what they show, and `page` shows it, in the words of `headline` and the pictures of `chart`.
"""
