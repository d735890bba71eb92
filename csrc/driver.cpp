// SPDX-License-Identifier: Apache-2.0
#include "driver.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace mlr {

namespace {

// Under AddressSanitizer every map of a workspace is followed by bytes that nobody may touch.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kRedZone = 64;
#else
constexpr size_t kRedZone = 0;
#endif

int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
size_t element_bytes(Element e) { return e == Element::kFloat32 ? 4 : 2; }

// Memory of one thread, kept between calls so that its pages are touched once; too much of it is given back.
class Arena {
 public:
  static Arena& of_this_thread() {
    thread_local Arena arena;
    return arena;
  }
  char* get(size_t bytes) {
    if (memory_) ASAN_UNPOISON_MEMORY_REGION(memory_.get(), size_);
    if (bytes > size_) {
      memory_.reset();
      memory_.reset(static_cast<char*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign)));
      size_ = memory_ ? bytes : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return memory_.get();
  }
  void trim() {
    if (size_ > kKeep) {
      memory_.reset();
      size_ = 0;
    }
  }

 private:
  static constexpr size_t kAlign = 64, kKeep = size_t(64) << 20;
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

// A pixel that is alone equals every mean: M and Mn are 0, of a bad pixel NaN.
bool is_one_pixel(const ImageTask& im, int k) { return im.count[k][Kind::D] == 1; }

// An image and its sums, in a workspace of plan.image_bytes.
ImageTask make_task(const Plan& plan, const Batch& image, const Kernels& kernels, char* work) {
  ImageTask im{};
  im.plan = &plan;
  im.pred = image.pred, im.target = image.target, im.mask = image.mask, im.grad = image.grad;
  im.pred_stride = image.pred_row_stride, im.target_stride = image.target_row_stride;
  im.mask_stride = image.mask_row_stride;
  im.work = work;
  for (const size_t zone : plan.red_zones) ASAN_POISON_MEMORY_REGION(work + zone, kRedZone);
  im.cell_sums = im.map<double>(plan.cell_sums);
  for (int k = 0; k < kScales; k++) im.strip_sums[k] = im.map<StripSums>(plan.scale[k].sums);
  for (int k = 0; k < kScales; k++)
    for (int64_t& count : im.count[k].of) count = int64_t(plan.scale[k].h) * plan.scale[k].w;
  if (im.mask) kernels.mask(im, work + plan.image_bytes);
  for (int k = 0; k < kScales; k++) {
    for_each_kind(plan.scale[k].kinds, [&](Kind kind) { im.kinds[k] |= im.count[k][kind] ? bit(kind) : 0u; });
    if (is_one_pixel(im, k)) im.kinds[k] &= ~kMeanKinds;
  }
  if (image.weights) {
    for (size_t j = 0; j < plan.indices.size(); j++) {
      const auto [k, kind] = loss_of_index(plan.indices[j]);
      if (im.kinds[k] & bit(kind)) im.weight[k][kind] = image.weights[j] / float(im.count[k][kind]);
    }
  }
  return im;
}

double sum_of_error(const ImageTask& im, int k) {
  double sum = 0;
  for (int c = 0; c < im.plan->cells; c++) sum += im.cell_sums[k * im.plan->cells + c];
  return sum;
}

void finish_means(ImageTask& im) {
  for (int k = 0; k < kScales; k++) {
    if (!(im.kinds[k] & bit(Kind::M))) continue;
    im.mean[k] = float(sum_of_error(im, k) / double(im.count[k][Kind::M]));
  }
}

void finish_signs(ImageTask& im, int k) {
  const Scale& s = im.plan->scale[k];
  if (!(im.kinds[k] & bit(Kind::M))) return;
  double sum = 0;
  for (int i = 0; i < s.strips; i++) sum += im.strip_sums[k][i].sign;
  im.mean_sign[k] = float(sum * double(kPerSignUnit) / double(im.count[k][Kind::M]));  // counted in units of kSignUnit
}

void finish_terms(const ImageTask& im, float* terms, int64_t* counts) {
  const Plan& plan = *im.plan;
  for (size_t j = 0; j < plan.indices.size(); j++) {
    const auto [k, kind] = loss_of_index(plan.indices[j]);
    const Scale& s = plan.scale[k];
    if (counts) counts[j] = im.count[k][kind];
    if (bit(kind) & kMeanKinds && is_one_pixel(im, k)) {
      const double pixel = sum_of_error(im, k);
      terms[j] = float(pixel - pixel);
      continue;
    }
    double sum = 0;
    if (im.kinds[k] & bit(kind))
      for (int i = 0; i < s.strips; i++) sum += im.strip_sums[k][i].kind[kind];
    terms[j] = im.count[k][kind] ? float(sum / double(im.count[k][kind])) : 0.0f;
  }
}

bool needs_windows(const ImageTask& im, int k) { return im.kinds[k] & kMeanKinds; }
bool needs_gradient(const ImageTask& im, int k) {
  return im.kinds[k] & (bit(Kind::D) | kStencilKinds) || (im.plan->gradient && im.plan->scale[k].exists);
}

// One thread does a whole image.
void run_image(const Plan& plan, const Batch& image, const Kernels& kernels) {
  char* work = Arena::of_this_thread().get(thread_bytes(plan, kernels));
  char* scratch = work + plan.image_bytes;
  ImageTask im = make_task(plan, image, kernels, work);
  for (int c = 0; c < plan.cells; c++) kernels.pyramid(im, c, scratch);
  kernels.collapsed(im);
  finish_means(im);
  for (int k = kScales - 1; k >= 0; k--) {
    const Scale& s = plan.scale[k];
    if (needs_windows(im, k)) kernels.windows(im, k, 0, s.strips, scratch);
    finish_signs(im, k);
    if (needs_gradient(im, k)) kernels.gradient(im, k, 0, s.strips, scratch);
  }
  finish_terms(im, image.terms, image.counts);
}

// Neighbouring strips of a scale: together they share the rows around them.
struct StripTask {
  int scale, first, last;
  int64_t pixels;
};

// Calls body(i) for every i in [0, n) on all threads, each taking the next one that is left.
template <class Body>
void share_out(int n, int threads, const ParallelFor& parallel_for, Body body) {
  std::atomic<int> next{0};
  parallel_for(std::min(n, threads), [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; worker++)
      for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) body(i);
  });
}

