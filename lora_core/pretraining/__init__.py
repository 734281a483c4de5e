"""How the bundled base was made: `python -m lora_core.pretraining --corpus FILE... --out DIR`.

Reading order: `corpus` (text to token windows), `network` (the GPT's loss, written for speed),
`optimizer` (Muon and AdamW), `trainer` (the loop, checkpoints, several processes), `measure` (bits
per byte) and `export` (Hugging Face's folder layout). Then, with a larger model as the teacher:
`reading` (many short texts; `phrases` and `kinds` make some), `teach` (the teacher's states for
them), `student` (the base goes on, learning to say them), `kinds` again (which directions of them
are stressed) and `ending` (what a text was about is said at its end). Nothing else in `lora_core`
imports this.
"""

from __future__ import annotations

from lora_core.errors import LabError


class PretrainingError(LabError, RuntimeError):
    """Pretraining cannot go on; the message says why and what to do."""
