"""What may be written down: plain JSON without secrets and without numbers that JSON does not have."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from basis_bt.core.errors import StoreError
from basis_bt.core.live_models import SECRET_NAMES

MASK = "***"
#: a shorter secret is masked only where it is the whole text: as a part it would deface ordinary words
PART_CHARACTERS = 6
# letters of the names under which venues ask for keys, in bodies and in headers
_SECRET_NAMES = (*SECRET_NAMES, "signature", "accesskey", "accesssign", "bapisign")
_IN_TEXT = re.compile(
    r"(?i)((?:api[-_]?key|access[-_]key|access[-_]sign|bapi[-_]sign|secret(?:[-_]?key)?|password|passphrase|signature|"
    r"private[-_]?key)[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"'&,;}\])]+"
)


class Redactor:
    """Makes payloads plain, and keeps secrets out of them.

    Parameters
    ----------
    secrets : values that must not be written: keys, secrets, passphrases; masked wherever a text contains them (those
        under six characters only where they are the whole text)
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # long ones first, so that a secret within another does not leave the rest of it standing
        self._secrets = sorted({secret for secret in secrets if secret and secret.strip("*")}, key=len, reverse=True)

    def payload(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A payload as JSON can hold it, NaN and infinities as null.

        Raises
        ------
        StoreError
            If a key, at any depth, is one under which secrets travel, or a value has no plain form.
        """
        return self._mapping(values)

    def text(self, text: str) -> str:
        """A text with known secrets, and values written after the name of one, masked."""
        if text in self._secrets:
            return MASK
        for secret in self._secrets:
            # again and again: a masked text may meet its neighbours in such a way that the secret stands there anew
            while len(secret) >= PART_CHARACTERS and secret in text:
                text = text.replace(secret, MASK)
        masked = _IN_TEXT.sub(rf"\g<1>{MASK}", text)
        return masked if masked == text else self.text(masked)

    def _mapping(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        for key in values:
            letters = re.sub(r"[^a-z]", "", str(key).lower())
            is_variable = str(key).endswith("_env")  # the name of an environment variable, not what is in it
            if not is_variable and any(name in letters for name in _SECRET_NAMES):
                raise StoreError(
                    f"the journal takes no {self.text(str(key))!r}: secrets are never written down",
                    where={"key": self.text(str(key))},
                    fix="leave it out of what is recorded",
                )
        return {self.text(str(key)): self._plain(value) for key, value in values.items()}

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self._plain(value.value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float | Decimal):
            return float(value) if math.isfinite(value) else None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._mapping({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, set | frozenset):
            return [self._plain(item) for item in sorted(value)]
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, PurePath):
            return self.text(value.as_posix())
        if isinstance(value, BaseException):
            return self.text(f"{type(value).__name__}: {value}")
        if hasattr(value, "tolist"):
            return self._plain(value.tolist())  # numpy
        raise StoreError(
            f"a {type(value).__name__} has no place in the journal",
            fix="record text, numbers, lists, mappings or dataclasses of them",
        )
