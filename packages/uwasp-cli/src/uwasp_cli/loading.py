"""How an application is loaded, and what is said if it cannot be. Runs in uWSGI, and knows nothing of it.

It imports uWASP after the application: what that has gevent patch should not have been used before.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

from uwasp_cli.target import Target

__all__ = ["Loaded", "NotLoadable", "describe", "is_for_another_loop", "load"]

USUAL = ("application", "app")
LONGEST = 60  # characters, of what is quoted
FACTORIES = ("create_app", "make_app")  # of Flask's


class Loaded(NamedTuple):
    """An application, and what uWSGI calls it: `module:callable`."""

    application: Any
    name: str


class NotLoadable(Exception):
    """There is nothing of that name; the message says what there is."""


def load(target: Target) -> Loaded:
    """Import an application.

    Raises:
        NotLoadable: it is not there.
        BaseException: whatever its module raises.
    """
    if target.folder not in sys.path:
        sys.path.insert(0, target.folder)
    module_name, name = target.module, target.callable
    if not module_name:
        module_name, name = _named_by_django(target.settings)
    _look_for(module_name, target.folder)
    module = import_module(module_name)
    if not name:
        name = _find_callable(module)
    return Loaded(_take(module, name), f"{module_name}:{name}")


def _look_for(module: str, folder: str) -> None:
    """Tell a module that is not there from one that imports another which is not."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):  # `find_spec` imports what is above
        if find_spec(".".join(parts[:count])) is None:
            raise NotLoadable(f"there is no module {module} in {folder}, nor is one installed")


def _named_by_django(settings: str) -> tuple[str, str]:
    """As `runserver` finds it."""
    if find_spec("django") is None:
        raise NotLoadable("the package django is not installed; try: pip install django")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    from django.conf import settings as of_project

    path = of_project.WSGI_APPLICATION
    if path is None:
        return "django.core.wsgi", "get_wsgi_application()"
    module, _, name = path.rpartition(".")
    return module, name


def _find_callable(module: ModuleType) -> str:
    """One with WebSockets goes first: around a Flask application there may be a middleware of its own name."""
    from uwasp import WebSocketMiddleware

    there = {name: value for name, value in vars(module).items() if not name.startswith("_") and callable(value)}
    ours = [name for name, value in there.items() if issubclass(type(value), WebSocketMiddleware)]
    if len(ours) == 1:
        return ours[0]
    for name in USUAL:
        if name in there:
            return name
    flasks = [name for name, value in there.items() if _is_flask(value)]
    if len(flasks) == 1:
        return flasks[0]
    for name in FACTORIES:
        if name in there:
            return f"{name}()"
    raise NotLoadable(
        f"{module.__name__} has no {' or '.join(USUAL)}, no single Flask application, and no "
        f"{' or '.join(FACTORIES)}; name what it has, as in {module.__name__}:site"
    )


def _is_flask(value: Any) -> bool:
    return any(f"{base.__module__}.{base.__name__}" == "flask.app.Flask" for base in type(value).__mro__)


def _take(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise NotLoadable(f"{module.__name__} has no {name.removesuffix('()')}") from None
    if name.endswith("()"):
        found = found()
    if not callable(found):
        raise NotLoadable(f"{module.__name__}:{name} is no WSGI application, but {_shortened(repr(found))}")
    if inspect.isfunction(found):
        _look_at_arguments(found, module.__name__, name)
    return found


def _look_at_arguments(function: FunctionType, module: str, name: str) -> None:
    """Tell a function that is an application from one that makes one, or is something else.

    Raises:
        NotLoadable: it is none.
    """
    signature = inspect.signature(function, follow_wrapped=False)  # a decorator may make an application of another
    is_open = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values())
    if _takes(signature, 0) and not is_open:
        raise NotLoadable(
            f"{name} is a function that makes an application, and none itself, for it needs no environ and "
            f"start_response: write {module}:{name}()"
        )
    if not _takes(signature, 2):
        raise NotLoadable(f"{module}:{name} is no WSGI application: it takes {signature}, not environ, start_response")


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def describe(error: BaseException, folder: str) -> str:
    """One line on why an application cannot be loaded: the error, and where in its own code that comes from."""
    from uwasp import ConfigurationError

    if isinstance(error, (NotLoadable, ConfigurationError)):
        return _one_line(str(error))
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        what = f"there is no module {error.name}; if it is a package that is not installed, try: pip install {package}"
    elif isinstance(error, SyntaxError) and error.filename:
        place = f"{_shown(error.filename, folder)}, line {error.lineno}"
        return _one_line(f"{place}: {type(error).__name__}: {error.msg}")
    else:
        what = "".join(traceback.format_exception_only(type(error), error)).strip()
    place = _place(error, folder)
    return _one_line(f"{place}: {what}" if place else what)


def _place(error: BaseException, folder: str) -> str:
    """The last line of the application's own code that led there."""
    own = [frame for frame in _frames(error) if _is_own(frame[0].f_code.co_filename, folder)]
    if not own:
        return ""
    frame, line = own[-1]
    return f"{_shown(frame.f_code.co_filename, folder)}, line {line}"


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    yield from traceback.walk_tb(error.__traceback__)


def _is_own(file: str, folder: str) -> bool:
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")}
    return file.startswith(folder + os.sep) and not any(file.startswith(library + os.sep) for library in libraries)


def _shown(file: str, folder: str) -> str:
    return os.path.relpath(file, folder) if _is_own(file, folder) else file


def _one_line(text: str) -> str:
    return " ".join(text.split())


def is_for_another_loop(error: BaseException) -> bool:
    """Whether a handler refused the process that it is in: its `check` raised this."""
    from uwasp import ConfigurationError

    return isinstance(error, ConfigurationError) and any(
        frame.f_code.co_name == "check" and _is_handler(frame.f_locals.get("cls")) for frame, _ in _frames(error)
    )


def _is_handler(value: Any) -> bool:
    return isinstance(value, type) and callable(getattr(value, "handle", None))
