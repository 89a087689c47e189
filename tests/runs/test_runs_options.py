"""One option, one place: a field gives its flag, help, check, words, dry run and hash; a new one is one line."""

import shlex
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from phasewise import cli
from phasewise.errors import PhasewiseError
from phasewise.pipeline import read_options
from phasewise.pipeline.stages import all_stages
from phasewise.runs import RunConfig, make_config, parts
from phasewise.runs.config import command, flattened, from_record
from phasewise.runs.options import Options, option, options_of
from phasewise.runs.parts import HOMES
from phasewise.runs.sizes import NAMED


@dataclass(frozen=True)
class Wider(parts.EvaluateOptions):
    """The stage with one more option, as CONTRIBUTING shows it."""

    jpeg: bool = option(False, "Keep the pictures as JPEG, too.")
    quality: int = option(90, "Of a JPEG.", least=1)


def test_a_new_option_is_one_line():
    """Flag, help, type and check, words and value follow from the field alone."""
    jpeg, quality = options_of(Wider)[-2:]
    assert (jpeg.name, jpeg.flag, jpeg.words(True)) == ("jpeg", "--jpeg", ["--jpeg"])
    assert (quality.flag, quality.metavar, quality.parse("80")) == ("--quality", "N", 80)
    assert quality.words(80) == ["--quality", "80"]
    assert replace(Wider(), quality=80).to_dict()["quality"] == 80
    with pytest.raises(PhasewiseError, match="quality must be at least 1, got 0"):
        Wider(quality=0)
    with pytest.raises(PhasewiseError, match="--quality takes a whole number, got 'high'"):
        quality.parse("high")
    app = cli.typer.Typer(rich_markup_mode=None)
    wider = {**parts.PARTS, "evaluate": Wider}
    before, cli.app = cli.app, app
    homes = dict(HOMES)
    try:
        cli.PARTS, cli.HOMES = wider, {**homes, "jpeg": ("evaluate", jpeg), "quality": ("evaluate", quality)}
        cli.add_stage_command("evaluate", cli.COMMANDS["evaluate"])
        cli.add_stage_command("run", cli.COMMANDS["run"])
        shown = CliRunner().invoke(app, ["evaluate", "--help"]).output
    finally:
        cli.app, cli.PARTS, cli.HOMES = before, parts.PARTS, HOMES
    assert "--jpeg / --no-jpeg" in shown
    assert "Keep the pictures as JPEG, too." in shown


def test_the_hash_of_a_stage_follows_its_options():
    """Every option but those of where and how much to keep is in what some stage depends on."""
    plain = make_config(8)
    other = {
        "data": "mnist",
        "data_dir": "x",
        "networks": "x",
        "teacher": "x",
        "member": {"mine": "x"},
        "model": {"global": "x"},
        "center": ((1, 1),),
    }
    other |= {"pixel_range": (-1, 1), "image_column": "x", "label_column": "x"}
    for name, (part, about) in HOMES.items():
        if name in ("cmi", "window_radius", "radii", "cmi_center", "device") or about.free:
            continue
        value = other.get(name) or _another(about)
        changed = plain.changed(**{name: value})
        before, after = ({s.name: s.depends for s in all_stages(c)} for c in (plain, changed))
        assert before != after, f"{part}.{name} changes nothing"


def _another(about):
    if about.known is not None:
        names = [n for n in about.known() if n != about.default and (n,) != about.default]
        return (names[0],) if "tuple" in str(about.kind) else names[0]
    if isinstance(about.default, bool):
        return not about.default
    if isinstance(about.default, tuple):
        return about.default[:2] if about.name != "window" else (0.1, 0.5)
    if isinstance(about.default, dict):
        return {"steps": 3}
    if about.name == "global_width":
        return 24
    return about.default + 1 if isinstance(about.default, int) else 0.5 if about.default is not None else 50


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(2, 40), "budget": st.floats(0.01, 1), "radii": st.just((2, 3)),
            "recovery_times": st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True).map(tuple),
            "cheap_globals": st.sampled_from([(), ("coarse",), ("coarse", "small")]), "control": st.booleans(),
            "cmi_options": st.dictionaries(st.sampled_from(["epochs", "folds"]), st.integers(2, 9)),
            "cmi_center": st.sampled_from([None, ((1, 2),), ((1, 2), (3, 4))]), "limit": st.integers(40, 99),
            "window": st.sampled_from(["gap", (0.1, 0.4)]), "member": st.just({"mine": "x/y"}),
            "data_dir": st.sampled_from(["a b", "it's"]), "pixel_range": st.just((-1.0, 1.0)),
            "crop": st.sampled_from(["square", 20, (20, 24)]), "resize": st.sampled_from([16, (12, 14)]),
            "color": st.sampled_from(["gray", "rgb"]), "cache": st.booleans(),
        },
    )
)  # fmt: skip
def test_the_command_that_repeats_a_run_makes_the_same_config(given_options):
    """Words of a config, parsed again, are the config; so is its JSON."""
    wanted = make_config(28, **given_options)
    assert make_config(28, **parsed_words(command(wanted))) == wanted
    assert from_record(wanted.to_dict()) == wanted


