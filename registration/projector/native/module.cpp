// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/projector: picks the processor's path, shares rows among the crew.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "crew.hpp"
#include "path.hpp"

namespace nb = nanobind;
using namespace projector;
using Block = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The paths that this processor can run, the best last.
static std::vector<const Path*> paths() {
    std::vector<const Path*> out{&portable};
#ifdef FLUORONAV_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        out.push_back(&avx2);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi"))
            out.push_back(&avx512);
    }
#endif
    return out;
}

static const Path& path_named(const std::string& name) {
    const auto all = paths();
    for (const Path* p : all)
        if (name == p->name) return *p;
    throw nb::value_error("this processor has no such path");
}

// Buffers that are used again: fresh pages cost more than the projection of a small picture.
class Pool {
public:
    float* take(std::size_t n) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            for (std::size_t i = 0; i < free_.size(); ++i)
                if (size_[free_[i]] >= n && size_[free_[i]] <= 2 * n + 4096) {
                    float* p = free_[i];
                    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
                    return p;
                }
        }
        float* p = static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t(64)));
        const std::lock_guard<std::mutex> guard(lock_);
        size_[p] = n;
        return p;
    }
    void give(float* p) {
        const std::lock_guard<std::mutex> guard(lock_);
        free_.push_back(p);
        if (free_.size() > KEPT) {
            size_.erase(free_.front());
            ::operator delete(free_.front(), std::align_val_t(64));
            free_.erase(free_.begin());
        }
    }

private:
    static constexpr std::size_t KEPT = 32;
    std::mutex lock_;
    std::vector<float*> free_;
    std::unordered_map<float*, std::size_t> size_;
};

static Pool& pool() {
    static Pool* kept = new Pool;  // never destroyed: arrays may outlive the module's statics
    return *kept;
}

struct Buffer {
    float* p;
    explicit Buffer(std::size_t n) : p(pool().take(n)) {}
    Buffer(const Buffer&) = delete;
    ~Buffer() { if (p) pool().give(p); }
    float* release() { float* out = p; p = nullptr; return out; }
};

static nb::object array(Buffer& buffer, std::initializer_list<std::size_t> shape) {
    float* data = buffer.release();
    nb::capsule owner(data, [](void* p) noexcept { pool().give(static_cast<float*>(p)); });
    return nb::cast(nb::ndarray<nb::numpy, float>(data, shape.size(), shape.begin(), owner));
}

// numbers: source (3), base (3), du (3), dv (3), m (9), ax, pu, ay, pv, sdd, sod; see View.
static View view_of(int h, int w, const Numbers& numbers) {
    if (numbers.shape(0) != 27 || h < 1 || w < 1) throw nb::value_error("a view is a shape and 27 numbers");
    View v;
    v.h = h, v.w = w;
    const double* n = numbers.data();
    for (int i = 0; i < 3; ++i) {
        v.source[i] = static_cast<float>(n[i]);
        v.base[i] = static_cast<float>(n[3 + i]);
        v.du[i] = static_cast<float>(n[6 + i]);
        v.dv[i] = static_cast<float>(n[9 + i]);
    }
    for (int i = 0; i < 9; ++i) v.m[i] = static_cast<float>(n[12 + i]);
    v.ax = static_cast<float>(n[21]), v.pu = static_cast<float>(n[22]), v.ay = static_cast<float>(n[23]);
    v.pv = static_cast<float>(n[24]), v.sdd = static_cast<float>(n[25]), v.sod = static_cast<float>(n[26]);
    return v;
}

constexpr int BAND = 32;  // rows that one thread works on before it takes others: their sums stay in its cache
constexpr int MOST = 64;  // threads
static int parts(int rows, int size) { return (rows + size - 1) / size; }

// A picture as a numpy array, alone or with its Jacobian.
struct Result {
    std::size_t rows, cols;
    Buffer image, jacobian;
    Result(int h, int w, bool with) : rows(static_cast<std::size_t>(h)), cols(static_cast<std::size_t>(w)),
                                      image(rows * cols), jacobian(with ? 6 * rows * cols : 1), with_(with) {}
    Out out() { return {image.p, with_ ? jacobian.p : nullptr}; }
    nb::object object() {
        nb::object picture = array(image, {rows, cols});
        if (!with_) return picture;
        return nb::make_tuple(picture, array(jacobian, {6, rows, cols}));
    }

private:
    bool with_;
};

