"""``signal-relay replay``: what a journal holds, once more."""
