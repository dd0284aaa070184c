"""What all tests share: how many examples a property is tried on."""

from hypothesis import settings

settings.register_profile("signal-relay", deadline=None, max_examples=200, derandomize=False)
settings.load_profile("signal-relay")
