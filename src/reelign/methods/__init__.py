"""Methods: one file each, a `Config` and a `build(config)` that gives a `protocols.Method`."""
