"""A journal to look into."""

import pytest

from tests.journal.writer import Message, Segment, message, save


@pytest.fixture
def written(tmp_path) -> list[Message]:
    """Two segments; messages of types 21 and 22, sources 20 and 30."""
    first = Segment().fill(
        [message(n, tlv_type=21 + n % 2, source=(20, 30)[n % 4 == 3]) for n in range(12)]
    )
    second = first.next().fill([message(n) for n in range(12, 20)])
    save(tmp_path, first, second)
    return first.written + second.written
