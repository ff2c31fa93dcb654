"""``python -m monai_transfer.data.phantom --task segmentation --out DIR``: write an embedded set, print its folder."""

from __future__ import annotations

import argparse
import sys

from monai_transfer.errors import InputError

from . import TASKS, embedded_set


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m monai_transfer.data.phantom", description="Simulated head MR")
    parser.add_argument("--task", choices=TASKS, default="segmentation")
    parser.add_argument("--out", help="folder that gets the set as a subfolder (default: the cache)")
    options = parser.parse_args(arguments)
    try:
        print(embedded_set(options.task, options.out))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
