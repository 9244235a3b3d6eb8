"""Machine code of the kernels for one kind of GPU, made by NVRTC, NVIDIA's runtime compiler, and kept.

It is made on the machine that runs it. So the SDK has one source and no binaries, and a new kind of GPU needs
no release. NVRTC needs no GPU.
"""

import contextlib
import hashlib
import logging
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import BackendError, BackendUnavailableError, OutputError
from pixelclip_sdk.support.files import atomic_write, cache_folder

__all__ = ["SOURCES", "compiled"]

_log = logging.getLogger(__name__)

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.cu", "edges.cu", "smooth.cu"))
"""Files that are compiled as one."""
# Without fused products and sums, labels are those of the CPU's path (docs/adr/0028).
_OPTIONS = (b"--fmad=false", b"--std=c++17")
_HASH_BYTES = 32


def compiled(compute_capability: str) -> bytes:
    """Return the kernels as machine code (a cubin) for a GPU, compiled now or on an earlier day.

    For a GPU that is newer than NVRTC, it is PTX of the newest kind that NVRTC knows; the driver compiles it.

    Args:
        compute_capability: Of the GPU, e.g. ``"8.6"``.

    Raises:
        BackendUnavailableError: NVRTC or cuda-bindings is not installed, or it is too new for the GPU.
        BackendError: NVRTC refuses the source.
    """
    try:
        from cuda.bindings import nvrtc

        version = ".".join(map(str, _call(nvrtc, "nvrtcVersion")))
    # Its first call loads the library; without one, cuda-bindings raises a RuntimeError or its own errors.
    except (ImportError, RuntimeError, OSError) as error:
        raise BackendUnavailableError(
            f'NVRTC cannot be loaded: {_first_line(error)}. Install it: pip install "pixelclip-sdk[cuda]"; '
            "for cuda-bindings 12, pip install nvidia-cuda-nvrtc-cu12"
        ) from error
    known = list(_call(nvrtc, "nvrtcGetSupportedArchs"))
    wanted = int(compute_capability.replace(".", ""))
    usable = [one for one in known if one <= wanted]
    if not usable:
        raise BackendUnavailableError(
            f"the GPU has compute capability {compute_capability}; NVRTC {version} compiles for "
            f"{known[0] // 10}.{known[0] % 10} and above. Install an older nvidia-cuda-nvrtc."
        )
    target = f"sm_{wanted}" if wanted in known else f"compute_{usable[-1]}"
    source = b"".join(b'#line 1 "%s"\n%s' % (one.name.encode(), one.read_bytes()) for one in SOURCES)
    key = hashlib.sha256(b"\0".join([source, version.encode(), *_OPTIONS])).hexdigest()[:16]
    file = None if (cache := cache_folder()) is None else cache / "kernels" / f"{target}-{key}.bin"
    if file is not None and (kept := _read(file)) is not None:
        return kept
    code = _compile(nvrtc, source, target)
    _log.info("compiled the GPU kernels for %s with NVRTC %s", target, version)
    if file is not None:
        try:
            with atomic_write(file) as temporary:
                temporary.write_bytes(hashlib.sha256(code).digest() + code)
        except OutputError as error:
            _log.warning("the GPU kernels are compiled again at every start: %s", error)
    return code


def _read(file: Path) -> bytes | None:
    """Return the content of a kept file, or None if it is missing or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    code = content[_HASH_BYTES:]
    return code if hashlib.sha256(code).digest() == content[:_HASH_BYTES] else None


def _compile(nvrtc: Any, source: bytes, target: str) -> bytes:
    program = _call(nvrtc, "nvrtcCreateProgram", source, SOURCES[0].name.encode(), 0, None, None)
    try:
        options = [f"--gpu-architecture={target}".encode(), *_OPTIONS]
        try:
            _call(nvrtc, "nvrtcCompileProgram", program, len(options), options)
        except BackendError as error:
            text = b" " * _call(nvrtc, "nvrtcGetProgramLogSize", program)
            with contextlib.suppress(BackendError):
                _call(nvrtc, "nvrtcGetProgramLog", program, text)
            reason = text.decode(errors="replace").strip("\0 \n") or str(error)
            raise BackendError(f"NVRTC cannot compile the kernels for {target}: {reason}") from error
        kind = "CUBIN" if target.startswith("sm_") else "PTX"
        code: bytes = b" " * _call(nvrtc, f"nvrtcGet{kind}Size", program)
        _call(nvrtc, f"nvrtcGet{kind}", program, code)
        return code
    finally:
        _call(nvrtc, "nvrtcDestroyProgram", program)


def _call(nvrtc: Any, function: str, *arguments: Any) -> Any:
    status, *values = getattr(nvrtc, function)(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"{function} failed: {status.name}")
    return values if len(values) > 1 else values[0] if values else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
