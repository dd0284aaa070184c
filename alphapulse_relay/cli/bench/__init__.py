"""``signal-relay bench``: measures a running relay."""
