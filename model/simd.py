"""A vector of sixteen float32 lanes for Numba kernels: it stays in registers, whatever the processor's width.

LLVM maps the sixteen lanes to one AVX-512 register, two AVX2 registers or four NEON registers. Numba has no vector
type of its own, so this module declares one with the operators and the elementary functions that the selective scan
needs: kernels written with it read like the scalar formula. They must not be compiled with `fastmath`, which would
undo the rounding trick in `exp2_of_product`. Built on the extension interface described in Numba's documentation
("Low-level extension API").

Arrays in memory are float32, or int16 that holds the bits of bfloat16, which NumPy lacks.
"""

# mypy: disable-error-code="no-untyped-def"

import operator
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic as _intrinsic
from numba.extending import models, overload, register_model

LANES = 16

Vector = Any
"""Sixteen float32 lanes, in annotations; the type exists inside kernels only."""
intrinsic: Any = _intrinsic  # its annotations ask callers for the typing context, which Numba passes
Quad = tuple[Vector, Vector, Vector, Vector]

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)
LOG2E = 1.4426950408889634


def _compiles_for(feature: str) -> bool:
    """Whether Numba's target has a processor feature: the host's, unless NUMBA_CPU_NAME or _FEATURES say otherwise."""
    config: Any = numba_config  # its names are set at run time
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES.split(",")
    return config.CPU_NAME in (None, "host") and binding.get_host_cpu_features().get(feature, False)


_AVX512 = _compiles_for("avx512f")


class _Float32x16(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Float32x16")


float32x16 = _Float32x16()


@register_model(_Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _all_lanes(vector_type, value):
    return ir.Constant(vector_type, [value] * LANES)


def _pointer(context, builder, array_type, array, offset):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _repeat(builder, value):
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, _all_lanes(_INTEGERS, 0))


def _widen(builder, array_type, stored):
    """Lanes as stored in memory → float32."""
    if array_type.dtype == types.float32:
        return stored
    return builder.bitcast(builder.shl(builder.zext(stored, _INTEGERS), _all_lanes(_INTEGERS, 16)), _VECTOR)


def _narrow(builder, array_type, vector):
    """Lanes of float32 → as stored in memory, rounded to the nearest, ties to even."""
    if array_type.dtype == types.float32:
        return vector
    bits = builder.bitcast(vector, _INTEGERS)
    odd = builder.and_(builder.lshr(bits, _all_lanes(_INTEGERS, 16)), _all_lanes(_INTEGERS, 1))
    rounded = builder.add(builder.add(bits, odd), _all_lanes(_INTEGERS, 0x7FFF))
    is_nan = builder.fcmp_unordered("uno", vector, vector)  # rounding could carry a NaN's bits over into the sign
    chosen = builder.select(is_nan, _all_lanes(_INTEGERS, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(chosen, _all_lanes(_INTEGERS, 16)), _SHORTS)


def _stored_type(array_type):
    return {types.float32: _VECTOR, types.int16: _SHORTS}[array_type.dtype]


@intrinsic
def load(typing_context, array, offset):
    """Read lanes array.flat[offset : offset + 16] of a C-contiguous array (not bounds-checked)."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        pointer = _pointer(context, builder, array_type, *arguments)
        pointer = builder.bitcast(pointer, _stored_type(array_type).as_pointer())
        return _widen(builder, array_type, builder.load(pointer, align=2))

    return float32x16(array, types.intp), generate


@intrinsic
def store(typing_context, array, offset, vector):
    """Write the lanes to array.flat[offset : offset + 16] of a C-contiguous array (not bounds-checked)."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        pointer = _pointer(context, builder, array_type, *arguments[:2])
        pointer = builder.bitcast(pointer, _stored_type(array_type).as_pointer())
        builder.store(_narrow(builder, array_type, arguments[2]), pointer, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def spread(typing_context, array, offset):
    """Read array.flat[offset] of a C-contiguous float32 array into all lanes (not bounds-checked)."""

    def generate(context, builder, signature, arguments):
        return _repeat(builder, builder.load(_pointer(context, builder, signature.args[0], *arguments)))

    return float32x16(array, types.intp), generate


@intrinsic
def splat(typing_context, scalar):
    """All lanes hold the scalar."""

    def generate(context, builder, signature, arguments):
        return _repeat(builder, context.cast(builder, arguments[0], signature.args[0], types.float32))

    return float32x16(scalar), generate


@intrinsic
def total(typing_context, vector):
    """The sum of the lanes, a float32."""

    def generate(context, builder, signature, arguments):
        function_type = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), *arguments], fastmath=("reassoc",))

    return types.float32(vector), generate


