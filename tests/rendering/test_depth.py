"""Depth maps: cameras by their formula, pixels by hand and by a slow rasteriser of its own."""

import math

import numpy as np
import pytest
import torch

from continual_mm.data.solids.generate import cloud
from continual_mm.rendering.depth import (
    SIX_VIEWS,
    look_at,
    normalise_depth,
    render_depth,
    seen_from,
    share_outside,
    unit_ball,
    z_buffer,
)
from continual_mm.space.convolution import rescaled
from continual_mm.system.errors import InputError


def slow(points, elevation, azimuth, distance, size, radius):
    """One point and one pixel after another, in float64; a camera by its place, in numpy."""
    e, a = math.radians(elevation), math.radians(azimuth)
    place = distance * np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    ahead = -place / distance
    left = np.array([-math.cos(a), 0.0, math.sin(a)])
    up = np.cross(ahead, left)
    found = np.full((size, size), -1.0)
    for point in points / distance:
        x, y, z = point @ left, point @ up, point @ ahead + distance
        for row in range(size):
            for column in range(size):
                px, py = 1 - (2 * column + 1) / size, 1 - (2 * row + 1) / size
                inside = (x - px) ** 2 + (y - py) ** 2 < radius**2
                if inside and z >= 0 and not 0 <= found[row, column] <= z:
                    found[row, column] = z
    return found


