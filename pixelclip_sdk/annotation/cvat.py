"""An auto-annotation function for CVAT: the model labels the pictures of a task with the task's own labels.

Needs the extra ``cvat``. From the shell: ``cvat-cli task auto-annotate ID --function-module
pixelclip_sdk.annotation.cvat -p classes='str:cat, sofa'``; docs/annotation.md has Python as well.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from pixelclip_sdk.results.annotation import cvat_mask, cvat_polygon
from pixelclip_sdk.segmentation import REGION_AREA
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["CvatFunction", "create", "for_task"]

_EXTRA = '"pixelclip-sdk[cvat]"'


class _Context(Protocol):
    """What is used of ``cvat_sdk.auto_annotation.DetectionFunctionContext``."""

    conf_threshold: float | None
    conv_mask_to_poly: bool


class CvatFunction:
    """A detection function, as ``cvat_sdk.auto_annotation.annotate_task`` takes it.

    Args:
        segmenter: A model with its words. Their names must be labels of the task, of the type ``mask``,
            ``polygon`` (with ``conv_mask_to_poly``) or ``any``.
        min_area: Smaller regions are left out: a share of the image, 0–1.

    Raises:
        BackendUnavailableError: The extra ``cvat`` is not installed.
        VocabularyError: The segmenter has no words.
    """

    def __init__(self, segmenter: Segmenter, *, min_area: float = REGION_AREA) -> None:
        self._cvat = imported("cvat_sdk.auto_annotation", _EXTRA)
        self._segmenter = segmenter
        self._min_area = min_area
        names = segmenter.vocabulary.names
        self.spec = self._cvat.DetectionFunctionSpec(
            labels=[self._cvat.label_spec(name, label, type="mask") for label, name in enumerate(names)]
        )

    def detect(self, context: _Context, image: Image.Image) -> Sequence[Any]:
        """Segment a picture.

        Args:
            context: What CVAT wants: masks or polygons, and the smallest confidence of a region.
            image: The picture. It is not turned by its EXIF data, because CVAT has done that.

        Returns:
            One ``LabeledShapeRequest`` for each region, largest first.

        Raises:
            ImageError: The image cannot be used.
        """
        result = self._segmenter.predict(image.convert("RGB"))
        least = context.conf_threshold or 0
        return [
            self._cvat.polygon(region.label, cvat_polygon(region))
            if context.conv_mask_to_poly
            else self._cvat.mask(region.label, cvat_mask(region))
            for region in result.regions(min_area=self._min_area)
            if not least or region.confidence >= least
        ]


def create(
    classes: str | Classes | Vocabulary,
    model: str = "pixelclip-lite",
    background: str | None = None,
    min_confidence: float | None = None,
    min_area: float = REGION_AREA,
) -> CvatFunction:
    """Make the function, as ``cvat-cli`` does with its options ``-p``.

    Args:
        classes: The words; their names must be labels of the task.
        model: A model's name or a bundle's folder.
        background: Words that win pixels, which get no label; written like `classes`.
        min_confidence: Pixels with a lower confidence, 0–1, get no label.
        min_area: Smaller regions are left out: a share of the image.

    Raises:
        BackendUnavailableError: The extra ``cvat`` is not installed.
        PixelClipError: The model, the words or a limit cannot be used.

    Examples:
        >>> create("cat, sofa").spec.labels[1].name  # doctest: +SKIP
        'sofa'
    """
    imported("cvat_sdk.auto_annotation", _EXTRA)  # Before the model is loaded.
    words = read_classes(classes) if isinstance(classes, str) else classes
    unwanted = None if background is None else read_classes(background)
    segmenter = Segmenter.from_pretrained(
        model, classes=words, background=unwanted, min_confidence=min_confidence
    )
    return CvatFunction(segmenter, min_area=min_area)


def for_task(client: Any, task_id: int, **settings: Any) -> CvatFunction:
    """Make the function for a task of CVAT, with the names of its labels as the words.

    Args:
        client: A ``cvat_sdk.Client``.
        task_id: The task.
        **settings: Settings of `create`, but for `classes`.

    Raises:
        VocabularyError: The task has no labels that take masks or polygons, or their names cannot be words.
    """
    labels = client.tasks.retrieve(task_id).get_labels()
    names = [label.name for label in labels if str(label.type) in ("mask", "polygon", "any")]
    return create(names, **settings)
