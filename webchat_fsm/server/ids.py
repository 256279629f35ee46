"""Ids in the shapes that real servers use, all from one seeded source."""

from __future__ import annotations

import random
import string
import uuid

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Ids:
    """A source of ids: the same seed gives the same ids in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chat_id(self) -> str:
        """A v2 chat id, sixteen letters and digits."""
        return "000" + "".join(self._random.choices(_LETTERS, k=13))

    def hexadecimal(self, digits: int = 16) -> str:
        """Upper-case hexadecimal digits, the shape of user ids and file ids."""
        return f"{self._random.getrandbits(digits * 4):0{digits}X}"

    def secure_key(self) -> str:
        """A v2 session secret, twenty lower-case hexadecimal digits."""
        return self.hexadecimal(20).lower()

    def alias(self) -> str:
        """The label of a Chat Server instance, a small number as text."""
        return str(self._random.randint(100, 1999))

    def unique(self) -> str:
        """A version-4 UUID."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
