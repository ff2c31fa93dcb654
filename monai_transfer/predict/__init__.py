"""Prediction on new images, in each image's own geometry."""
