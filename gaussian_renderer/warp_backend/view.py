"""A camera as the kernels take it: one struct by value, so that nothing of it has to be copied to the device."""

from __future__ import annotations

import numpy as np
import warp as wp

from gaussian_renderer.cuda import kept_per_camera
from scene.cameras import Camera

TILE = 16
"""Side of a tile in pixels."""


@wp.struct
class View:
    """Pose, lens and size of an image.

    Attributes:
        rotation, translation: From world to camera.
        eye: Position in the world.
        focal, principal: In pixels.
        low, high: What x/z and y/z are clamped to for the Jacobian of the projection.
        size: Width and height in pixels.
        tiles: Columns and rows of tiles.
    """

    rotation: wp.mat33
    translation: wp.vec3
    eye: wp.vec3
    focal: wp.vec2
    principal: wp.vec2
    low: wp.vec2
    high: wp.vec2
    size: wp.vec2i
    tiles: wp.vec2i


@kept_per_camera
def view_of(camera: Camera) -> View:
    """The struct of a camera. A Python object on the host, made once for each camera: setting fields is slow."""
    size, focal = np.array([camera.width, camera.height]), np.array([camera.fx, camera.fy])
    principal = np.array([camera.cx, camera.cy])
    # INRIA clamps x/z to 1.3 times the half field of view; for an off-center principal point the 0.3 margin is kept on
    # either side of the image.
    margin = 0.15 * size / focal
    pose = camera.world_to_camera
    view = View()
    view.rotation = wp.mat33(*map(float, pose[:3, :3].ravel()))
    view.translation = wp.vec3(*map(float, pose[:3, 3]))
    view.eye = wp.vec3(*map(float, camera.center))
    view.focal, view.principal = wp.vec2(*map(float, focal)), wp.vec2(*map(float, principal))
    view.low = wp.vec2(*map(float, -principal / focal - margin))
    view.high = wp.vec2(*map(float, (size - principal) / focal + margin))
    view.size, view.tiles = wp.vec2i(*map(int, size)), wp.vec2i(*map(int, -(-size // TILE)))
    return view