static nb::object direct(Block planes, int h, int w, Numbers numbers, bool jacobian, int threads, const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    const Planes volume{planes.data(), static_cast<int>(planes.shape(2)) - 2 * PAD,
                        static_cast<int>(planes.shape(1)) - 2 * PAD, static_cast<int>(planes.shape(0))};
    if (volume.nx < 1 || volume.ny < 1) throw nb::value_error("planes without their border of zeros");
    Result result(h, w, jacobian);
    {
        nb::gil_scoped_release release;
        Crew::run(std::clamp(threads, 1, MOST), {parts(h, 4)}, [&](int, int part, int) {
            p.direct(volume, view, result.out(), 4 * part, std::min(h, 4 * part + 4));
        });
    }
    return result.object();
}

// The largest steps that the windows of all paths hold, in voxels between neighbouring rays of a plane.
constexpr double WIDEST = 1.9;

// The grid of slopes for a view; false where the sheared renderer does not serve: a volume that reaches
// behind the source, pixels much wider than voxels, nothing in sight.
static bool plan(const View& view, const Numbers& numbers, const Slabs& v, double finer, Grid& grid) {
    const double* q = numbers.data();  // in double: differences of large slopes follow
    const double ha = -q[2], hb = v.nz - 1 - q[2];
    double low[2] = {1e30, 1e30}, high[2] = {-1e30, -1e30}, step[2] = {1e30, 1e30};
    for (int c = 0; c < 5; ++c) {
        const double u = c == 4 ? (view.w - 1) / 2.0 : c % 2 * (view.w - 1.0), w = c == 4 ? (view.h - 1) / 2.0 : c / 2 * (view.h - 1.0);
        double d[3];
        for (int a = 0; a < 3; ++a) d[a] = q[3 + a] + u * q[6 + a] + w * q[9 + a];
        for (const double h : {ha, hb})
            if (!(h / d[2] > 0 && std::abs(h) > 2)) return false;
        for (int a = 0; a < 2; ++a) {
            const double m = d[a] / d[2];
            low[a] = std::min(low[a], m), high[a] = std::max(high[a], m);
            step[a] = std::min(step[a], std::hypot(q[6 + a] - m * q[8], q[9 + a] - m * q[11]) / std::abs(d[2]));
        }
    }
    const double farthest = std::max(std::abs(ha), std::abs(hb)), way = ha > 0 ? 1 : -1;
    int size[2];
    double start[2];
    for (int a = 0; a < 2; ++a) {
        double first = 1e30, last = -1e30;  // the volume's shadow
        for (const double h : {ha, hb})
            for (const double x : {-1.0 - q[a], (a ? v.ny : v.nx) - q[a]}) first = std::min(first, x / h), last = std::max(last, x / h);
        low[a] = std::max(low[a], first), high[a] = std::min(high[a], last);
        const double wanted = step[a] / finer;
        step[a] = std::min(wanted, WIDEST / farthest);
        if (!(high[a] > low[a]) || wanted > 2 * step[a] || (high[a] - low[a]) / step[a] > 4000) return false;
        size[a] = static_cast<int>(std::ceil((high[a] - low[a]) / step[a])) + 6;
        start[a] = (way > 0 ? low[a] : high[a]) - 2 * way * step[a];
    }
    grid = {size[0], size[1], (size[0] + 31) / 32 * 32, start[0], start[1], way * step[0], way * step[1]};
    return true;
}

static nb::object sheared(nb::ndarray<const std::int16_t, nb::ndim<4>, nb::c_contig, nb::device::cpu> slabs,
                          nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> boxes, int nz, int nx,
                          float unit, double finer, int h, int w, Numbers numbers, bool jacobian, int threads,
                          const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    const Slabs volume{slabs.data(), boxes.data(), nx, static_cast<int>(slabs.shape(1)), nz,
                       static_cast<int>(slabs.shape(3)), unit};
    if (slabs.shape(2) != GROUP || boxes.shape(1) != 4 || boxes.shape(0) != slabs.shape(0)) throw nb::value_error("no slabs");
    Grid grid;
    if (!plan(view, numbers, volume, finer, grid)) return nb::none();
    Result result(h, w, jacobian);
    {
        nb::gil_scoped_release release;
        const std::size_t cells = static_cast<std::size_t>(grid.h) * grid.pitch, own = scratch_bytes(grid) / sizeof(float) + 16;
        const int n = static_cast<double>(cells) * nz < 1e6 ? 1 : std::clamp(threads, 1, MOST);  // 0.1 ms: not worth it
        Buffer sums((jacobian ? 5 : 1) * cells), five(jacobian ? 8 * cells : 1), scratch(n * (own / 16 * 16));
        const Sheared s{volume, view, grid, sums.p, five.p};
        Crew::run(n, {parts(grid.h, BAND), parts(h, BAND)}, [&](int stage, int part, int who) {
            const int first = part * BAND;
            if (stage == 0) p.shear(s, jacobian, first, std::min(grid.h, first + BAND), scratch.p + who * (own / 16 * 16));
            else p.warp(s, result.out(), first, std::min(h, first + BAND));
        });
    }
    return result.object();
}

