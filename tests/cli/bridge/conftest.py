"""What these tests share."""

from tests.bridge.conftest import nats_url

__all__ = ["nats_url"]
