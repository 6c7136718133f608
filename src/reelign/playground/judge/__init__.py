"""What held-out measures see by: the drawing that comes nearest to a clip, and what is right about it."""
