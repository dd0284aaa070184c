"""Fixtures of the side port's tests: a hub as its own tests have it."""

from tests.hub.conftest import clock, hub, logged, make_hub

__all__ = ["clock", "hub", "logged", "make_hub"]
