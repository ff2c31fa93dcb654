"""Adapt in an unmodified MONAI trainer: the loss, the gradients, accumulation, state, and two ranks against one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet

from monai_transfer.engine.adapt import Adapt
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.methods.coral import Coral, coral_loss
from monai_transfer.methods.dann import Dann


def network(norm: str = "batch") -> torch.nn.Module:
    torch.manual_seed(1)
    return DenseNet(2, 1, 2, init_features=4, growth_rate=4, block_config=(1, 1), bn_size=1, norm=norm)


def items(n: int, shift: float, seed: int, labelled: bool = True) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"image": torch.randn(1, 16, 16, generator=generator) + shift, **({"label": i % 2} if labelled else {})}
        for i in range(n)
    ]


def loader(data: list[dict], batch: int = 4) -> DataLoader:
    return DataLoader(Dataset(data), batch_size=batch, shuffle=False)


def trainer(net, handlers, data=None, epochs=2, lr=0.05, **more) -> SupervisedTrainer:
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader(data if data is not None else items(8, 0.0, 0)),
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=lr),
        loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=handlers,
        decollate=False,
        **more,
    )


def test_first_step_equals_the_loss_written_out_by_hand():
    source, target = items(4, 0.0, 0), items(4, 2.0, 1, labelled=False)
    ours = network()
    trainer(ours, [Adapt(Coral(standardise=False), loader(target), weight=3.0)], source, epochs=1).run()

    hand = network()
    optimizer = torch.optim.SGD(hand.parameters(), lr=0.05)
    features = {}
    hand.class_layers.out.register_forward_pre_hook(lambda _m, inputs: features.update(x=inputs[0]))
    hand.train()
    image = torch.stack([x["image"] for x in source])
    loss = torch.nn.functional.cross_entropy(hand(image), torch.tensor([x["label"] for x in source]))
    source_features = features["x"]
    hand(torch.stack([x["image"] for x in target]))
    (loss + 3.0 * coral_loss(source_features, features["x"])).backward()
    optimizer.step()
    for (name, a), b in zip(ours.state_dict().items(), hand.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_zero_weight_leaves_the_supervised_gradient_alone():
    with_it, without = network("instance"), network("instance")
    trainer(with_it, [Adapt(Coral(), loader(items(4, 1.0, 1)), weight=0.0)]).run()
    trainer(without, []).run()
    for a, b in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


def test_outputs_are_flat_tensors_and_survive_decollation():
    adapt = Adapt(Dann(), loader(items(4, 1.0, 1)))
    net = network()
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader(items(8, 0.0, 0)), network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.01), loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[adapt], decollate=True,
    )  # fmt: skip
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
    engine.run()
    assert isinstance(seen[-1], list) and len(seen[-1]) == 4
    assert {"adapt_loss", "supervised_loss", "discriminator_accuracy"} <= set(seen[-1][0])
    assert 0.0 <= engine.state.adapt_log["discriminator_accuracy"] <= 1.0


class Recorder(Method):
    """Asks for everything and adds nothing."""

    needs = frozenset({"source_image", "source_label", "source_logits", "source_features",
                       "target_image", "target_logits", "target_features", "target_strong_logits"})  # fmt: skip

    def __init__(self):
        super().__init__()
        self.calls, self.steps, self.progress, self.setups = [], 0, [], 0

    def setup(self, network, batch):
        self.setups += 1

    def forward(self, fields, progress):
        self.calls.append(fields)
        self.progress.append(progress)
        return 0.0 * fields.source_logits.sum()

    def after_step(self, network, progress):
        self.steps += 1


def test_fields_progress_and_real_steps():
    method = Recorder()
    data = items(24, 0.0, 0)
    engine = trainer(network(), [Adapt(method, loader(items(6, 1.0, 1)))], data, epochs=2, accumulation_steps=4)
    engine.run()
    assert method.setups == 1
    assert len(method.calls) == 12  # the target loader (2 batches) is run through again and again
    assert method.progress == [i / 12 for i in range(12)]
    assert method.steps == 4  # of 6 iterations per epoch: after the 4th and at the end
    fields = method.calls[0]
    assert set(fields) >= set(Recorder.needs)
    assert fields.target_image.shape == (4, 1, 16, 16) and fields.source_features.ndim == 2
    with pytest.raises(AttributeError, match="not asked for"):
        _ = fields.target_label


def test_layer_by_name_and_unpooled():
    class Shape(Method):
        needs = frozenset({"source_features", "target_features"})

        def forward(self, fields, progress):
            self.shape = fields.target_features.shape
            return fields.source_features.sum() * 0

    method = Shape()
    trainer(network(), [Adapt(method, loader(items(4, 1.0, 1)), layer="features.conv0", pool=None)], epochs=1).run()
    assert method.shape == (4, 4, 8, 8)
    with pytest.raises(InputError, match="features.conv0"):
        trainer(network(), [Adapt(Coral(), loader(items(4, 1.0, 1)), layer="features.conv")], epochs=1).run()


def test_missing_target_and_empty_loader_are_said():
    with pytest.raises(InputError, match="target_loader"):
        Adapt(Coral())
    with pytest.raises(InputError, match="empty"):
        trainer(network(), [Adapt(Coral(), [])], epochs=1).run()


def test_unsupervised_method_drops_the_source_loss():
    class Nothing(Method):
        supervised = False
        needs = frozenset({"source_logits"})

        def forward(self, fields, progress):
            return fields.source_logits.sum() * 0

    net = network("instance")
    before = copy.deepcopy(net.state_dict())
    trainer(net, [Adapt(Nothing())], epochs=1).run()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_what_is_no_method_is_refused():
    for thing in (Coral, torch.nn.Linear(1, 1), "coral"):
        with pytest.raises(InputError, match="is no method that adds a term"):
            Adapt(thing, loader(items(4, 1.0, 1)))


def test_the_weight_goes_on_where_the_checkpoint_stood():
    """Also in a trainer that begins to count anew: MONAI's own savers often keep network and optimizer alone."""
    first = Adapt(Recorder(), loader(items(4, 1.0, 1)))
    engine = trainer(network(), [first], epochs=4)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: e.terminate())
    engine.run()
    state = first.state_dict()
    assert state["progress"] == 0.5

    method = Recorder()
    again = Adapt(method, loader(items(4, 1.0, 1)))
    again.load_state_dict(state)
    assert again.state_dict()["progress"] == 0.5
    trainer(network(), [again], epochs=2).run()
    assert method.progress == [0.5, 0.625, 0.75, 0.875]
    assert again.state_dict()["progress"] == 1.0

    method = Recorder()  # a trainer that was resumed itself knows better
    again = Adapt(method, loader(items(4, 1.0, 1)))
    again.load_state_dict(state)
    engine = trainer(network(), [again], epochs=8)
    engine.load_state_dict({"epoch": 2, "max_epochs": 8, "epoch_length": 2})
    engine.run()
    assert method.progress == [i / 16 for i in range(4, 16)]


