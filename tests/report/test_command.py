"""The compare command: what it prints, writes and exits with."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from monai_transfer.errors import InputError
from monai_transfer.report.command import compare

app = typer.Typer()
app.command()(compare)


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def runs(study):
    return study.write({"scratch": 0.5, "source": 0.6, "fine_tuned": 0.75})


def test_table_verdict_and_page(runs, tmp_path):
    page = tmp_path / "report.html"
    result = call(*runs, "-o", page)
    assert result.exit_code == 0, result.output
    assert "fine-tuned: helped" in result.output
    assert "Transfer helped" in result.output
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_json_only(runs):
    result = call(*runs, "--json", "--metric", "hd95")
    content = json.loads(result.output)
    assert content["metric"] == "hd95"
    assert content["higher_is_better"] is False


def test_a_study_folder_stands_for_its_runs(runs, study):
    assert json.loads(call(study.folder, "--json").output) == json.loads(call(*runs, "--json").output)


def test_gates(runs, study):
    assert call(*runs, "--gate", "helped").exit_code == 0
    hurt = study.write({"scratch": 0.8, "source": 0.6, "fine_tuned": 0.65})
    assert call(*hurt, "--gate", "helped").exit_code == 1
    assert call(*hurt, "--gate", "not-hurt").exit_code == 1
    assert call(*hurt).exit_code == 0
    assert isinstance(call(*hurt, "--gate", "good").exception, InputError)


def test_bad_input_is_an_input_error(tmp_path):
    assert isinstance(call(tmp_path / "nowhere").exception, InputError)
    assert isinstance(call(tmp_path).exception, InputError)
