"""How the programs of this room end: what a person can mend in a sentence, not in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lora_core.errors import LabError


def exit_status(program: Callable[[], None], goes_on: str = "") -> int:
    """Run `program`; the exit status. `goes_on`: where the same command takes up a stopped run."""
    try:
        program()
    except (LabError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. {goes_on}".strip(), file=sys.stderr)
        return 130
    return 0
