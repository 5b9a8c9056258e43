"""The command line: one module per command, and modules that several of them share.

Every command that talks to a server takes `remote_options` (remote.py) and is called with a `Remote`. Commands that
can print JSON take `json_option`, destructive ones take `destructive` (destruction.py), and slow ones show their
progress with progress.py. rendering/tables.py makes the tables.
"""

from checkpointd_server.cli.commands import main

__all__ = ["main"]
