"""The live connections: `route`, `messages`, `view` (words and settings of a viewer), `sources`."""
