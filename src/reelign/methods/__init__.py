"""Methods: one file each, a `Config` and a `build(config)` that gives a `protocols.Method`.

The `Config` of an online one says its slots and its losses, and `engines.method.build` makes the method of them.
"""
