from __future__ import annotations

import doctest
import socket
import subprocess
import sys

import evaluate
import pytest

from tests.results import toy_results
from textadv import robust_accuracy
from textadv.errors import DataError
from textadv.robust_accuracy import RobustAccuracy, module_path


@pytest.fixture
def metric(tmp_path):
    return RobustAccuracy(keep_in_memory=True, cache_dir=str(tmp_path))


def test_it_agrees_with_the_report_of_an_attack(metric):
    results = toy_results(n=60)
    found = metric.compute(
        predictions=[record.prediction for record in results.records],
        adversarial_predictions=[
            record.adversarial_prediction if record.status == "flipped" else record.prediction
            for record in results.records
        ],
        references=[record.label for record in results.records],
    )
    report = results.report
    attack = report.attacks["deepwordbug"]
    assert found["clean_accuracy"] == report.clean_accuracy
    assert found["accuracy_under_attack"] == attack.accuracy_under_attack
    assert found["attack_success_rate"] == attack.attack_success_rate
    assert tuple(found["interval"]) == attack.interval
    assert tuple(found["clean_interval"]) == report.clean_interval
    assert {name: found[name] for name in attack.counts} == attack.counts


def test_batches_errors_and_models_never_right(metric):
    for row in ([0, 1], [1, 1]):
        metric.add_batch(predictions=row, adversarial_predictions=[-1, 0], references=[0, 1])
    found = metric.compute()
    counts = ("wrong_before", "flipped", "survived", "unresolved")
    assert [found[name] for name in counts] == [1, 2, 0, 1]
    assert found["attack_success_rate"] == 1.0
    none = metric.compute(predictions=[0], adversarial_predictions=[1], references=[1])
    assert none["attack_success_rate"] is None
    assert none["accuracy_under_attack"] == 0


def test_several_attacks_count_by_the_worst(tmp_path):
    metric = RobustAccuracy("several", keep_in_memory=True, cache_dir=str(tmp_path))
    found = metric.compute(
        predictions=[0, 1, 1],
        adversarial_predictions=[[0, 1], [1, 1], [1, -1]],
        references=[0, 1, 1],
    )
    assert (found["flipped"], found["survived"], found["unresolved"]) == (1, 1, 1)
    with pytest.raises(DataError, match="row 1"):
        metric.compute(predictions=[0, 1], adversarial_predictions=[[0], []], references=[0, 1])
    with pytest.raises(DataError, match="'severl'"):
        RobustAccuracy("severl")


def test_it_loads_by_path_without_a_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    loaded = evaluate.load(module_path(), keep_in_memory=True, cache_dir=str(tmp_path))
    assert type(loaded).__name__ == "RobustAccuracy"
    found = loaded.compute(predictions=[0], adversarial_predictions=[1], references=[0])
    assert found["accuracy_under_attack"] == 0.0


def test_it_combines_with_other_metrics(metric):
    both = evaluate.combine([metric])
    found = both.compute(predictions=[1], adversarial_predictions=[1], references=[1])
    assert found["accuracy_under_attack"] == 1.0


def test_the_example_in_the_description_runs():
    test = doctest.DocTestParser().get_doctest(
        robust_accuracy.INPUTS, {"RobustAccuracy": RobustAccuracy}, "inputs", None, 0
    )
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_package_does_not_import_it():
    code = "import sys, textadv, textadv.metrics; print('evaluate' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
