"""Serialized values: patches on earlier versions, what the saver remembers, and what travels apart from messages."""
