"""Model families: one file each.

A `Config`, and functions of it. `build(config, device)` gives a `protocols.VideoModel`. The others read no weight:
`check` refuses what can be known to be wrong, `describe` gives a `protocols.Card`, and `overlong(config, texts)` how
many texts the model would cut and how many tokens the longest has. A family whose models can begin with a file that
only the start of a run reads has `settled(config)`, the settings without it.
"""
