"""The kill switch: what a supervisor leaves for it, and the program that needs no supervisor.

Constraint: `kill` works while the supervisor hangs, is stopped, or is dead, and while the disk is full. So
nothing here asks the supervisor anything, and nothing is imported that a fast start cannot afford: no
dataclasses, no pathlib, no json, no ctypes.
"""
