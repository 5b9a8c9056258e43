"""Puts and task writes: gathered, merged into groups, stored many in one commit, and told apart again."""
