"""Processes: each role builds its parts and nests their nurseries."""