@pytest.mark.parametrize(
    ("size", "radius", "distance"), [(24, 0.08, 1.0), (17, 0.3, 0.9), (9, 0.02, 1.1)]
)
def test_a_slow_rasteriser_of_its_own_finds_the_same_depth_at_every_pixel(size, radius, distance):
    points = torch.from_numpy(cloud(3)[:150]).double()
    found = render_depth(points, distance=distance, size=size, radius=radius)
    for each, elevation, azimuth in zip(found.numpy(), *SIX_VIEWS, strict=True):
        expected = slow(points.numpy(), elevation, azimuth, distance, size, radius)
        np.testing.assert_allclose(each, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("elevation", "azimuth", "rows"),
    [
        # Columns are the camera's x, y and z, worked out by hand from z = -(cos e sin a, sin e,
        # cos e cos a), x = (-cos a, 0, sin a), y = z x x.
        (0, 90, [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
        (90, 0, [[-1, 0, 0], [0, 0, -1], [0, -1, 0]]),
        (-90, 0, [[-1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        (-90, 180, [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
        (180, 0, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),  # behind: x is the other one
    ],
)
def test_a_camera_stands_as_the_formula_says_at_the_poles_too(elevation, azimuth, rows):
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(look_at(elevation, azimuth), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("elevation", [-90.0, -30.0, 0.0, 45.0, 90.0, 225.0])
@pytest.mark.parametrize("azimuth", [-45.0, 0.0, 180.0])
def test_a_camera_is_a_rotation_that_looks_at_the_origin(elevation, azimuth):
    turn = look_at(elevation, azimuth)
    torch.testing.assert_close(turn.T @ turn, torch.eye(3).double())
    assert torch.linalg.det(turn).item() == pytest.approx(1.0)
    e, a = math.radians(elevation), math.radians(azimuth)
    place = torch.tensor([[math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)]])
    seen = seen_from(place, elevation=elevation, azimuth=azimuth, distance=1.0)
    torch.testing.assert_close(seen[0], torch.zeros(1, 3), atol=1e-6, rtol=0)


def test_points_in_front_hide_those_behind_and_left_is_the_larger_x():
    points = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, -0.5], [-0.5, -0.5, 0.0]])
    (found,) = render_depth(points, elevation=0, azimuth=0, size=2, radius=0.1)
    # The camera is at z = 1 and looks back, so that x of the world goes to the right.
    assert found.tolist() == [[-1.0, 0.5], [1.0, -1.0]]
    _, nearest = z_buffer(
        seen_from(points, elevation=0, azimuth=0, distance=1.0), size=2, radius=0.1
    )
    assert nearest[0].tolist() == [[-1, 0], [2, -1]]


def test_a_point_covers_the_pixels_whose_centres_are_nearer_than_its_radius():
    point = torch.zeros(1, 3, dtype=torch.float64)
    # Centres of 4 x 4 pixels are at +-1/4 and +-3/4: the middle four are sqrt(1/8) away.
    exactly = math.sqrt(1 / 8)
    for radius, covered in ((exactly * 0.999, 0), (exactly * 1.001, 4), (0.8, 12)):
        found = render_depth(point, elevation=0, azimuth=0, size=4, radius=radius)
        assert int((found >= 0).sum()) == covered


def test_what_is_behind_the_camera_or_beside_the_picture_is_not_shown_and_its_share_is_told():
    points = torch.tensor([[0.0, 0.0, 1.2], [1.3, 0.0, 0.0], [0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    view = {"elevation": 0.0, "azimuth": 0.0}
    assert share_outside(points, **view) == 0.5
    visible = render_depth(points[2:], **view, size=12, radius=0.1)
    torch.testing.assert_close(render_depth(points, **view, size=12, radius=0.1), visible)
    assert share_outside(points, **view, distance=1.5) == 0.0


@pytest.mark.parametrize("mode", ["range", "published"])
def test_no_points_and_points_at_one_depth_give_maps_that_are_finite(mode):
    empty = normalise_depth(render_depth(torch.zeros(0, 3), size=5), mode=mode)
    assert torch.equal(empty, torch.ones(6, 5, 5))
    one = normalise_depth(render_depth(torch.zeros(1, 3), size=5, radius=0.3), mode=mode)
    assert one.isfinite().all()
    assert one.unique().tolist() == [0.0, 1.0]


def test_the_nearest_is_dark_and_the_farthest_light_by_the_range_or_by_the_published_rule():
    buffer = torch.tensor([[[1.5, 2.0], [-1.0, 1.75]]])
    kept = buffer.clone()
    expected = torch.tensor([[[0.0, 200 / 255], [1.0, 100 / 255]]])
    torch.testing.assert_close(normalise_depth(buffer), expected)
    # The smallest is 1.5, but no more than 1 counts; the largest is 2.
    published = torch.tensor([[[0.25, 0.5], [255 / 200, 0.375]]]) * 200 / 255
    torch.testing.assert_close(normalise_depth(buffer, mode="published"), published)
    assert torch.equal(buffer, kept)


def test_each_point_twice_gives_the_same_maps_and_a_larger_cloud_at_that_distance_too():
    points = torch.from_numpy(cloud(0))
    maps = render_depth(points, size=24, radius=0.08)
    assert torch.equal(maps, render_depth(points.repeat(2, 1), size=24, radius=0.08))
    far = normalise_depth(render_depth(2 * points.double(), distance=2.0, size=24, radius=0.08))
    near = normalise_depth(render_depth(points.double(), size=24, radius=0.08))
    torch.testing.assert_close(far, near)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_rescaled_map_is_nearly_what_a_camera_at_that_distance_sees(factor):
    points = torch.from_numpy(cloud(1))
    maps = normalise_depth(render_depth(points, size=48, radius=0.1))
    seen = normalise_depth(render_depth(points, distance=factor, size=48, radius=0.1 / factor))
    made = rescaled(maps[None], torch.tensor([factor]))[0]
    assert (made - seen).abs().mean() < 0.3 * (maps - seen).abs().mean()


def test_a_ball_has_a_largest_radius_of_one_about_its_mean():
    found = unit_ball(5 + 3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert found.norm(dim=1).max().item() == pytest.approx(1.0)
    assert torch.equal(unit_ball(torch.ones(4, 3)), torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([[0, math.nan, 0]], {}, "points: row 0 is not finite; leave such points out"),
        ([[0, 0, 0], [0, 0, math.inf]], {}, "points: row 1 is not finite"),
        ([[0, 0]], {}, r"points: are \(1, 2\) of torch.float32; give \(N, 3\) floats"),
        ([[0, 0, 0]], {"elevation": [0, 1]}, "2 elevations and 6 azimuths; give as many"),
        ([[0, 0, 0]], {"elevation": [], "azimuth": []}, "give as many of both"),
        ([[0, 0, 0]], {"elevation": math.nan, "azimuth": 0}, "an angle is not finite"),
        ([[0, 0, 0]], {"distance": 0.0}, "distance: 0.0 is not above 0"),
        ([[0, 0, 0]], {"size": 0}, "size: 0 is not from 1 to 4096"),
        ([[0, 0, 0]], {"radius": 2.0}, "radius: 2.0 is not above 0 and at most 1"),
    ],
)
def test_what_would_vanish_or_mean_nothing_is_refused(points, options, message):
    with pytest.raises(InputError, match=message):
        render_depth(torch.tensor(points, dtype=torch.float32), **{"size": 4, **options})


def test_another_way_to_normalise_is_refused():
    with pytest.raises(InputError, match="'minmax' is none of 'range', 'published'"):
        normalise_depth(torch.ones(1, 2, 2), mode="minmax")
