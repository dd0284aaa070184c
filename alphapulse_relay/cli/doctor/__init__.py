"""``signal-relay doctor``: what is wrong with a relay and where it lives, and how to mend it."""
