"""Pure tensor maths: flow, schedules, transitions, advantages, losses, statistics, named noise.

Every function takes and returns tensors. Nothing here casts a dtype, picks a device, logs, or draws unnamed noise;
this package imports torch, jaxtyping and the standard library only.
"""
