"""Several arms under one equal budget, side by side."""