// A volume in any order of axes [z][y][x] to 12-bit words: slabs, boxes, unit.
static nb::tuple slabs_of(nb::ndarray<const float, nb::ndim<3>, nb::device::cpu> volume) {
    const auto nz = static_cast<std::ptrdiff_t>(volume.shape(0)), ny = static_cast<std::ptrdiff_t>(volume.shape(1)),
               nx = static_cast<std::ptrdiff_t>(volume.shape(2)), sz = volume.stride(0), sy = volume.stride(1), sx = volume.stride(2);
    const std::size_t groups = (nz + GROUP - 1) / GROUP, pitch = std::max<std::size_t>(64, (nx + EDGE + 2 + 31) / 32 * 32);
    auto* data = new std::vector<std::int16_t>(groups * ny * GROUP * pitch, 0);
    auto* boxes = new std::vector<std::int32_t>(groups * 4);
    float unit = 0;
    {
        nb::gil_scoped_release release;
        float low = 0, high = 0;
        for (std::ptrdiff_t k = 0; k < nz; ++k)
            for (std::ptrdiff_t j = 0; j < ny; ++j)
                for (std::ptrdiff_t i = 0; i < nx; ++i) {
                    const float f = volume.data()[k * sz + j * sy + i * sx];
                    low = std::min(low, f), high = std::max(high, f);
                }
        unit = high > low ? (high - low) / LARGEST : 1.0f;
        for (std::size_t g = 0; g < groups; ++g) {
            std::int32_t* box = boxes->data() + 4 * g;
            box[0] = box[2] = 1 << 30, box[1] = box[3] = -1;
            for (std::ptrdiff_t k = g * GROUP; k < std::min<std::ptrdiff_t>(nz, (g + 1) * GROUP); ++k)
                for (std::ptrdiff_t j = 0; j < ny; ++j)
                    for (std::ptrdiff_t i = 0; i < nx; ++i) {
                        const auto word = static_cast<std::int16_t>(std::lround(volume.data()[k * sz + j * sy + i * sx] / unit));
                        if (!word) continue;
                        (*data)[((g * ny + j) * GROUP + k % GROUP) * pitch + EDGE + i] = word;
                        const auto x = static_cast<std::int32_t>(i), y = static_cast<std::int32_t>(j);
                        box[0] = std::min(box[0], x), box[1] = std::max(box[1], x);
                        box[2] = std::min(box[2], y), box[3] = std::max(box[3], y);
                    }
        }
    }
    nb::capsule own(data, [](void* p) noexcept { delete static_cast<std::vector<std::int16_t>*>(p); });
    nb::capsule own_boxes(boxes, [](void* p) noexcept { delete static_cast<std::vector<std::int32_t>*>(p); });
    const std::size_t shape[4] = {groups, static_cast<std::size_t>(ny), GROUP, pitch}, box_shape[2] = {groups, 4};
    return nb::make_tuple(nb::ndarray<nb::numpy, std::int16_t>(data->data(), 4, shape, own),
                          nb::ndarray<nb::numpy, std::int32_t>(boxes->data(), 2, box_shape, own_boxes), unit);
}

NB_MODULE(_projector, m) {
    m.attr("PAD") = PAD;
    m.def("paths", [] {
        std::vector<std::string> names;
        for (const Path* p : paths()) names.emplace_back(p->name);
        return names;
    });
    m.def("direct", &direct, nb::arg("planes"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"), nb::arg("jacobian"),
          nb::arg("threads"), nb::arg("path"));
    m.def("slabs", &slabs_of, nb::arg("volume"));
    m.def("sheared", &sheared, nb::arg("slabs"), nb::arg("boxes"), nb::arg("nz"), nb::arg("nx"), nb::arg("unit"),
          nb::arg("finer"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"), nb::arg("jacobian"), nb::arg("threads"),
          nb::arg("path"));
}
