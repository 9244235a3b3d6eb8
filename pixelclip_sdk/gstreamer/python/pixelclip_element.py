"""The element ``pixelclip`` for GStreamer's Python plugins: RGB video in, an overlay or a label map out."""

import argparse
import platform
import weakref
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstBase, GstVideo  # noqa: E402

_FORMATS = {"overlay": "RGB", "mask": "GRAY8"}
_MOST_MASK_CLASSES = 255
_SIZES = "width=[1,2147483647],height=[1,2147483647],framerate=[0/1,2147483647/1]"
_SINK = Gst.Caps.from_string(f"video/x-raw,format=RGB,{_SIZES}")
_SRC = Gst.Caps.from_string(f"video/x-raw,format={{RGB,GRAY8}},{_SIZES}")
# Fields of caps that say how RGB and YUV relate; a label map has neither.
_COLOUR_FIELDS = ("colorimetry", "chroma-site")
_READY = GObject.ParamFlags(GObject.ParamFlags.READWRITE | Gst.PARAM_MUTABLE_READY)
_PLAYING = GObject.ParamFlags(GObject.ParamFlags.READWRITE | Gst.PARAM_MUTABLE_PLAYING)


def _setting(default: str, blurb: str, flags: Any = _READY) -> Any:
    """A property of type string."""
    return GObject.Property(type=str, default=default, nick=blurb.partition(":")[0], blurb=blurb, flags=flags)


