"""A module that is no part: it has neither a Config nor a build."""
