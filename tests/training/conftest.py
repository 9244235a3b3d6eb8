from quick_lite import sentences_once  # noqa: F401
