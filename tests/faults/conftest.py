"""One fork server for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.harness import Children, work_folder


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with work_folder() as folder:
        made = Children(folder)
        made.warm()
        yield made
