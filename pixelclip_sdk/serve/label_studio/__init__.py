"""Label Studio's ML backend: `config` (words from a project), `picture` (what may be fetched), `route`."""
