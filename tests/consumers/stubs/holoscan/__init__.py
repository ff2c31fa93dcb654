"""Stands for NVIDIA's Holoscan SDK, which wants CUDA 13: the graph engine around an operator, never called here.

``monai.deploy`` imports these names; what is tested is its own bundle operator, whose ``compute`` and helpers are real.
"""
