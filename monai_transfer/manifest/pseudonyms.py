"""Pseudonyms for identifiers: an HMAC under a secret that lies outside every manifest.

A plain hash of a short patient number is guessed by trying all numbers; with a secret that is not possible. The same
secret gives the same pseudonyms, so that sets built at different times still know which patients they share.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from monai_transfer.errors import InputError

__all__ = ["Pseudonyms", "secret_path"]

_SHORTEST = 16


def secret_path() -> Path:
    """Where the secret lies: the file named by ``MONAI_TRANSFER_SECRET``, else one in the user's config folder."""
    named = os.environ.get("MONAI_TRANSFER_SECRET")
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "monai_transfer" / "secret"


class Pseudonyms:
    """Gives pseudonyms under the user's secret, which is made on first use (256 bits, readable by the user only).

    Args:
        path: the secret's file; by default :func:`secret_path`.

    Raises:
        InputError: the file cannot be read or made, or is too short to be a secret.

    >>> import tempfile
    >>> pseudonym = Pseudonyms(Path(tempfile.mkdtemp()) / "secret")
    >>> len(pseudonym("4711")), pseudonym("4711") == pseudonym("4711"), pseudonym("4711") == pseudonym("4712")
    (12, True, False)
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else secret_path()
        try:
            if not self.path.exists():
                self._make()
            self._secret = self.path.read_bytes().strip()
        except OSError as error:
            hint = "name another file in the environment variable MONAI_TRANSFER_SECRET"
            raise InputError(f"cannot hold the secret ({error.strerror})", path=self.path, hint=hint) from None
        if len(self._secret) < _SHORTEST:
            hint = "remove the file (a new one is made), or write a longer secret into it"
            raise InputError(f"is too short for a secret ({len(self._secret)} bytes)", path=self.path, hint=hint)

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Exclusive: of two processes that begin at once, one makes the secret and the other reads it.
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32) + "\n")
        except FileExistsError:
            pass

    def __call__(self, identifier: str, kind: str = "patient", length: int = 12) -> str:
        """The pseudonym of an identifier: hexadecimal digits; ``kind`` keeps equal texts of other meaning apart."""
        return hmac.new(self._secret, f"{kind}\0{identifier}".encode(), hashlib.sha256).hexdigest()[:length]

    def uid(self, uid: str) -> str:
        """A DICOM UID in place of another, under the root ``2.25``."""
        return f"2.25.{int(self(uid, 'uid', 30), 16)}"
