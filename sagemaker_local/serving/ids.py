"""Random identifiers without a system call each: on the path of every invocation that is a tenth of its cost."""

from __future__ import annotations

import random
import uuid


def fast_uuid4() -> str:
    """A UUID of version 4. Unique, but not a secret: from Python's generator, which the system seeded."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
