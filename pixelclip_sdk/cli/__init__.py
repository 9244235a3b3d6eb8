"""The command `pixelclip`: one file a verb. It reads arguments, calls the SDK and prints.

No capability lives here: whatever a verb does, a program can do with the SDK.
"""
