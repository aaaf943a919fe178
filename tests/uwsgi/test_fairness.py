"""Clients that send without end, or much at once, hold up neither other connections nor HTTP requests."""

from uwasp_pytest.behaviour.test_fairness import *  # noqa: F403 - the tests, and their fixtures