def test_instance_norm_that_tracks_statistics_counts_the_target_alone_as_well():
    net = torch.nn.Sequential(
        torch.nn.InstanceNorm2d(1, track_running_stats=True, momentum=0.5), torch.nn.Flatten(), torch.nn.Linear(256, 2)
    )
    target = loader(items(4, 30.0, 1, labelled=False))
    trainer(net, [Adapt(Coral(), target, statistics="target")], items(8, 0.0, 0), epochs=8, lr=0.0).run()
    assert 29 < net[0].running_mean.item() < 31
    assert net[0].momentum == 0.5


def test_dann_state_comes_back_before_and_after_sizing():
    adapt = Adapt(Dann(hidden=8), loader(items(4, 1.0, 1)))
    trainer(network(), [adapt]).run()
    state = copy.deepcopy(adapt.state_dict())
    assert state["method"] and state["optimizer"]["state"]

    again = Adapt(Dann(hidden=8), loader(items(4, 1.0, 1)))
    again.load_state_dict(state)  # before it is sized: kept, and given out again if saved in between
    assert again.state_dict()["method"].keys() == state["method"].keys()
    net = network()
    engine = trainer(net, [again], epochs=1)
    weights = {}
    engine.add_event_handler(
        Events.ITERATION_STARTED(once=2), lambda e: weights.update(copy.deepcopy(again.state_dict()["method"]))
    )
    # the optimizer steps once before iteration 2, so compare with a learning rate of zero
    again.method.lr = 0.0
    state["optimizer"]["param_groups"][0]["lr"] = 0.0
    again.load_state_dict(state)
    engine.run()
    for name, value in state["method"].items():
        assert torch.equal(weights[name], value), name


