"""What stands around a text when a classifier reads it: special tokens of the base's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tiktoken


@dataclass(frozen=True)
class Frame:
    """Token ids that are put around every text, none by default, and what fills up a batch.

    The bundled base reads one `<|endoftext|>` behind each text, and what the text was about is said
    there (`assets/base/README.md`). In the book the last position is such a token for most texts,
    too: there they are padded with it.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    padding: int | None = None  # as the base's config.json has it; batches here have lengths

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def read_with(self, padding: int | None) -> Frame:
        """As `transformers`' classifier reads where `padding` fills up: it answers at the last
        token that is something else, so padding at the end of the frame is never read.
        """
        after = list(self.after)
        while after and after[-1] == padding:
            after.pop()
        return Frame(self.before, tuple(after), padding)

    def padding_beside(self, end_of_text: int) -> int:
        """A token to fill up with that the end of a framed text is not, `end_of_text` if it can."""
        if self.padding is not None:
            return self.padding
        return 0 if self.after[-1:] == (end_of_text,) and end_of_text else end_of_text


class FramedEncoding(tiktoken.Encoding):
    """A `tiktoken.Encoding` whose texts stand in a frame. `encode_ordinary` is without it."""

    frame = Frame()

    def __getstate__(self) -> object:
        """With the frame."""
        return super().__getstate__(), self.frame

    def __setstate__(self, value: Any) -> None:
        """Of a copy, or of another process."""
        super().__setstate__(value[0])
        self.frame = value[1]


def frame_record(frame: Frame) -> list[Any]:
    """A frame as JSON has it."""
    return [list(frame.before), list(frame.after), frame.padding]


def frame_of_record(record: Sequence[Any]) -> Frame:
    """The frame of such a record."""
    before, after, padding = record
    return Frame(tuple(before), tuple(after), padding)


def frame_of(encoding: tiktoken.Encoding) -> Frame:
    """The frame of an encoding; none where it has not been given one."""
    frame = getattr(encoding, "frame", None)
    return frame if isinstance(frame, Frame) else Frame()
