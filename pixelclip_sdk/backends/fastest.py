"""The fastest engine of this machine's CPU for a bundle: measured once, and kept in the user's cache."""

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from pixelclip_sdk.backends.cores import checked_threads, processor
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.support.files import atomic_write, cache_folder
from pixelclip_sdk.support.json_files import read_json

_log = logging.getLogger(__name__)

_ENGINES = ("openvino-bf16", "openvino")
_DEFAULT = "onnx"
_LIMIT_S = 180.0
_METHOD = 1  # Changes with the way of measuring.


def fastest_on_cpu(bundle: Bundle, threads: int | None) -> tuple[str, str]:
    """Return the name of the fastest backend of the CPU whose labels pass the bundle's gate, and the reason.

    Without OpenVINO that is ``"onnx"``. Otherwise `pixelclip_sdk.race` measures it, some seconds in a process
    of its own. The result is kept below the cache folder for this model, these versions and this processor.
    """
    if importlib.util.find_spec("openvino") is None:
        return _DEFAULT, "openvino is not installed"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return _DEFAULT, f"openvino was not measured on {platform.machine()}"
    file = record_file(bundle, threads)
    if file is None:
        return _DEFAULT, "no folder can be written where a measurement would be kept (PIXELCLIP_HOME)"
    try:
        kept = read_json(file)
        return _checked(kept["backend"]), f"{kept['why']} (measured before: {file})"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if not Path(sys.executable or "").name.startswith("python") or getattr(sys, "frozen", False):
        return _DEFAULT, "a program without a Python of its own cannot measure other engines"
    _log.info("%s: measuring once which engine is fastest on this processor", bundle.name)
    result = _race(bundle, threads)
    why = _why(result)
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({"model": bundle.name, **result, "why": why}, indent=1) + "\n")
    except OutputError as error:
        _log.warning("the measurement is not kept: %s", error)
    return result["backend"], why


def record_file(bundle: Bundle, threads: int | None) -> Path | None:
    """Return the file of the measurement, or None if no folder can be written."""
    cache = cache_folder()
    if cache is None:
        return None
    folder = cache / "fastest"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    facts = [bundle.image_hash, bundle.verification.get("gate"), _METHOD, processor()]
    facts += [checked_threads(threads), *_versions()]
    return folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


def _versions() -> tuple[str, str]:
    import onnxruntime  # Here: `import pixelclip_sdk` stays light.

    return onnxruntime.__version__, importlib.metadata.version("openvino")


def _checked(name: Any) -> str:
    if name not in (_DEFAULT, *_ENGINES):
        raise ValueError(f"backend is {name!r}")
    return str(name)


def _race(bundle: Bundle, threads: int | None) -> dict[str, Any]:
    """Return the result of `pixelclip_sdk.race`; an engine that ends the process is left out then."""
    names = list(_ENGINES)
    failed: dict[str, Any] = {}
    while names:
        command = [sys.executable, "-P", "-m", "pixelclip_sdk.race", str(bundle.path.absolute())]
        command += ["" if threads is None else str(threads), *names]
        # The child finds the packages of this process, whatever the working directory holds.
        places = os.pathsep.join(place for place in sys.path if place)
        try:
            ended = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": places},
                timeout=_LIMIT_S,
                check=False,
            )
            output, reason = ended.stdout, f"ended the process with status {ended.returncode}"
        except subprocess.TimeoutExpired as error:
            output, reason = error.stdout or b"", f"took more than {_LIMIT_S:g} s"
        except OSError as error:
            output, reason = b"", f"cannot be started: {error.strerror}"
        trying = ""
        for line in output.decode(errors="replace").splitlines():
            try:
                message = json.loads(line)
                trying = message.get("trying", trying)
                if result := message.get("result"):
                    return {**result, "engines": {**result["engines"], **failed}}
            except (ValueError, AttributeError):
                continue  # A library printed something.
        failed[trying or "the measurement"] = {"reason": reason}
        names = [name for name in names if name != trying] if trying in names else []
    return {"backend": _DEFAULT, "engines": failed}


def _why(result: dict[str, Any]) -> str:
    """Describe a result in one line."""
    parts = []
    for name, facts in result["engines"].items():
        if "reason" in facts:
            parts.append(f"{name}: {facts['reason']}")
            continue
        part = f"{name} is {facts['speedup']:.2f} times as fast as onnx"
        if facts["agreement"] < result["gate"]:
            agreement, least = facts["agreement"], result["gate"]
            part += f", but gives only {agreement:.1%} of a photo its labels (gate: {least:.1%})"
        parts.append(part)
    return "; ".join(parts)
