"""Model families: one file each.

A `Config`, a `check(config)` that refuses early, and a `build(config, device)` that gives a `protocols.VideoModel`.
"""
