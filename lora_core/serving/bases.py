"""The bases that a server lends: each loaded once, measured before it is loaded, let go when idle.

A base is shared by everybody who trains or classifies over it, so memory counts for as long as any
of its tensors is in use somewhere, not only while it is listed here.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lora_core.base.checkpoint import (
    HUB_NAMES,
    Base,
    BaseError,
    base_bytes,
    base_folder,
    canonical_name,
    load_base,
)
from lora_core.config import GPT2_CONFIGS, GPTConfig
from lora_core.limits import MEGABYTE, Limits

BUNDLED = "bundled"
_MOST_BASES = 8  # in the menu, so that strangers cannot make it long
_SHAPES = dict(zip(HUB_NAMES, GPT2_CONFIGS.values(), strict=True))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Held:
    """Memory that a base takes until its tensors are gone."""

    name: str
    size: int  # bytes
    tensor: weakref.ref[Tensor]


class Bases:
    """Bases by name. `get` may be called from any number of threads."""

    def __init__(
        self,
        limits: Limits | None = None,
        offered: Sequence[str] | None = None,
        held: Mapping[str, Base] | None = None,
    ) -> None:
        """`offered` names all that visitors may choose, the bundled one besides; None: any.

        `held` are bases that are loaded already.
        """
        limits = limits or Limits()
        self._most = limits.bases_mb * MEGABYTE
        self._offered = None if offered is None else tuple(map(canonical_name, offered))
        self._bases: dict[str, Base] = {}  # the one used last stands last
        self._held: list[_Held] = []
        self._digests: weakref.WeakKeyDictionary[Base, str] = weakref.WeakKeyDictionary()
        self._loading: dict[str, threading.Lock] = {}
        self._coming: dict[str, int] = {}  # bytes that are being loaded
        self._lock = threading.RLock()
        # Told before a base is let go, so that what was kept over it goes, too.
        self.when_let_go: list[Callable[[str], None]] = []
        for name, base in (held or {}).items():
            self._put(name, base)

    def get(self, name: str = BUNDLED) -> Base:
        """The base of this name, loaded at most once however many ask. Raises `BaseError`."""
        name = canonical_name(name)
        with self._lock:
            if name in self._bases:
                return self._used(name)
            self.check_offered(name)
            own = self._loading.setdefault(name, threading.Lock())
        with own:  # of this name alone: the others go on
            with self._lock:
                if name in self._bases:
                    return self._used(name)
            size = self.size(name)  # may ask the Hub, for a file of a kilobyte
            try:
                with self._lock:
                    self._make_room(name, size)
                    self._coming[name] = size
                base = load_base(name)
                if base.name != name and len(self._called(base.name)) > 1:
                    base = replace(base, name=name)
                digest = base.digest()  # before anybody could have trained on it
                with self._lock:
                    self._put(name, base)
                    self._digests[base] = digest
            finally:
                with self._lock:
                    self._coming.pop(name, None)
            if base.remark:
                _log.info("base %s: %s", name, base.remark)
            return base

    def again(self, name: str, digest: str = "") -> Base:
        """The base of a stored run, which names it as it calls itself: a folder by its last part.

        Of several that are called so it is the one with this digest; without any, whoever asks
        learns from another digest that the base has changed. It need not be on the menu any more:
        one from the Hub is fetched again. Raises `BaseError`.
        """
        found: Base | None = None
        refusal: BaseError | None = None
        for called in sorted(self._called(name), key=lambda known: known not in self._bases):
            try:
                base = self.get(called)
            except BaseError as error:
                refusal = refusal or error
                continue
            if digest in ("", self.digest(base)):
                return base
            found = found or base
        if found is None:
            assert refusal is not None
            raise refusal
        return found

    def _called(self, name: str) -> list[str]:
        """What may be meant by a name: the folders on the menu that end so, and the name itself."""
        offered = self._offered or ()
        folders = [path for path in offered if _last_part(path) == name]
        known = name in (BUNDLED, *HUB_NAMES, *offered)
        return [*folders, name] if known or not folders else folders

    def size(self, name: str) -> int:
        """Bytes that a base takes in memory; raises `BaseError` for one that is too large here."""
        size = base_bytes(name)
        if size > self._most and name != BUNDLED:
            raise BaseError(
                f"The base '{name}' takes {size / MEGABYTE:,.0f} MB of memory; this server lends "
                f"{self._most / MEGABYTE:,.0f} MB to all bases together (--bases-mb)."
            )
        return size

    def shape(self, name: str) -> GPTConfig:
        """The shape of a base; GPT-2's are known without downloading anything."""
        self.check_offered(name)
        name = canonical_name(name)
        return _SHAPES[name] if name in _SHAPES else self.get(name).config

    def digest(self, base: Base) -> str:
        """The digest of a base's weights when it was loaded, or first asked about."""
        with self._lock:
            if base not in self._digests:
                self._digests[base] = base.digest()
            return self._digests[base]

    def check_offered(self, name: str) -> None:
        """Raise `BaseError` for a base that the host of this server does not offer."""
        if not self.offers(name):
            raise BaseError(
                f"This server does not offer the base '{name}'. "
                f"It offers: {', '.join(self.menu())}."
            )

    def offers(self, name: str) -> bool:
        """Whether visitors may choose this base."""
        return self._offered is None or name == BUNDLED or canonical_name(name) in self._offered

    def menu(self) -> list[str]:
        """The names to choose from: what is offered, and what has been brought from the Hub."""
        known = HUB_NAMES if self._offered is None else self._offered
        return list(dict.fromkeys([BUNDLED, *known, *self]))

    def choices(self) -> list[tuple[str, str]]:
        """The menu as (what is shown, name)."""
        return [("bundled small GPT" if name == BUNDLED else name, name) for name in self.menu()]

    def known(self, name: str) -> bool:
        """Whether a name is on the menu."""
        return canonical_name(name) in self.menu()

    def values(self) -> list[Base]:
        """The bases that are loaded."""
        with self._lock:
            return list(self._bases.values())

    def loaded(self, name: str) -> Base | None:
        """A base if it is loaded; loads nothing."""
        with self._lock:
            by_name = {base.name: base for base in self._bases.values()}
            return self._bases.get(canonical_name(name)) or by_name.get(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.loaded(name) is not None

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._bases))

    def __len__(self) -> int:
        return len(self._bases)

    @property
    def bytes(self) -> int:
        """Memory of all bases that are in use or listed, and of those that are being loaded."""
        with self._lock:
            self._held = [held for held in self._held if held.tensor() is not None]
            return sum(held.size for held in self._held) + sum(self._coming.values())

    def _put(self, name: str, base: Base) -> None:
        self._bases[name] = base
        size = sum(p.nbytes for p in base.model.parameters())
        self._held.append(_Held(name, size, weakref.ref(base.model.token_embedding.weight)))

    def _used(self, name: str) -> Base:
        base = self._bases.pop(name)
        self._bases[name] = base
        return base

    def _make_room(self, name: str, size: int) -> None:
        """Let idle bases go, the longest unused first, until `size` bytes fit."""
        if name == BUNDLED:
            return  # the page cannot do without
        for old in list(self._bases):
            if self.bytes + size <= self._most and len(self._bases) < _MOST_BASES:
                return
            if old != BUNDLED:
                self._let_go(old)
        if self.bytes + size > self._most:
            busy = " and ".join(sorted({h.name for h in self._held} | self._coming.keys()))
            raise BaseError(
                f"There is no room for the base '{name}' now: this server lends "
                f"{self._most / MEGABYTE:,.0f} MB to bases, and {busy} are in use. Try again "
                "later, or choose one of those."
            )

    def _let_go(self, name: str) -> None:
        """Drop a base if nobody uses it; one that is in use stays."""
        for forget in self.when_let_go:
            forget(name)
        base = weakref.ref(self._bases.pop(name))
        if (used := base()) is None:
            _log.info("base %s: let go", name)
            return
        self._bases = {name: used, **self._bases}  # where it stood: first


def _last_part(name: str) -> str | None:
    """The last part of a folder's path; None for a name that is no folder."""
    folder = base_folder(name)
    return None if folder is None else folder.resolve().name
