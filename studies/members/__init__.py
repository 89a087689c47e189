"""Every cheap way to denoise as a member: the front of all, what each kind adds, and which penalty ranks them."""

from studies.members.study import Members

__all__ = ["Members"]