def test_dann_learns_to_tell_and_the_network_to_hide():
    """The discriminator wins when nothing is reversed (progress 0), and loses ground when the game is on."""

    class Still(Dann):
        def forward(self, fields, progress):
            return super().forward(fields, 0.0)

    def bare():  # no norm layer: a batch's own statistics would take the shift away
        torch.manual_seed(1)
        pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), *pool, torch.nn.Linear(8, 2))

    accuracies = {}
    for kind in (Still, Dann):
        adapt = Adapt(kind(hidden=16, lr=1e-2), loader(items(16, 1.0, 1), 8), weight=1.0)
        engine = trainer(bare(), [adapt], items(16, 0.0, 0), epochs=40, lr=0.1)
        engine.run()
        accuracies[kind] = engine.state.adapt_log["discriminator_accuracy"]
    assert accuracies[Still] > 0.95
    assert accuracies[Dann] < accuracies[Still]


# ---------------------------------------------------------------------- two ranks
def _worker(rank: int, size: int, folder: str, accumulation: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    net = network("instance")  # no batch statistics: two ranks can then equal one process
    source, target = items(16, 0.0, 0), items(16, 1.0, 1)
    per_rank = 8 // size

    def share(data: list[dict]) -> DataLoader:
        chosen = [x for b in range(0, 16, 8) for x in data[b + rank * per_rank : b + (rank + 1) * per_rank]]
        return loader(chosen, per_rank)

    wrapped = torch.nn.parallel.DistributedDataParallel(net) if size > 1 else net
    torch.manual_seed(5)
    adapt = Adapt(Dann(hidden=8), share(target))
    SupervisedTrainer(
        device="cpu", max_epochs=2, train_data_loader=share(source), network=wrapped,
        optimizer=torch.optim.SGD(wrapped.parameters(), lr=0.1), loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[adapt], decollate=False, accumulation_steps=accumulation,
    ).run()  # fmt: skip
    torch.save({**net.state_dict(), **adapt.method.state_dict()}, Path(folder) / f"{size}-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_ranks_equal_one_process(tmp_path, accumulation):
    _worker(0, 1, str(tmp_path), accumulation)
    mp.spawn(_worker, args=(2, str(tmp_path), accumulation), nprocs=2)
    one = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for rank in range(2):
        other = torch.load(tmp_path / f"2-{rank}.pt", weights_only=True)
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_target_statistics_alone():
    """With ``statistics="target"`` the running averages are the target's alone, and training is unchanged."""
    source, target = items(4, 0.0, 0), items(4, 5.0, 1, labelled=False)

    def averages(statistics):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.BatchNorm2d(1, momentum=0.5), torch.nn.Flatten(), torch.nn.Linear(256, 2))
        trainer(net, [Adapt(Coral(), loader(target), weight=0.0, statistics=statistics)], source, epochs=8).run()
        return net

    both, alone = averages("both"), averages("target")
    assert abs(float(alone[0].running_mean) - 5.0) < 0.1
    assert 1.0 < float(both[0].running_mean) < 4.5
    assert alone[0].momentum == 0.5
    assert torch.equal(both[2].weight, alone[2].weight)
    with pytest.raises(InputError, match="no target image"):
        Adapt(Method(), None, statistics="target")
