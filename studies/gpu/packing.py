"""What a borrowed machine sends home: finished networks in half precision, and answers, in parts that fit a limit.

python -m studies.gpu.packing OUT PARTS            on the borrowed machine, after every job: what is not sent is lost
python -m studies.gpu.packing --unpack PARTS OUT   at home
python -m studies.gpu.packing DIR PARTS --most 4   images on their way there, four parts a call
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
from pathlib import Path

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.files import write_bytes

PART_BYTES = 15_500_000
MOST = 8
"""Files that one call brings."""
CONFIG = "config.json"
UNFINISHED = ("checkpoint", "unfinished", "critic-", ".tmp")
"""In the name of a file that is of use only where the job goes on."""


def pack(
    out: Path, parts: Path, part_bytes: int = PART_BYTES, *, first: int = 0, most: int = MOST
) -> tuple[list[Path], int]:
    """Write everything finished in ``out`` into ``parts``/pack000, pack001, ...; no network without its config.

    ``most`` parts from the ``first`` on: their files, and how many parts there are.  The same content gives the same
    parts, so a later call may write the rest.
    """
    content = io.BytesIO()
    zipped = gzip.GzipFile(fileobj=content, mode="wb", mtime=0)
    with zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for file in sorted(p for p in out.rglob("*") if p.is_file() and not any(w in p.name for w in UNFINISHED)):
            name = str(file.relative_to(out))
            if file.name != "weights.safetensors":
                archive.add(file, name, filter=_undated)
            elif (file.parent / CONFIG).exists():
                archive.add(_halved(file.parent, parts), name, filter=_undated)
    raw = content.getvalue()
    pieces = [raw[i : i + part_bytes] for i in range(0, len(raw), part_bytes)]
    chosen = list(enumerate(pieces))[first : first + most]
    return [write_bytes(parts / f"pack{k:03d}", piece) for k, piece in chosen], len(pieces)


def _undated(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Halved weights are written anew by every call."""
    info.mtime = 0
    return info


def _halved(folder: Path, parts: Path) -> Path:
    """The weights of a network stored again with large tensors as float16."""
    work = parts / "half"
    pw.save_denoiser(pw.load_denoiser(folder), work, half=True)
    return work / "weights.safetensors"


def unpack(parts: Path, out: Path) -> list[str]:
    """Put what :func:`pack` wrote into ``out``; names of its files.  PhasewiseError where a part is missing."""
    found = sorted(parts.glob("pack[0-9][0-9][0-9]"))
    if not found or [p.name for p in found] != [f"pack{k:03d}" for k in range(len(found))]:
        raise PhasewiseError(f"{parts} lacks parts: it has {', '.join(p.name for p in found) or 'none'}")
    raw = b"".join(p.read_bytes() for p in found)
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            names = archive.getnames()
            archive.extractall(out, filter="data")  # nothing outside of it
            return names
    except EOFError as error:
        raise PhasewiseError(f"{parts} lacks its last parts: pack them with --first {len(found)}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpack", action="store_true", help="the other way")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the parts from this one on (0)")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"so many of them ({MOST})")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    if given.unpack:
        print("\n".join(unpack(given.source, given.target)))
        return
    files, count = pack(given.source, given.target, first=given.first, most=given.most)
    print("\n".join(map(str, files)))
    if given.first + len(files) < count:
        print(f"of {count} parts; the next: --first {given.first + len(files)}")


if __name__ == "__main__":
    main()
