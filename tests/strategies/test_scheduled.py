"""Strategies over time, inside a stock MONAI trainer: phases by share of the run, learning rates, schedulers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.networks.nets import UNETR, UNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.strategies.gradual_unfreezing import GradualUnfreezing
from monai_transfer.strategies.head_only import HeadOnly
from monai_transfer.strategies.lora import Lora
from monai_transfer.strategies.lp_ft import LpFt
from monai_transfer.strategies.sawtooth import Sawtooth


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.middle = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(x)))


BATCHES = [{"image": torch.randn(8, 3), "label": torch.randint(0, 2, (8,))} for _ in range(4)]


class Watch:
    """Records, at each iteration, what moved since the last and the rate that the optimizer shows to others."""

    def __init__(self, network, optimizer):
        self.network, self.optimizer = network, optimizer
        self.moved, self.rates = [], []
        self.before = copy.deepcopy(network.state_dict())

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        after = self.network.state_dict()
        self.moved.append({k.split(".")[0] for k in after if not torch.equal(after[k], self.before[k])})
        self.before = copy.deepcopy(after)
        self.rates.append([g["lr"] for g in self.optimizer.param_groups])


def run(strategy, epochs=5, scheduler=None, optimizer_class=torch.optim.AdamW, **options):
    network = strategy.apply(Small())
    optimizer = optimizer_class(strategy.param_groups(network), lr=0.1, weight_decay=0.1)
    watch = Watch(network, optimizer)
    handlers = [strategy, watch]
    if scheduler is not None:
        handlers.append(LrScheduleHandler(scheduler(optimizer), print_lr=False, epoch_level=False))
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=BATCHES, network=network, optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(), train_handlers=handlers, **options,
    ).run()  # fmt: skip
    return watch


def test_lp_ft_phases():
    watch = run(LpFt(probe=0.5))
    assert all(moved == {"head"} for moved in watch.moved[:10])
    assert all(moved == {"stem", "middle", "head"} for moved in watch.moved[10:])
    assert watch.rates == [[0.1, 0.1]] * 20, "others see the optimizer's own rate"


def test_from_a_config():
    from monai.bundle import ConfigParser

    parser = ConfigParser(
        {
            "strategy": {"_target_": "monai_transfer.strategies.lp_ft.LpFt", "probe": 0.25},
            "handlers": [{"_target_": "monai_transfer.strategies.base.follow", "strategy": "@strategy"}],
        }
    )
    (handler,) = parser.get_parsed_content("handlers")
    assert handler is parser.get_parsed_content("strategy") and isinstance(handler, LpFt) and handler.probe == 0.25


def test_lp_ft_rate_of_the_second_phase():
    torch.manual_seed(0)
    steps = []
    strategy = LpFt(probe=0.5, finetune_lr_scale=0.1)
    network = strategy.apply(Small())
    optimizer = torch.optim.SGD(strategy.param_groups(network), lr=1.0)
    strategy.bind(network, optimizer)
    for progress in (0.4, 0.6):
        strategy.advance(progress)
        optimizer.zero_grad()
        before = network.head.weight.detach().clone()
        network.train()(BATCHES[0]["image"]).square().sum().backward()
        gradient = network.head.weight.grad.clone()
        optimizer.step()
        steps.append(((before - network.head.weight) / gradient).detach())
    torch.testing.assert_close(steps[0], torch.ones(2, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(steps[1], torch.full((2, 4), 0.1), rtol=1e-3, atol=1e-3)


def test_gradual_unfreezing_phases_and_rates():
    strategy = GradualUnfreezing(until=0.5, groups=["stem", "middle", "head"])
    watch = run(strategy)
    assert [len(moved) for moved in watch.moved] == [1] * 5 + [2] * 5 + [3] * 10
    assert watch.moved[0] == {"head"} and watch.moved[5] == {"middle", "head"}
    assert watch.rates[0] == pytest.approx([0.1 / 2.6**2, 0.1 / 2.6, 0.1])
    assert GradualUnfreezing(until=0.6).rates(0.2, 4) == [0, 0, 1, 1], "exactly at the boundary, whatever the rounding"


def test_sawtooth_shape():
    strategy = Sawtooth(decoder=0.2, warmup=0.2, encoder=["stem", "middle"])
    strategy.groups(Small())
    assert strategy.rates(0.0, 2) == [0, 1e-3]
    assert strategy.rates(0.05, 2) == pytest.approx([0, 0.5])
    assert strategy.rates(0.1, 2) == pytest.approx([0, 1])
    assert strategy.rates(0.15, 2) == pytest.approx([0, 0.5**0.9])
    assert strategy.rates(0.2, 2) == [1e-3] * 2
    assert strategy.rates(0.3, 2) == pytest.approx([0.5] * 2)
    assert strategy.rates(0.7, 2) == pytest.approx([0.5**0.9] * 2)
    assert strategy.rates(1.0, 2) == [1e-3] * 2
    watch = run(strategy)
    assert [m == {"head"} for m in watch.moved] == [True] * 4 + [False] * 16


def test_sawtooth_is_slower_for_transformers():
    strategy = Sawtooth()
    sizes = {"feature_size": 4, "hidden_size": 12, "mlp_dim": 8, "num_heads": 2, "spatial_dims": 2}
    strategy.groups(UNETR(1, 2, (16, 16), **sizes))
    assert strategy.rates(0.05, 2) == pytest.approx([0, 0.01])
    strategy.groups(UNet(2, 1, 2, (4, 8), (2,)))
    assert strategy.rates(0.05, 2) == pytest.approx([0, 1])
    encoder, _ = Sawtooth().groups(UNet(2, 1, 2, (4, 8), (2,)))
    assert {n.split(".")[1] for n in encoder} == {"0", "1"}


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=30),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    ],
)
def test_schedulers_see_their_own_rates(scheduler):
    watch = run(LpFt(probe=0.25), scheduler=scheduler)
    plain = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=0.1)
    schedule = scheduler(plain)
    for rates in watch.rates:
        assert rates == pytest.approx([g["lr"] for g in plain.param_groups])
        plain.step()
        schedule.step()


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(lambda g, **k: torch.optim.SGD(g, momentum=0.9, nesterov=True, **k), {"accumulation_steps": 2}),
     (torch.optim.Adam, {"optim_set_to_none": False})],
)  # fmt: skip
def test_waiting_groups_stand_still_whatever_the_optimizer(optimizer_class, options):
    watch = run(LpFt(), optimizer_class=optimizer_class, **options)
    assert set().union(*watch.moved[:10]) == {"head"}
    assert watch.moved[-1] == {"stem", "middle", "head"}


def test_compiled_network():
    watch = run(LpFt(), compile=True, compile_kwargs={"backend": "eager"})
    assert set().union(*watch.moved[:10]) == {"head"} and watch.moved[-1] == {"stem", "middle", "head"}


def test_without_a_trainer_it_says_so():
    network = LpFt().apply(Small())
    network.eval()(BATCHES[0]["image"])
    with pytest.warns(UserWarning, match="LpFt stays at its first phase"):
        network.train()(BATCHES[0]["image"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(BATCHES[0]["image"])  # once is enough
        run(LpFt())


def test_a_foreign_optimizer_is_refused():
    strategy = LpFt()
    network = strategy.apply(Small())
    with pytest.raises(InputError, match="param_groups"):
        strategy.bind(network, torch.optim.SGD(network.parameters(), lr=0.1))


@pytest.mark.parametrize(
    "make",
    [lambda: LpFt(probe=1.0), lambda: LpFt(finetune_lr_scale=0), lambda: GradualUnfreezing(until=0),
     lambda: GradualUnfreezing(lr_ratio=-1), lambda: Sawtooth(decoder=0.6, warmup=0.4),
     lambda: Sawtooth(decoder_lr_scale=0)],
)  # fmt: skip
def test_bad_values_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_gradient_scaler():
    strategy = LpFt(probe=0.5)
    network = strategy.apply(Small())
    optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=0.1, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    strategy.bind(network, optimizer)
    before = copy.deepcopy(network.state_dict())
    moved = []
    for progress in (0.0, 0.6):
        strategy.advance(progress)
        optimizer.zero_grad()
        scaler.scale(network.train()(BATCHES[0]["image"]).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        moved.append({k.split(".")[0] for k, v in network.state_dict().items() if not torch.equal(v, before[k])})
    assert moved == [{"head"}, {"stem", "middle", "head"}]


def _ddp_worker(rank: int, world: int, folder: str, make) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.manual_seed(0)
    strategy = make()
    network = strategy.apply(Small())
    wrapped = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(strategy.param_groups(wrapped), lr=0.1, weight_decay=0.1)
    watch = Watch(network, optimizer)
    torch.manual_seed(rank)
    batches = [{"image": torch.randn(4, 3), "label": torch.randint(0, 2, (4,))} for _ in range(4)]
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=2, train_data_loader=batches, network=wrapped, optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(), train_handlers=[strategy, watch],
    ).run()  # fmt: skip
    torch.save((watch.moved, dict(network.named_parameters())), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a forked process cannot use a device that its parent has used")
@pytest.mark.parametrize(
    ("make", "early", "late"),
    [
        (lambda: LpFt(probe=0.5), {"head"}, {"stem", "middle", "head"}),
        (lambda: GradualUnfreezing(until=0.5), {"head", "middle"}, {"stem", "middle", "head"}),
        (HeadOnly, {"head"}, {"head"}),
        (lambda: Lora(rank=1), {"stem", "middle", "head"}, {"stem", "middle", "head"}),
    ],
)
def test_two_ranks(tmp_path, make, early, late):
    import torch.multiprocessing as mp

    mp.start_processes(_ddp_worker, args=(2, str(tmp_path), make), nprocs=2, start_method="fork")
    (moved, first), (_, second) = (torch.load(tmp_path / f"rank{r}.pt", weights_only=False) for r in (0, 1))
    assert set().union(*moved[:4]) == early
    assert all(late == m for m in moved[4:])
    assert all(torch.equal(first[name], second[name]) for name in first), "ranks drifted apart"
