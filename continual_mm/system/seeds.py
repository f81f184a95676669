"""Seeds for one purpose each, so that no two purposes share a random stream."""

from hashlib import blake2b


def seed_for(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose of a run, in [0, 2**63), independent of every other purpose's."""
    words = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "big") >> 1
