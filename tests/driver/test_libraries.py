"""What stands in for cuBLAS, cuRAND and Thrust."""

from __future__ import annotations

import pytest

from tests.driver.processes import run


@pytest.mark.parametrize("options", [[], ["--lazy"]])
def test_products(options: list[str]) -> None:
    run("""
    from cupy import cublas
    generator = numpy.random.default_rng(0)
    for dtype in "efdFD":
        a, b = (generator.normal(size=shape).astype(dtype) for shape in ((3, 5, 4), (3, 4, 6)))
        if dtype in "FD":
            a = a + 1j * generator.normal(size=a.shape).astype(dtype)
        tolerance = {"e": 1e-2, "f": 1e-5, "F": 1e-5}.get(dtype, 1e-12)
        x, y = cupy.asarray(a), cupy.asarray(b)
        for of in (lambda a, b, m: m.matmul(a, b), lambda a, b, m: m.matmul(a[0].T, a[0]), lambda a, b, m: m.dot(a[0], b[1]),
                   lambda a, b, m: m.dot(a[0], b[0][:, 1]), lambda a, b, m: m.dot(a[0][1], a[0][2]), lambda a, b, m: m.vdot(a, a),
                   lambda a, b, m: m.tensordot(a, b, axes=([2], [1])), lambda a, b, m: m.einsum("bij,bjk->ik", a, b)):
            found, expected = of(x, y, cupy), of(a, b, numpy)
            numpy.testing.assert_allclose(found.get(), expected, rtol=tolerance, atol=10 * tolerance)
        if dtype in "fdFD":
            assert (cupy.asfortranarray(x[0]).get() == a[0]).all() and cupy.asfortranarray(x[0]).flags.f_contiguous
            found = cublas.gemm("H", "N", x[0], x[0]).get()
            numpy.testing.assert_allclose(found, a[0].conj().T @ a[0], rtol=tolerance, atol=10 * tolerance)
    """, *options)  # fmt: skip


def test_random_numbers() -> None:
    run("""
    cupy.random.seed(3)
    first = cupy.random.random(5).get()
    cupy.random.seed(3)
    assert (cupy.random.random(5).get() == first).all()
    cupy.random.seed(4)
    assert (cupy.random.random(5).get() != first).all()
    u, n, i = cupy.random.random(20000).get(), cupy.random.standard_normal(20000).get(), cupy.random.randint(0, 10, 20000).get()
    assert 0 <= u.min() and u.max() <= 1 and abs(u.mean() - 0.5) < 0.01
    assert abs(n.mean()) < 0.03 and abs(n.std() - 1) < 0.03
    assert (abs(numpy.bincount(i, minlength=10) - 2000) < 300).all() and len(numpy.bincount(i)) == 10
    """)


def test_sorts_also_in_graphs() -> None:
    run("""
    x = cupy.asarray([3.0, 1.0, 2.0])
    assert cupy.sort(x).tolist() == [1, 2, 3] and cupy.argsort(x).tolist() == [1, 2, 0]
    y = cupy.empty_like(x)
    stream = Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        y[...] = cupy.sort(x)
        graph = stream.end_capture()
        for factor in (1, -1):
            x *= factor
            graph.launch()
            assert y.tolist() == sorted(x.tolist())
    """)
