"""Bundles: specs, templates, making, running, predicting, exporting, studies."""
