"""Makes gRPC write only errors to standard error, unless the environment says otherwise.

That is what its documentation names as the default. Without, its releases of today write a line at each attempt to
connect, besides the exception that says the same. It reads the variable when it is imported: this module comes first.
"""

from __future__ import annotations

import os

if "GRPC_TRACE" not in os.environ:  # traces are of a lower level
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
