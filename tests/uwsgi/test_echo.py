"""Messages go there and come back, whatever their kind and size."""

from uwasp_pytest.behaviour.test_echo import *  # noqa: F403 - the tests, and their fixtures