// All threads share an image: the same strips, phase by phase.
void run_shared(const Plan& plan, const Batch& image, const Kernels& kernels, int threads,
                const ParallelFor& parallel_for) {
  const size_t scratch_bytes = kernels.scratch_bytes(plan);
  // this thread is one of the pool's: its scratch lies behind the image
  Arena* const owner = &Arena::of_this_thread();
  char* const work = owner->get(thread_bytes(plan, kernels));
  ImageTask im = make_task(plan, image, kernels, work);
  const auto scratch = [&] {
    Arena& arena = Arena::of_this_thread();
    return &arena == owner ? work + plan.image_bytes : arena.get(scratch_bytes);
  };
  share_out(plan.cells, threads, parallel_for, [&](int cell) { kernels.pyramid(im, cell, scratch()); });
  kernels.collapsed(im);
  finish_means(im);

  const auto over_strips = [&](auto&& selected, auto&& kernel) {
    std::vector<StripTask> tasks;
    for (int k = 0; k < kScales; k++) {
      const Scale& s = plan.scale[k];
      const int parts = selected(k) ? std::min(s.strips, threads) : 0;
      for (int i = 0; i < parts; i++) {
        const int first = s.strips * i / parts, last = s.strips * (i + 1) / parts;
        tasks.push_back({k, first, last, int64_t(last - first) * s.strip_rows * s.w});
      }
    }
    // the largest first, so that the smallest fill the gaps at the end
    std::stable_sort(tasks.begin(), tasks.end(),
                     [](const StripTask& x, const StripTask& y) { return x.pixels > y.pixels; });
    share_out(int(tasks.size()), threads, parallel_for,
              [&](int i) { kernel(im, tasks[i].scale, tasks[i].first, tasks[i].last, scratch()); });
  };
  over_strips([&](int k) { return needs_windows(im, k); }, kernels.windows);
  for (int k = 0; k < kScales; k++) finish_signs(im, k);
  const auto with_gradient = [&](int k) { return needs_gradient(im, k); };
  if (plan.area && plan.gradient) {  // each scale's gradient passes through the next finer one
    for (int c = kScales - 1; c > 0; c--)
      over_strips([&](int k) { return k == c && with_gradient(k); }, kernels.gradient);
  } else {
    over_strips([&](int k) { return k > 0 && with_gradient(k); }, kernels.gradient);
  }
  over_strips([&](int k) { return k == 0 && with_gradient(k); }, kernels.gradient);
  finish_terms(im, image.terms, image.counts);
}

}  // namespace

