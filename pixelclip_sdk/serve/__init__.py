"""The server of `pixelclip serve`: the live page, HTTP and WebSocket APIs. Needs the extra ``serve``.

Files, best read in this order: `config` (limits), `errors`, `engine` (models, vocabularies and the queue in
front of them), `encode` (results as JSON and PNG), then the routes `api`, `live` and `kserve`; `gate` (what
every request passes: token, limits, request id, log), `metrics`, and `app` and `server`, which put them
together. `static/` is the live page. Nothing here is imported by the rest of the SDK, except by the verb.

A client's text is never given to a function that takes paths.
"""