class PixelClip(GstBase.BaseTransform):  # type: ignore[misc]
    """Segments video frames with the words in ``classes``.

    `do_generate_output` hands each frame to a `FrameWorker` and returns at once; the worker's thread pushes
    the results. So two frames are segmented at a time (docs/adr/0008), while upstream decodes the next.
    Serialized events wait until the frames before them are pushed.
    """

    __gstmetadata__ = (
        "Open-vocabulary segmentation",
        "Filter/Effect/Video",
        "A class for every pixel, for the words in the property classes",
        "PixelCLIP SDK",
    )
    __gsttemplates__ = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, _SINK),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, _SRC),
    )

    model = _setting("pixelclip-lite", "Model: a name or the folder of a bundle")
    backend = _setting("auto", "Backend: auto, onnx, onnx-cuda, onnx-tensorrt, tensorrt or a .plan file")
    device = _setting("auto", "Device: auto, cpu, gpu, gpu:1, …")
    output = _setting("overlay", "Output: overlay (RGB) or mask (GRAY8, label of each pixel, 255 unknown)")
    smooth = GObject.Property(
        type=float,
        default=0.3,
        minimum=0.0,
        maximum=1.0,
        nick="Smooth",
        blurb="Seconds over which labels of still regions are averaged; 0 for none",
        flags=_READY,
    )
    interval = GObject.Property(
        type=GObject.TYPE_UINT64,
        default=0,
        nick="Interval",
        blurb="Least nanoseconds between two messages with the shares; 0 for one each frame",
        flags=_PLAYING,
    )

    def __init__(self) -> None:
        super().__init__()
        self._classes = ""
        self._background = ""
        self._min_confidence = ""
        self._threshold = -1.0
        self._segmenter: Any = None
        self._worker: Any = None
        self._flow = Gst.FlowReturn.OK  # What pushing the last frame returned.
        self._posted_at: int | None = None
        self._in: Any = None
        self._out: Any = None
        self.set_qos_enabled(True)
        # PyGObject refuses a method do_query: two of the base classes have one.
        self.srcpad.set_query_function(weakref.WeakMethod(self._src_query))

    # The properties that may change while the pipeline plays.

    @GObject.Property(
        type=str,
        default="",
        nick="Classes",
        flags=_PLAYING,
    )
    def classes(self) -> str:
        """Words to find: "cat, sofa", the name of a list, or a file; required."""
        return self._classes

    @classes.setter  # type: ignore[no-redef]
    def classes(self, text: str | None) -> None:
        if self._changed("classes", text or "", self._set_classes):
            self._classes = text or ""

    @GObject.Property(
        type=str,
        default="",
        nick="Background",
        flags=_PLAYING,
    )
    def background(self) -> str:
        """More words; the pixels that they win become unknown."""
        return self._background

    @background.setter  # type: ignore[no-redef]
    def background(self, text: str | None) -> None:
        if self._changed("background", text or "", self._set_background):
            self._background = text or ""

    @GObject.Property(
        type=str,
        default="",
        nick="Least confidence",
        flags=_PLAYING,
    )
    def min_confidence(self) -> str:
        """Pixels with a lower confidence become unknown: "0.5", or for single classes "cat=0.5, dog=0.3"."""
        return self._min_confidence

    @min_confidence.setter  # type: ignore[no-redef]
    def min_confidence(self, text: str | None) -> None:
        if self._changed("min-confidence", text or "", self._set_min_confidence):
            self._min_confidence = text or ""

    @GObject.Property(
        type=float,
        default=-1.0,
        minimum=-1.0,
        maximum=1.0,
        nick="Threshold",
        flags=_PLAYING,
    )
    def threshold(self) -> float:
        """Pixels whose best class has a lower cosine become unknown; -1 for none."""
        return self._threshold

    @threshold.setter  # type: ignore[no-redef]
    def threshold(self, cosine: float) -> None:
        if self._changed("threshold", cosine, self._set_threshold):
            self._threshold = cosine

    def _changed(self, name: str, value: Any, apply: Any) -> bool:
        """Apply a property to a running element. What cannot be used is a warning; the old value stays."""
        if self._segmenter is None:
            return True
        try:
            apply(value)
        except Exception as error:
            domain, code = Gst.library_error_quark(), Gst.LibraryError.SETTINGS
            self._post(Gst.MessageType.WARNING, domain, code, f"{name} stays as it was: {error}")
            return False
        return True

    def _set_classes(self, text: str) -> None:
        words = self._segmenter.embed(self._parsed(text))
        if self.output == "mask" and len(words) > _MOST_MASK_CLASSES:
            raise ValueError(f"{len(words)} classes; a mask of 8 bits has labels for {_MOST_MASK_CLASSES}")
        self._segmenter.set_classes(words)

    def _set_background(self, text: str) -> None:
        self._segmenter.set_background(self._parsed(text) if text else None)

    def _set_min_confidence(self, text: str) -> None:
        from pixelclip_sdk.support.arguments import confidences

        try:
            self._segmenter.min_confidence = confidences(text) if text else None
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"min-confidence is {text!r}: {error}") from error

    def _set_threshold(self, cosine: float) -> None:
        self._segmenter.threshold = cosine if cosine > -1 else None

    def _parsed(self, text: str) -> Any:
        from pixelclip_sdk.cli.common import parse_classes

        return parse_classes(self.model, text)

    # The element.

    def do_start(self) -> bool:
        """Load the model."""
        try:
            self._load()
        except ImportError as error:
            python = platform.python_version()
            text = f"the Python of GStreamer ({python}) cannot import PixelCLIP SDK: {error}. Set PYTHONPATH."
            self._fail(Gst.library_error_quark(), Gst.LibraryError.INIT, text)
        except Exception as error:
            self._fail(Gst.library_error_quark(), Gst.LibraryError.SETTINGS, str(error) or repr(error))
        else:
            return True
        self.do_stop()
        return False

    def _load(self) -> None:
        from pixelclip_sdk import Segmenter
        from pixelclip_sdk.gstreamer.worker import FrameWorker

        if self.output not in _FORMATS:
            raise ValueError(f"output is {self.output!r}; expected {' or '.join(_FORMATS)}")
        if not self._classes:
            raise ValueError('no classes; expected words, e.g. classes="cat, sofa"')
        self._segmenter = Segmenter.from_pretrained(self.model, backend=self.backend, device=self.device)
        self._set_threshold(self._threshold)
        self._set_background(self._background)
        self._set_classes(self._classes)
        self._set_min_confidence(self._min_confidence)
        self._flow, self._posted_at = Gst.FlowReturn.OK, None
        self._worker = FrameWorker(self._segmenter, self.smooth, self._deliver, self._frame_failed)

    def do_stop(self) -> bool:
        """Release the model."""
        worker, segmenter = self._worker, self._segmenter
        self._worker = self._segmenter = None
        if worker is not None:
            worker.close()
        if segmenter is not None:
            segmenter.close()
        return True

    def do_transform_caps(self, direction: Any, caps: Any, wanted: Any) -> Any:
        """Change the format, and keep everything else."""
        to = _FORMATS.get(self.output, "RGB") if direction == Gst.PadDirection.SINK else "RGB"
        result = Gst.Caps.new_empty()
        for i in range(caps.get_size()):
            structure = caps.get_structure(i).copy()
            structure.set_value("format", to)
            if self.output == "mask":
                for field in _COLOUR_FIELDS:
                    structure.remove_field(field)
            result.append_structure(structure)
        return result if wanted is None else wanted.intersect_full(result, Gst.CapsIntersectMode.FIRST)

    def do_get_unit_size(self, caps: Any) -> tuple[bool, int]:
        """Return the bytes of a frame."""
        info = GstVideo.VideoInfo.new_from_caps(caps)
        return (info is not None, info.size if info is not None else 0)

    def do_set_caps(self, incaps: Any, outcaps: Any) -> bool:
        """Remember the layout of the frames. Frames before have left: the event waited for them."""
        self._in = GstVideo.VideoInfo.new_from_caps(incaps)
        self._out = GstVideo.VideoInfo.new_from_caps(outcaps)
        return self._in is not None and self._out is not None

    def do_transform(self, _inbuf: Any, _outbuf: Any) -> Any:
        """Never called. Without this method, the base class passes frames through unchanged."""
        return Gst.FlowReturn.NOT_SUPPORTED

    def do_generate_output(self) -> tuple[Any, Any]:
        """Hand a frame to the worker; return no frame, because the worker's thread pushes it."""
        try:
            inbuf = self.queued_buf
            if self._flow != Gst.FlowReturn.OK:
                return self._flow, None
            flow, outbuf = GstBase.BaseTransform.do_prepare_output_buffer(self, inbuf)
            if flow != Gst.FlowReturn.OK:
                return flow, None
            time_s = None if inbuf.pts == Gst.CLOCK_TIME_NONE else inbuf.pts / Gst.SECOND
            if self._worker.submit(self._pixels(inbuf), time_s, outbuf):
                return Gst.FlowReturn.OK, None
            return (Gst.FlowReturn.FLUSHING if self._flow == Gst.FlowReturn.OK else self._flow), None
        except Exception as error:
            self._frame_failed(error)
            return Gst.FlowReturn.ERROR, None

    def _pixels(self, buffer: Any) -> Any:
        """A copy of a frame: `(H, W, 3)` uint8."""
        import numpy as np

        meta = GstVideo.buffer_get_video_meta(buffer)
        offset, stride = (meta.offset[0], meta.stride[0]) if meta is not None else (0, self._in.stride[0])
        with buffer.map(Gst.MapFlags.READ) as memory:
            shape, steps = (self._in.height, self._in.width, 3), (stride, 3, 1)
            return np.ndarray(shape, np.uint8, memory.data, offset, steps).copy()

    def _deliver(self, result: Any, outbuf: Any) -> None:
        """Post a result and push its picture: called in the worker's thread, in the order of the frames."""
        import numpy as np

        self._post_shares(result, outbuf.pts)
        mask = self.output == "mask"
        picture = result.labels[..., None] if mask else np.asarray(result.plot(legend="inside"))
        height, width, channels = picture.shape
        with outbuf.map(Gst.MapFlags.WRITE) as memory:
            steps = (self._out.stride[0], channels, 1)
            np.ndarray((height, width, channels), np.uint8, memory.data, 0, steps)[...] = picture
        self._flow = self.srcpad.push(outbuf)

    def _post_shares(self, result: Any, pts: int) -> None:
        timed = pts != Gst.CLOCK_TIME_NONE
        if timed and self._posted_at is not None and 0 <= pts - self._posted_at < self.interval:
            return
        self._posted_at = pts if timed else None
        areas = result.areas()
        shares = [areas[name] for name in result.names]
        structure = Gst.Structure.new_empty("pixelclip")
        structure.set_value("timestamp", GObject.Value(GObject.TYPE_UINT64, pts))
        structure.set_value("names", Gst.ValueArray(list(result.names)))
        structure.set_value("shares", Gst.ValueArray(shares))
        structure.set_value("unknown", max(1 - sum(shares), 0.0))
        self.post_message(Gst.Message.new_element(self, structure))

    def _frame_failed(self, error: Exception) -> None:
        self._flow = Gst.FlowReturn.ERROR
        self._fail(Gst.stream_error_quark(), Gst.StreamError.FAILED, str(error) or repr(error))

    def do_sink_event(self, event: Any) -> bool:
        """Keep the order of frames and events; drop frames when upstream flushes."""
        worker = self._worker
        if worker is not None:
            if event.type == Gst.EventType.FLUSH_START:
                worker.flush()
            elif event.type == Gst.EventType.FLUSH_STOP:
                worker.resume()
                self._flow, self._posted_at = Gst.FlowReturn.OK, None
            elif Gst.EventType.get_flags(event.type) & Gst.EventTypeFlags.SERIALIZED:
                worker.drain()
        return bool(GstBase.BaseTransform.do_sink_event(self, event))

    def _src_query(self, _pad: Any, query: Any) -> bool:
        """Answer queries from downstream; add the frames inside to the latency."""
        answered = bool(GstBase.BaseTransform.do_query(self, Gst.PadDirection.SRC, query))
        if answered and query.type == Gst.QueryType.LATENCY and self._in is not None and self._in.fps_n > 0:
            from pixelclip_sdk.gstreamer.worker import MOST_FRAMES

            own = MOST_FRAMES * Gst.SECOND * self._in.fps_d // self._in.fps_n
            live, least, most = query.parse_latency()
            query.set_latency(live, least + own, most if most == Gst.CLOCK_TIME_NONE else most + own)
        return answered

    def _fail(self, domain: int, code: Any, text: str) -> None:
        self._post(Gst.MessageType.ERROR, domain, code, text)

    def _post(self, kind: Any, domain: int, code: Any, text: str) -> None:
        self.message_full(kind, domain, int(code), text, None, __file__, self.get_name(), 0)


__gstelementfactory__ = ("pixelclip", Gst.Rank.NONE, PixelClip)
