"""A report on the log for people: one HTML file that needs nothing else.

`gather` reads the entries once and counts; `page` makes the file of what was counted. Both take what is in
the log as hostile: a file's name can hold HTML, characters that reorder text, and bytes that are no text.
"""
