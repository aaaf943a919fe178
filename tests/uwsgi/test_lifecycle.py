"""The events of a connection: which, in which order, how often, whatever happens to it."""

from uwasp_pytest.behaviour.test_lifecycle import *  # noqa: F403 - the tests, and their fixtures
