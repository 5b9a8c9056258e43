"""Random ids, from the operating system: users' tests seed `random` and patch `uuid.uuid4`.

They are fetched in blocks. A system call releases the interpreter's lock, so one for each id would have another thread
take over, several times in each save.
"""

from __future__ import annotations

import os
from collections import deque

from langgraph.checkpoint.grpc._transport import fork

ID_BYTES = 16
"""Size of an id, in bytes."""
_IDS_A_BLOCK = 256

# Taking from its end is atomic. A forked child must not give out what its parent gives out, too.
_ids: deque[bytes] = deque()
fork.in_child(_ids.clear)


def random_id() -> bytes:
    """Returns 16 random bytes, which are given out once."""
    while True:
        try:
            return _ids.pop()
        except IndexError:
            block = os.urandom(ID_BYTES * _IDS_A_BLOCK)
            _ids.extend([block[at : at + ID_BYTES] for at in range(0, len(block), ID_BYTES)])
