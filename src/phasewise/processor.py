"""What this machine's processor is fast in."""

from __future__ import annotations


def fast_in_bfloat16() -> bool:
    """Whether it has matrix instructions for bfloat16; without, it is slower in it than in float32."""
    import torch  # not before it is asked: the help of the command line does not wait for it

    # older torch has no such function
    return bool(getattr(torch.cpu, "get_capabilities", dict[str, bool])().get("amx_bf16"))
