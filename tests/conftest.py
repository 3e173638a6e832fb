"""Offline by default, one thread, and models made from configs."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import torch

# The same cases on every machine; HYPOTHESIS_PROFILE=explore draws new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


# Long versions of tests that do not pass yet; their short versions run in the fast suite.
PENDING = (
    "tests/processes/test_processes.py::test_two_and_four_processes_equal_one",
    "tests/faults/test_disk.py",
    "tests/faults/test_fuzz.py",
    "tests/cli/test_attacking.py::test_a_run_that_is_killed_goes_on",
    "tests/cli/test_attacking.py::test_any_number_of_processes_leaves",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the pending ones of the second lane, visibly."""
    for item in items:
        if item.get_closest_marker("slow") and item.nodeid.startswith(PENDING):
            item.add_marker(pytest.mark.skip(reason="does not pass yet"))
