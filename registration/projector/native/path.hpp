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

// The same volume for the sheared renderer: 12-bit words, `unit` 1/mm each, [group][y][plane of 8][x], `pitch` words a
// row of which the first EDGE are zero, then nx voxels, then zeros. boxes: for each group first and last x and y of
// what is not zero (first > last: nothing).
constexpr int GROUP = 8, EDGE = 2, LARGEST = 4095;
struct Slabs {
    const std::int16_t* data;
    const std::int32_t* boxes;
    int nx, ny, nz, pitch;
    float unit;
};

// Rays at equal steps of the two slopes: column i has mx = mx0 + i dx, row j has my = my0 + j dy.
struct Grid {
    int w, h, pitch;      // pitch: w rounded up to 32
    double mx0, my0, dx, dy;
};

// One projection on a grid: five pictures [5][h][pitch] of sums, then five numbers (of 8) a cell for the warp.
struct Sheared {
    Slabs volume;
    View view;
    Grid grid;
    float* sums;
    float* cells;
};

struct Path {
    const char* name;
    Rows direct;
    void (*shear)(const Sheared&, bool gradient, int row0, int row1, void* scratch);  // rows of the grid
    void (*warp)(const Sheared&, const Out&, int row0, int row1);                     // rows of the picture
};

// Bytes that `shear` wants for itself, aligned to 64.
inline std::size_t scratch_bytes(const Grid& g) { return static_cast<std::size_t>(g.pitch) * GROUP * 16 + 4096; }

extern const Path portable;
#ifdef FLUORONAV_X86
extern const Path avx2;
extern const Path avx512;
#endif

}  // namespace projector
