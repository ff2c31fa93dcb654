"""Known data sets: what they are, what may be done with them, how to get them, and how to read a copy.

Each is a JSON file here (and in ``data_manifests/`` of the repository) with the keys of :class:`Dataset`. Adding one is
adding a file. Nothing is downloaded: data use agreements are between the user and the source.
"""

from monai_transfer.manifest.datasets.describe import Dataset, build_dataset, dataset_names, load_dataset

__all__ = ["Dataset", "build_dataset", "dataset_names", "load_dataset"]