def parsed_words(line: str) -> dict:
    """Options by name, and the size, of a command line."""
    found: dict = {}
    by_flag = {about.flag: (name, about) for name, (_, about) in HOMES.items()}
    _, _, _, size, *rest = shlex.split(line)
    while rest:
        flag = rest.pop(0)
        off = flag.startswith("--no-")
        name, about = by_flag["--" + flag.removeprefix("--no-") if off else flag]
        if about.switch:
            found[name] = not off
        elif about.repeated:
            found.setdefault(name, []).append(rest.pop(0))
        else:
            found[name] = rest.pop(0)
    return {"size": size, **{n: HOMES[n][1].parse(v) for n, v in found.items()}}


def test_a_file_gives_what_the_flags_do_not(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'size = "small"\nbudget = 0.4\n[train]\nradii = [2]\n[cmi]\nmeasure = false\n[schedule]\nwindow = "gap"\n'
    )
    found = read_options(file)
    assert found == {"size": "small", "budget": 0.4, "radii": [2], "cmi": False, "window": "gap"}
    said = CliRunner().invoke(
        cli.app, ["run", "--config", str(file), "--budget", "0.3", "--out", str(tmp_path / "run"), "--dry-run"]
    )
    assert said.exit_code == 0, said.output
    assert "budget 0.3" in said.output
    assert "train-r2" in said.output
    assert "train-r1" not in said.output
    file.write_text("[train]\nradius = 1\n")
    said = CliRunner().invoke(cli.app, ["run", "--config", str(file), "--dry-run"])
    assert said.exit_code == 2
    assert "[train] has no option 'radius'; it has radii" in said.stderr
    file.write_text("radii = [")
    assert "not valid TOML" in CliRunner().invoke(cli.app, ["run", "--config", str(file)]).stderr


def test_a_config_file_can_be_a_runs_own(smoke_run, tmp_path):
    found = read_options(smoke_run / "run.json")
    assert found["size"] == "smoke"
    assert found["n_samples"] == 150
    size = found.pop("size")
    assert make_config(8, size, **found) == make_config(8, "smoke")


def test_unknown_names_are_refused():
    with pytest.raises(PhasewiseError, match="no option 'wdith'; `phasewise options`"):
        RunConfig().changed(wdith=3)
    with pytest.raises(PhasewiseError, match=r"\[grid\] has no option 'stesp'"):
        flattened({"grid": {"stesp": 3}})


def test_wrong_types_are_refused_by_name():
    for wrong in ({"steps": "many"}, {"radii": "r1"}, {"budget": None}):
        with pytest.raises(PhasewiseError):
            make_config(8).changed(**wrong)


def test_every_options_field_is_described():
    for cls in parts.PARTS.values():
        assert issubclass(cls, Options)
        for about in options_of(cls):
            assert about.help.endswith(".")
            assert len(about.help) <= 64


def test_cpu_trains_a_transformer_of_small_photographs_and_a_unet_of_others():
    grey, small, large = (make_config(side, "cpu").train for side in (28, 32, 64))
    assert (grey.global_network, grey.global_width, grey.preset) == ("unet", 32, "default")
    assert (small.global_network, small.cheap_globals, small.preset) == ("dit-small", ("dit-coarse",), "brief")
    assert (large.global_network, large.global_width, large.cheap_globals) == ("unet", 48, ("coarse",))
    assert small.global_epochs < large.global_epochs < grey.global_epochs
    asked = make_config(32, "cpu", global_network="unet").train
    assert (asked.global_network, asked.cheap_globals) == ("unet", ("coarse",)), "its own cheaper partner"
    assert (asked.global_width, asked.global_epochs) == (large.global_width, large.global_epochs)
    assert make_config(32, "cpu", global_width=64).train.global_network == "unet", "a width is a U-Net's"
    assert make_config(32, "cpu", networks="NETS").train.cheap_globals == ("coarse",), "what is there may be of before"
    assert make_config(32, "cpu", global_network="transformer").train.global_width == 96
    assert make_config(64, "cpu", global_network="dit-medium").train.cheap_globals == ("dit-coarse",)
    assert make_config(32, "cpu", cmi_crop=8).cmi.radii == (1, 2, 3), "as many as fit the crop"


