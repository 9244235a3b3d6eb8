"""The published models that `pixelclip pull` can fetch: where the weights are, their size and licence."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CATALOGUE", "PublishedModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Published weights that can be converted to a bundle."""

    name: str
    repository: str  # OWNER/NAME on the hub.
    files: Sequence[str]  # Paths in the repository; the first that exists is used.
    license: str  # SPDX expression.
    license_note: str = ""  # Where the licence is stated, if not with the weights.
    megabytes: int  # Approximate download size: fp32 parameters of both towers.
    revision: str | None = None  # The commit to download, 40 hex digits; None if none is pinned.
    # SHA-256 of the file, 64 hex digits. None if it is not known: then the hash of the first download is
    # recorded, and later downloads must match it.
    sha256: str | None = None

    @property
    def url(self) -> str:
        """Address of the weights."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision or 'main'}/{self.files[0]}"

    def describe(self) -> str:
        """The address, size, licence and pin, for messages."""
        pinned = "pinned by hash" if self.revision or self.sha256 else "no hash known; the first is recorded"
        note = f" ({self.license_note})" if self.license_note else ""
        return f"{self.url} (about {self.megabytes} MB, licence {self.license}{note}, {pinned})"


_FILE = Path(__file__).parent / "assets" / "catalogue.json"

CATALOGUE = {
    fields["name"]: PublishedModel(**fields) for fields in json.loads(_FILE.read_text(encoding="utf-8"))
}
"""Name → published model: the official checkpoints and the baselines that they start from."""
