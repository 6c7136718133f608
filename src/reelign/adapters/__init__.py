"""Adapters: what trains beside a frozen network, one file each.

A `Config`, and `build(config, network, original)`, which gives a `weights.Adapter` for such a network. It compares,
refuses, changes nothing and reads no weight: a dry run asks too, of a network on the meta device. `original` are parts
of layers' names there, each with what the model's own code calls it.
"""
