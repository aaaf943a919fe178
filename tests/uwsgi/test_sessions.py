"""Who may stay until a certain time is told when that is over, or asked for again."""

from uwasp_pytest.behaviour.test_sessions import *  # noqa: F403 - the tests, and their fixtures
