"""Strategies, one file each: which parameters learn, how fast, when."""
