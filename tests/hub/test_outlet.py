"""The outlet of an ordinary transport: copies, and knows little."""

import pytest
from twisted.internet.testing import StringTransport
from zope.interface.verify import verifyObject

from alphapulse_relay.hub.outlet import COPY_LIMIT, UNDER_WAY, IOutlet, OrdinaryOutlet


class TestOrdinaryOutlet:
    def test_copies_a_bounded_part(self) -> None:
        transport = StringTransport()
        data = bytearray(2 * COPY_LIMIT)
        outlet = IOutlet(transport)
        assert isinstance(outlet, OrdinaryOutlet)
        assert verifyObject(IOutlet, outlet)
        with memoryview(data) as view:
            assert outlet.send(view) == COPY_LIMIT
        data.clear()
        assert len(transport.value()) == COPY_LIMIT

    def test_closes_after_the_farewell(self) -> None:
        transport = StringTransport()
        transport.registerProducer(object(), True)
        outlet = IOutlet(transport)
        outlet.send(memoryview(b"before "))
        outlet.close(b"goodbye")
        assert transport.value() == b"before goodbye"
        assert transport.disconnecting
        assert transport.producer is None

    def test_of_what_it_was_given_nothing_is_known_to_be_taken(self) -> None:
        outlet = IOutlet(StringTransport())
        assert outlet.queued() == UNDER_WAY
        assert not outlet.room_means_read(UNDER_WAY)
        assert outlet.room_means_read(UNDER_WAY + 1)

    def test_nothing_is_sent_past_it(self) -> None:
        outlet = IOutlet(StringTransport())
        assert outlet.descriptor() is None
        with pytest.raises(NotImplementedError):
            outlet.took_less(gone=False)
