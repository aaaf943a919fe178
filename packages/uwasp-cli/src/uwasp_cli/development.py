"""The application that uWSGI loads for `uwasp dev`: the one that is meant, or a report of why it cannot be had.

What it has to say while it is loaded is between two marks, for the command to show. It logs from INFO on, unless it
configures that itself.
"""

from __future__ import annotations

import logging
import os
import sys

from uwasp_cli import loading
from uwasp_cli.inside import LOADED, LOADING, answer, describe_failure, ordered

__all__ = ["application"]


def _is_unsaid(record: logging.LogRecord) -> bool:
    """Whether a line is to be written for all loggers: not if one between has a handler that does so, as Flask's and
    Django's own have.
    """
    logger = logging.getLogger(record.name)
    while logger.parent is not None:
        if any(_writes(handler, record) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def _writes(handler: logging.Handler, record: logging.LogRecord) -> bool:
    is_of_a_stream = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    return is_of_a_stream and record.levelno >= handler.level and bool(handler.filter(record))


_target = ordered()
print(LOADING, flush=True)
try:
    application = loading.load(_target).application
except BaseException as error:
    answer(**describe_failure(error, _target.folder))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # or uWSGI would have its own say
if not logging.getLogger().handlers:
    _format = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(format=_format, datefmt="%H:%M:%S", level=logging.INFO)
    logging.getLogger().handlers[0].addFilter(_is_unsaid)
print(LOADED, flush=True)
