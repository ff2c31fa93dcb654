"""What a source does to images, kept in the bundle made from it: its own steps in place of those fitted to data.

Training names the steps by their module. Inference needs MONAI alone, so there they come from a script in the bundle: a
copy of that module, by its path.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field, replace
from typing import Any

from monai_transfer.config_text import expr, ref

__all__ = ["KeptPipeline"]


@dataclass(frozen=True)
class KeptPipeline:
    """Steps of a source between reading and the network, and its inferer.

    Attributes:
        image, both: configs of the steps, for images alone and with their label maps.
        inferer: its config; its windows stay the source's, whatever the patches of training.
        module: of the steps that MONAI does not have; it needs MONAI alone.
        script: where its copy stands in the bundle.
        said: one line on it, for the configs.
        before_inverse: what happens to outputs before they are brought back to the image's grid.
    """

    image: list[dict[str, Any]]
    both: list[dict[str, Any]]
    inferer: dict[str, Any]
    module: str = ""
    script: str = ""
    said: str = ""
    before_inverse: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def padded(self, factor: int) -> KeptPipeline:
        """With images that are inferred whole padded to multiples of ``factor``: others stop the source itself."""
        if factor == 1 or not self.inferer["_target_"].endswith("SimpleInferer"):
            return self
        pad = {"_target_": "monai.transforms.DivisiblePadd", "k": factor}
        return replace(
            self,
            image=[*self.image, {**pad, "keys": ["image"]}],
            both=[*self.both, {**pad, "keys": ["image", "label"]}],
            said=f"{self.said}; images padded to multiples of {factor}, which its network needs",
        )

    def steps(self, keys: list[str], *, alone: bool) -> list[Any]:
        """The steps for these keys; ``alone``: without this package."""
        return [self._place(step, alone) for step in (self.both if "label" in keys else self.image)]

    def inferer_config(self, *, alone: bool) -> dict[str, Any]:
        """The inferer; ``alone``: without this package."""
        unsized = "Sliding" in self.inferer["_target_"] and "roi_size" not in self.inferer
        windows = {"roi_size": ref("patch")} if unsized else {}
        placed: dict[str, Any] = self._place({**self.inferer, **windows}, alone)
        return placed

    def functions(self) -> dict[str, Any]:
        """The root id that inference's steps refer to."""
        return {"functions": expr(f'runpy.run_path(f"{{@bundle_root}}/{self.script}")')}

    def script_text(self) -> str:
        """The script: the module as it is."""
        return inspect.getsource(importlib.import_module(self.module))

    def _place(self, value: Any, alone: bool) -> Any:
        if isinstance(value, list):
            return [self._place(item, alone) for item in value]
        if not isinstance(value, dict):
            return value
        placed = {key: self._place(item, alone) for key, item in value.items()}
        target = str(value.get("_target_", ""))
        if alone and self.module and target.rpartition(".")[0] == self.module:
            named = expr(f"@functions['{target.rpartition('.')[2]}']")
            return named if value.get("_mode_") == "callable" else {**placed, "_target_": named}
        return placed
