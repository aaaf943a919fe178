"""The Autobahn testsuite without the sections that take long: sections 9, 12 and 13 are for `hatch run conformance`."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from cases import Run, describe, run_cases
from processes import LOOP_OPTIONS, not_installed
from wstest import BuildFailed, NoPython27, Wstest, find_or_build

# The first test waits for the suite to be built, where it has to be.
pytestmark = [pytest.mark.timeout(1800)] if find_spec("pytest_timeout") else []

SHORT_SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "10")


@pytest.fixture(scope="module")
def wstest() -> Wstest:
    """Skip where nobody could have the suite; where it could be built and was not, CI fails."""
    try:
        return find_or_build()
    except NoPython27 as error:
        pytest.skip(str(error))
    except BuildFailed as error:
        not_installed(f"the Autobahn testsuite ({error})")
        raise


@pytest.fixture(scope="module", params=sorted(LOOP_OPTIONS))
def short_run(request: pytest.FixtureRequest, wstest: Wstest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The short sections, run once on each handler."""
    patterns = [f"{section}.*" for section in SHORT_SECTIONS]
    return run_cases(wstest, request.param, patterns, tmp_path_factory.mktemp("autobahn") / request.param)


@pytest.mark.parametrize("section", SHORT_SECTIONS)
def test_every_case_of_a_section_is_ok_or_informational(short_run: Run, section: str) -> None:
    of_section = tuple(case for case in short_run.cases if case.section == section)
    assert of_section
    assert all(case.passed for case in of_section), describe([Run(short_run.handler, of_section, (), (), {})])


def test_every_case_has_a_result_and_the_server_never_complained(short_run: Run) -> None:
    assert not short_run.missing
    assert not short_run.complaints
