"""``signal-relay journal``: what a relay has kept, read from its files."""
