"""An agent that is killed mid-run and finished by another process: `python -m examples.demo`."""
