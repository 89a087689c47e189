"""What a borrowed machine sends home: finished networks in half precision, and answers, in parts that fit a limit.

python -m studies.gpu.packing OUT PARTS            on the borrowed machine, after every job: what is not sent is lost
python -m studies.gpu.packing --unpack PARTS OUT   at home
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import phasewise as pw
from phasewise.files import write_bytes

PART_BYTES = 15_500_000
CONFIG = "config.json"
UNFINISHED = ("checkpoint", "unfinished", "critic-", ".tmp")
"""In the name of a file that is of use only where the job goes on."""


def pack(out: Path, parts: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write everything finished in ``out`` into ``parts``/pack000, pack001, ...; no network without its config."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file in sorted(p for p in out.rglob("*") if p.is_file() and not any(w in p.name for w in UNFINISHED)):
            name = str(file.relative_to(out))
            if file.name != "weights.safetensors":
                archive.add(file, name)
            elif (file.parent / CONFIG).exists():
                archive.add(_halved(file.parent, parts), name)
    raw = content.getvalue()
    pieces = [raw[i : i + part_bytes] for i in range(0, len(raw), part_bytes)]
    return [write_bytes(parts / f"pack{k:03d}", piece) for k, piece in enumerate(pieces)]


def _halved(folder: Path, parts: Path) -> Path:
    """The weights of a network stored again with large tensors as float16."""
    work = parts / "half"
    pw.save_denoiser(pw.load_denoiser(folder), work, half=True)
    return work / "weights.safetensors"


def unpack(parts: Path, out: Path) -> list[str]:
    """Put what :func:`pack` wrote into ``out``; names of its files."""
    raw = b"".join(p.read_bytes() for p in sorted(parts.glob("pack[0-9][0-9][0-9]")))
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
        archive.extractall(out, filter="data")  # nothing outside of it
        return archive.getnames()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpack", action="store_true", help="the other way")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    found = (unpack if given.unpack else pack)(given.source, given.target)
    print("\n".join(map(str, found)))


if __name__ == "__main__":
    main()
