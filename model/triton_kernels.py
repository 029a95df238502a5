"""The selective scan's kernels in Triton's language, for CUDA devices without a compiler on the host.

    forwards    a warp for 32 channels and one stretch of steps: each thread holds the N states of its channel
        step by step   h = exp2(step * A) * h + step * u * B;  y = sum(C * h) + D u;  out = y silu(z)
    backwards   a block of channels, chunk by chunk against the scan's direction, from the state stored before each
    chunk
        state by state, all steps at once: a step is the map h → decay h + moved, and two in a row are again such a map

Many steps and few sequences are scanned in stretches side by side: a first pass finds each stretch's own end state, and
the second folds those before a stretch into its first state. Steps outside the sequence have size 0: they change
nothing.
"""

# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
# ruff: noqa: RUF005
# Triton compiles a part of Python only: no annotations but its own, no starred expressions.

try:
    import triton
    import triton.language as tl
except ImportError as missing:
    raise ImportError(
        'the triton scan needs Triton, which CUDA builds of torch bring: "pip install triton"'
    ) from missing

STEPS_AT_ONCE = tl.constexpr(4)
"""Steps whose inputs the forward pass asks for together, to wait for memory once."""

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)); log(s) / (s - 1) undoes the rounding of s = 1 + w, so small steps keep their precision."""
    w = tl.exp(-tl.abs(x))
    s = 1 + w
    return tl.maximum(x, 0) + tl.where(s == 1, w, w * tl.log(s) / tl.where(s == 1, 1, s - 1))


@triton.jit
def _step_size(raw, shift, inside, SOFTPLUS: tl.constexpr):
    step = raw.to(tl.float32) + shift
    return tl.where(inside, _softplus(step) if SOFTPLUS else step, 0)


@triton.jit
def _at(strides, sequence, channel, t):
    """Offset in a (Bsz, D or N, L) tensor; the sequence is int64, so large batches do not overflow."""
    return sequence * strides[0] + channel * strides[1] + t * strides[2]


@triton.jit
def _load_or_zeros(vector, place, mask):
    return tl.zeros(place.shape, tl.float32) if vector is None else tl.load(vector + place, mask=mask, other=0)


@triton.jit
def _load_steps(tensors, strides, sequence, channel, n, turn, width, length, N: tl.constexpr, REVERSE: tl.constexpr):
    """Of STEPS_AT_ONCE steps from `turn` on, delta, u, z, B and C: a tuple of values each, empty where one is None."""
    u, delta, z, B, C, _ = tensors
    raws, signals, gates, Bs, Cs = (), (), (), (), ()
    for i in tl.static_range(STEPS_AT_ONCE):
        t = length - 1 - turn - i if REVERSE else turn + i
        here, there = channel < tl.where(turn + i < length, width, 0), n < tl.where(turn + i < length, N, 0)
        raws = raws + (tl.load(delta + _at(strides[1], sequence, channel, t), mask=here, other=0),)
        signals = signals + (tl.load(u + _at(strides[0], sequence, channel, t), mask=here, other=0),)
        Bs = Bs + (tl.load(B + _at(strides[3], sequence, n, t), mask=there, other=0),)
        if C is not None:
            Cs = Cs + (tl.load(C + _at(strides[4], sequence, n, t), mask=there, other=0),)
        if z is not None:
            gates = gates + (tl.load(z + _at(strides[2], sequence, channel, t), mask=here, other=0),)
    return raws, signals, gates, Bs, Cs


@triton.jit
def _advance(h, a, step, signal, b):
    """The states (N, D) one step later; a (N, D), step and signal (D,), b (N,)."""
    return tl.exp2(a * step[None, :]) * h + b.to(tl.float32)[:, None] * (step * signal)[None, :]


@triton.jit
def _own_part(A, row, width, N: tl.constexpr, N_BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """What a program scans: its sequence, stretch, channels and states, which are real, their places, and A there."""
    sequence, stretch = tl.program_id(1).to(tl.int64), tl.program_id(2)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, N_BLOCK)
    real = channel < width
    h_place, h_real = n[:, None] * row + channel[None, :], (n < N)[:, None] & real[None, :]
    a = tl.load(A + h_place, mask=h_real, other=0) * _LOG2E
    return sequence, stretch, channel, n, real, h_place, h_real, a


# The alignment of `row` is kept from the compiler, which would else give each thread four channels and a part of the
# states: every step would then end in shuffles between threads.
@triton.jit(do_not_specialize_on_alignment=("row",))
def scan_ends(
    tensors,
    strides,
    A,
    bias,
    ends,
    totals,
    row,
    width,
    length,
    stretch_steps,
    N: tl.constexpr,
    N_BLOCK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    STRETCHES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """First pass over one stretch of steps: what it makes of a state of zero, for CHANNELS channels of one sequence.

    Arguments as `scan_stretch` has them, but only u, delta and B of the tensors are not None. Writes the end state to
    ends (Bsz, stretches, N, D) and the sum of the step sizes to totals (Bsz, stretches, D).
    """
    sequence, stretch, channel, n, real, h_place, h_real, a = _own_part(A, row, width, N, N_BLOCK, CHANNELS)
    shift = _load_or_zeros(bias, channel, real)
    h, total = tl.zeros((N_BLOCK, CHANNELS), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    first = stretch * stretch_steps
    for turn in range(first, tl.minimum(first + stretch_steps, length), STEPS_AT_ONCE):
        raws, signals, _, Bs, _ = _load_steps(tensors, strides, sequence, channel, n, turn, width, length, N, REVERSE)
        for i in tl.static_range(STEPS_AT_ONCE):
            here = channel < tl.where(turn + i < length, width, 0)
            step = _step_size(raws[i], shift, here, SOFTPLUS)
            h = _advance(h, a, step, signals[i].to(tl.float32), Bs[i])
            total += step
    here = sequence * STRETCHES + stretch
    tl.store(ends + here * N * row + h_place, h, mask=h_real)
    tl.store(totals + here * width + channel, total, mask=real)


@triton.jit(do_not_specialize_on_alignment=("row",))
def scan_stretch(
    tensors,
    strides,
    A,
    D,
    bias,
    ends,
    totals,
    states,
    row,
    width,
    length,
    stretch_steps,
    N: tl.constexpr,
    N_BLOCK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    STRETCHES: tl.constexpr,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Second pass, or the only one: scan one stretch of steps for CHANNELS channels of one sequence.

    `tensors` are u, delta, z, B, C, out as `selective_scan` has them, z or None, and `strides` their strides; A (N,
    D) with rows `row` apart, D and bias (D,) or None, all float32; ends and totals from `scan_ends`, or None if there
    is one stretch. Writes out and, if `states` (Bsz, chunks, N, D) is given, the state before each chunk of CHUNK
    steps. Stretches are counted in scanning order.
    """
    z, out = tensors[2], tensors[5]
    sequence, stretch, channel, n, real, h_place, h_real, a = _own_part(A, row, width, N, N_BLOCK, CHANNELS)
    shift, skip = _load_or_zeros(bias, channel, real), _load_or_zeros(D, channel, real)
    h = tl.zeros((N_BLOCK, CHANNELS), tl.float32)
    if STRETCHES > 1:
        for earlier in range(stretch):
            before = sequence * STRETCHES + earlier
            passed = tl.load(totals + before * width + channel, mask=real, other=0)
            h = tl.exp2(a * passed[None, :]) * h + tl.load(ends + before * N * row + h_place, mask=h_real, other=0)
    first = stretch * stretch_steps
    for turn in range(first, tl.minimum(first + stretch_steps, length), STEPS_AT_ONCE):
        if states is not None and turn % CHUNK == 0:
            kept = sequence * tl.cdiv(length, CHUNK) + turn // CHUNK
            tl.store(states + kept * N * row + h_place, h, mask=h_real)
        raws, signals, gates, Bs, Cs = _load_steps(
            tensors, strides, sequence, channel, n, turn, width, length, N, REVERSE
        )
        for i in tl.static_range(STEPS_AT_ONCE):
            t = length - 1 - turn - i if REVERSE else turn + i
            here = channel < tl.where(turn + i < length, width, 0)
            step, signal = _step_size(raws[i], shift, here, SOFTPLUS), signals[i].to(tl.float32)
            h = _advance(h, a, step, signal, Bs[i])
            y = tl.sum(h * Cs[i].to(tl.float32)[:, None], axis=0) + skip * signal
            if z is not None:
                gate = gates[i].to(tl.float32)
                y *= gate * tl.sigmoid(gate)
            tl.store(out + _at(strides[5], sequence, channel, t), y.to(out.dtype.element_ty), mask=here)


