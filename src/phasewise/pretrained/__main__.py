"""``python -m phasewise.pretrained RUN NAME``: pack a finished run as a shipped set."""

from __future__ import annotations

import argparse

from phasewise.pretrained import packing

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m phasewise.pretrained", description=packing.__doc__)
    parser.add_argument("run")
    parser.add_argument("name")
    parser.add_argument("--data-dir")
    parser.add_argument("--note", default="", help="what the records do not say of how it was trained")
    parser.add_argument("--judges-of", help="a set on the same images that holds the run's judges already")
    parser.add_argument("--judges", action="store_true", help="its classifiers alone")
    chosen = parser.parse_args()
    if chosen.judges:
        print(packing.pack_judges(chosen.run, chosen.name, data_dir=chosen.data_dir).root)
        raise SystemExit
    made = packing.pack(chosen.run, chosen.name, data_dir=chosen.data_dir, note=chosen.note, judges_of=chosen.judges_of)
    size = sum(f.stat().st_size for f in made.root.rglob("*") if f.is_file())
    print(f"{made.root}: {size / 1e6:.2f} MB")
    for name, change in made.card["loss_change_by_half_precision"].items():
        print(f"  {name}: largest relative change of the loss {change:.1e}")
