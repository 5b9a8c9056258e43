"""`python -m checkpointd_server.cli`: the same as `checkpointd`."""

from checkpointd_server.cli import main

if __name__ == "__main__":
    main()
