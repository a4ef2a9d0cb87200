// SPDX-License-Identifier: Apache-2.0
// What every kernel is given, and the table of kernels that one kind of processor has.
//
// Everything is in index coordinates of the volume, its axes renamed so that z is the axis along which the rays
// mostly run. Along a ray x = sx + h mx, y = sy + h my with h = z - sz: straight lines of two slopes. Joseph's
// method sums the bilinear interpolant of every plane z = 0 .. nz - 1; the field is zero beyond the outer voxels'
// centers and falls linearly to it over one pitch.
//
// With f the interpolant at a plane, and sums over the planes, five pictures hold the projection and its derivative:
//     S = sum f,  X0 = sum df/dx,  X1 = sum h df/dx,  Y0 = sum df/dy,  Y1 = sum h df/dy.
// A motion of the source by ds and of the ray's slopes by (dmx, dmy) changes S by
//     X0 (dsx - mx dsz) + X1 dmx + Y0 (dsy - my dsz) + Y1 dmy :
// the planes stay, only the place where a ray meets them moves. Cut-off faces need no term of their own, because
// the field is continuous there.
#pragma once
#include <cstddef>
#include <cstdint>

namespace projector {

constexpr int PAD = 2;  // zeros around every plane: a place outside is clamped to where both taps are zero

// One layout of the volume, planes [nz][ny + 2 PAD][nx + 2 PAD], first voxel of a plane at [PAD][PAD].
struct Planes {
    const float* data;
    int nx, ny, nz;
};

// Where the rays run. A pixel (u, v) has the direction d = base + u du + v dv in index coordinates (source to pixel),
// and the same in mm in the C-arm frame: (ax + u pu, ay + v pv, -sdd).
struct View {
    int h, w;
    float source[3];           // index coordinates (x, y, z)
    float base[3], du[3], dv[3];
    float m[9];                // index (x, y, z) from C-arm, rows: mm to index steps
    float ax, pu, ay, pv, sdd, sod;
};

// Where rows of pixels go: a whole picture, or a band of it that begins with row `first` and is used up at once.
struct Out {
    float* image;          // [row - first][w]
    float* jacobian;       // six such planes, `apart` floats from one to the next, or null
    int first;
    std::ptrdiff_t apart;
};

using Rows = void (*)(const Planes&, const View&, const Out&, int row0, int row1);

// The volume in bytes, 1/mm each `unit`, for the quick renderer: strips along z, each plane of a strip TALL rows of `width`
// voxels, a strip every `stride` voxels and every APART rows, so that a window lies within one strip, or two neighbouring
// ones, wherever it begins and a ray that goes on along z goes on in memory. The first strip begins LEFT voxels before the volume and ABOVE it.
constexpr int APART = 32, TALL = 40;
constexpr int LEFT = 16, ABOVE = 8, FINE = 64;
struct Bricks {
    const std::uint8_t *data, *fine;  // v = unit (data + (fine - 128) / FINE)
    int nx, ny, nz, columns, rows, strip;
    float unit;
};

struct Shape {  // of a path's bricks: bytes in a row, voxels between strips
    int width, stride;
};

constexpr int TILE = 64;  // pixels of a row that are worked on together
// Floats that `patches` wants for itself, aligned to 64 bytes: at most 12 a pixel, five sums for a row of patches, and a register.
inline std::size_t patch_scratch(int w, int rows) {
    const std::size_t wide = w < TILE ? (static_cast<std::size_t>(w) + 3) / 4 * 4 : TILE;
    return (wide * ((static_cast<std::size_t>(rows) + 3) / 4 * 4) * 12 + wide * 5 * 4 + 16 + 15) / 16 * 16;
}

struct Path {
    const char* name;
    Rows direct;
    void (*patches)(const Bricks&, const View&, const Out&, int row0, int row1, float* scratch);
    Shape bricks;
};

extern const Path portable;
#ifdef FLUORONAV_X86
extern const Path avx2;
extern const Path avx512;
#endif

}  // namespace projector
