"""The planted faults still fit the code, the documents and the tests. Planting them is `hatch run faults`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault import complaints
from planted import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_fits_the_code_the_promise_and_its_tests(fault) -> None:
    assert list(complaints(fault)) == []


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
