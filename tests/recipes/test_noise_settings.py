"""`data.noise` and `data.noise_except`: short and long forms, defaults, and mistakes."""

from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.noise import KINDS
from contraverse.recipes import configure
from contraverse.recipes.resolve import parse


def noise_of(*assignments: str) -> Any:
    return configure("ce", settings=parse(assignments)).data


def test_there_is_none_by_default() -> None:
    assert noise_of().noise is None
    assert noise_of().mixture(1) is None


@pytest.mark.parametrize("written", ["data.noise=all", "data.noise.kinds=all", "data.noise=[all]"])
def test_all_kinds_in_short_and_long(written: str) -> None:
    assert noise_of(written).mixture(3).kinds == tuple(KINDS)
    assert noise_of(written).mixture(3).seed == 3


@pytest.mark.parametrize("written", ["data.noise=[swap,keyboard]", "data.noise=keyboard,swap"])
def test_some_kinds_in_short(written: str) -> None:
    data = noise_of(written)
    assert (data.noise.kinds, data.noise.strengths, data.noise.share) == (["keyboard", "swap"], [1, 2, 3], None)


def test_strengths_and_share() -> None:
    data = noise_of("data.noise.kinds=[leet]", "data.noise.strengths=[2,5]", "data.noise.share=0.3")
    mixture = data.mixture(0)
    assert (mixture.kinds, mixture.strengths, mixture.share) == (("leet",), (2, 5), 0.3)


def test_kinds_are_held_out() -> None:
    kinds = noise_of("data.noise=all", "data.noise_except=[leet,homoglyph]").mixture(0).kinds
    assert set(KINDS) - set(kinds) == {"leet", "homoglyph"}


def test_the_written_configuration_gives_it_again(tmp_path: Any) -> None:
    config = configure("ce", settings=parse(["data.noise=[leet,swap]", "data.noise_except=leet"]))
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    again = configure(file=tmp_path / "config.yaml")
    assert again == config
    assert again.data.mixture(0).kinds == ("swap",)


@pytest.mark.parametrize(
    ("assignments", "where", "says"),
    [
        (["data.noise=keyboards"], "data.noise", "keyboard"),
        (["data.noise_except=keyboards", "data.noise=all"], "data.noise_except", "keyboard"),
        (["data.noise=[]"], "data.noise", "no kind of noise is named"),
        (["data.noise.share=.5"], "data.noise.kinds", "missing"),
        (["data.noise=leet", "data.noise_except=leet"], "data", "holds every kind of data.noise out"),
        (["data.noise_except=leet"], "data", "there is none"),
        (["data.noise.kinds=all", "data.noise.share=0"], "data.noise.share", "greater than 0"),
        (["data.noise.kinds=all", "data.noise.strengths=[6]"], "data.noise.strengths", "less than or equal to 5"),
        (["data.noise.kinds=all", "data.noise.shaer=1"], "data.noise.shaer", "share"),
        (["data.noise=3"], "data.noise", "section"),
    ],
)
def test_mistakes_are_explained(assignments: list[str], where: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        noise_of(*assignments)
    assert (raised.value.where or "").startswith(where)


def test_images_have_none() -> None:
    with pytest.raises(UserError, match="no such setting"):
        configure("simclr", task="cifar10", settings={"data.noise": "all"})
