"""Archives of pictures into Parquet shards; `archive.segment_archive`.

Data flows in this order: `inputs` lists and reads pictures, `job` makes a row of each, `local` does so
for whole shards, `shards` writes them. Needs the extra ``batch``.
Not here: video files (`pixelclip_sdk.video`) and the files of `pixelclip predict`.
"""
