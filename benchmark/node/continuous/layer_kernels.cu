// The small operations of a Llama-like layer, and products of one token, for NVRTC; without headers, as a node may have
// none. Half precision is 16 bits here; BFLOAT16 says which kind. Each operation rounds where torch's own does.
// Sizes are multiples of 8 and rows begin at multiples of 16 bytes: layer_kernels.py ensures that.

typedef unsigned short half_t;

__device__ __forceinline__ float wide(unsigned bits) {
#if BFLOAT16
  return __uint_as_float(bits << 16);
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((half_t)bits));
  return value;
#endif
}

__device__ __forceinline__ half_t narrow(float value) {
  half_t bits;
#if BFLOAT16
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#endif
  return bits;
}

__device__ __forceinline__ float rounded(float value) { return wide(narrow(value)); }

// Eight adjacent values, which one thread reads at once.
struct Eight {
  float at[8];
};

__device__ __forceinline__ Eight unpack(uint4 raw) {
  Eight eight;
  unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    eight.at[2 * i] = wide(words[i] & 0xffffu);
    eight.at[2 * i + 1] = wide(words[i] >> 16);
  }
  return eight;
}

__device__ __forceinline__ uint4 pack(const Eight& eight) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = narrow(eight.at[2 * i]) | (unsigned)narrow(eight.at[2 * i + 1]) << 16;
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ Eight load(const half_t* from) { return unpack(*(const uint4*)from); }

// Weights are read only once, so they are not cached.
__device__ __forceinline__ uint4 load_once(const half_t* from) {
  uint4 raw;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "l"(from));
  return raw;
}

