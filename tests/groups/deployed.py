"""The application of `application.py` as it is deployed: in workers that begin once the file UWASP_NEXT is there, by a
later release of uWASP, which says on the bus all that one of the same version may say beyond what this release does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from application import application, logger
from uwasp import envelope, local_link
from uwasp.envelope import Envelope, Kind
from uwasp.membership import Membership

__all__ = ["application"]

LATER_KIND = 100
encode, hello, publish_locked = Envelope.encode, local_link.hello, Membership._publish_locked


def encode_later(self: Envelope) -> bytes:
    """With more in the head, and more in each body of JSON that has names for what is in it."""
    if self.kind in (Kind.CLOSE, Kind.PRESENCE, Kind.ASK, Kind.STATE, Kind.NOBODY):
        said = envelope.load(self.body)
        for members in (said.get("joined", []), said.get("members", [])):
            members[:] = [[*member, {"since": "later"}] for member in members]
        self = self._replace(body=envelope.dump({**said, "later": [1, 2]}))
    written = encode(self)
    end = len(written) - len(self.body)
    more = b"of the later release"
    return written[:2] + (end + len(more)).to_bytes(2, "big") + written[4:end] + more + self.body


def publish_later_locked(self: Membership, name: str, kind: int, *body: bytes) -> None:
    """With something of a kind of its own before all else, in the sequence of the group."""
    publish_locked(self, name, LATER_KIND, b"of the later release")  # type: ignore[arg-type]
    publish_locked(self, name, kind, *body)  # type: ignore[arg-type]


def hello_later(process: bytes) -> bytes:
    """With more in the first frame of a link, and a frame of a kind of its own behind it."""
    body = hello(process)[local_link.HEADER.size :] + b"of the later release"
    return local_link.frame(local_link.HELLO, body) + local_link.frame(LATER_KIND, b"of the later release")


if os.path.exists(os.environ["UWASP_NEXT"]):
    Envelope.encode = encode_later  # type: ignore[method-assign]
    local_link.hello = hello_later
    Membership._publish_locked = publish_later_locked  # type: ignore[method-assign]
    logger.info("the later release")
