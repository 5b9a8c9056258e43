"""The services of the protocol: a module each."""