// Activations have layer_kernels.py's numbers.
__device__ __forceinline__ float activated(float value, int activation) {
  if (activation == 0) return rounded(value / (1.0f + __expf(-value)));  // silu
  float cubic = 0.7978845608f * (value + 0.044715f * value * value * value);
  return rounded(0.5f * value * (1.0f + tanhf(cubic)));  // gelu, by tanh
}

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (int offset = 16; offset; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// RMSNorm of rows, one block per row: `inner` rows of `size` values are adjacent, and the next `inner` rows begin
// `stride` further on; the output is contiguous. `offset` is added to the weight; `early`: the factor is rounded first.
extern "C" __global__ void rms_norm(const half_t* states, const half_t* weight, half_t* out, int size, int inner,
                                int stride, float epsilon, float offset, int early) {
  long row = blockIdx.x;
  const half_t* from = states + row / inner * stride + row % inner * size;
  float squares = 0.0f;
  for (int column = 8 * threadIdx.x; column < size; column += 8 * blockDim.x) {
    Eight eight = load(from + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += eight.at[i] * eight.at[i];
  }
  __shared__ float parts[32];
  squares = sum_of_warp(squares);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
  __syncthreads();
  squares = sum_of_warp(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
  float scale = rsqrtf(squares / size + epsilon);
  for (int column = 8 * threadIdx.x; column < size; column += 8 * blockDim.x) {
    Eight eight = load(from + column), weights = load(weight + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float value = eight.at[i] * scale;
      eight.at[i] = (early ? rounded(value) : value) * (weights.at[i] + offset);
    }
    *(uint4*)(out + row * size + column) = pack(eight);
  }
}

// Write keys and values (tokens, width) to the cache, to row `rows[token]`. They are strided.
extern "C" __global__ void write_rows(const half_t* key, const half_t* value, const long long* rows, half_t* keys,
                                 half_t* values, int tokens, int width, int key_token, int value_token, int row_size) {
  int threads = width / 8;
  long number = (long)blockIdx.x * blockDim.x + threadIdx.x;
  long token = number / threads;
  int column = 8 * (int)(number % threads);
  if (token >= tokens) return;
  long target = rows[token] * row_size + column;
  *(uint4*)(keys + target) = *(const uint4*)(key + token * key_token + column);
  *(uint4*)(values + target) = *(const uint4*)(value + token * value_token + column);
}

// Rotate queries and keys by their positions. q (tokens, q_heads, size) and k are strided; cos and sin (tokens, size)
// and both outputs are contiguous. A thread rotates eight pairs.
extern "C" __global__ void rotary(const half_t* q, const half_t* k, const half_t* cos, const half_t* sin, half_t* q_out,
                                  half_t* k_out, int tokens, int q_heads, int k_heads, int size, int q_token,
                                  int q_head, int k_token, int k_head) {
  int threads = size / 16, heads = q_heads + k_heads;
  long number = (long)blockIdx.x * blockDim.x + threadIdx.x;
  int column = 8 * (int)(number % threads);
  long row = number / threads;
  if (row >= (long)tokens * heads) return;
  long token = row / heads;
  int head = (int)(row % heads);
  bool is_key = head >= q_heads;
  if (is_key) head -= q_heads;
  const half_t* from = is_key ? k + token * k_token + (long)head * k_head : q + token * q_token + (long)head * q_head;
  half_t* to = is_key ? k_out + (token * k_heads + head) * size : q_out + (token * q_heads + head) * size;
  int second = size / 2 + column;
  Eight one = load(from + column), other = load(from + second);
  Eight cos_one = load(cos + token * size + column), cos_other = load(cos + token * size + second);
  Eight sin_one = load(sin + token * size + column), sin_other = load(sin + token * size + second);
  Eight out_one, out_other;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    out_one.at[i] = rounded(one.at[i] * cos_one.at[i]) + rounded(-other.at[i] * sin_one.at[i]);
    out_other.at[i] = rounded(other.at[i] * cos_other.at[i]) + rounded(one.at[i] * sin_other.at[i]);
  }
  *(uint4*)(to + column) = pack(out_one);
  *(uint4*)(to + second) = pack(out_other);
}

// activation(gate) * up of `both` (tokens, 2 * size): out (tokens, size). A thread computes eight values.
extern "C" __global__ void gated(const half_t* both, half_t* out, int tokens, int size, int activation) {
  int threads = size / 8;
  long number = (long)blockIdx.x * blockDim.x + threadIdx.x;
  long token = number / threads;
  int column = 8 * (int)(number % threads);
  if (token >= tokens) return;
  const half_t* from = both + token * 2 * size + column;
  Eight gate = load(from), up = load(from + size), made;
#pragma unroll
  for (int i = 0; i < 8; ++i) made.at[i] = activated(gate.at[i], activation) * up.at[i];
  *(uint4*)(out + token * size + column) = pack(made);
}

// Products of one token, states (size): a block computes ROWS values of the output; its THREADS read each row together.
__device__ __forceinline__ void products(const half_t* weight, const half_t* states, const long (&row)[ROWS], int size,
                                         float (&sums)[ROWS]) {
#pragma unroll
  for (int r = 0; r < ROWS; ++r) sums[r] = 0.0f;
#pragma unroll 4
  for (int column = 8 * threadIdx.x; column < size; column += 8 * THREADS) {
    uint4 raw[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) raw[r] = load_once(weight + row[r] * size + column);
    Eight state = load(states + column);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      Eight eight = unpack(raw[r]);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[r] += eight.at[i] * state.at[i];
    }
  }
  __shared__ float parts[ROWS][THREADS / 32];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    float sum = sum_of_warp(sums[r]);
    if (threadIdx.x % 32 == 0) parts[r][threadIdx.x / 32] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    sums[r] = 0.0f;
#pragma unroll
    for (int part = 0; part < THREADS / 32; ++part) sums[r] += parts[r][part];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    multiply(const half_t* weight, const half_t* states, const half_t* bias, half_t* out, int rows, int size) {
  long row[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) row[r] = min((long)blockIdx.x * ROWS + r, (long)rows - 1);
  float sums[ROWS];
  products(weight, states, row, size, sums);
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
    if (threadIdx.x == r) out[row[r]] = narrow(sums[r] + (bias ? wide(bias[row[r]]) : 0.0f));
}

// The same, and activation(gate) * up of it: weight (2 * rows, size), out (rows).
extern "C" __global__ void __launch_bounds__(THREADS)
    multiply_gated(const half_t* weight, const half_t* states, const half_t* bias, half_t* out, int rows, int size,
                   int activation) {
  constexpr int PAIRS = ROWS / 2;
  long row[ROWS];
#pragma unroll
  for (int r = 0; r < PAIRS; ++r) {
    row[r] = min((long)blockIdx.x * PAIRS + r, (long)rows - 1);
    row[PAIRS + r] = row[r] + rows;
  }
  float sums[ROWS];
  products(weight, states, row, size, sums);
#pragma unroll
  for (int r = 0; r < PAIRS; ++r) {
    if (threadIdx.x != r) continue;
    float gate = rounded(sums[r] + (bias ? wide(bias[row[r]]) : 0.0f));
    float up = rounded(sums[PAIRS + r] + (bias ? wide(bias[row[PAIRS + r]]) : 0.0f));
    out[row[r]] = narrow(activated(gate, activation) * up);
  }
}
