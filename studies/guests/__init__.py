"""Networks of diffusers as guests: made by its own classes, held against it."""

from studies.guests.study import Guests

__all__ = ["Guests"]
