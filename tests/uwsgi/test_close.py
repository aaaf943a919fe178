"""How long a connection may take to close, and how it is cut."""

from uwasp_pytest.behaviour.test_close import *  # noqa: F403 - the tests, and their fixtures
