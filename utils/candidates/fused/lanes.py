"""Operations on sixteen floats at a time for numba, which does not vectorize a fusion layer's small matrix products.

A product keeps its sums in registers, which takes a value that holds several floats. Numba has no such type; LLVM does,
and fits it to the vector registers of the processor.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_CONTRACT = ("contract",)  # multiply and add in one instruction where the processor can


class Lanes(types.Type):
    """LANES floats."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _VECTOR)


lanes = Lanes()


def _address(context, builder, signature, args):
    """Address of element `args[1]` of the flat array `args[0]`, without numba's handling of negative indices."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def element(typing, array, index):
    """One element of a flat array, as a float."""

    def generate(context, builder, signature, args):
        return builder.load(_address(context, builder, signature, args))

    return array.dtype(array, types.intp), generate


@intrinsic
def put(typing, array, index, value):
    """Write one element of a flat array."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature, args))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate


@intrinsic
def copy(typing, target, at, source, start, count):
    """Copy `count` elements of a flat array, from `start` on, to another, from `at` on."""

    def generate(context, builder, signature, args):
        (array, _, source, *_), (to, at, values, start, count) = signature.args, args
        to = context.make_array(array)(context, builder, to).data
        values = context.make_array(source)(context, builder, values).data
        size = context.get_abi_sizeof(context.get_value_type(array.dtype))
        cgutils.raw_memcpy(builder, builder.gep(to, [at]), builder.gep(values, [start]), count, size)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


@intrinsic
def load(typing, array, index):
    """LANES successive elements of a flat array."""

    def generate(context, builder, signature, args):
        return builder.load(_vector_address(context, builder, signature, args), align=4)

    return lanes(array, types.intp), generate


@intrinsic
def store(typing, array, index, values):
    """Write LANES successive elements of a flat array."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _vector_address(context, builder, signature, args), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _vector_address(context, builder, signature, args):
    return builder.bitcast(_address(context, builder, signature, args), _VECTOR.as_pointer())


@intrinsic
def add_scaled(typing, sums, factor, values):
    """Add `factor` times `values` to `sums`."""

    def generate(context, builder, signature, args):
        total, scalar, vector = args
        first = ir.Constant(ir.IntType(32), 0)
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        repeated = builder.shuffle_vector(builder.insert_element(undefined, scalar, first), undefined, everywhere)
        return builder.fadd(total, builder.fmul(repeated, vector, flags=_CONTRACT), flags=_CONTRACT)

    return lanes(lanes, types.float32, lanes), generate


@intrinsic
def float_of_bits(typing, bits):
    """The float32 with the given bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
