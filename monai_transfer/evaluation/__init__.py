"""What a run measured on each case: per-case metrics, the recorder that writes them, summaries, pictures."""
