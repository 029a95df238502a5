"""The selective scan's contract: golden values, every shape and dtype, gradients, compilation and threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model.selective_scan import bidirectional_scan, default_implementation, selective_scan
from tests.golden import load_golden
from tests.model.scan_cases import NAMES, as_float64, make_case, with_gradients

HERE = ("reference", "cpu")
"""The implementations that run on any machine."""
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def golden_case(length):
    golden = load_golden(f"selective_scan_L{length}")
    return golden, {name: golden[name] for name in NAMES}


@DIRECTIONS
@pytest.mark.parametrize("implementation", HERE)
@pytest.mark.parametrize("length", [1, 7, 64, 513])
def test_equals_the_official_code(length, implementation, reverse):
    golden, case = golden_case(length)
    actual = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation=implementation)
    expected = golden["y_rev_f64" if reverse else "y_fwd_f64"]
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=1e-5)


@DIRECTIONS
@pytest.mark.parametrize("length", [1, 7, 64, 513])
def test_reference_equals_the_official_code_in_float64(length, reverse):
    golden, case = golden_case(length)
    actual = selective_scan(**as_float64(case), delta_softplus=True, reverse=reverse)
    torch.testing.assert_close(actual, golden["y_rev_f64" if reverse else "y_fwd_f64"], atol=1e-10, rtol=1e-10)


@DIRECTIONS
@pytest.mark.parametrize("implementation", HERE)
def test_equals_the_official_code_without_gate(implementation, reverse):
    golden, case = golden_case(64)
    case.pop("z")
    actual = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation=implementation)
    expected = golden["y_rev_noz_f64" if reverse else "y_fwd_noz_f64"]
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=1e-5)


@DIRECTIONS
@pytest.mark.parametrize("implementation", HERE)
def test_gradients_equal_the_official_code(implementation, reverse):
    golden, case = golden_case(64)
    case = with_gradients(case)
    out = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation=implementation)
    gradients = torch.autograd.grad(out, list(case.values()), golden["grad_out"])
    for name, gradient in zip(case, gradients, strict=True):
        expected = golden[f"grad_{'rev' if reverse else 'fwd'}_{name}_f64"]
        torch.testing.assert_close(gradient.double(), expected, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_reference_passes_gradcheck():
    case = with_gradients(as_float64(make_case(batch=1, width=2, states=3, length=4)))

    def scan(*tensors):
        return selective_scan(**dict(zip(case, tensors, strict=True)), delta_softplus=True, reverse=True)

    assert torch.autograd.gradcheck(scan, tuple(case.values()))


def compare_with_reference(case, delta_softplus=True, reverse=False):
    """Outputs and every gradient of the CPU scan against the float64 reference."""
    ours, exact = with_gradients(case), with_gradients(as_float64(case))
    out = selective_scan(**ours, delta_softplus=delta_softplus, reverse=reverse, implementation="cpu")
    expected = selective_scan(**exact, delta_softplus=delta_softplus, reverse=reverse)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    out_grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
    gradients = torch.autograd.grad(out, list(ours.values()), out_grad)
    references = torch.autograd.grad(expected, list(exact.values()), out_grad.double())
    for name, gradient, reference in zip(case, gradients, references, strict=True):
        scale = float(reference.abs().max().clamp(min=1))
        torch.testing.assert_close(
            gradient.double(), reference, atol=2e-5 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@DIRECTIONS
@pytest.mark.parametrize(
    ("width", "states"), [(1, 1), (15, 2), (16, 4), (17, 16), (33, 3), (48, 24), (5, 64)], ids=lambda n: str(n)
)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_any_shape(width, states, length, reverse):
    compare_with_reference(make_case(2, width, states, length, seed=width + length), reverse=reverse)


@DIRECTIONS
@pytest.mark.parametrize(
    "without", [("z",), ("D",), ("delta_bias",), ("z", "D", "delta_bias")], ids=lambda names: "-".join(names)
)
def test_optional_inputs(without, reverse):
    compare_with_reference(make_case(without=without, length=40), reverse=reverse)


@DIRECTIONS
def test_without_softplus(reverse):
    case = make_case(length=40)
    case["delta"] = case["delta"].abs()
    case["delta_bias"] = case["delta_bias"].abs()
    compare_with_reference(case, delta_softplus=False, reverse=reverse)


def test_growing_states():
    """A may be positive: nothing is cut off before float32 itself overflows."""
    case = make_case(length=20)
    compare_with_reference({**case, "A": -case["A"] * 0.2})


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded", "flipped"])
def test_any_layout(layout):
    case = make_case(batch=3, width=20, length=37)
    change = {
        "channels_last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "sliced": lambda x: torch.stack([x, x], dim=-1).flatten(-2)[..., ::2],
        "expanded": lambda x: x[:1].expand(3, -1, -1),
        "flipped": lambda x: x.flip(2).contiguous().flip(2),
    }[layout]
    strided = {name: change(tensor) if tensor.ndim == 3 else tensor for name, tensor in case.items()}
    actual = selective_scan(**strided, delta_softplus=True)
    dense = {name: tensor.contiguous() for name, tensor in strided.items()}
    torch.testing.assert_close(actual, selective_scan(**dense, delta_softplus=True, implementation="reference"))


@DIRECTIONS
@pytest.mark.parametrize("implementation", HERE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_keeps_a_float32_state(dtype, implementation, reverse):
    """The result is that of float32 arithmetic on the rounded inputs, rounded once at the end."""
    case = make_case(batch=2, width=20, states=16, length=200, dtype=dtype)
    actual = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation=implementation)
    exact = selective_scan(**as_float64(case), delta_softplus=True, reverse=reverse)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), exact, atol=2e-4, rtol=torch.finfo(dtype).eps)


def test_half_precision_gradients():
    case = make_case(width=20, states=16, length=50, dtype=torch.bfloat16)
    ours, exact = with_gradients(case), with_gradients(as_float64(case))
    selective_scan(**ours, delta_softplus=True).float().sum().backward()
    selective_scan(**exact, delta_softplus=True).sum().backward()
    for name, tensor in ours.items():
        assert tensor.grad.dtype == tensor.dtype
        scale = float(exact[name].grad.abs().max())
        torch.testing.assert_close(tensor.grad.double(), exact[name].grad, atol=2e-2 * scale, rtol=2e-2)


def test_mixed_dtypes():
    """A bfloat16 network may hand over a float32 step size: each tensor is read as it is."""
    case = make_case(width=20, length=50)
    mixed = {**case, "u": case["u"].bfloat16(), "z": case["z"].bfloat16(), "B": case["B"].half()}
    actual = selective_scan(**mixed, delta_softplus=True)
    expected = selective_scan(**mixed, delta_softplus=True, implementation="reference")
    torch.testing.assert_close(actual, expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("implementation", HERE)
def test_nan_stays_visible(implementation):
    """A NaN spoils its own sequence and channel from its step on, and nothing else."""
    case = make_case(length=40)
    case["u"][0, 2, 25] = torch.nan
    out = selective_scan(**case, delta_softplus=True, implementation=implementation)
    assert out[0, 2, 25:].isnan().all()
    assert not out[0, 2, :25].isnan().any()
    assert not out[1].isnan().any()
    assert not out[0, [0, 1, 3]].isnan().any()


@pytest.mark.parametrize("name", ["u", "delta", "z"])
def test_large_values_give_no_nan(name):
    case = make_case(length=20)
    case[name] = case[name] * 1e4
    out = selective_scan(**case, delta_softplus=True, implementation="cpu")
    expected = selective_scan(**as_float64(case), delta_softplus=True)
    torch.testing.assert_close(out.double(), expected, atol=1e-3, rtol=1e-4)


def test_a_state_that_never_decays_stays_exact_for_a_long_time():
    """Story: a polynomial whose value at 0 was 1 + 7e-8 made such a state grow by 0.4 % in 65,536 steps."""
    length = 65_536
    case = make_case(batch=1, width=16, states=4, length=length)
    case["delta"] = torch.full_like(case["delta"], 1e-9)
    case["u"].zero_()
    case["u"][:, :, 0] = 1e9
    case["B"].fill_(1.0)
    case["C"].fill_(1.0)
    del case["z"], case["D"], case["delta_bias"]
    out = selective_scan(**case)
    expected = torch.exp(case["delta"].double()[0] * 0) * 4
    torch.testing.assert_close(out[0, :, -1].double(), expected[:, -1], atol=4e-3, rtol=0)


def test_length_65536():
    case = make_case(batch=1, width=16, states=4, length=65_536)
    forward = selective_scan(**case, delta_softplus=True)
    flipped = {name: tensor.flip(2) if tensor.ndim == 3 else tensor for name, tensor in case.items()}
    backward = selective_scan(**flipped, delta_softplus=True, reverse=True)
    torch.testing.assert_close(forward, backward.flip(2), atol=1e-6, rtol=1e-6)
    tail = {name: tensor[..., -2000:] if tensor.ndim == 3 else tensor for name, tensor in case.items()}
    expected = selective_scan(**tail, delta_softplus=True, implementation="reference")
    torch.testing.assert_close(forward[..., -500:], expected[..., -500:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["auto", *HERE])
@pytest.mark.parametrize("changes", [{"without": ()}, {"without": ("z", "D", "delta_bias")}])
def test_bidirectional_scan_is_the_sum_of_both_directions(implementation, changes):
    case = make_case(width=20, length=70, **changes)
    other = -torch.exp(torch.randn(20, 5))
    ours, separate = with_gradients({**case, "other": other}), with_gradients({**case, "other": other})
    A_reverse = ours.pop("other")
    both = bidirectional_scan(**ours, A_reverse=A_reverse, delta_softplus=True, implementation=implementation)
    A_second = separate.pop("other")
    expected = selective_scan(**separate, delta_softplus=True, implementation="reference")
    second = {**separate, "A": A_second}
    expected = expected + selective_scan(**second, delta_softplus=True, reverse=True, implementation="reference")
    torch.testing.assert_close(both, expected, atol=2e-5, rtol=2e-5)
    out_grad = torch.randn(both.shape, generator=torch.Generator().manual_seed(7))
    gradients = torch.autograd.grad(both, [*ours.values(), A_reverse], out_grad)
    references = torch.autograd.grad(expected, [*separate.values(), A_second], out_grad)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-4)


def test_bidirectional_half_precision_rounds_once():
    case = make_case(width=20, states=16, length=70, dtype=torch.bfloat16)
    A_reverse = case["A"] * 0.5
    actual = bidirectional_scan(**case, A_reverse=A_reverse, delta_softplus=True)
    exact = bidirectional_scan(**as_float64(case), A_reverse=A_reverse.double(), delta_softplus=True)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), exact, atol=2e-4, rtol=torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("empty", ["batch", "length"])
@pytest.mark.parametrize("implementation", HERE)
def test_empty_inputs_give_empty_outputs(empty, implementation):
    case = make_case(**{empty: 0})
    out = selective_scan(**case, delta_softplus=True, implementation=implementation)
    assert out.shape == case["u"].shape


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("delta", (2, 6, 8)),
        ("A", (5, 5)),
        ("B", (2, 4, 9)),
        ("C", (1, 5, 9)),
        ("D", (5,)),
        ("z", (2, 9, 6)),
        ("delta_bias", (6, 1)),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, shape):
    case = {**make_case(), name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=f"selective_scan: {name} has shape"):
        selective_scan(**case)


def test_wrong_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"u must be \(Bsz, D, L\)"):
        selective_scan(**{**make_case(), "u": torch.zeros(6, 9)})


def test_unknown_implementation_lists_the_known_ones():
    with pytest.raises(ValueError, match="auto, cuda, triton, cpu, reference"):
        selective_scan(**make_case(), implementation="fast")


def test_cpu_refuses_float64_and_auto_takes_the_reference():
    case = as_float64(make_case())
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        selective_scan(**case, implementation="cpu")
    assert selective_scan(**case).dtype == torch.float64


def test_default_implementation_per_device():
    assert default_implementation("cpu") == "cpu"
    assert default_implementation("cuda") in ("cuda", "triton")


def test_several_threads_at_once():
    """Story: Numba's own parallel loops abort the process when two threads enter them together."""
    cases = [make_case(width=40, states=16, length=200, seed=seed) for seed in range(8)]
    expected = [selective_scan(**case, delta_softplus=True, implementation="reference") for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            results = list(pool.map(lambda case: selective_scan(**case, delta_softplus=True), cases))
            for result, reference in zip(results, expected, strict=True):
                torch.testing.assert_close(result, reference, atol=2e-5, rtol=2e-5)


def test_gradients_from_several_threads_at_once():
    case = make_case(width=40, length=100)

    def gradient(_):
        leaves = with_gradients(case)
        selective_scan(**leaves, delta_softplus=True).sum().backward()
        return leaves["A"].grad

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(gradient, range(8))
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_slices_gives_the_same_numbers(threads, monkeypatch):
    case = make_case(batch=3, width=40, length=50)
    expected = selective_scan(**case, delta_softplus=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(selective_scan(**case, delta_softplus=True), expected)


@DIRECTIONS
@pytest.mark.parametrize("without", [(), ("z", "D", "delta_bias")], ids=["all", "bare"])
def test_custom_operator_is_registered_properly(without, reverse):
    """Schema, fake tensors, autograd and ahead-of-time dispatch, as torch itself checks them."""
    case = with_gradients(make_case(width=20, length=33, without=without))
    arguments = (*(case.get(name) for name in NAMES), None, True, reverse, True)
    torch.library.opcheck(torch.ops.hark.selective_scan.default, arguments)


def test_custom_operator_of_both_directions_is_registered_properly():
    case = with_gradients(make_case(width=20, length=33))
    arguments = (*(case.get(name) for name in NAMES), case["A"].detach() * 2, True, False, True)
    torch.library.opcheck(torch.ops.hark.selective_scan.default, arguments)


class _Scan(torch.nn.Module):
    def forward(self, u, delta, A, B, C, D, z, delta_bias):
        return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True) * 2


def test_survives_torch_export():
    case = make_case(width=20, length=33)
    program = torch.export.export(_Scan(), tuple(case.values()))
    assert any("hark.selective_scan" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*case.values()), _Scan()(*case.values()))


