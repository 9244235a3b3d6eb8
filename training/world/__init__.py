"""A small world of drawn scenes in which the method's claims can be measured on a CPU in minutes.

Research: nothing in the product imports it.
"""
