"""Training a head on a frozen backbone, with the features cached and in MONAI's plain loop: ratios measured in one run.

    python benchmarks/feature_cache.py [--quick] [--record]

A 3D ResNet-10, frozen but for its head (strategy head_only, norm layers in eval mode), 40 volumes, the same batches in
the same order. The cached side pays for its one pass through the backbone. Both end with the same training accuracy,
which is checked, and heads that differ by rounding, which is printed.
"""

from __future__ import annotations

import time

import _measure
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import resnet10
from monai.utils import set_determinism

from monai_transfer.engine.auto_cache import FeatureCache
from monai_transfer.strategies.head_only import HeadOnly


def train(epochs: int, cases: int, size: int, cached: bool) -> tuple[float, torch.Tensor, float]:
    """Seconds, the trained head's weights, and its accuracy on the training cases."""
    set_determinism(0)
    strategy = HeadOnly()
    network = strategy.apply(resnet10(spatial_dims=3, n_input_channels=1, num_classes=2))
    labels = torch.arange(cases) % 2
    items = [{"image": torch.rand(1, size, size, size) * (1 + 0.5 * float(label)), "label": label} for label in labels]
    data = DataLoader(Dataset(items), batch_size=4, shuffle=True)
    cache = FeatureCache(network, data, enabled=cached)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=cache.loader, network=network, inferer=cache.inferer,
        optimizer=torch.optim.Adam(strategy.param_groups(network), lr=1e-2), decollate=False,
        loss_function=torch.nn.CrossEntropyLoss(),
    )  # fmt: skip
    since = time.process_time()
    engine.run()
    took = time.process_time() - since
    network.eval()
    with torch.no_grad():
        hits = [network(item["image"][None]).argmax() == item["label"] for item in items]
    return took, network.fc.weight.detach().clone(), float(torch.stack(hits).float().mean())


def main() -> None:
    options = _measure.arguments(__doc__)
    cases, size, runs = (4, 16, (2,)) if options.quick else (40, 32, (10, 50))
    rows = []
    for epochs in runs:
        plain, expected, accuracy = train(epochs, cases, size, cached=False)
        cached, weights, again = train(epochs, cases, size, cached=True)
        assert again == accuracy, "the cached head classifies otherwise"
        apart = (weights - expected).abs().max()
        print(f"{epochs} epochs: accuracy {accuracy:.2f} either way, heads differ by {apart:.1e}")
        rows.append((f"plain MONAI loop / cached features, {cases} cases, {epochs} epochs", plain / cached))
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
