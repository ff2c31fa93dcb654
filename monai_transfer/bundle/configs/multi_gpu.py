"""``multi_gpu_train.yaml``: the same on several processes; stands on top of the other training configs."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import Expression, expr, ref

__all__ = ["multi_gpu"]


def multi_gpu(s: BundleSpec, module: Expression) -> dict[str, Any]:
    """The overlay; ``module`` is the network that is trained."""
    evaluators = ("validate", "test") if s.kind.judged else ()
    return {
        "imports": note(
            [
                expr("import os"),
                expr("import torch"),
                expr("from monai_transfer.data.phantom import embedded_set"),
                expr("import monai_transfer.engine.processes as processes"),
            ],
            "modules that expressions use",
        ),
        "device": note(ours("engine.processes.local_device"), "each process its own GPU; without one, the CPU"),
        "network": note(
            ours("engine.processes.distributed", network=module, device=ref("device")),
            "gradients are averaged over the processes",
        ),
        **{
            f"{part}::evaluator::network": note(expr("@prepared.network"), "one process looks, without the wrapper")
            for part in evaluators
        },
        "initialize": note(
            [expr("processes.start(@device)"), expr("monai.utils.set_determinism(seed=@seed)")],
            "before anything is built",
        ),
        "finalize": note([expr("processes.stop()")], "at the end"),
    }
