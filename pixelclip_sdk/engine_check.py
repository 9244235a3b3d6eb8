"""Does a TensorRT engine give the labels of the ONNX file that it was compiled from?

`export/to_trt.py` asks where it finds a GPU that runs the engine. Otherwise `check_once` asks when the engine
is loaded for the first time, and keeps the answer: in the sidecar, or in the user's cache if that cannot be
written.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelclip_sdk.agreement import GATES, Samples, gate
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.choose import open_backend, resolve_input_spec
from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.backends.tensorrt import TensorRTBackend
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import BackendError, OutputError
from pixelclip_sdk.support.files import atomic_write, cache_folder
from pixelclip_sdk.support.json_files import read_json

__all__ = ["check_once", "compare", "not_run"]

_log = logging.getLogger(__name__)


def compare(engine: TensorRTBackend, bundle: Bundle, photos: Sequence[Path] | None = None) -> dict[str, Any]:
    """Compare an engine with the bundle's ONNX file on the CPU; return the report for the sidecar.

    Raises BackendError if fewer labels agree than an export in the engine's precision must reach.
    """
    spec = resolve_input_spec(engine, bundle.input, resized=False)
    with open_backend(bundle, "onnx", "cpu") as reference:
        samples = Samples(bundle, reference, spec=spec, photos=photos, most=engine.max_classes)
        share = float(np.mean(samples.agreements(engine)))
    least = min(gate(bundle), _gate(engine.info))
    report = {
        "status": "passed",
        "compute_capability": engine.compute_capability,
        "photos": len(samples.images),
        "words": len(samples.text),
        "label_agreement": float(f"{share:.4g}"),
        "gate": least,
    }
    if not share >= least:
        raise BackendError(
            f"{engine.description} gives {share:.2%} of the pixels the label that the ONNX file gives; "
            f"expected {least:.2%}. Compile the engine again, or a bundle of higher precision."
        )
    return report


def not_run(reason: str) -> dict[str, Any]:
    """Return the report of an engine that could not be compared where it was compiled."""
    return {"status": "not run", "reason": reason}


def check_once(engine: Backend, bundle: Bundle) -> None:
    """Compare an engine with its ONNX file, unless that was done on this kind of GPU; keep that it passed.

    Raises BackendError if it gives other labels.
    """
    if not isinstance(engine, TensorRTBackend):
        return
    kept = _kept_in_cache(engine.info)
    if any(_passed(report, engine) for report in (engine.info.verification, _read(kept))):
        return
    _log.info("%s: comparing %s with the ONNX file, once", bundle.name, engine.plan.name)
    report = compare(engine, bundle)
    changed = dataclasses.replace(engine.info, verification=report)
    try:
        with atomic_write(engine.plan.with_suffix(".json")) as temporary:
            temporary.write_text(changed.to_json(), encoding="utf-8")
    except OutputError as error:
        if kept is None:
            _log.warning("that %s passed is not kept: %s", engine.plan.name, error)
            return
        try:
            with atomic_write(kept) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OutputError as second:
            _log.warning("that %s passed is not kept: %s", engine.plan.name, second)


def _gate(info: EngineInfo) -> float:
    """The gate of exports in the precision of the arithmetic. TF32 has the mantissa of fp16."""
    rounds = info.precision == "fp32" and info.options.get("tf32")
    return GATES.get("fp16" if rounds else info.precision, GATES["int8"])


def _passed(report: Mapping[str, Any], engine: TensorRTBackend) -> bool:
    same = report.get("compute_capability") == engine.compute_capability
    return report.get("status") == "passed" and same


def _kept_in_cache(info: EngineInfo) -> Path | None:
    cache = cache_folder()
    return None if cache is None else cache / "compared-engines" / f"{info.plan_sha256}.json"


def _read(file: Path | None) -> Mapping[str, Any]:
    try:
        found = {} if file is None else read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
