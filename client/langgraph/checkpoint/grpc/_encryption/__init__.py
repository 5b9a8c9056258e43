"""What encryption is made of: the cipher, what it binds values to, and copies of encrypted threads."""
