"""Small parts of networks, and functions that examine one, for strategies, methods and weights."""
