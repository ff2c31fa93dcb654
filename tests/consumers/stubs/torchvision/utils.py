"""Names that are imported and not used."""


def make_grid(*_args, **_kwargs):
    raise RuntimeError("torchvision is a stand-in here")


def save_image(*_args, **_kwargs):
    raise RuntimeError("torchvision is a stand-in here")
