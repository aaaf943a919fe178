"""A message can be sent from anywhere in the worker, or there is a clear error."""

from uwasp_pytest.behaviour.test_sends import *  # noqa: F403 - the tests, and their fixtures
