"""Archives of pictures into Parquet shards, on this machine or on a Ray cluster.

`archive.segment_archive` does it. Data flows in this order: `inputs` lists and reads pictures, `job` makes a
row of each, an engine (`local` or `cluster`) does so for whole shards, `shards` writes them. Needs the extra
``batch``; `cluster` needs ``ray``. Not here: video files (`pixelclip_sdk.video`) and the files of `pixelclip
predict`.
"""
