"""Who does not read, or does not keep up, is waited for by nobody else, and costs a bounded amount of memory."""

from uwasp_pytest.behaviour.test_backpressure import *  # noqa: F403 - the tests, and their fixtures
