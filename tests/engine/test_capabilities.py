from pathlib import Path

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.capabilities import BEGIN, END, TASKS, capabilities, main, refuse_unfit, table
from monai_transfer.errors import InputError
from monai_transfer.methods.advent import Advent
from monai_transfer.methods.base import Method
from monai_transfer.methods.cdan import Cdan
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.label_spreading import LabelSpreading
from monai_transfer.methods.mmd import Mmd
from monai_transfer.methods.self_training import SelfTraining
from monai_transfer.testtime.base import SourceFree
from monai_transfer.testtime.tent import Tent

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_is_what_the_classes_say():
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table().strip(), (
        "run: python -m monai_transfer.engine.capabilities --write docs/methods.md"
    )


def test_writing_between_the_marks(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    main(["--write", str(page)])
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith(f"{END}\nbelow\n") and "\nold\n" not in text
    main([])
    assert "`methods/coral`" in capsys.readouterr().out
    page.write_text("no marks")
    with pytest.raises(InputError, match="marks"):
        main(["--write", str(page)])


@pytest.mark.parametrize("entry", capabilities(), ids=lambda entry: entry.name)
def test_every_row_is_whole(entry):
    assert entry.papers
    assert entry.kind
    assert entry.needs
    if issubclass(entry.cls, (Method, SourceFree)):
        for task in set(TASKS) - set(entry.cls.tasks):
            assert entry.cls.limits[task], f"{entry.name} does not say why it is not for {task}"
            with pytest.raises(InputError, match=entry.cls.limits[task]):
                refuse_unfit(entry.cls, task)
    for task in entry.cls.tasks:
        refuse_unfit(entry.cls, task, entry.cls.dims[0])
    with pytest.raises(InputError, match="not for 4D"):
        refuse_unfit(entry.cls, entry.cls.tasks[0], 4)


def test_an_option_can_narrow_a_method():
    refuse_unfit(Mmd(), "regression")
    with pytest.raises(InputError, match=r"Mmd is not for regression, since .*probabilities"):
        refuse_unfit(Mmd(joint=True), "regression")


def test_localization_is_trained_as_a_segmentation_and_own_classes_pass():
    refuse_unfit(Advent, "localization", 3)
    with pytest.raises(InputError, match=r"LabelSpreading is not for localization, .*graph.*; .*advent"):
        refuse_unfit(LabelSpreading, "localization", 3)
    refuse_unfit(nn.Module, "regression", 3)


def test_what_names_findings_and_what_a_regression_may_have():
    """Outputs that do not exclude each other: methods that name them, and those that look at no class."""
    for method in (Coral, SelfTraining, Tent):
        refuse_unfit(method, "multilabel")
        refuse_unfit(method, "regions", 3)
    for task in ("multilabel", "regions"):
        with pytest.raises(InputError, match=f"Cdan is not for {task}, since .*exclude each other; .*self_training"):
            refuse_unfit(Cdan, task)
    refuse_unfit(Advent, "regions")
    with pytest.raises(InputError, match="Advent is not for multilabel, since it judges maps"):
        refuse_unfit(Advent, "multilabel")


def test_a_trainer_tells_a_method_what_the_outputs_are():
    image, network = torch.randn(4, 1, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for label, exclusive in ((torch.tensor([0, 1, 2, 0]), True), (torch.tensor([[1.0, 1, 0]] * 4), False)):
        method = SelfTraining()
        train(method, network, image, label)
        assert method.exclusive is exclusive
        assert method.thresholds.shape == ((3,) if exclusive else (3, 2))
    one_each = torch.eye(3)[[0, 1, 2, 0]]  # findings of which each case has just one look like classes
    method = SelfTraining()
    train(method, network, image, one_each, task="multilabel")
    assert method.exclusive is False
    maps, regions = UNet(2, 1, 2, (4, 8), (2,)), torch.cat([image > 0, image > 1], 1).float()
    with pytest.raises(InputError, match="Cdan is not for regions"):
        train(Cdan(), maps, image, regions)
    train(Cdan(), maps, image, torch.cat([image > 0, image <= 0], 1).float())  # one-hot


def train(method, network, image, label, **options):
    SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=[{"image": image, "label": label}], network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=lambda p, _: p.square().mean(),
        train_handlers=[Adapt(method, [{"image": image}], **options)], decollate=False,
    ).run()  # fmt: skip


def test_a_trainer_of_ones_own_refuses_in_its_first_iteration():
    image = torch.randn(4, 1, 8, 8)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(InputError, match="Advent is not for classification, since it judges maps"):
        train(Advent(), flat, image, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(InputError, match="LabelSpreading is not for segmentation"):
        train(LabelSpreading(), UNet(2, 1, 2, (4, 8), (2,)), image, (image > 0).float())
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(InputError, match="Cdan is not for regression, since it works on class probabilities"):
        train(Cdan(), one, image, torch.randn(4, 1))
    train(Cdan(), one, image, torch.tensor([[0.0], [1.0], [1.0], [0.0]]))  # two classes behind a sigmoid
    train(Coral(), one, image, torch.randn(4, 1))


def test_a_missing_strong_view_is_said_once(caplog):
    from monai_transfer.methods.fixmatch import Fixmatch

    image = torch.randn(4, 1, 8, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    train(Fixmatch(), network, image, torch.tensor([0, 1, 2, 0]))
    assert sum("StrongViewd" in record.message for record in caplog.records) == 1
