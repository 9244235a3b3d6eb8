"""Decodes video files, cameras and network streams with the optional package PyAV, which wraps FFmpeg."""

import contextlib
import errno
import functools
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.device.frames import DeviceFrame
from pixelclip_sdk.device.video import VideoFrames
from pixelclip_sdk.errors import BackendUnavailableError, ImageError
from pixelclip_sdk.support.redact import redact
from pixelclip_sdk.video.frames import Frame, FrameSource

__all__ = ["VideoSource", "explain", "file_url", "import_av", "is_hd"]

_log = logging.getLogger(__name__)

# Seconds without data after which a camera or a server counts as lost.
_TIMEOUT_S = 10.0
# A file with less than this share of its frames and of its duration counts as truncated. Both are estimates.
_COMPLETE = 0.9
# Packets that are read to tell a film from a thumbnail.
_PROBED_PACKETS = 200
# AVCOL_SPC_BT709, AVCOL_SPC_UNSPECIFIED and AVCOL_SPC_SMPTE170M.
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 6
# Formats that are read from local files. Not listed: playlists and manifests (hls, dash, concat, sdp, imf)
# and numbered images (image2), which open other files or addresses.
_FILE_FORMATS = (
    "apng,asf,av1,avi,avs2,avs3,bink,cavsvideo,dirac,dnxhd,dv,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,ivr,"
    "live_flv,lxf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nsv,nut,obu,ogg,pva,rm,"
    "roq,smk,swf,vc1,vc1test,vvc,webm,wtv,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,png_pipe,ppm_pipe,tiff_pipe,webp_pipe,"  # One picture.
    "aac,ac3,aiff,amr,ape,caf,flac,mp3,w64,wav,wv"  # Sound; refused with a message of its own.
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NETWORK_PROTOCOLS = (
    "crypto,data,ftp,hls,http,httpproxy,https,mmsh,mmst,rist,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,rtp,sctp,"
    "sftp,srt,srtp,tcp,tls,udp,udplite,unix"
)


class VideoSource:
    """A video file, a camera or a network stream.

    Packets that cannot be decoded and frames that the decoder marks as corrupt are skipped and counted.

    `target` is a file, a device of FFmpeg's input `format` such as ``"v4l2"``, or with `network` an address.
    Frames of a `live` source are lost if they are not read.
    """

    def __init__(self, target: str, *, live: bool, format: str | None = None, network: bool = False) -> None:
        self._av = import_av()
        self._again = functools.partial(VideoSource, target, live=live, format=format, network=network)
        self.name = redact(target) if network else target
        self._opening = (target, live or network, format, network)
        self._gpu: VideoFrames | None = None
        self._release = contextlib.ExitStack()
        self._container = self._open(*self._opening)
        try:
            self._stream = self._choose_stream(may_reread=not live and not network)
            self._limit_size()
        except BaseException:
            self.close()
            raise
        self.live = live or (network and self._container.duration is None)
        self.fps = self._stream.average_rate
        self._duration_s, self.count = (None, None) if self.live else self._declared_length()

    def __iter__(self) -> Generator[Frame, None, None]:
        # Creating a reformatter takes longer than converting a small frame.
        reformatter = self._av.video.reformatter.VideoReformatter()
        first = time_s = None
        damaged = given = 0
        where: str | None = None
        for packet in self._packets():
            start = time.perf_counter()
            try:
                # A GPU's decoder allocates, also while another thread records a CUDA graph.
                with self._gpu.current() if self._gpu else contextlib.nullcontext():
                    pictures = packet.decode()
            except self._av.FFmpegError:
                damaged += 1
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    damaged += 1
                    continue
                image: Any = self._on_gpu(picture)
                found = "the CPU" if image is None else "the GPU"
                if self._gpu is not None and found != where:
                    _log.info("%s: frames come from %s", self.name, where := found)
                if image is None:
                    image = _to_rgb(reformatter, picture)
                first = picture.time if first is None else first
                time_s = None if picture.time is None or first is None else picture.time - first
                yield Frame(image, time_s, (time.perf_counter() - start) * 1e3, damaged)
                given += 1
                start = time.perf_counter()
        if self._is_truncated(given + damaged, time_s):
            _log.warning(
                "%s: it ended after %d of about %d frames; is it complete?", self.name, given, self.count
            )
        if not given:
            raise ImageError(
                f"no frame could be decoded ({damaged} damaged packets). Is it complete, with frames of at "
                f"most {Image.MAX_IMAGE_PIXELS} pixels (PIL.Image.MAX_IMAGE_PIXELS)?"
            )

    def decode_on(self, gpu: VideoFrames) -> None:
        """Let the video decoder of a GPU decode a file, if it can. To call before the first frame.

        Frames are then in the GPU's memory. What it cannot decode is decoded on the CPU. Cameras and
        addresses stay there, because they cannot be opened twice. `close` closes `gpu`.
        """
        self._release.callback(gpu.close)
        target, waits, format, network = self._opening
        if waits or network:
            _log.info("%s is decoded on the CPU: only files are decoded on the GPU", self.name)
            return
        # FFmpeg refuses to share a primary context that was initialised with other flags, so it takes the
        # current one, which is the same.
        accelerated = self._av.codec.hwaccel.HWAccel(
            "cuda", device=str(gpu.gpu), options={"primary_ctx": "0", "current_ctx": "1"}, is_hw_owned=True
        )
        try:
            with gpu.current():
                container = self._open(target, waits, format, network, accelerated)
        except ImageError as error:
            _log.warning("%s is decoded on the CPU. The GPU's video decoder: %s", self.name, error)
            return
        stream = container.streams[self._stream.index]
        if not stream.codec_context.is_hwaccel:
            _log.info("%s is decoded on the CPU: no GPU decodes %s", self.name, stream.codec_context.name)
            container.close()
            return
        self._container.close()
        self._container, self._stream, self._gpu = container, stream, gpu
        self._limit_size()

    def close(self) -> None:
        """Close the file, the camera or the connection."""
        self._container.close()
        self._release.close()

    def reopened(self) -> FrameSource:
        """Open the same target again; raises ImageError if that fails."""
        return self._again()

    def _on_gpu(self, picture: Any) -> DeviceFrame | None:
        """The frame of a picture that the GPU decoded; None for others, and for rare colours."""
        if self._gpu is None or picture.format.name != "cuda":
            return None
        matrix = picture.colorspace
        if matrix == _UNSPECIFIED:
            matrix = _BT709 if is_hd(picture.height, picture.width) else _BT601
        return self._gpu.frame(picture, matrix, round(picture.rotation / 90) % 4)

    def _open(
        self, target: str, waits: bool, format: str | None, network: bool, accelerated: Any = None
    ) -> Any:
        options = {}
        if network:
            options["protocol_whitelist"] = _NETWORK_PROTOCOLS
            # The default, UDP, loses packets and then seconds of video.
            if target.lower().startswith("rtsp"):
                options["rtsp_transport"] = "tcp"
        elif format is None:
            options |= {"protocol_whitelist": "file", "format_whitelist": _FILE_FORMATS}
        if Image.MAX_IMAGE_PIXELS is not None:
            options["max_pixels"] = str(Image.MAX_IMAGE_PIXELS)
        url = target if network or format else file_url(target)
        timeout = (_TIMEOUT_S, _TIMEOUT_S) if waits else None
        try:
            return self._av.open(url, format=format, options=options, timeout=timeout, hwaccel=accelerated)
        except (self._av.FFmpegError, ValueError) as error:
            kind = "a camera" if format else "a video"
            hint = "Is it there, complete, and not in use?"
            if isinstance(error, self._av.ArgumentError) and not (network or format):
                hint = "Its format is not supported. Playlists are not read from files."
            elif isinstance(error, self._av.error.ProtocolNotFoundError):
                hint = "The installed FFmpeg lacks it. Relay it as RTSP, or install av with your FFmpeg."
            reason = self._reason(error)
            raise ImageError(f"{self.name} cannot be opened as {kind}: {reason}. {hint}") from error

    def _choose_stream(self, *, may_reread: bool) -> Any:
        """Return the film: neither a cover picture nor a thumbnail of one frame."""
        cover = self._av.stream.Disposition.attached_pic
        streams = self._container.streams
        films = [i for i, stream in enumerate(streams.video) if not stream.disposition & cover]
        if not films:
            kind = "; it is audio with a cover picture" if streams.video else " in it"
            raise ImageError(f"{self.name} has no video{kind}. Expected a video file.")
        if len(films) > 1 and may_reread:
            packets: Counter[int] = Counter()
            with contextlib.suppress(self._av.FFmpegError):
                demuxed = self._container.demux([streams.video[i] for i in films])
                probed = itertools.islice(demuxed, _PROBED_PACKETS)
                packets.update(packet.stream.index for packet in probed if packet.size > 0)
            films = [i for i in films if packets[streams.video[i].index] > 1] or films
            self._container.close()
            self._container = self._open(*self._opening)
            streams = self._container.streams
        best = streams.best("video")
        chosen = [streams.video[i] for i in films]
        return next((stream for stream in chosen if best and stream.index == best.index), chosen[0])

    def _limit_size(self) -> None:
        """Apply Pillow's limit of pixels before the decoder allocates a frame."""
        limit, context = Image.MAX_IMAGE_PIXELS, self._stream.codec_context
        if context is None:  # FFmpeg has no decoder for it.
            raise ImageError(f"{self.name} has a video of an unknown or unsupported codec. Is it complete?")
        if limit is None:
            return
        if context.width * context.height > limit:
            raise ImageError(
                f"{self.name} has frames of {context.width}×{context.height}, more than {limit} pixels. "
                "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
            )
        context.options = {**context.options, "max_pixels": str(limit)}  # The size may change later.

    def _packets(self) -> Iterator[Any]:
        while True:
            try:
                yield from self._container.demux(self._stream)
                return
            except self._av.BlockingIOError:  # Some cameras raise this instead of waiting.
                time.sleep(0.002)
            except self._av.FFmpegError as error:
                raise ImageError(f"reading failed: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        # FFmpeg puts the address into its errors, and tracebacks print it.
        error.args = tuple(redact(value) if isinstance(value, str) else value for value in error.args)
        if isinstance(error, self._av.ExitError):  # "Immediate exit requested", by PyAV's own timer.
            return f"no data for {_TIMEOUT_S:g} seconds"
        return explain(error)

    def _declared_length(self) -> tuple[float | None, int | None]:
        """Duration in seconds, with edit lists applied, and number of frames; None where unknown."""
        duration = None
        if self._stream.duration is not None:
            duration = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            duration = self._container.duration / self._av.time_base
        estimates = [self._stream.frames] if self._stream.frames else []
        if duration is not None and self.fps is not None:
            estimates.append(round(duration * self.fps))
        return duration, min(estimates, default=None)

    def _is_truncated(self, frames: int, last_s: float | None) -> bool:
        if not self.count or frames >= _COMPLETE * self.count:
            return False
        # At a variable frame rate the count may be wrong.
        return last_s is None or self._duration_s is None or last_s < _COMPLETE * self._duration_s


def is_hd(height: int, width: int) -> bool:
    """Whether video of this size uses the BT.709 matrix unless it is tagged; smaller video uses BT.601."""
    return height >= 720 or width >= 1280


def _to_rgb(reformatter: Any, picture: Any) -> npt.NDArray[np.uint8]:
    """Convert a decoded frame by its tagged colour matrix and range to upright RGB."""
    matrix = None
    if picture.colorspace == _UNSPECIFIED and not picture.format.is_rgb:
        matrix = _BT709 if is_hd(picture.height, picture.width) else None  # FFmpeg assumes BT.601.
    rgb = reformatter.reformat(picture, format="rgb24", src_colorspace=matrix, dst_colorspace=matrix)
    image: npt.NDArray[np.uint8] = rgb.to_ndarray()
    if quarters := round(picture.rotation / 90) % 4:  # Counterclockwise, from the display matrix.
        image = np.ascontiguousarray(np.rot90(image, quarters))
    return image


def import_av() -> Any:
    """Return the module `av`; raises BackendUnavailableError if PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(
            "video needs PyAV, which is not installed. Install it: "
            'pip install "pixelclip-sdk[video]". Folders and arrays work without it.'
        ) from error
    return av


def file_url(path: str | os.PathLike[str]) -> str:
    """Return FFmpeg's URL of a local file. Without the prefix, ``a:b.mp4`` would name a protocol ``a``."""
    return f"file:{os.fspath(path)}"


def explain(error: Exception) -> str:
    """Return FFmpeg's description of an error, with a hint if the disk is full."""
    text = str(getattr(error, "strerror", None) or error)
    return f"{text}. Free some space" if getattr(error, "errno", None) in _DISK_FULL else text
