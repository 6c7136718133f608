"""Model families: one file each, a `Config` and a `build(config, device)` that gives a `protocols.VideoModel`."""
