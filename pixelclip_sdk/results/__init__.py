"""What a result can be turned into: regions, their shapes, and the formats of other tools.

Nothing here runs a model or draws; `Segmentation` has a method for each of these.
"""
