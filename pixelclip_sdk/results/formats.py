"""Results in the formats of other tools. `Segmentation` has a method for each of them.

COCO holds masks as run lengths, which are exact. Polygons of labelme and YOLO are `Region.outline`: a reader
that fills them and draws their line, as these tools do, gets exactly the mask.
"""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelclip_sdk.results.regions import Region
from pixelclip_sdk.support.packages import imported

if TYPE_CHECKING:
    from pixelclip_sdk.segmentation import Segmentation

__all__ = [
    "coco_annotations",
    "coco_categories",
    "coco_image",
    "labelme",
    "portable",
    "summary",
    "supervision_detections",
    "yolo_data",
    "yolo_lines",
]

Json = dict[str, Any]

# Some readers of YOLO's polygons round to pixels and others cut off the fraction. With this many pixels more,
# both get the pixel that was written.
_BETWEEN = 0.25


def summary(result: "Segmentation", regions: Sequence[Region]) -> Json:
    """Returns the facts of a result; see `Segmentation.summary`."""
    areas = result.areas()
    return {
        "size": list(result.orig_shape),
        "areas": {name: round(area, 6) for name, area in areas.items() if area > 0},
        "unknown_area": round(max(1 - sum(areas.values()), 0), 6),
        "regions": [region.summary() for region in regions],
        "speed_ms": {stage: round(time, 3) for stage, time in result.speed.items()},
        "frame": dataclasses.asdict(result.frame) if result.frame else None,
    }


def supervision_detections(regions: Sequence[Region]) -> Any:
    """Returns the regions as ``supervision.Detections``; see `Segmentation.to_supervision`."""
    detections = imported("supervision", "supervision").Detections
    if not regions:
        return detections.empty()
    return detections(
        xyxy=np.array([region.box for region in regions], np.float32),
        mask=np.stack([region.mask() for region in regions]),
        confidence=np.array([region.confidence for region in regions], np.float32),
        class_id=np.array([region.label for region in regions]),
        data={"class_name": np.array([region.name for region in regions])},
    )


def coco_categories(names: Sequence[str]) -> list[Json]:
    """Returns the categories of a COCO file. Their ids are the labels plus 1: COCO's begin with 1."""
    return [{"id": label + 1, "name": name, "supercategory": ""} for label, name in enumerate(names)]


def coco_image(result: "Segmentation", file_name: str, image_id: int) -> Json:
    """Returns the entry of an image in a COCO file."""
    height, width = result.orig_shape
    return {"id": image_id, "file_name": file_name, "height": height, "width": width}


def coco_annotations(regions: Sequence[Region], image_id: int, first: int) -> list[Json]:
    """Returns one annotation for each region, with ids from `first` on."""
    found = []
    for number, region in enumerate(regions, start=first):
        x0, y0, x1, y1 = region.box
        found.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": region.label + 1,
                "segmentation": region.rle(),
                "area": region.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
        )
    return found


def labelme(result: "Segmentation", regions: Sequence[Region], image_path: str) -> Json:
    """Returns the content of a labelme file; see `Segmentation.to_labelme`."""
    height, width = result.orig_shape
    shapes: list[Json] = [
        {
            "label": region.name,
            "points": _at_least_three(region.outline.astype(float).tolist()),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for region in regions
    ]
    return {
        "version": "5.5.0",  # of labelme's format
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def yolo_lines(result: "Segmentation", regions: Sequence[Region]) -> str:
    """Returns the content of a YOLO segmentation file; see `Segmentation.to_yolo_seg`."""
    height, width = result.orig_shape
    lines = []
    for region in regions:
        points = _at_least_three(((region.outline + _BETWEEN) / (width, height)).tolist())
        numbers = " ".join(f"{x:.7f} {y:.7f}" for x, y in points)
        lines.append(f"{region.label} {numbers}\n")
    return "".join(lines)


def yolo_data(names: Sequence[str]) -> str:
    """Returns the content of ``data.yaml`` for a folder with the folders ``images`` and ``labels``."""
    listed = "".join(f"  {label}: {_yaml_text(name)}\n" for label, name in enumerate(names))
    return f"train: images\nval: images\nnc: {len(names)}\nnames:\n{listed}"


def _yaml_text(text: str) -> str:
    """A name between double quotes. JSON's escapes are YAML's, but YAML has more that must be escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _at_least_three(points: list[list[float]]) -> list[list[float]]:
    """Repeats the last of one or two points, because readers expect at least three."""
    return points + points[-1:] * (3 - len(points))


def portable(path: str | os.PathLike[str]) -> str:
    """Returns a path with ``/`` between its parts, as these formats expect on every system."""
    return os.fspath(path).replace(os.sep, "/")
