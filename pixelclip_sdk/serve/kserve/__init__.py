"""The Open Inference Protocol, version 2: `messages` (bodies of requests and answers) and `route`."""