@triton.jit
def _then(decay_1, moved_1, decay_2, moved_2):
    """The map h → decay h + moved twice, 1 first."""
    return decay_1 * decay_2, decay_2 * moved_1 + moved_2


@triton.jit
def scan_gradients(
    tensors,
    strides,
    A,
    D,
    bias,
    states,
    own,
    shared,
    sums,
    width,
    length,
    N: tl.constexpr,
    N_BLOCK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradients for CHANNELS channels of one sequence.

    `tensors` are u, delta, z, B, C and the output's gradient, z or None; A (D, N), D, bias and states as in
    `scan_stretch`. Writes `own`, the gradients of u, delta, z (Bsz, D, L), and `sums`, those of A (Bsz, D, N), D and
    bias (Bsz, D), to be added up over sequences; adds to `shared`, those of B and C (Bsz, N, L). All are float32 and
    contiguous.
    """
    u, delta, z, B, C, out_grad = tensors
    sequence = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    column, real = channel[:, None], (channel < width)[:, None]
    place, n_all = tl.arange(0, CHUNK), tl.arange(0, N_BLOCK)[None, :]
    shift, skip = _load_or_zeros(bias, column, real), _load_or_zeros(D, column, real)
    carry, A_sum = tl.zeros((CHANNELS, N_BLOCK), tl.float32), tl.zeros((CHANNELS, N_BLOCK), tl.float32)
    D_sum, bias_sum = tl.zeros((CHANNELS, 1), tl.float32), tl.zeros((CHANNELS, 1), tl.float32)
    chunks = tl.cdiv(length, CHUNK)
    for back in range(chunks):
        chunk = chunks - 1 - back
        turn = chunk * CHUNK + place  # steps in scanning order
        t = (length - 1 - turn if REVERSE else turn)[None, :]
        t_next = t - 1 if REVERSE else t + 1
        in_time, inside = turn < length, real & (turn < length)[None, :]
        follows = real & (turn + 1 < length)[None, :]
        raw = tl.load(delta + _at(strides[1], sequence, column, t), mask=inside, other=0)
        raw_next = tl.load(delta + _at(strides[1], sequence, column, t_next), mask=follows, other=0)
        step, step_next = _step_size(raw, shift, inside, SOFTPLUS), _step_size(raw_next, shift, follows, SOFTPLUS)
        signal = tl.load(u + _at(strides[0], sequence, column, t), mask=inside, other=0).to(tl.float32)
        gradient = tl.load(out_grad + _at(strides[5], sequence, column, t), mask=inside, other=0).to(tl.float32)
        y_grad, y = gradient, skip * signal
        if z is not None:
            gate = tl.load(z + _at(strides[2], sequence, column, t), mask=inside, other=0).to(tl.float32)
            y_grad = gradient * gate * tl.sigmoid(gate)
        step_grad, input_grad = tl.zeros((CHANNELS, CHUNK), tl.float32), tl.zeros((CHANNELS, CHUNK), tl.float32)
        for n in range(N):
            a = tl.load(A + column * N + n, mask=real, other=0)
            b = tl.load(B + _at(strides[3], sequence, n, t), mask=in_time[None, :], other=0).to(tl.float32)
            c = tl.load(C + _at(strides[4], sequence, n, t), mask=in_time[None, :], other=0).to(tl.float32)
            kept = ((sequence * chunks + chunk) * N + n) * width + column
            moved = step * signal * b
            decays, grown = tl.associative_scan((tl.exp2(step * a * _LOG2E), moved), 1, _then)
            h = grown + decays * tl.load(states + kept, mask=real, other=0)
            y += h * c
            # The gradient of a state: what the output takes from it, and what the following state does.
            factors, taken = tl.associative_scan((tl.exp2(step_next * a * _LOG2E), y_grad * c), 1, _then, reverse=True)
            h_grad = taken + factors * tl.sum(tl.where(n_all == n, carry, 0), axis=1, keep_dims=True)
            leaving = tl.sum(tl.where((place == 0)[None, :], h_grad, 0), axis=1, keep_dims=True)
            carry = tl.where(n_all == n, leaving, carry)
            through_decay = h_grad * (h - moved)
            step_grad += through_decay * a
            input_grad += h_grad * b
            A_sum += tl.where(n_all == n, tl.sum(through_decay * step, axis=1, keep_dims=True), 0)
            at = (sequence * N + n) * length + tl.reshape(t, (CHUNK,))
            tl.atomic_add(shared[0] + at, tl.sum(h_grad * step * signal, axis=0), mask=in_time)
            tl.atomic_add(shared[1] + at, tl.sum(y_grad * h, axis=0), mask=in_time)
        step_grad += input_grad * signal
        if SOFTPLUS:
            step_grad *= tl.sigmoid(raw.to(tl.float32) + shift)
        at_own = (sequence * width + column) * length + t
        tl.store(own[0] + at_own, input_grad * step + skip * y_grad, mask=inside)
        tl.store(own[1] + at_own, step_grad, mask=inside)
        if z is not None:
            opened = tl.sigmoid(gate)
            tl.store(own[2] + at_own, gradient * y * opened * (1 + gate * (1 - opened)), mask=inside)
        D_sum += tl.sum(y_grad * signal, axis=1, keep_dims=True)
        bias_sum += tl.sum(tl.where(inside, step_grad, 0), axis=1, keep_dims=True)
    row = sequence * width + column
    tl.store(sums[0] + row * N + n_all, A_sum, mask=real & (n_all < N))
    tl.store(sums[1] + row, D_sum, mask=real)
    tl.store(sums[2] + row, bias_sum, mask=real)
