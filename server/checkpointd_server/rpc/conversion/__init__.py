"""Conversion of protobuf messages to domain objects, with checks, and back."""
