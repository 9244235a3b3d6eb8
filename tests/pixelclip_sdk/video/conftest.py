from fractions import Fraction

import numpy as np
import pytest

from pixelclip_sdk.video.writer import write_video


@pytest.fixture
def noise(tmp_path):
    """Writes a video of 40 frames of noise, none of which can be predicted from the others."""
    pytest.importorskip("av")

    def write(name):
        rng = np.random.default_rng(0)
        with write_video(tmp_path / name, Fraction(25)) as writer:
            for _ in range(40):
                writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        return tmp_path / name

    return write
