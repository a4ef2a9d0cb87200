// SPDX-License-Identifier: Apache-2.0
// The volume in bytes for the quick renderer: where they lie, how they are made, and which views they serve.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "path.hpp"
#include "plan.hpp"

namespace projector {

using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Layout {
    std::ptrdiff_t columns, blocks, plane, strip, total;
    Layout(std::ptrdiff_t nx, std::ptrdiff_t ny, std::ptrdiff_t nz, const Shape& s) {
        columns = (nx + 1 + LEFT) / s.stride + 3 + s.width / s.stride, blocks = (ny + ABOVE + 2) / APART + 1;
        plane = TALL * s.width;
        strip = (nz * plane + 63) / 64 * 64 + 37 * 64;  // no neighbouring strips at the same places of a cache
        total = columns * blocks * strip;
    }
};

// data: bytes and fine bytes. False where 32-bit offsets do not reach.
inline bool bricks_at(const Bytes& data, int nx, int ny, int nz, float unit, const Shape& shape, Bricks& out) {
    const Layout l(nx, ny, nz, shape);
    if (l.total >= (1LL << 31)) return false;
    if (data.shape(0) != 2 || static_cast<std::ptrdiff_t>(data.shape(1)) < l.total) throw nb::value_error("bricks of another path or volume");
    out = {data.data(), data.data() + data.shape(1), nx, ny, nz, static_cast<int>(l.columns), static_cast<int>(l.blocks) * APART,
           static_cast<int>(l.strip), unit};
    return true;
}

// Whether patches serve a view: the volume lies wholly before the source, and pixels are no wider than two voxels, which
// is as far as the rays of a window may spread on every path. q: the view's 27 numbers.
inline bool served(const View& view, const double* q, const Bricks& v) {
    const double ha = -q[2], hb = v.nz - 1 - q[2], farthest = std::max(std::abs(ha), std::abs(hb));
    if (!(ha * hb > 0) || std::min(std::abs(ha), std::abs(hb)) < 2) return false;
    for (int c = 0; c < 4; ++c) {
        double m[3][2];  // slopes of a corner's pixel and of its neighbours
        for (int e = 0; e < 3; ++e) {
            const double u = c % 2 * (view.w - 1.0) + (e == 1), w = c / 2 * (view.h - 1.0) + (e == 2);
            double d[3];
            for (int a = 0; a < 3; ++a) d[a] = q[3 + a] + u * q[6 + a] + w * q[9 + a];
            if (!(d[2] * ha > 0) || std::abs(d[2]) < 1e-2 * (std::abs(d[0]) + std::abs(d[1]))) return false;
            m[e][0] = d[0] / d[2], m[e][1] = d[1] / d[2];
        }
        for (int a = 0; a < 2; ++a)
            if (1.1 * farthest * (std::abs(m[1][a] - m[0][a]) + std::abs(m[2][a] - m[0][a])) > 2) return false;
    }
    return true;
}

// A volume in any order of axes [z][y][x], nowhere negative, to bytes and fine bytes; and 1/mm a byte. Rounding errors go on
// to the next plane, so that they cancel along rays; where there is nothing there stays nothing.
inline nb::tuple bricks_of(nb::ndarray<const float, nb::ndim<3>, nb::device::cpu> volume, const Shape& shape) {
    const auto nz = static_cast<std::ptrdiff_t>(volume.shape(0)), ny = static_cast<std::ptrdiff_t>(volume.shape(1)),
               nx = static_cast<std::ptrdiff_t>(volume.shape(2)), sz = volume.stride(0), sy = volume.stride(1), sx = volume.stride(2);
    const Layout l(nx, ny, nz, shape);
    constexpr std::ptrdiff_t page = 1 << 21;
    const std::ptrdiff_t each = (l.total + 4096 + 63) / 64 * 64, bytes = (2 * each + page - 1) / page * page;
    auto* data = static_cast<std::uint8_t*>(::operator new(static_cast<std::size_t>(bytes), std::align_val_t(page)));
#ifdef __linux__
    madvise(data, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // rays cross many pages: let them be large
#endif
    float unit = 1;
    {
        nb::gil_scoped_release release;
        std::memset(data, 0, static_cast<std::size_t>(each)), std::memset(data + each, 128, static_cast<std::size_t>(each));
        float high = 0;
        for (std::ptrdiff_t k = 0; k < nz; ++k)
            for (std::ptrdiff_t j = 0; j < ny; ++j)
                for (std::ptrdiff_t i = 0; i < nx; ++i) high = std::max(high, volume.data()[k * sz + j * sy + i * sx]);
        if (high > 0) unit = high / 255;
        const std::size_t wide = static_cast<std::size_t>(l.columns) * shape.stride + shape.width;
        std::vector<std::uint8_t> line(wide, 0), rest(wide, 128);
        std::vector<float> left(static_cast<std::size_t>(nx * ny), 0.0f);
        for (std::ptrdiff_t k = 0; k < nz; ++k)
            for (std::ptrdiff_t j = 0; j < ny; ++j) {
                for (std::ptrdiff_t i = 0; i < nx; ++i) {
                    const float value = volume.data()[k * sz + j * sy + i * sx] / unit;
                    float& error = left[static_cast<std::size_t>(j * nx + i)];
                    const float wanted = value + error, byte = value > 0 ? std::floor(std::clamp(wanted + 0.5f, 0.0f, 255.0f)) : 0.0f;
                    error = value > 0 ? std::clamp(wanted - byte, -0.5f, 0.5f) : 0.0f;
                    line[LEFT + i] = static_cast<std::uint8_t>(byte);
                    rest[LEFT + i] = static_cast<std::uint8_t>(std::clamp((value - byte) * FINE + 128.5f, 0.0f, 255.0f));
                }
                for (std::ptrdiff_t b = 0; b < l.blocks; ++b) {
                    const std::ptrdiff_t row = j + ABOVE - b * APART;
                    if (row < 0 || row >= TALL) continue;
                    for (std::ptrdiff_t c = 0; c < l.columns; ++c) {
                        std::uint8_t* to = data + (b * l.columns + c) * l.strip + k * l.plane + row * shape.width;
                        std::memcpy(to, &line[static_cast<std::size_t>(c) * shape.stride], shape.width);
                        std::memcpy(to + each, &rest[static_cast<std::size_t>(c) * shape.stride], shape.width);
                    }
                }
            }
    }
    nb::capsule own(data, [](void* p) noexcept { ::operator delete(p, std::align_val_t(page)); });
    const std::size_t sizes[2] = {2, static_cast<std::size_t>(each)};
    return nb::make_tuple(nb::ndarray<nb::numpy, std::uint8_t>(data, 2, sizes, own), unit);
}

}  // namespace projector
