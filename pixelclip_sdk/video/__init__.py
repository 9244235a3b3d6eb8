"""Video input and output.

* `sources.open_source` opens files, cameras, network streams, folders and arrays.
* `pipeline.segment_frames` segments their frames in background threads.
* `writer.write_video` writes video files.
"""
