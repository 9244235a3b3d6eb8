"""JPEG files to frames on a GPU, decoded by the optional package nvImageCodec of NVIDIA.

Pillow still reads the head of a file, so limits of size and EXIF orientation are those of other pictures.
Files that the two would read differently are left to Pillow.
"""

import contextlib
import io
import logging
import os
import threading
import weakref
from typing import IO, Any, NamedTuple

from PIL import Image

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.frames import DeviceFrame, turned
from pixelclip_sdk.errors import BackendError, BackendUnavailableError
from pixelclip_sdk.image import ImageInput, upright
from pixelclip_sdk.support.colour_profile import is_srgb
from pixelclip_sdk.support.files import is_file, user_path
from pixelclip_sdk.support.images import ignore_warnings, open_image_file, orientation
from pixelclip_sdk.support.packages import imported

__all__ = ["Jpeg", "JpegDecoder", "read_jpeg"]

_log = logging.getLogger(__name__)

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
# A file may be so much larger than its pixels. The rest would be read for nothing.
_EXTRA_BYTES = 1 << 20
# nvImageCodec reads it when it is imported. At 0 its parts report no errors: what failed is logged here.
_VERBOSITY = "PYNVIMGCODEC_VERBOSITY"


class Jpeg(NamedTuple):
    """A JPEG file: its content, its size `(H, W)` before it is turned, and its EXIF orientation, 1 to 8."""

    data: bytes
    size: tuple[int, int]
    orientation: int


def read_jpeg(source: ImageInput) -> Jpeg | str | None:
    """Read a JPEG file, without decoding it.

    Returns:
        The file; or why only Pillow decodes it right; or None if it is no JPEG file, or cannot be read.
    """
    stream: IO[bytes]
    try:
        if isinstance(source, bytes | bytearray):
            stream = io.BytesIO(source)
        elif isinstance(source, str | os.PathLike) and is_file(path := user_path(source)):
            stream = path.open("rb")
        else:
            return None
        with stream:
            if stream.read(len(_START)) != _START:
                return None
            stream.seek(0)
            return _described(stream)
    except Exception:  # Pillow's errors have many types. Decoding with Pillow raises the error again.
        return None


def _described(stream: IO[bytes]) -> Jpeg | str:
    with ignore_warnings(), open_image_file(stream) as image:  # Refuses pictures with too many pixels.
        profile = image.info.get("icc_profile")
        components = bytes(part[0] for part in getattr(image, "layer", ()))
        if image.format != "JPEG":
            return f"format {image.format}"
        if image.mode not in ("RGB", "L"):
            return f"mode {image.mode}"
        if image.info.get("adobe_transform", 1) == 0 or components == b"RGB":
            return "colours are not YCbCr"
        if profile and not is_srgb(profile):
            return "a colour profile other than sRGB"
        turn = orientation(image)
        size = image.height, image.width
        stream.seek(0)
        most = 3 * size[0] * size[1] + _EXTRA_BYTES
        data = stream.read(most + 1)
    if len(data) > most or not data.endswith(_END):
        return "it is truncated, or something follows the picture"
    return Jpeg(data, size, turn)


