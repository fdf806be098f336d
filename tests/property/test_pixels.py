"""The fused pixel kernel equals its plain twin to the last bit, on every variant that this CPU runs."""

import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headworks_native import pixels
from support.plain_pixels import TYPES, Pixels, plain_grey, plain_position

FORMS = ("f32_chw", "f32_hwc", "f16_chw", "f16_hwc", "u8_chw", "u8_hwc")
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

each_variant = pytest.mark.parametrize("variant", pixels.variants())
each_form = pytest.mark.parametrize("form", FORMS)
each_count = pytest.mark.parametrize("channels", [3, 1])


def empty_buffer(form: str, *, positions: int, height: int, width: int, channels: int = 3) -> npt.NDArray[Any]:
    """Return a batch buffer full of what must not survive: NaN, or a byte that is no pad."""
    kind, order = form.split("_")
    picture = (height, width, channels) if order == "hwc" else (channels, height, width)
    return np.full((positions, *picture), 7 if kind == "u8" else np.nan, TYPES[kind])


def random_picture(seed: int, *, height: int, width: int, spare: int = 0, channels: int = 3) -> Pixels:
    """Return random pixels, each row followed by `spare` bytes that belong to nobody."""
    memory = np.random.default_rng(seed).integers(0, 256, (height, width * channels + spare), np.uint8)
    rows = memory[:, : width * channels]
    return np.lib.stride_tricks.as_strided(rows, (height, width, channels), (memory.strides[0], channels, 1))


@st.composite
def placements(draw: st.DrawFn, *, height: int, width: int, channels: int = 3) -> tuple[Pixels, int, int, bool]:
    """Draw a picture, its left and top, and whether its channels are swapped. Grey may come as one channel or three."""
    picture_height, picture_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    picture = random_picture(
        draw(st.integers(0, 2**32)),
        height=picture_height,
        width=picture_width,
        spare=draw(st.integers(0, 5)),
        channels=draw(st.sampled_from([channels, 3])),
    )
    left, top = draw(st.integers(0, width - picture_width)), draw(st.integers(0, height - picture_height))
    return picture, left, top, draw(st.booleans())


@each_variant
@each_form
@each_count
@given(data=st.data())
def test_alternating_pictures_through_one_position_leave_nothing_behind(
    variant: str, form: str, channels: int, data: st.DataObject
) -> None:
    """After each of several pictures of any shape, place and order, every position is as if painted afresh."""
    height, width = data.draw(st.integers(1, 40), "height"), data.draw(st.integers(1, 70), "width")
    pad_value = data.draw(st.integers(0, 255), "pad_value")
    size = {"height": height, "width": width, "channels": channels}
    buffer = empty_buffer(form, positions=2, **size)
    canvas = pixels.Canvas(buffer, positions=2, form=form, pad_value=pad_value, _variant=variant, **size, **IMAGENET)
    expected = buffer.copy()

    for position in data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=6), "positions"):
        picture, left, top, swap = data.draw(placements(**size), "picture")
        canvas.paint(position, picture, left=left, top=top, swap=swap)
        place = {"left": left, "top": top, "swap": swap} | size
        expected[position] = plain_position(picture, form=form, pad_value=pad_value, **place, **IMAGENET)
        assert expected.tobytes() == buffer.tobytes()


