"""One client's bytes never reach another, and one client's fault closes that client alone."""

from uwasp_pytest.behaviour.test_isolation import *  # noqa: F403 - the tests, and their fixtures
