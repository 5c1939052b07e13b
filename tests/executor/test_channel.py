from __future__ import annotations

import contextlib
import os

import hypothesis.strategies as st
import pytest
from hypothesis import given

from flowkiln.executor.channel import Channel, Closed, pair


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4), max_size=8))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, object]]) -> None:
    messages = [{key: value for key, value in one.items() if key != "fds"} for one in messages]
    left, right = (Channel(end) for end in pair())
    for message in messages:
        left.send(message)
    left.close()
    found: list[dict[str, object]] = []
    with contextlib.suppress(Closed):
        while True:
            found += [message for message, _ in right.receive()]
    right.close()
    assert found == messages


def test_descriptors_reach_their_message() -> None:
    left, right = (Channel(end) for end in pair())
    reading, writing = os.pipe()
    left.send({"first": 1})
    left.send({"second": 2}, [writing, reading])
    left.send({"third": 3}, [writing])
    os.close(writing)
    found: list[tuple[dict[str, object], list[int]]] = []
    while len(found) < 3:
        found += right.receive()
    assert [(message, len(descriptors)) for message, descriptors in found] == [
        ({"first": 1}, 0),
        ({"second": 2}, 2),
        ({"third": 3}, 1),
    ]
    os.write(found[2][1][0], b"hello")
    assert os.read(reading, 5) == b"hello"
    for descriptor in (reading, *found[1][1], *found[2][1]):
        assert not os.get_inheritable(descriptor) or descriptor == reading
        os.close(descriptor)
    left.close()
    right.close()


def test_a_message_may_arrive_in_pieces() -> None:
    ours, theirs = pair()
    channel = Channel(theirs)
    ours.sendall(b"\0\0\0\x0b{")
    assert channel.receive() == []
    ours.sendall(b'"key": 12}')
    assert channel.receive() == [({"key": 12}, [])]
    channel.close()
    ours.close()


def test_a_closed_other_side_is_told() -> None:
    left, right = (Channel(end) for end in pair())
    right.close()
    with pytest.raises(Closed):
        left.send({"key": 1})
    with pytest.raises(Closed):
        left.receive_one()
    left.close()


def test_as_many_orders_as_can_be_in_flight_never_make_a_send_wait() -> None:
    left, right = pair()
    sender, receiver = Channel(left), Channel(right)
    left.setblocking(False)
    for number in range(64):
        sender.send({"order": {"id": number, "assignment": "x" * 800}})
    sender.close()
    assert receiver.receive()
    receiver.close()
