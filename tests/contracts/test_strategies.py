"""Every file in ``strategies/`` keeps the contract of ``monai_transfer.testing``; new ones are found here."""

from __future__ import annotations

import importlib

import pytest

from monai_transfer.discovery import classes_in
from monai_transfer.strategies.base import Scheduled, Strategy
from monai_transfer.testing import strategies as contract

STRATEGIES = classes_in("strategies")
SCHEDULED = [name for name, kind in STRATEGIES.items() if issubclass(kind, Scheduled)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_form(name):
    kind = STRATEGIES[name]
    assert issubclass(kind, Strategy)
    assert kind.__name__ in importlib.import_module(kind.__module__).__all__
    contract.check_form(kind, paper=True)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("network", contract.NETWORKS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_trains_and_freezes(name, network, dims):
    contract.check_freezes(STRATEGIES[name], network, dims)


@pytest.mark.parametrize("network", ["unet", "resnet", "vit"])
@pytest.mark.parametrize("name", SCHEDULED)
def test_scheduled_start_and_resume(name, network):
    contract.check_schedule(STRATEGIES[name], network)


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_to_learn_is_refused(name):
    contract.check_refuses_nothing_to_learn(STRATEGIES[name])
