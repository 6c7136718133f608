"""Where the work is done: the learner, checkpoints, and the runtimes that roll out, score and update."""
