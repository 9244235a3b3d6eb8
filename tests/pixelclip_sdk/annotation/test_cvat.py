"""The function of CVAT, with the types and the checks of the real cvat-sdk."""

import logging

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelclip_sdk import VocabularyError

cvat = pytest.importorskip("cvat_sdk.auto_annotation", reason="the extra cvat is not installed")

import attrs  # noqa: E402
from cvat_sdk import models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402
from cvat_sdk.masks import decode_mask  # noqa: E402

from pixelclip_sdk.annotation.cvat import CvatFunction, create, for_task  # noqa: E402


@attrs.frozen(kw_only=True)
class Context(cvat.DetectionFunctionContext):
    frame_name: str = "photo.jpg"
    conf_threshold: float | None = None
    conv_mask_to_poly: bool = False


def accepted(function, shapes, names, kind="mask", *, polygons=False):
    """What CVAT's driver uploads: it checks the shapes and puts the labels of a task in."""
    labels = [
        models.Label(id=100 + i, name=name, type=kind, attributes=[], sublabels=[])
        for i, name in enumerate(names)
    ]
    mapper = driver._AnnotationMapper(
        logging.getLogger("test"),
        function.spec.labels,
        labels,
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )
    tags, uploaded = mapper.validate_and_remap(shapes, ds_frame=7)
    assert tags == []
    assert {shape.frame for shape in uploaded} == {7}
    return uploaded


def test_cvat_takes_the_masks_and_reads_the_labels(fake, patches):
    function = CvatFunction(fake)
    shapes = function.detect(Context(), Image.fromarray(patches))
    expected = fake.predict(patches)
    uploaded = accepted(function, shapes, ["red", "green", "blue"])
    assert {shape.label_id for shape in uploaded} == {100, 101, 102}
    covered = np.zeros((64, 64), bool)
    for shape in uploaded:
        mask = decode_mask(shape.points, image_width=64, image_height=64)
        assert (expected.labels[mask] == shape.label_id - 100).all()
        covered |= mask
    assert covered.all()


def test_cvat_takes_polygons(fake, patches):
    function = CvatFunction(fake)
    shapes = function.detect(Context(conv_mask_to_poly=True), Image.fromarray(patches))
    expected = fake.predict(patches)
    for shape in accepted(function, shapes, ["red", "green", "blue"], "polygon", polygons=True):
        picture = Image.new("1", (64, 64))
        points = np.array(shape.points).reshape(-1, 2)
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=1, outline=1)
        assert (expected.labels[np.asarray(picture)] == shape.label_id - 100).all()


def test_regions_below_the_threshold_are_left_out(fake, patches):
    confidences = sorted(region.confidence for region in fake.predict(patches).regions())
    between = (confidences[0] + confidences[-1]) / 2
    shapes = CvatFunction(fake).detect(Context(conf_threshold=between), Image.fromarray(patches))
    assert len(shapes) == sum(value >= between for value in confidences)
    assert 0 < len(shapes) < 3


def test_the_words_are_the_labels_of_the_task(photo):
    class Task:
        def get_labels(self):
            return [
                models.Label(name=name, type=kind, attributes=[], sublabels=[])
                for name, kind in (("cat", "mask"), ("window_frame", "any"), ("box", "rectangle"))
            ]

    class Client:
        class tasks:  # noqa: N801
            retrieve = staticmethod(lambda task_id: {3: Task()}[task_id])

    function = for_task(Client, 3)
    assert [label.name for label in function.spec.labels] == ["cat", "window_frame"]
    shapes = function.detect(Context(), Image.fromarray(photo))
    assert accepted(function, shapes, ["cat", "window_frame"])


def test_words_that_cannot_be_used_are_errors_of_the_sdk():
    with pytest.raises(VocabularyError, match="'cat' is repeated"):
        create(["cat", "cat"])
