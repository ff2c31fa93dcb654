"""The planner: spacing, patch, batch, network, normalisation and balance out of a fingerprint of the data.

Its rules follow nnU-Net's (Isensee et al., nnU-Net: a self-configuring method, Nature Methods 2021, arXiv:1904.08128);
where ours differ, the rule's docstring says so and why. Every number comes with its reason.
"""
