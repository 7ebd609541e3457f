"""One thin typed wrapper per Linux interface; no policy in it.

Constraint: these modules are imported by the launcher between fork and seal, where every
millisecond counts, so they import a handful of small standard modules and each other, nothing else.
Constants carry their kernel names and say which header they come from. Every failure is a
:class:`anchorhold.kernel.errors.KernelError`.
"""
