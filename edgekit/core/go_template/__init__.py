"""The part of Go's text/template that prompts are written in: read, checked, and run within limits.

Read by `parser`, run by `runner`; neither reaches anything but the values it is given. What differs
from Go is refused when a template is read, with its line: definitions and calls of other templates,
fractions, characters in single quotes, and functions that are not in `functions`.
"""
