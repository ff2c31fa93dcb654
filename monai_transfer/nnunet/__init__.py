"""nnU-Net v2 models as sources: their plans read, their network, preprocessing and tiles rebuilt with MONAI.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods
2021. ``model.read_model(folder)`` reads a results folder (or one made by ``monai.apps.nnunet``) without running any of
it; ``network``, ``pipeline`` and ``predictor`` build from what was read.
"""
