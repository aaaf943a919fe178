"""Messages of the wrong type, and such as a codec cannot decode, close their own connection and nothing else."""

from uwasp_pytest.behaviour.test_messages import *  # noqa: F403 - the tests, and their fixtures
