"""Inference engines behind one interface, `base.Backend`. `choose.open_backend` picks and loads one."""