@each_variant
@each_form
def test_landscape_then_portrait_then_landscape(variant: str, form: str) -> None:
    """The borders of a letterbox follow the picture: none of a landscape is seen beside the portrait after it."""
    buffer = empty_buffer(form, positions=1, height=64, width=64)
    canvas = pixels.Canvas(buffer, positions=1, height=64, width=64, form=form, _variant=variant)
    for seed, (height, width) in enumerate([(36, 64), (64, 36), (36, 64), (64, 64), (48, 64)]):
        picture = random_picture(seed, height=height, width=width)
        place = {"left": (64 - width) // 2, "top": (64 - height) // 2, "swap": True}
        canvas.paint(0, picture, **place)
        expected = plain_position(picture, height=64, width=64, form=form, **place)
        assert expected.tobytes() == buffer.tobytes()


@each_variant
@pytest.mark.parametrize("form", ["f32_chw", "f32_hwc", "f16_chw", "f16_hwc"])
@given(
    scale=st.floats(1e-6, 1e3),
    mean=st.tuples(*[st.floats(-300, 300)] * 3),
    std=st.tuples(*[st.floats(1e-3, 300)] * 3),
    swap=st.booleans(),
)
def test_every_pixel_value_under_any_normalisation(
    variant: str, form: str, scale: float, mean: tuple[float, float, float], std: tuple[float, float, float], swap: bool
) -> None:
    """All 256 values through any scale, mean and std give the formula's float32, product and sum rounded apart.

    A half is that float, rounded once more, to nearest and to even: infinite beyond 65,504, denormal below 2^-14.
    """
    picture = np.stack([np.arange(256), np.arange(256)[::-1], (np.arange(256) * 7) % 256], axis=-1)
    picture = picture.astype(np.uint8).reshape(1, 256, 3)
    buffer = empty_buffer(form, positions=1, height=1, width=256)
    normalise = {"scale": scale, "mean": mean, "std": std}
    canvas = pixels.Canvas(buffer, positions=1, height=1, width=256, form=form, _variant=variant, **normalise)
    canvas.paint(0, picture, left=0, top=0, swap=swap)
    expected = plain_position(picture, height=1, width=256, left=0, top=0, swap=swap, form=form, **normalise)
    assert expected.tobytes() == buffer.tobytes()


@each_variant
@pytest.mark.parametrize("blue_first", [False, True])
def test_grey_equals_opencv(variant: str, blue_first: bool) -> None:
    """A model of grey sees what OpenCV's cvtColor makes of the picture, to the last bit, whichever end is red."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)  # with 0 and 255
    picture = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    expected = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY if blue_first else cv2.COLOR_RGB2GRAY)
    buffer = np.zeros((1, *expected.shape, 1), np.uint8)
    size = {"height": expected.shape[0], "width": expected.shape[1], "channels": 1}
    canvas = pixels.Canvas(buffer, positions=1, form="u8_hwc", _variant=variant, **size)
    canvas.paint(0, picture, left=0, top=0, swap=blue_first)
    assert np.array_equal(expected, buffer[0, ..., 0])
    assert np.array_equal(expected, plain_grey(picture, blue_first=blue_first)[..., 0])


def test_border_is_left_alone_while_the_interior_stays() -> None:
    """A second picture of the same shape writes its interior and not one byte beside it."""
    buffer = empty_buffer("u8_hwc", positions=1, height=8, width=8)
    canvas = pixels.Canvas(buffer, positions=1, height=8, width=8, form="u8_hwc")
    canvas.paint(0, random_picture(1, height=4, width=8), left=0, top=2, swap=False)
    buffer[0, 0] = 99
    canvas.paint(0, random_picture(2, height=4, width=8), left=0, top=2, swap=False)
    assert np.all(buffer[0, 0] == 99)


def test_picture_flipped_through_a_negative_stride() -> None:
    """Rows may run in either direction: only the pixels of one row must lie together."""
    buffer = empty_buffer("u8_hwc", positions=1, height=4, width=4)
    picture = random_picture(3, height=4, width=4)[::-1]
    pixels.Canvas(buffer, positions=1, height=4, width=4, form="u8_hwc").paint(0, picture, left=0, top=0, swap=False)
    assert np.array_equal(picture, buffer[0])


@each_form
def test_decoders_paint_different_positions_at_once(form: str) -> None:
    """One canvas serves many decoders, as long as no two paint the same position."""
    height, width, positions = 48, 80, 4
    buffer = empty_buffer(form, positions=positions, height=height, width=width)
    canvas = pixels.Canvas(buffer, positions=positions, height=height, width=width, form=form)
    shapes = [(27, 48), (48, 27), (48, 80)]

    def paint_many(position: int) -> None:
        for turn in range(50):
            rows, columns = shapes[turn % 3]
            picture = random_picture(position, height=rows, width=columns)
            canvas.paint(position, picture, left=0, top=0, swap=False)

    threads = [threading.Thread(target=paint_many, args=(position,)) for position in range(positions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for position in range(positions):
        picture = random_picture(position, height=48, width=27)
        expected = plain_position(picture, height=height, width=width, left=0, top=0, swap=False, form=form)
        assert expected.tobytes() == buffer[position].tobytes()


def test_canvas_keeps_its_buffer_from_being_resized() -> None:
    """The memory under a canvas stays where it is until the canvas is gone."""
    memory = bytearray(4 * 4 * 3)
    canvas = pixels.Canvas(memory, positions=1, height=4, width=4, form="u8_hwc")
    with pytest.raises(BufferError):
        memory.extend(b"more")
    del canvas
    memory.extend(b"more")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"form": "f64_hwc"}, "form must be one of f32_chw, f32_hwc, f16_chw, f16_hwc, u8_chw, u8_hwc"),
        ({"height": 5}, "are 60 bytes, got 48"),
        ({"channels": 1}, "4x4x1 are 16 bytes, got 48"),
        ({"channels": 4}, "channels must be 3, or 1 for grey"),
        ({"std": (1e-300, 1.0, 1.0)}, "must fit float32"),
        ({"positions": 0}, "at least one position"),
        ({"width": 65_536}, "sides from 1 to 65535"),
        ({"pad_value": 256}, "from 0 to 255"),
        ({"std": (1.0, 0.0, 1.0)}, "std positive"),
        ({"scale": float("nan")}, "must be finite"),
        ({"mean": (0.0, 0.0)}, "3 values each"),
        ({"_variant": "sse9"}, "variant must be one of"),
    ],
)
def test_canvas_refuses_arguments_that_do_not_fit(changed: dict[str, object], message: str) -> None:
    """Each refusal says what was expected and what came."""
    arguments: dict[str, object] = {"positions": 1, "height": 4, "width": 4, "form": "u8_hwc"} | changed
    with pytest.raises(ValueError, match=message):
        pixels.Canvas(bytearray(48), **arguments)


def test_canvas_refuses_memory_it_cannot_write_or_align() -> None:
    """Read-only memory and floats off their alignment are refused before anything is painted."""
    with pytest.raises(BufferError):
        pixels.Canvas(bytes(48), positions=1, height=4, width=4, form="u8_hwc")
    memory = np.zeros(4 * 48 + 1, np.uint8)
    with pytest.raises(ValueError, match="aligned"):
        pixels.Canvas(memory[1:], positions=1, height=4, width=4, form="f32_chw")
    with pytest.raises(ValueError, match="aligned to 2 bytes"):
        pixels.Canvas(memory[1:97], positions=1, height=4, width=4, form="f16_chw")


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (np.zeros((4, 5, 3), np.uint8), ValueError),
        (np.zeros((0, 4, 3), np.uint8), ValueError),
        (np.zeros((4, 4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 1), np.uint8), ValueError),
        (np.zeros((4, 4), np.uint8), ValueError),
        (np.zeros((4, 8, 3), np.uint8)[:, ::2], ValueError),
        (np.zeros((4, 4, 6), np.uint8)[..., ::2], ValueError),
        (np.zeros((4, 4, 3), np.int8), TypeError),
        (np.zeros((4, 4, 3), np.float32), TypeError),
        (b"0123456789ab", ValueError),
        (None, TypeError),
    ],
)
def test_paint_refuses_a_picture_that_does_not_fit(picture: object, error: type[Exception]) -> None:
    """A refused picture leaves the position as it was."""
    buffer = empty_buffer("u8_hwc", positions=1, height=4, width=4)
    before = buffer.copy()
    canvas = pixels.Canvas(buffer, positions=1, height=4, width=4, form="u8_hwc")
    with pytest.raises(error):
        canvas.paint(0, picture, left=0, top=0, swap=False)
    assert np.array_equal(before, buffer)


@pytest.mark.parametrize("place", [{"left": -1, "top": 0}, {"left": 0, "top": 3}, {"left": 2**31 - 1, "top": 0}])
def test_paint_refuses_a_place_outside_the_canvas(place: dict[str, int]) -> None:
    """An interior that would leave its position is refused, however far out it lies."""
    canvas = pixels.Canvas(bytearray(48), positions=1, height=4, width=4, form="u8_hwc")
    with pytest.raises(ValueError, match="not inside a canvas of 4x4"):
        canvas.paint(0, np.zeros((2, 2, 3), np.uint8), swap=False, **place)


@pytest.mark.parametrize("position", [-1, 1])
def test_paint_refuses_a_position_that_is_not_there(position: int) -> None:
    """Positions do not wrap around."""
    canvas = pixels.Canvas(bytearray(48), positions=1, height=4, width=4, form="u8_hwc")
    with pytest.raises(IndexError, match=f"position {position} of a canvas of 1"):
        canvas.paint(position, np.zeros((4, 4, 3), np.uint8), left=0, top=0, swap=False)
