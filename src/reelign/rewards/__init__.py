"""Rewards: scores to train on, one file each."""