@pytest.mark.parametrize("side", [28, 32, 64, 128])
@given(few=st.integers(1, 10**6), more=st.integers(1, 10**6))
def test_cpu_shows_networks_as_many_images_however_many_there_are(side: int, few: int, more: int) -> None:
    few, more = sorted((few, more))
    small, large = (make_config(side, "cpu", train=n).train for n in (few, more))
    for name in ("global_epochs", "local_epochs"):
        passes = getattr(small, name), getattr(large, name)
        assert passes[1] <= passes[0] <= 130, "more over fewer"
        if passes[0] < 130:
            assert passes[0] * few == pytest.approx(passes[1] * more, rel=0.02)


@pytest.mark.parametrize(("data", "side"), [("mnist", 28), ("cifar10", 32), ("trashnet64", 64), ("photos/", 64)])
@given(
    st.fixed_dictionaries(
        {"size": st.sampled_from(["cpu", "smoke"])},
        optional={
            "global_epochs": st.sampled_from([3, 14]), "local_epochs": st.sampled_from([1.5, 110]),
            "control": st.booleans(), "cmi_crop": st.sampled_from([0, 20]), "guidance": st.sampled_from([0.0, 2.0]),
            "global_network": st.sampled_from(["unet", "dit-small"]), "n_samples": st.sampled_from([1500, 3000]),
            "train": st.sampled_from([700, 45_000]), "labelled": st.booleans(), "budget": st.just(1.0),
            "cmi_center": st.just(((5, 5),)), "spacing": st.just("uniform"),
        },
    )
)  # fmt: skip
def test_a_command_says_what_the_images_would_set_otherwise(data, side, given_options):
    """A run of before, or of another set of that name, is repeated as it was."""
    size = given_options.pop("size")
    wanted = make_config(side, size, data=data, **given_options)
    said = parsed_words(command(wanted))
    assert said.pop("size") == size
    labelled, train = (False, 2002) if data not in NAMED else (True, NAMED[data].train)
    again = make_config(side, size, labelled=labelled, train=train, **said)
    assert bool(again.train.guidance) == bool(wanted.train.guidance)
    # a guidance of 0 is none; that a few images are all there is cannot be said
    assert again.changed(limit=wanted.data.limit, guidance=wanted.train.guidance) == wanted
    assert len(command(make_config(28, "cpu", data="mnist", train=55_000)).split()) == 6, "what is usual is not said"


def test_what_cpu_is_for_small_sets_and_large_images():
    assert make_config(28, "cpu", train=55_000) == make_config(28, "cpu")
    assert make_config(32, "cpu", train=45_000) == make_config(32, "cpu")
    photos = make_config(32, "cpu", train=2002).train
    assert photos.global_epochs * 2002 == pytest.approx(1.7 * 45_000, rel=0.01), "as many images as of CIFAR-10"
    assert make_config(64, "cpu", train=2002).train.global_epochs * 2002 == pytest.approx(3 * 45_000 / 4, rel=0.01)
    assert make_config(64, "cpu", train=2002, global_epochs=5).train.global_epochs == 5, "what is asked for stays"
    assert make_config(64, "smoke", train=30).train == make_config(64, "smoke").train
    assert [make_config(side, "cpu").cmi.crop for side in (28, 40, 64, 128)] == [None, None, 32, 32]
    assert make_config(128, "cpu", cmi_crop=48).cmi.crop == 48
    assert make_config(64, "cpu", cmi_crop=0).cmi.crop is None, "the whole image, where it is asked for"
    assert make_config(64, "cpu", cmi_center=((50, 50),)).cmi.crop is None, "whose corner is the image's"
    assert make_config(64, "smoke", cmi_center=((5, 5),)).cmi.crop == 16, "it stays one of seconds"
    assert [make_config(side, "cpu").train.control for side in (28, 40, 64)] == [True, True, False]
    assert [make_config(side, "cpu").evaluate.n_samples for side in (32, 64, 100, 256)] == [1500, 1500, 614, 500]
