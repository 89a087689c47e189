"""Bridges to other libraries, each an extra of its own: nothing else in the package imports them."""
