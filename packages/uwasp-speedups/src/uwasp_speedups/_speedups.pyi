from collections.abc import Callable, Iterator
from typing import Any

def accelerate(
    protocol: type,
    connection: type,
    websocket: type,
    listener: type,
    open_state: object,
    readable: int,
    slice_is_over: list[Any],
    slice: float,
    corked_time: float,
    corked_size: int,
    read_size: int,
    /,
) -> None: ...
def send_to_all(
    frame: bytes,
    members: tuple[Any, ...],
    following: Iterator[Any],
    deadline: float,
    cut: Callable[[Any, Exception], None],
    /,
) -> bool: ...
def take_messages(
    data: bytes, position: int, largest: int, most: int, messages: list[str | bytes], accepts: type | None, /
) -> int: ...
