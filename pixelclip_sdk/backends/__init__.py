"""Inference engines behind one contract: `base` says what one is, each other module is one."""
