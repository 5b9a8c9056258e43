"""Protobuf messages to the domain's words, checked, and back."""
