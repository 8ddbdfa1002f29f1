import pytest

from manifests.color_hints import ColorHint, apply_color_hints, parse_color_hints


def test_hints_are_colour_then_object():
    assert parse_color_hints("red barn; pale blue sky;") == [ColorHint("red", "barn"), ColorHint("pale blue", "sky")]


@pytest.mark.parametrize("bad", ["barn", "red", "pale sky", "red barn; house"])
def test_a_hint_without_colour_or_object_is_named(bad):
    with pytest.raises(ValueError, match="colour hint"):
        parse_color_hints(bad)


@pytest.mark.parametrize(
    ("caption", "hints", "target"),
    [
        ("A barn and a house.", "red barn", "A red barn and a house"),
        ("A barn", "red barn; blue sky", "A red barn, blue sky"),
        ("Barnyard with barn", "red barn", "Barnyard with red barn"),
        ("Street in White Plains", "green tree", "Street in White Plains, green tree"),
        ("", "red barn", "red barn"),
    ],
)
def test_hints_go_before_their_objects(caption, hints, target):
    assert apply_color_hints(caption, parse_color_hints(hints)) == target
