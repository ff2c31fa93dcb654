"""``python -m monai_transfer``: the same as the ``monai-transfer`` command."""

from monai_transfer.cli import main

if __name__ == "__main__":
    main()
