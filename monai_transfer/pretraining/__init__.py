"""Self-supervised pretraining: what a network can learn from scans without labels, inside a stock MONAI trainer."""
