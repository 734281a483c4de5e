"""The teacher's key: unguessable, kept over a restart, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from lora_core.config import ConfigError

VARIABLE = "LORA_LAB_ROOM_KEY"
_LEAST = 16  # characters of a key that somebody chose
_FILE = "room-key"


@dataclass(frozen=True)
class Key:
    """What opens the desk. `secret` is in the teacher's link only, and there behind the `#`, which
    no browser sends; what the browser sends afterwards is `pass_`, made of it."""

    secret: str = field(repr=False)
    from_environment: bool = False  # by the environment: its owner knows it, and nothing prints it

    @property
    def pass_(self) -> str:
        """What the desk's cookie holds: it cannot be turned back into the key."""
        return hmac.new(self.secret.encode(), b"LoRA Lab desk", hashlib.sha256).hexdigest()

    def opens(self, tried: object) -> bool:
        """Whether this is the key; takes as long for a near miss as for nonsense."""
        return isinstance(tried, str) and hmac.compare_digest(
            hashlib.sha256(tried.encode("utf-8", "replace")).digest(),
            hashlib.sha256(self.secret.encode()).digest(),
        )

    def passes(self, shown: object) -> bool:
        """Whether this is the desk's cookie."""
        return isinstance(shown, str) and hmac.compare_digest(
            shown.encode("utf-8", "replace"), self.pass_.encode()
        )


def choose_key(folder: Path | None, *, new: bool = False) -> Key:
    """The key of the environment, else that of the store's folder, else a new one, kept there.

    `new`: another one than before. Raises `ConfigError`, in words.
    """
    secret = os.environ.get(VARIABLE, "").strip()
    if secret:
        if new:
            raise ConfigError(
                f"The key is the one in {VARIABLE}: change it there, not by --new-key."
            )
        if len(secret) < _LEAST:
            raise ConfigError(f"{VARIABLE} must have at least {_LEAST} characters.")
        return Key(secret, from_environment=True)
    if os.environ.get("SPACE_ID"):
        raise ConfigError(
            f"On a Space the teacher's key is a secret of the Space: add one called {VARIABLE} in "
            f"its settings, with at least {_LEAST} characters that nobody can guess."
        )
    made = secrets.token_urlsafe(24)
    if folder is None:
        return Key(made)
    path = folder / _FILE
    try:
        if not new and path.is_file():
            written = path.read_text(encoding="utf-8").strip()
            if len(written) >= _LEAST:
                return Key(written)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(made + "\n", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The room's key cannot be kept in {path}: {error}") from error
    return Key(made)