def _elementwise(name, arity):
    """One lane-by-lane LLVM intrinsic, such as llvm.fma, as a Numba function of `arity` vectors."""

    def generate(context, builder, signature, arguments):
        function_type = ir.FunctionType(_VECTOR, [_VECTOR] * arity)
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{LANES}f32")
        return builder.call(function, arguments)

    if arity == 1:
        return intrinsic(lambda typing_context, a: (float32x16(a), generate))
    return intrinsic(lambda typing_context, a, b, c: (float32x16(a, b, c), generate))


fma = _elementwise("fma", 3)
"""a * b + c, rounded once."""
absolute = _elementwise("fabs", 1)


def _choice(comparison):
    """Lanes of `bound` where `bound comparison x` holds, else those of x: one instruction, and a NaN in x stays."""

    @intrinsic
    def choose(typing_context, bound, x):
        def generate(context, builder, signature, arguments):
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return float32x16(bound, x), generate

    return choose


at_least = _choice(">")
at_most = _choice("<")


def _operator(symbol, instruction):
    @intrinsic
    def apply(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments)

        return float32x16(a, b), generate

    @overload(symbol, inline="always")
    def implementation(a, b):
        if isinstance(a, _Float32x16) and isinstance(b, _Float32x16):
            return lambda a, b: apply(a, b)
        return None


@intrinsic
def _negative(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.fneg(arguments[0])

    return float32x16(x), generate


@overload(operator.neg, inline="always")
def _negate(x):
    if isinstance(x, _Float32x16):
        return lambda x: _negative(x)
    return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _instruction)


@intrinsic
def _times_power_of_two(typing_context, value, exponent):
    """value * 2**exponent for whole exponents and values from 0.5 to 2; beyond float32, something tiny or huge."""

    def generate(context, builder, signature, arguments):
        value, exponent = arguments
        if _AVX512:
            mask, rounding = ir.Constant(ir.IntType(16), -1), ir.Constant(ir.IntType(32), 4)  # all lanes, as set up
            name, operands = "llvm.x86.avx512.mask.scalef.ps.512", [value, exponent, value, mask, rounding]
            function_type = ir.FunctionType(_VECTOR, [operand.type for operand in operands])
            return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), operands)
        for comparison, bound in ((">", -125.0), ("<", 126.0)):
            bounds = _all_lanes(_VECTOR, bound)
            exponent = builder.select(builder.fcmp_ordered(comparison, bounds, exponent), bounds, exponent)
        shift = builder.shl(builder.fptosi(exponent, _INTEGERS), _all_lanes(_INTEGERS, 23))
        return builder.bitcast(builder.add(builder.bitcast(value, _INTEGERS), shift), _VECTOR)

    return float32x16(value, exponent), generate


@intrinsic
def _reciprocal_estimate(typing_context, x):
    """1 / x to 14 bits or better."""

    def generate(context, builder, signature, arguments):
        if not _AVX512:
            return builder.fdiv(_all_lanes(_VECTOR, 1.0), arguments[0])
        name, operands = "llvm.x86.avx512.rcp14.ps.512", [*arguments, *arguments, ir.Constant(ir.IntType(16), -1)]
        function_type = ir.FunctionType(_VECTOR, [operand.type for operand in operands])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), operands)

    return float32x16(x), generate


@njit
def constant(value: float) -> Vector:
    """The Python number in all lanes."""
    return splat(np.float32(value))


