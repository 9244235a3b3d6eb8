"""Lets atheris (https://github.com/google/atheris) attack one kind of file. Started by ``fuzz.py --guided``.

``python -m benchmarks.attack.guided KIND FOLDER [OPTIONS OF LIBFUZZER]``
"""

import contextlib
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["pixelclip_sdk", "training", "PIL", "tokenizers", "yaml", "torch._weights_only_unpickler"]
):
    import PIL.Image
    import PIL.PngImagePlugin  # noqa: F401
    import yaml  # noqa: F401

    from benchmarks.attack.seeds import seeds
    from benchmarks.attack.targets import TARGETS

from pixelclip_sdk.errors import PixelClipError

__all__: list[str] = []


def main() -> None:
    """Attacks until libFuzzer's options end it; an error outside of the tree ends it at once."""
    kind, folder, options = sys.argv[1], sys.argv[2], sys.argv[3:]
    logging.disable(logging.CRITICAL)
    place = tempfile.mkdtemp()
    file = Path(place, f"file{TARGETS[kind].suffix}")
    file.write_bytes(seeds(kind)[0])
    TARGETS[kind].read(file)

    def attack(content: bytes) -> None:
        file.write_bytes(content)
        with contextlib.suppress(PixelClipError):
            TARGETS[kind].read(file)

    limits = ["-rss_limit_mb=4000", "-timeout=60", "-max_len=20000", "-print_final_stats=1"]
    artifacts = f"-artifact_prefix={place}/"
    atheris.Setup([sys.argv[0], folder, *limits, artifacts, *options], attack)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
