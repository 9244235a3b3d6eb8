import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import PixelClipError, Proposal, propose_min_confidence

RED, GREEN, BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
DOUBTFUL = (255, 254, 0)  # Red wins, barely.


def plain(colour):
    return np.full((64, 64, 3), colour, np.uint8)


def test_a_limit_separates_what_can_be_separated(fake):
    doubtful = [plain(DOUBTFUL), plain((255, 253, 0))]
    assert (fake.predict(doubtful[0]).labels == 0).all()
    proposals = propose_min_confidence(fake, {"red": [plain(RED), plain((250, 20, 0))]}, doubtful)
    assert proposals["red"].found == 1
    assert proposals["red"].false_alarms == 0
    assert (proposals["red"].photos, proposals["red"].others) == (2, 2)
    fake.min_confidence = {"red": proposals["red"].min_confidence}
    assert (fake.predict(doubtful[0]).labels == 255).all()
    assert (fake.predict(plain(RED)).labels == 0).all()


def test_photos_of_other_classes_are_photos_without(fake):
    both = plain(RED)
    both[:, 32:] = GREEN
    photos = {"red": [plain(RED), both], "green": [plain(GREEN), both], "blue": [plain(BLUE)]}
    proposals = propose_min_confidence(fake, photos)
    assert [(p.photos, p.others) for p in proposals.values()] == [(2, 2), (2, 2), (1, 3)]
    assert all(p.found == 1 and p.false_alarms == 0 for p in proposals.values())


def test_the_segmenter_s_own_limit_has_no_effect(fake):
    before = propose_min_confidence(fake, {"red": [plain(RED)]}, [plain(BLUE)])
    fake.min_confidence = 1.0
    assert propose_min_confidence(fake, {"red": [plain(RED)]}, [plain(BLUE)]) == before


def test_false_alarms_can_be_limited(fake):
    """One of the photos with the class, and all others, are doubtful."""
    photos, others = {"red": [plain(RED), plain(DOUBTFUL)]}, [plain(DOUBTFUL)] * 2
    many = propose_min_confidence(fake, photos, [image.copy() for image in others], max_false_alarms=1.0)
    assert (many["red"].found, many["red"].false_alarms, many["red"].others) == (1, 1, 2)
    none = propose_min_confidence(fake, photos, others, max_false_alarms=0.0)
    assert (none["red"].found, none["red"].false_alarms) == (0.5, 0)


def test_a_photo_is_known_by_its_path(fake, tmp_path):
    file = tmp_path / "photo.png"
    Image.fromarray(plain(RED)).save(file)
    proposals = propose_min_confidence(fake, {"red": [file], "green": [str(file)]}, [plain(BLUE)])
    assert isinstance(proposals["red"], Proposal)
    assert (proposals["red"].photos, proposals["red"].others) == (1, 1)


@pytest.mark.parametrize(
    ("photos", "problem"),
    [
        ({"rad": [plain(RED)]}, "'rad', which is no class. Did you mean 'red'"),
        ({"red": [plain(RED)]}, "no photos without 'red'"),
        ({"red": [], "blue": [plain(BLUE)]}, "no photos with 'red'"),
    ],
)
def test_photos_that_cannot_be_used_are_an_error(fake, photos, problem):
    with pytest.raises(PixelClipError, match=problem):
        propose_min_confidence(fake, photos)
    with pytest.raises(PixelClipError, match="expected 0 to 1"):
        propose_min_confidence(fake, {}, max_false_alarms=2)