class JpegDecoder:
    """Decodes JPEG files on a GPU, if nvImageCodec is installed and works. Safe to call from several threads.

    It is loaded with the first JPEG file. What was chosen is logged then.

    Attributes:
        description: ``"nvImageCodec 0.9.0"``; empty before the first file, and if Pillow decodes.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.description = ""
        self._cuda, self._process = cuda, os.getpid()
        self._lock = threading.Lock()
        self._module: Any = None
        self._params: Any = None
        self._usable = True
        self._said: set[str] = set()
        # A thread takes one, or makes one. Their number is that of the threads that decode at the same time.
        self._free: list[_Codec] = []

    def decode(self, source: ImageInput) -> DeviceFrame | None:
        """Decode a file, upright and on this GPU; None if it is for Pillow, which is logged once."""
        if not self._usable or os.getpid() != self._process or (found := read_jpeg(source)) is None:
            return None
        with self._lock:
            if self._module is None and self._usable:
                self._load()
        if not self._usable:
            return None
        if isinstance(found, str):
            if self._first(found):
                _log.info("JPEG files of this kind are decoded by Pillow: %s", found)
            return None
        frame = self._decode(found)
        if frame is None and self._first("failed"):
            _log.warning(
                "%s cannot decode a JPEG file of %d×%d pixels: it is damaged, of a rare kind, or too large "
                "for the GPU's memory. Such files are decoded by Pillow, and not reported again.",
                *(self.description, found.size[1], found.size[0]),
            )
        return frame

    def close(self) -> None:
        """Release the decoders. Frames that they decoded stay readable."""
        self._usable = False
        self._free.clear()

    def _load(self) -> None:
        before = os.environ.get(_VERBOSITY)
        os.environ.setdefault(_VERBOSITY, "0")
        try:
            module = imported("nvidia.nvimgcodec", '"pixelclip-sdk[nvcodec]"')
            self._params = module.DecodeParams(
                apply_exif_orientation=False, color_spec=module.ColorSpec.SRGB, allow_any_depth=False
            )
            self._module = module
            sample = io.BytesIO()
            Image.new("RGB", (32, 32)).save(sample, "JPEG")
            if self._decode(Jpeg(sample.getvalue(), (32, 32), 1)) is None:
                raise BackendError(
                    "it cannot decode a small sample. Is nvJPEG there, for the CUDA of your driver? "
                    'pip install "nvidia-nvimgcodec-cu13[nvjpeg]" (or -cu12)'
                )
        except (BackendUnavailableError, BackendError, RuntimeError, OSError) as error:
            self._usable, missing = False, isinstance(error, BackendUnavailableError)
            _log.log(
                logging.INFO if missing else logging.WARNING,
                "JPEG files are decoded by Pillow, which takes longer. nvImageCodec cannot be used: %s",
                error,
            )
            return
        finally:
            if before is None:
                os.environ.pop(_VERBOSITY, None)
        self.description = f"nvImageCodec {module.__version__}"
        _log.info("JPEG files are decoded on the GPU by %s", self.description)

    def _decode(self, jpeg: Jpeg) -> DeviceFrame | None:
        with self._cuda.current():
            try:
                codec = self._free.pop()
            except IndexError:
                codec = _Codec(self._cuda, self._module)
            try:
                stream = self._module.CodeStream(jpeg.data)
                image = codec.decoder.decode(stream, params=self._params, cuda_stream=int(codec.stream))
                interface = None if image is None else image.__cuda_array_interface__
            except Exception as error:  # pybind11 makes RuntimeError and others of what its C++ throws.
                _log.debug("nvImageCodec: %s", error)
                return None
            finally:
                self._free.append(codec)
        if interface is None or tuple(interface["shape"]) != (*jpeg.size, 3):
            return None
        seen = turned(interface, lambda array: upright(array, jpeg.orientation))
        return DeviceFrame(_Picture(seen, image, stream, codec), decoded=True)

    def _first(self, reason: str) -> bool:
        with self._lock:
            first = reason not in self._said
            self._said.add(reason)
        return first


class _Codec:
    """A decoder, and the stream that it works on. One thread uses it at a time."""

    def __init__(self, cuda: Cuda, module: Any) -> None:
        release = contextlib.ExitStack()
        self.stream = cuda.stream(release)
        weakref.finalize(self, _release, cuda, release, os.getpid()).atexit = False
        # Not on the CPU: what only a CPU decodes is for Pillow. It also interpolates colours as Pillow does.
        kinds = module.BackendKind
        self.decoder = module.Decoder(
            device_id=cuda.gpu.index,
            max_num_cpu_threads=1,
            backends=[
                module.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
            ],
            options=":fancy_upsampling=1",
        )


def _release(cuda: Cuda, release: contextlib.ExitStack, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(BackendError), cuda.current():
            release.close()


class _Picture:
    """A decoded picture in nvImageCodec's memory, turned. It keeps alive what the memory needs."""

    def __init__(self, interface: dict[str, Any], image: Any, stream: Any, codec: _Codec) -> None:
        self.__cuda_array_interface__ = interface
        self._image, self._stream, self._codec = image, stream, codec

    def __del__(self) -> None:
        self._image = None  # First, because it is freed on the stream of the codec.
