"""An agent that is killed in mid-run and finished by another process: `python -m examples.demo`."""
