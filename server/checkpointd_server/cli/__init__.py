"""The command line: a module a command, and what several of them share.

Every command that talks to a server takes `remote_options` (remote.py) and is called with a `Remote`; what can print
JSON takes `json_option`, what destroys takes `destructive` (destruction.py), what takes long shows its progress by
progress.py. Tables are made by rendering/tables.py.
"""

from checkpointd_server.cli.commands import main

__all__ = ["main"]
