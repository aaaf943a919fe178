"""Answers to what came together go out together, and none waits for a server that takes its time."""

from uwasp_pytest.behaviour.test_corking import *  # noqa: F403 - the tests, and their fixtures
