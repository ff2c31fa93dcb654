"""Small parts of networks and questions about them, for strategies, methods and weights."""
