"""The GStreamer element ``pixelclip`` (docs/gstreamer.md).

``python/pixelclip_element.py`` is what GStreamer loads, in the Python that it was built with. It needs
PyGObject, which comes with the system. It imports the SDK when the element starts, so that a missing package
is an error of the pipeline and not an unknown element. `worker` segments the frames; it knows nothing of
GStreamer.

``python -m pixelclip_sdk.gstreamer`` prints the two environment variables that GStreamer needs to find it.
"""
