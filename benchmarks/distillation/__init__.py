"""What students of `training/distil.py` keep of their teachers, and how long a distillation takes."""
