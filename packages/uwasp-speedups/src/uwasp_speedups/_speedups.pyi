def accelerate(
    protocol: type,
    connection: type,
    websocket: type,
    listener: type,
    open_state: object,
    readable: int,
    slice_is_over: list[str | bytes],
    slice: float,
    corked_time: float,
    corked_size: int,
    read_size: int,
    /,
) -> None: ...
def take_messages(data: bytes, position: int, largest: int, most: int, messages: list[str | bytes], /) -> int: ...
