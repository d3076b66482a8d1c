"""Reads what TensorBoard would show, with the message types that Ray's own writer brings."""

from __future__ import annotations

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def scalars(folder: Path) -> dict[str, float]:
    """The last value of each name in TensorBoard's files, which are records of length, check, data, check."""
    found = {}
    for path in folder.glob("events*"):
        data, start = path.read_bytes(), 0
        while start < len(data):
            length = int.from_bytes(data[start : start + 8], "little")
            event = Event.FromString(data[start + 12 : start + 12 + length])
            found |= {value.tag: value.simple_value for value in event.summary.value if value.WhichOneof("value")}
            start += length + 16
    return found