@njit
def exp2_of_product(a: Vector, b: Vector) -> Vector:
    """2**(a * b), relative error below 2e-7 and exactly 1 at 0; a NaN stays a NaN.

    The product splits into a whole number and f in [-0.5, 0.5] by adding 1.5 * 2**23, where float32 has no fraction
    bits left; 2**f is a polynomial of degree 5 through (0, 1), fitted to the smallest relative error. What leaves
    float32's range becomes tiny or huge; beyond +-2**40 the result means nothing.
    """
    magic = constant(12582912.0)
    whole = fma(a, b, magic) - magic
    f = fma(a, b, -whole)
    p = fma(constant(1.326472725e-03), f, constant(9.671512786e-03))
    p = fma(p, f, constant(5.550733744e-02))
    p = fma(p, f, constant(2.402224208e-01))
    p = fma(p, f, constant(6.931469776e-01))
    p = fma(p, f, constant(1.0))
    return _times_power_of_two(p, whole)


@njit
def reciprocal(x: Vector) -> Vector:
    """1 / x for normal x, relative error below 2e-7: on AVX-512 an estimate and a Newton step, which cost less."""
    estimate = _reciprocal_estimate(x)
    return fma(fma(-x, estimate, constant(1.0)), estimate, estimate)


@njit
def sigmoid(x: Vector) -> Vector:
    """1 / (1 + exp(-x)); below -87, where that leaves float32's normal range, it stays at 1e-38."""
    held = at_most(constant(87.0), at_least(constant(-87.0), x))
    return reciprocal(constant(1.0) + exp2_of_product(held, constant(-LOG2E)))


@njit
def silu(x: Vector) -> Vector:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


@njit
def silu_slope(x: Vector) -> Vector:
    """The derivative of silu."""
    s = sigmoid(x)
    return s * fma(x, constant(1.0) - s, constant(1.0))


@njit
def softplus(x: Vector) -> Vector:
    """log(1 + exp(x)), relative error below 5e-7, as max(x, 0) + log1p(w) with w = exp(-|x|).

    log1p(w) / w is a polynomial of degree 8 on [0, 1], fitted to the smallest relative error: no division, and small
    steps keep their precision.
    """
    w = exp2_of_product(at_most(constant(100.0), absolute(x)), constant(-LOG2E))
    p = fma(constant(5.232679154e-03), w, constant(-2.950518212e-02))
    p = fma(p, w, constant(7.822586709e-02))
    p = fma(p, w, constant(-1.366323938e-01))
    p = fma(p, w, constant(1.910600423e-01))
    p = fma(p, w, constant(-2.484298174e-01))
    p = fma(p, w, constant(3.331909679e-01))
    p = fma(p, w, constant(-4.999949314e-01))
    p = fma(p, w, constant(9.999999699e-01))
    return fma(p, w, at_least(constant(0.0), x))


@njit
def four(x: Vector) -> Quad:
    """The same vector four times."""
    return x, x, x, x


@njit
def load4(array: np.ndarray, offset: int, stride: int) -> Quad:
    """Read four vectors, `stride` elements apart."""
    return (
        load(array, offset),
        load(array, offset + stride),
        load(array, offset + 2 * stride),
        load(array, offset + 3 * stride),
    )


@njit
def store4(array: np.ndarray, offset: int, stride: int, vectors: Quad) -> None:
    """Write four vectors, `stride` elements apart."""
    store(array, offset, vectors[0])
    store(array, offset + stride, vectors[1])
    store(array, offset + 2 * stride, vectors[2])
    store(array, offset + 3 * stride, vectors[3])


@njit
def spread4(array: np.ndarray, offset: int) -> Quad:
    """Read four neighbouring numbers, each into all lanes of its vector."""
    return spread(array, offset), spread(array, offset + 1), spread(array, offset + 2), spread(array, offset + 3)


@njit
def fma4(a: Quad, b: Quad, c: Quad) -> Quad:
    """a * b + c, vector by vector."""
    return fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])


@njit
def times4(a: Quad, b: Quad) -> Quad:
    """a * b, vector by vector."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]


@njit
def dot4(a: Quad, b: Quad, c: Vector) -> Vector:
    """c + the sum of the four products a * b."""
    return fma(a[3], b[3], fma(a[2], b[2], fma(a[1], b[1], fma(a[0], b[0], c))))


@njit
def exp2_of_product4(a: Quad, b: Quad) -> Quad:
    """2**(a * b), vector by vector."""
    return (
        exp2_of_product(a[0], b[0]),
        exp2_of_product(a[1], b[1]),
        exp2_of_product(a[2], b[2]),
        exp2_of_product(a[3], b[3]),
    )