def test_survives_torch_export_with_any_length():
    length = torch.export.Dim("length", min=2, max=1000)
    shapes = tuple({2: length} if make_case()[name].ndim == 3 else None for name in NAMES)
    program = torch.export.export(_Scan(), tuple(make_case(length=33).values()), dynamic_shapes=shapes)
    other = make_case(length=70)
    torch.testing.assert_close(program.module()(*other.values()), _Scan()(*other.values()))


def test_compiles_without_graph_breaks():
    """With the backend that only traces, no C++ compiler is needed; forward and backward are captured."""
    compiled = torch.compile(_Scan(), backend="aot_eager", fullgraph=True)
    ours, expected = with_gradients(make_case(length=33)), with_gradients(make_case(length=33))
    compiled(*ours.values()).sum().backward()
    _Scan()(*expected.values()).sum().backward()
    for name in NAMES:
        torch.testing.assert_close(ours[name].grad, expected[name].grad)


def test_memory_does_not_grow_with_the_state_size():
    """O(Bsz D L) and not O(Bsz D L N): eight times the states must not cost eight times the memory."""

    def allocated(states):
        case = make_case(batch=1, width=64, states=states, length=2048)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            selective_scan(**case, delta_softplus=True)
        return sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())

    assert allocated(64) < 2 * allocated(8)
