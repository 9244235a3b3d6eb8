"""Plays a pipeline in the Python of GStreamer: ``player.py SCENARIO FILE``; prints JSON."""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401 (GstApp gives appsink its methods)

_TIMEOUT = 100 * Gst.SECOND
_RAW = "rawvideoparse format=rgb width=150 height=100 framerate=25/1"


class Player:
    """A pipeline with an element named ``clip`` and an appsink named ``sink``, and what it said."""

    def __init__(self, text: str) -> None:
        self.pipeline = Gst.parse_launch(text)
        self.clip, self.sink = self.pipeline.get_by_name("clip"), self.pipeline.get_by_name("sink")
        self.shares, self.warnings, self.errors = [], [], []

    def pull(self) -> dict | None:
        sample = self.sink.try_pull_sample(_TIMEOUT)
        if sample is None:
            return None
        buffer, caps = sample.get_buffer(), sample.get_caps().get_structure(0)
        facts = {name: caps.get_value(name) for name in ("format", "width", "height")}
        return {**facts, "pts": buffer.pts, "duration": buffer.duration, "bytes": buffer.get_size()}

    def listen(self) -> None:
        bus = self.pipeline.get_bus()
        while (message := bus.pop()) is not None:
            structure = message.get_structure()
            if message.type == Gst.MessageType.ELEMENT and structure.get_name() == "pixelclip":
                names, shares = list(structure.get_value("names")), list(structure.get_value("shares"))
                rest = {"unknown": structure.get_value("unknown"), "pts": structure.get_value("timestamp")}
                self.shares.append({"names": names, "shares": shares, **rest})
            elif message.type == Gst.MessageType.WARNING:
                self.warnings.append(message.parse_warning()[0].message)
            elif message.type == Gst.MessageType.ERROR:
                error, details = message.parse_error()
                self.errors.append(f"{error.message} {details}")

    def stop(self) -> dict:
        self.listen()
        self.pipeline.set_state(Gst.State.NULL)
        return {"shares": [*self.shares], "warnings": [*self.warnings], "errors": [*self.errors]}


def words(file: str) -> dict:
    """Change the words and limits between frames; seek; play to the end."""
    player = Player(
        f'filesrc location="{file}" ! {_RAW} ! pixelclip name=clip classes="cat, sofa" '
        "! appsink name=sink sync=false max-buffers=1"
    )
    player.pipeline.set_state(Gst.State.PLAYING)
    frames = [player.pull()]
    player.clip.set_property("classes", "cat, sofa, grass")
    player.clip.set_property("classes", "cat, cat")
    kept = player.clip.get_property("classes")
    player.clip.set_property("min-confidence", "a lot")
    frames += iter(player.pull, None)
    player.pipeline.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH | Gst.SeekFlags.ACCURATE, 0)
    player.clip.set_property("min-confidence", "1")
    again = list(iter(player.pull, None))
    return {"frames": frames, "again": again, "kept": kept, **player.stop()}


def live(_file: str) -> dict:
    """A camera of 10 frames a second, shown in time; a source that is stopped, and an engine that fails."""
    player = Player(
        "videotestsrc is-live=true num-buffers=8 "
        "! video/x-raw,format=RGB,width=150,height=100,framerate=10/1 "
        "! pixelclip name=clip classes=cat,sofa output=mask interval=300000000 ! appsink name=sink sync=true"
    )
    player.pipeline.set_state(Gst.State.PLAYING)
    frames = [player.pull()]
    query = Gst.Query.new_latency()
    assert player.pipeline.query(query)
    frames += iter(player.pull, None)
    result = {"frames": frames, "latency": query.parse_latency()[1], **player.stop()}
    endless = Player("videotestsrc ! pixelclip name=clip classes=cat,sofa ! appsink name=sink max-buffers=1")
    endless.pipeline.set_state(Gst.State.PLAYING)
    first, stopped = endless.pull(), endless.stop()
    endless.pipeline.set_state(Gst.State.PLAYING)  # The same pipeline again.
    endless.pull()
    endless.clip._segmenter.close()
    endless.sink.set_property("drop", True)
    error = endless.pipeline.get_bus().timed_pop_filtered(_TIMEOUT, Gst.MessageType.ERROR)
    broken = error and str(error.parse_error())
    endless.stop()
    return {**result, "first": first, "stopped": stopped, "broken": broken}


if __name__ == "__main__":
    Gst.init(None)
    print(json.dumps({"words": words, "live": live}[sys.argv[1]](sys.argv[2])))