Plan make_plan(int h, int w, bool area, bool gradient, bool masked, Element element,
               const std::vector<int64_t>& indices) {
  Plan plan;
  plan.h = h, plan.w = w, plan.area = area, plan.gradient = gradient, plan.masked = masked, plan.element = element,
  plan.indices = indices;
  for (const int64_t t : indices) plan.scale[loss_of_index(t).scale].kinds |= bit(loss_of_index(t).kind);
  plan.cells = (h + kCell - 1) / kCell;

  size_t offset = 0;
  const auto allocate = [&](size_t bytes) {
    const size_t at = offset;
    offset += (bytes + 63) / 64 * 64;
    if (kRedZone) plan.red_zones.push_back(offset);
    offset += kRedZone;
    return at;
  };
  bool coarser = false, coarser_target = false;  // something on this scale or a coarser one
  for (int k = kScales - 1; k >= 0; k--) {
    Scale& s = plan.scale[k];
    s.collapsed = !area && ((h >> k) == 0 || (w >> k) == 0);
    s.h = s.collapsed ? 1 : std::max(h >> k, 1);
    s.w = s.collapsed ? 1 : std::max(w >> k, 1);
    s.pitch = round_up(s.w, 16) + 3 * kPad;
    const bool normals = s.kinds & kNormalKinds;
    coarser |= s.kinds != 0;
    coarser_target |= normals;
    // scale 0 feeds all others; an area scale feeds the next
    s.exists = (area || k == 0) ? coarser : s.kinds != 0;
    s.target = (area || k == 0) ? coarser_target : normals;
    s.strips = std::max(1, (s.h + kStripRows / 2) / kStripRows);
    s.strip_rows = round_up((s.h + s.strips - 1) / s.strips, kSumRows);
    s.strips = (s.h + s.strip_rows - 1) / s.strip_rows;
    if (!s.exists) continue;
    const size_t map = size_t(s.h + kBelow) * s.pitch;
    s.error = allocate(map * sizeof(float)) + kPad * sizeof(float);
    if (s.target) s.target_map = allocate(map * sizeof(float)) + kPad * sizeof(float);
    if (gradient && k > 0) s.grad = allocate(map * sizeof(float)) + kPad * sizeof(float);
    if (gradient)
      for (int i = 0; i < kWindows; i++)
        if (s.kinds & bit(kWindowKind[i])) s.sign[i] = allocate(masked ? map * sizeof(float) : map + kSignOverrun);
    s.words = (s.w + 63) / 64;
    if (masked) s.valid = allocate(size_t(s.h) * s.words * sizeof(uint64_t));
    s.sums = allocate(size_t(s.strips) * sizeof(StripSums));
  }
  // rows of a cell that some scale reads
  plan.needed_rows = 0;
  for (int k = 0; k < kScales; k++) {
    const Scale& s = plan.scale[k];
    if (!s.exists) continue;
    if (k == 0 ? s.kinds != 0 : area || s.collapsed || k == 1) plan.needed_rows = ~0u;
    if (k > 1 && !area && !s.collapsed)
      for (int y = 0; y < kCell; y++) {
        const int tap = (y & ((1 << k) - 1)) - (1 << (k - 1)) + 2;
        if (tap >= 0 && tap < 4) plan.needed_rows |= 1u << y;
      }
  }
  plan.cell_sums = allocate(size_t(kScales) * plan.cells * sizeof(double));
  plan.image_bytes = offset;
  return plan;
}

size_t thread_bytes(const Plan& plan, const Kernels& kernels) { return plan.image_bytes + kernels.scratch_bytes(plan); }

Batch image_of(const Batch& batch, const Plan& plan, int64_t b) {
  const int64_t n = int64_t(plan.indices.size()), bytes = int64_t(element_bytes(plan.element));
  Batch image = batch;
  image.images = 1;
  image.pred += b * batch.pred_image_stride * bytes;
  image.target += b * batch.target_image_stride * bytes;
  if (image.weights) image.weights += b * n;
  if (image.mask) image.mask += b * batch.mask_image_stride;
  image.terms += b * n;
  if (image.counts) image.counts += b * n;
  if (image.grad) image.grad += b * plan.h * plan.w * bytes;
  return image;
}

void run_batch(const Plan& plan, const Batch& batch, const Kernels& kernels, int threads,
               const ParallelFor& parallel_for) {
  // whole images while there is one for every thread, then the rest together: both give the same bits
  const int64_t whole = threads > 1 ? batch.images / threads * threads : batch.images;
  if (whole > 0)
    parallel_for(whole, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) run_image(plan, image_of(batch, plan, b), kernels);
      Arena::of_this_thread().trim();
    });
  for (int64_t b = whole; b < batch.images; b++)
    run_shared(plan, image_of(batch, plan, b), kernels, threads, parallel_for);
  Arena::of_this_thread().trim();
}

}  // namespace mlr
