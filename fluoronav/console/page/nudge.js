// SPDX-License-Identifier: Apache-2.0
// How does a drag become a motion? Tangent vectors (rx, ry, rz, tx, ty, tz), rad and mm, in the C-arm frame.
//
// x is right and y down in the picture, z points towards the source (into the screen): a turn clockwise on the screen
// is a positive turn about z.

// A shift by pixels, in the plane where one pixel is mmPerPx wide and high.
export function moved(du, dv, mmPerPx) { return [0, 0, 0, du * mmPerPx[0], dv * mmPerPx[1], 0]; }

// A turn by an angle about the axis along z through a point (mm, C-arm frame): t = point x (0, 0, angle).
export function turned(angle, point) { return [0, 0, angle, point[1] * angle, -point[0] * angle, 0]; }
