"""Each structure against its textbook definition, and its derivatives against differences."""

import json
import pickle

import numpy as np
import pytest
from covariance_cases import SIZES, cases, random_theta, slopes, symmetric, textbook
from reference_data import REFERENCE

from lme4py.covariance import CovarianceStructure, find_structure, make_structure, structure_names
from lme4py.covariance.kinds.matern import _nodes, matern
from lme4py.errors import DesignError, OptionError

ALL = cases()
LABELS = [label for label, _ in ALL]
STRUCTURES = [structure for _, structure in ALL]
every = pytest.mark.parametrize("structure", STRUCTURES, ids=LABELS)
# Points of the spherical correlation, whose second derivative jumps at the range, lie on one side of it in these.
smooth = pytest.mark.parametrize(
    "structure", [s for s in STRUCTURES if s.name != "sph" or s.size <= 3], ids=[n for n in LABELS if n[:5] != "sph-7"]
)


# --- definitions ------------------------------------------------------------------------------------------------------


@every
def test_definition(structure):
    theta = random_theta(structure)
    Sigma = structure.covariance(theta)
    # The same formula in another order of operations; Matern's from Bessel functions.
    np.testing.assert_allclose(Sigma, textbook(structure, structure.natural(theta)), rtol=1e-11, atol=1e-12)
    T = structure.factor(theta)
    np.testing.assert_allclose(T @ T.T, Sigma, rtol=0, atol=1e-14 * structure.size)
    if structure.triangular:
        assert not np.triu(T, 1).any()


@every
def test_theta_names_and_initial(structure):
    assert len(structure.theta_names) == structure.n_theta == structure.initial().size
    start = structure.initial()
    assert np.linalg.eigvalsh(structure.covariance(start)).min() > -1e-12
    if structure.name != "rr":
        assert not structure.boundary(start, "(x | g)", [f"x{j}" for j in range(structure.size)])
    assert not structure.limits(start, "(x | g)")


REFERENCES = json.loads((REFERENCE / "covariance_structures.json").read_text())
# nlme's parameters as ours; the inverse of corGaus's and corExp's range is ours, a nugget is a share for both.
NLME = {
    "exp": ([1.3, 0.2], "xy", {"nugget": True}),
    "gau": ([1.3], "xy", {}),
    "sph": ([1.7, 0.1], "xy", {"nugget": True}),
    "arma11": ([0.6, -0.3], "t", {}),
    "ar1": ([-0.4], "t", {}),
    "car1": ([0.4], "x", {}),
    "cs": ([-0.2], "", {}),
    "us": ([0.5, 0.3, 0.2, 0.4, 0.1, 0.35], "", {}),
}


@pytest.mark.parametrize("word", NLME)
def test_definitions_of_nlme(word):
    values, columns, extra = NLME[word]
    places = np.array([[point[c] for c in columns] for point in REFERENCES["points"]]) if columns else None
    if len(columns) == 1:
        places = places[:, 0]
    structure = make_structure(word, 4, places, **extra)
    n_sd = len(structure.natural_parameters) - len(values)
    theta = structure.theta_of_natural(np.concatenate([np.ones(n_sd), values]))
    # 15 digits in the file.
    np.testing.assert_allclose(structure.covariance(theta), REFERENCES["correlations"][word], atol=2e-15)


# Estimates of glmmTMB 1.1.5 (its theta, then what VarCorr() prints): the definitions of both agree.
def test_definitions_of_glmmtmb():
    t = 1.76485664000617
    ar1 = make_structure("ar1", 4)
    theta = ar1.theta_of_natural(np.array([np.exp(-0.687080991583759), t / np.sqrt(1.0 + t**2)]))
    expected = [0.253051568447865, 0.220165049808566, 0.19155245491867, 0.166658345715059]
    np.testing.assert_allclose(ar1.covariance(theta)[0], expected, rtol=1e-13)

    cs, a = make_structure("cs", 4), 1.0 / 3.0
    sd = np.exp([-0.306598108415603, -0.293056392006083, -0.694958233557869, -0.202643298908963])
    rho = -a + (1.0 + a) / (1.0 + np.exp(-0.564641002822032))
    np.testing.assert_allclose(rho, 0.516700929668688, rtol=1e-13)
    Sigma = cs.covariance(cs.theta_of_natural(np.append(sd, rho)))
    np.testing.assert_allclose(
        Sigma[0], [0.541616974309422, 0.283669473337339, 0.189788044188426, 0.310512086707347], rtol=1e-12
    )

    toep = make_structure("toep", 4)
    t = np.array([0.360734299143161, 0.391578430522, 0.366277873901555])
    theta = toep.theta_of_natural(np.append([1.2179762848486, 1.27311441541289, 0.997381575670202, 1.1642543204187],
                                            t / np.sqrt(1.0 + t**2)))  # fmt: skip
    np.testing.assert_allclose(
        toep.natural(theta)[4:], [0.339330879592888, 0.364620663032422, 0.343932820164076], rtol=1e-12
    )

    ou = make_structure("ou", 4, np.arange(4) / 2.0)
    theta = ou.theta_of_natural(np.array([np.exp(-0.428486968209234), np.exp(0.390588891255421)]))
    expected = [1.0, 0.712960585784248, 0.508312796881818, 0.362406989426491]
    np.testing.assert_allclose(ou.covariance(theta)[0] / 0.651494080633405**2, expected, rtol=1e-13)

    plane = np.array([[1.814, 0.056], [3.402, 0.261], [1.867, 0.309], [7.924, 0.324]])
    exp = make_structure("exp", 4, plane)
    R = exp.covariance(exp.theta_of_natural(np.array([1.0, np.exp(0.104880064366331)])))
    np.testing.assert_allclose(R[0], [1, 0.23651298523767, 0.792348148969646, 0.00405853805401232], rtol=1e-12)
    mat = make_structure("mat", 4, plane)
    R = mat.covariance(mat.theta_of_natural(np.array([1.0, *np.exp([-1.25218375786607, 1.42886557851928])])))
    np.testing.assert_allclose(R[0], [1, 0.151854209703609, 0.938473410696755, 1.08166488271425e-06], rtol=1e-11)
    plane = np.array([[4.912, 0.003], [0.965, 0.284], [3.013, 0.413], [0.936, 0.414]])
    gau = make_structure("gau", 4, plane)
    R = gau.covariance(gau.theta_of_natural(np.array([1.0, np.exp(0.3627240900026833)])))
    np.testing.assert_allclose(R[1], [0.0005105383911397218, 1, 0.13021735283617536, 0.9914482241555235], rtol=1e-12)

    rr = make_structure("rr", 4, d=2)  # the first four of five rows; its theta has the diagonal first
    theta = np.array([1.06408512378641, 0.697380480546154, 0.664370566425094, -0.30393370762144,
                      0.492803668837745, -0.543685153422792, 0.573369369616405])  # fmt: skip
    Sigma = rr.covariance(theta)
    sd = np.sqrt(np.diag(Sigma))
    np.testing.assert_allclose(sd[:3], [1.06408512378641, 0.853929148505148, 0.85847643857264], rtol=1e-12)
    np.testing.assert_allclose(
        Sigma[0, 1:] / sd[0] / sd[1:], [0.816672532805513, 0.773894933598551, -0.468351311477251], rtol=1e-12
    )


def test_definitions_of_an_mmrm():
    """Covariances that nlme::gls fits to a trial with four visits, from the parameters it prints."""
    sd = np.array([4.95114758733601, 5.43725635002301, 7.36075855735018, 8.3944686589698])
    arh1 = make_structure("hetar1", 4)
    R = arh1.covariance(arh1.theta_of_natural(np.append(sd, 0.735910755381496)))
    np.testing.assert_allclose(
        R[0], [24.5138624315832, 19.811202249218, 19.7368911170062, 16.5643552051912], rtol=1e-13
    )
    homtoep = make_structure("homtoep", 4)
    rho = [0.714765218967114, 0.519130649039342, 0.364045224049218]
    R = homtoep.covariance(homtoep.theta_of_natural(np.append(6.52388471578046, rho)))
    expected = [42.5610717847939, 30.4211737937332, 22.0947568194501, 15.4941549136701]
    np.testing.assert_allclose(R[0], expected, rtol=1e-13)


# --- derivatives ------------------------------------------------------------------------------------------------------


@smooth
def test_derivatives(structure):
    theta = random_theta(structure)
    D, G = np.random.default_rng(3).normal(size=(structure.size,) * 2), symmetric(structure.size)
    dT, d2T = structure.tangents(theta), structure.second_tangents(theta)
    # Differences of sixth order are good to 1e-11 here.
    np.testing.assert_allclose(dT, slopes(structure.factor, theta), rtol=0, atol=1e-9)
    np.testing.assert_allclose(d2T, slopes(structure.tangents, theta), rtol=0, atol=1e-9)
    np.testing.assert_allclose(structure.pullback(theta, D), np.einsum("ab,iab->i", D, dT), rtol=0, atol=1e-12)
    np.testing.assert_allclose(structure.second(theta, D), np.einsum("ab,ijab->ij", D, d2T), rtol=0, atol=1e-11)
    S = structure.covariance_derivatives(theta)
    np.testing.assert_allclose(S.first, slopes(structure.covariance, theta), rtol=0, atol=1e-9)
    np.testing.assert_allclose(S.second, slopes(structure.covariance_tangents, theta), rtol=0, atol=1e-9)
    first, second = np.einsum("ab,iab->i", G, S.first), np.einsum("ab,ijab->ij", G, S.second)
    np.testing.assert_allclose(structure.covariance_pullback(theta, G), first, rtol=0, atol=1e-11)
    np.testing.assert_allclose(structure.curvature(theta, G), second, rtol=0, atol=1e-11)
    # What the base class makes of T must be what a structure knows of Sigma.
    np.testing.assert_allclose(CovarianceStructure.curvature(structure, theta, G), second, rtol=0, atol=1e-11)


@every
def test_gradients_where_the_definition_bends(structure):
    """The first derivatives of all, spherical ones too, whose slope is continuous at the range."""
    theta, G = random_theta(structure, 1), symmetric(structure.size, 1)
    numeric = slopes(lambda t: np.sum(G * structure.covariance(t)), theta, 1e-5)
    np.testing.assert_allclose(structure.covariance_pullback(theta, G), numeric, rtol=0, atol=1e-7)
    T = structure.factor(theta)
    np.testing.assert_allclose(structure.pullback(theta, 2 * G @ T), numeric, rtol=0, atol=1e-7)


@every
def test_natural_parameters(structure):
    theta = structure.canonical(random_theta(structure))
    values = structure.natural(theta)
    known = structure.natural_parameters
    assert len(known) == values.size
    assert len({(p.kind, p.label, p.columns) for p in known}) == len(known)
    assert all(p.allows(float(v)) for p, v in zip(known, values, strict=True))
    # Partial autocorrelations are divided by what is left of the variance, 1e-3 after six lags.
    np.testing.assert_allclose(structure.theta_of_natural(values), theta, rtol=0, atol=1e-11)
    np.testing.assert_allclose(structure.natural_jacobian(theta), slopes(structure.natural, theta).T, rtol=0, atol=1e-9)
    found = structure.natural_derivatives(theta).second
    numeric = slopes(lambda t: structure.natural_jacobian(t).T, theta)
    # Ranges go as 1 / t^2: their second derivatives are some hundreds.
    np.testing.assert_allclose(found, numeric, rtol=1e-9, atol=1e-9)
    for parameter, value in zip(known, values, strict=True):
        assert parameter.bounded(parameter.unbounded(value)) == pytest.approx(value, rel=1e-13, abs=1e-13)
        numeric = (parameter.unbounded(value + 1e-6) - parameter.unbounded(value - 1e-6)) / 2e-6
        assert parameter.slope(value) == pytest.approx(numeric, rel=1e-7)
    if structure.separable:
        assert not (structure.natural_jacobian(theta) * (1 - np.eye(theta.size))).any()


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s.size <= 3], ids=[n for n in LABELS if "-7" not in n])
def test_derivatives_in_the_parameters_of_kenward_and_roger(structure):
    theta = structure.canonical(random_theta(structure))
    found = structure.kenward_roger(theta).sigma
    if structure.linear:
        # Elements of Sigma: the matrices are constant, and Sigma is a combination of them.
        basis = found.first.reshape(structure.n_theta, -1).T
        Sigma = structure.covariance(theta).ravel()
        np.testing.assert_allclose(basis @ np.linalg.lstsq(basis, Sigma, rcond=None)[0], Sigma, atol=1e-12)
        assert not found.second.any()
        return
    kinds = [parameter.kind for parameter in structure.natural_parameters]
    is_sd = np.array([kind == "sd" for kind in kinds])

    def of_variances(psi):
        values = np.where(is_sd, np.sqrt(np.where(is_sd, psi, 1.0)), psi)
        return structure.covariance(structure.theta_of_natural(values))

    psi = np.where(is_sd, structure.natural(theta) ** 2, structure.natural(theta))
    np.testing.assert_allclose(found.first, slopes(of_variances, psi), rtol=0, atol=1e-8)
    numeric = slopes(lambda p: slopes(of_variances, p), psi)
    # Differences of differences: 1e-11 / 2e-3.
    np.testing.assert_allclose(found.second, numeric, rtol=1e-6, atol=1e-6)


def test_matern_between_its_closed_forms():
    x = np.geomspace(1e-4, 30.0, 40)
    for nu, closed in (
        (0.5, np.exp(-x)),
        (1.5, (1.0 + x) * np.exp(-x)),
        (2.5, (1.0 + x + x**2 / 3.0) * np.exp(-x)),
    ):
        np.testing.assert_allclose(matern(x, np.log(nu)).value, closed, atol=1e-14)
    # Derivatives in log nu at 1/2, by expansion of K_nu in nu: they vanish at both ends and are positive between.
    slope = matern(np.array([1e-6, 1.0, 40.0]), np.log(0.5)).first[1]
    assert slope[0] == pytest.approx(0.0, abs=1e-4)
    assert slope[1] > 0.1
    assert slope[2] == pytest.approx(0.0, abs=1e-12)
    # Very smooth and very rough, where the nodes are most stretched: differences of neighbours.
    for log_nu in (-2.5, 4.5):
        here = matern(x, log_nu)
        up, down = matern(x, log_nu + 1e-4), matern(x, log_nu - 1e-4)
        # Second-order differences: 1e-8 relative.
        np.testing.assert_allclose(here.first[1], (up.value - down.value) / 2e-4, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(here.second[1], (up.first - down.first)[:, :] / 2e-4, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("log_nu", [12.0, 24.9, 25.1, 60.0, 1e6])
def test_matern_of_any_smoothness_takes_as_many_nodes(log_nu):
    assert _nodes(1e-3, np.exp(min(log_nu, 700.0))).size < 400
    q = np.array([0.01, 0.3, 2.0])
    x = 2.0 * np.exp(0.5 * min(log_nu, 600.0)) * np.sqrt(q)
    found = matern(x, min(log_nu, 600.0))
    # Where nu is large it is exp(-x^2 / (4 nu)) and a term of 1 / nu.
    np.testing.assert_allclose(found.value, np.exp(-q), rtol=2.0 * np.exp(-log_nu), atol=1e-11)
    np.testing.assert_allclose(found.first[1], q * np.exp(-q), rtol=3.0 * np.exp(-log_nu), atol=1e-9)
    np.testing.assert_allclose(found.first[0] * x, -2.0 * q * np.exp(-q), rtol=3.0 * np.exp(-log_nu), atol=1e-9)
    assert np.isfinite(matern(np.array([1e-3, 1.0]), log_nu).second).all()


# --- points -----------------------------------------------------------------------------------------------------------


@every
def test_covariance_at_some_of_the_columns(structure):
    if structure.size < 3:
        return
    theta = random_theta(structure)
    whole = structure.covariance_derivatives(theta)
    pick = np.array([[0, 2], [1, 2]])
    found = structure.covariance_derivatives(theta, structure.places[pick])
    rows, columns = pick[:, :, None], pick[:, None]
    np.testing.assert_allclose(found.value, whole.value[rows, columns], rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.first, whole.first[:, rows, columns], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.second, whole.second[:, :, rows, columns], rtol=0, atol=1e-12)
    np.testing.assert_allclose(structure.covariance(theta, structure.places[pick]), found.value, rtol=0, atol=1e-14)


@pytest.mark.parametrize("word", ["ou", "car1", "exp", "gau", "mat", "sph"])
def test_covariance_at_other_points(word):
    """Any times of many subjects at once; and those of columns and new ones together, for predictions."""
    structure = make_structure(word, 5, np.arange(5.0))
    theta = random_theta(structure)
    times = np.sort(np.random.default_rng(1).uniform(0.0, 9.0, (4, 3)), axis=1)
    found = structure.covariance_derivatives(theta, times)
    assert found.second.shape == (theta.size, theta.size, 4, 3, 3)
    for subject in range(4):
        own = make_structure(word, 3, times[subject], unit=structure.correlation.unit)
        np.testing.assert_allclose(found.value[subject], own.covariance(theta), rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.first[:, subject], own.covariance_tangents(theta), rtol=0, atol=1e-14)


@pytest.mark.parametrize("word", ["us", "cs", "hetar1", "ad", "homcs"])
def test_points_without_a_column(word):
    structure = make_structure(word, 3)
    with pytest.raises(DesignError, match="no column at 5"):
        structure.covariance(random_theta(structure), np.array([0.0, 5.0]))


def test_positions_that_mean_nothing_are_no_part_of_a_structure():
    assert make_structure("us", 2, np.array([3.0, 5.0])) == make_structure("us", 2)
    assert make_structure("cs", 2, np.array([3.0, 5.0])).places.tolist() == [0.0, 1.0]
    assert make_structure("ar1", 2, np.array([3.0, 5.0])).places.tolist() == [3.0, 5.0]


def test_lags_are_whole_numbers():
    ar1 = make_structure("ar1", 3)
    np.testing.assert_allclose(ar1.covariance(np.array([1.0, 0.5]), np.array([3.0, 10.0]))[0, 1], np.sin(0.5) ** 7)
    with pytest.raises(DesignError, match=r"2\.5 is no whole number"):
        ar1.covariance(np.array([1.0, 0.5]), np.array([1.0, 2.5]))


# --- chains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s.is_chain], ids=lambda s: f"{s.name}-{s.size}")
def test_tridiagonal_inverse(structure):
    theta = random_theta(structure)
    diagonal, below, log_det = structure.precision(theta)
    inverse = np.diag(diagonal) + np.diag(below, 1) + np.diag(below, -1)
    Sigma = structure.covariance(theta)
    np.testing.assert_allclose(inverse @ Sigma, np.eye(structure.size), rtol=0, atol=1e-11)
    assert log_det == pytest.approx(np.linalg.slogdet(Sigma)[1], abs=1e-12)


def test_chains_are_these():
    assert {s.name for s in STRUCTURES if s.is_chain} == {"ar1", "hetar1", "ad", "ou", "car1"}
    with pytest.raises(OptionError, match=r"sparse inverse is not known for cs\(\)"):
        make_structure("cs", 3).precision(np.ones(4))
    with pytest.raises(OptionError, match=r"step over a gap in time is not known for ad\(\)"):
        make_structure("ad", 3).gap_steps(np.ones(5), np.ones(2))
    with pytest.raises(DesignError, match="no inverse"):
        make_structure("ar1", 3).precision(np.array([1.0, np.pi / 2]))


@pytest.mark.parametrize("word", ["ar1", "hetar1", "ou", "car1"])
def test_steps_over_gaps(word):
    structure = make_structure(word, 3, np.array([0.0, 1.0, 2.0]))
    theta = random_theta(structure)
    gaps = np.array([[1.0, 2.0], [5.0, 1.0]])
    found = structure.gap_steps(theta, gaps)
    np.testing.assert_allclose(found.s**2 + found.c**2, 1.0, rtol=0, atol=1e-15)

    def moved(name):
        return lambda t: getattr(structure.gap_steps(np.append(theta[:-1], t), gaps), name)

    for name, first in (("s", "ds"), ("c", "dc"), ("ds", "d2s"), ("dc", "d2c")):
        numeric = slopes(moved(name), theta[-1:])[0]
        np.testing.assert_allclose(getattr(found, first), numeric, rtol=0, atol=1e-10)


def test_many_times_need_no_array_for_each_parameter():
    """k = 500: the derivatives of 999 parameters would take 2 GB as matrices."""
    G = symmetric(500)
    for word in ("ar1", "hetar1", "ad", "ou"):
        structure = make_structure(word, 500, np.arange(500.0) if word == "ou" else None)
        theta = random_theta(structure)
        i = structure.n_theta - 1
        direction = np.zeros(theta.size)
        direction[[0, i]] = 1e-5, -1e-5
        numeric = np.vdot(G, structure.covariance(theta + direction) - structure.covariance(theta - direction)) / 2e-5
        gradient = structure.covariance_pullback(theta, G)
        # The sum of 250,000 elements, differences of second order.
        assert gradient[0] - gradient[i] == pytest.approx(numeric, rel=1e-6, abs=1e-4)
        by_T = structure.pullback(theta, 2 * G @ structure.factor(theta))
        np.testing.assert_allclose(by_T, gradient, rtol=1e-9, atol=1e-9 * np.abs(gradient).max())


# --- the registry -----------------------------------------------------------------------------------------------------


def test_words():
    own = {word for word in structure_names() if find_structure(word).__module__.startswith("lme4py.")}
    assert own == {
        "us", "diag", "homdiag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ad", "ou", "exp", "gau", "mat",
        "sph", "rr", "car1", "arma11",
    }  # fmt: skip
    assert find_structure("exchangeable").name == "homcs"
    assert find_structure("identity").name == "homdiag"
    with pytest.raises(OptionError, match="Did you mean 'toep'"):
        find_structure("toepl")
    for word in structure_names():
        kind = find_structure(word)
        assert kind.title
        assert kind.name == word
        assert all(larger in structure_names() for larger in kind.within)


@pytest.mark.parametrize(
    ("word", "places", "extra", "error", "message"),
    [
        ("us", None, {"d": 2}, OptionError, "has no option 'd'; it has none"),
        ("rr", None, {"d": 4}, OptionError, r"d of rr\(\) is 4; it must be a whole number between 1 and its 3 columns"),
        ("rr", None, {"d": True}, OptionError, "True"),
        ("exp", np.arange(3.0), {"range": 1}, OptionError, "its options are nugget, unit"),
        ("exp", np.arange(3.0), {"nugget": 1}, OptionError, "nugget of exp"),
        ("exp", np.arange(3.0), {"unit": -1.0}, OptionError, "positive number"),
        ("exp", np.arange(3.0), {"unit": "km"}, OptionError, "unit of exp.* is 'km'"),
        ("exp", None, {}, DesignError, "needs the times or coordinates"),
        ("exp", np.arange(4.0), {}, DesignError, "3 columns, and 4 positions"),
        ("us", np.arange(4.0), {}, DesignError, "3 columns, and 4 positions"),
        ("gau", np.array([0.0, np.nan, 1.0]), {}, DesignError, "1 of the 3 points"),
        ("mat", np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), {}, DesignError, "3 columns at 2 different points"),
        ("sph", np.eye(3, 4), {}, DesignError, "3 coordinates at most, not 4"),
        ("ou", np.array([0.0, 2.0, 1.0]), {}, DesignError, "1 follows 2"),
        ("ou", np.array([0.0, 1.0, 1.0]), {}, DesignError, "must be different"),
        ("car1", np.array([0.0, np.inf, 1.0]), {}, DesignError, "missing or infinite"),
        ("ou", np.eye(3), {}, DesignError, "takes one time, not 3 coordinates"),
        ("ar1", np.array([0.0, 0.5, 1.0]), {}, DesignError, "whole numbers"),
        ("toep", np.array([0.0, 2.0, 4.0]), {}, DesignError, r"no two times of toep\(\) are 1 apart"),
        ("hetar1", np.array([0.0, 0.0, 4.0]), {}, DesignError, "must be different"),
    ],
)
def test_what_a_structure_refuses(word, places, extra, error, message):
    with pytest.raises(error, match=message):
        make_structure(word, 3, places, **extra)


@pytest.mark.parametrize(
    ("word", "values", "message"),
    [
        ("us", [1.0, 1.0, 1.0, 0.9, 0.9, -0.9], "no correlation matrix"),
        ("toep", [1.0, 1.0, 1.0, 0.9, -0.9], "that at lag 2 cannot be -0.9"),
        ("homcs", [1.0, -0.6], "must be between -0.5 and 1"),
        ("ar1", [-1.0, 0.5], r"sd of ar1\(\) is -1"),
        ("ar1", [1.0], "has 2 parameters, and 1 values"),
        ("cs", [1.0, 1.0, 1.0, np.nan], "nan"),
        ("ou", [1.0, 0.0], "a range is 0; it must be positive"),
        ("mat", [1.0, 1.0, 0.0], "a smoothness is 0; it must be positive"),
        ("car1", [1.0, 0.0], "above 0"),
    ],
)
def test_natural_parameters_that_cannot_be(word, values, message):
    structure = make_structure(word, 3, np.arange(3.0) if word in ("ou", "car1", "mat") else None)
    with pytest.raises(OptionError, match=message):
        structure.theta_of_natural(np.array(values))


def test_too_many_columns():
    ou = make_structure("ou", 6000, np.arange(6000.0))
    with pytest.raises(DesignError, match=r"ou\(\) has 6000 columns.*0\.3 GiB"):
        ou.factor(ou.initial())
    with pytest.raises(DesignError, match="each pair of 200 columns"):
        make_structure("hetar1", 200).span_basis()
    # Without the whole matrix everything works.
    assert ou.covariance(ou.initial(), np.array([0.0, 1.0])).shape == (2, 2)
    assert ou.precision(ou.initial())[0].size == 6000


@every
def test_equality_and_pickles(structure):
    again = pickle.loads(pickle.dumps(structure))
    theta = random_theta(structure)
    structure.factor(theta)
    small = pickle.loads(pickle.dumps(structure))
    assert again == structure == small
    assert hash(again) == hash(structure)
    np.testing.assert_array_equal(small.covariance(theta), structure.covariance(theta))
    # Nothing that was worked out travels with it.
    assert len(pickle.dumps(structure)) == len(pickle.dumps(again))
    others = [other for label, other in ALL if other is not structure and "-1-nugget" not in label]
    assert all(structure != other for other in others) or structure.size == 1


def test_parameters_that_cannot_be_told_apart():
    lost = {label: structure.redundant() for label, structure in ALL if structure.redundant()}
    assert lost == {
        "arma11-2": ("ma angle",),
        "exp-2-nugget=True": ("nugget angle",),
        "gau-2-nugget=True": ("nugget angle",),
        "sph-2-nugget=True": ("nugget angle",),
        "mat-2": ("log smoothness",),
        "mat-2-nugget=True": ("log smoothness", "nugget angle"),
    }


def test_sizes():
    assert {structure.size for structure in STRUCTURES} == set(SIZES)


# --- parts of a structure, and new ones ------------------------------------------------------------------------------


@every
def test_some_of_the_columns(structure):
    if structure.size < 7:
        return
    columns = np.arange(5)  # toep needs neighbours
    part = structure.subset(columns)
    assert type(part) is type(structure)
    theta = structure.canonical(random_theta(structure))
    Sigma = structure.covariance(theta)[:5, :5]
    T = np.linalg.cholesky(Sigma + 1e-14 * np.eye(5)) if structure.name != "rr" else structure.factor(theta)[:5]
    np.testing.assert_allclose(part.covariance(part.theta_of_factor(T)), Sigma, rtol=0, atol=1e-8)
    assert structure.has_correlations == (structure.name not in ("diag", "homdiag"))


class Lagged(CovarianceStructure):
    """T = exp(a) (I + sin(b) N), N the ones below the diagonal: nothing in it is linear, and it says nothing else."""

    name = "lagged"
    title = "Of this test"

    @property
    def theta_names(self):
        return ("a", "b")

    def _parts(self, theta):
        return np.exp(theta[0]), np.eye(self.size), np.eye(self.size, k=-1)

    def factor(self, theta):
        scale, one, below = self._parts(theta)
        return scale * (one + np.sin(theta[1]) * below)

    def tangents(self, theta):
        scale, _, below = self._parts(theta)
        return np.array([self.factor(theta), scale * np.cos(theta[1]) * below])

    def second_tangents(self, theta):
        scale, _, below = self._parts(theta)
        mixed = scale * np.cos(theta[1]) * below
        return np.array([[self.factor(theta), mixed], [mixed, -scale * np.sin(theta[1]) * below]])

    def initial(self):
        return np.array([0.0, 0.1])


def test_a_new_structure_has_everything():
    new = Lagged(4)
    theta, G = np.array([0.3, 0.7]), symmetric(4)
    D = np.random.default_rng(1).normal(size=(4, 4))
    np.testing.assert_allclose(new.pullback(theta, D), slopes(lambda t: np.vdot(D, new.factor(t)), theta), atol=1e-10)
    np.testing.assert_allclose(new.second(theta, D), slopes(lambda t: new.pullback(t, D), theta), atol=1e-10)
    numeric = slopes(lambda t: np.vdot(G, new.covariance(t)), theta)
    np.testing.assert_allclose(new.covariance_pullback(theta, G), numeric, atol=1e-9)
    numeric = slopes(lambda t: new.covariance_pullback(t, G), theta)
    np.testing.assert_allclose(new.curvature(theta, G), numeric, atol=1e-9)
    np.testing.assert_allclose(
        new.covariance_derivatives(theta).second, slopes(new.covariance_tangents, theta), atol=1e-9
    )
    pick = np.array([0.0, 3.0])
    np.testing.assert_allclose(new.covariance(theta, pick), new.covariance(theta)[np.ix_([0, 3], [0, 3])], atol=1e-15)
    rotation = np.linalg.qr(D)[0]
    np.testing.assert_allclose(new.theta_of_factor(new.factor(theta) @ rotation), theta, atol=1e-8)
    S = 2.5 * np.eye(4)
    np.testing.assert_allclose(new.to_user(theta, S) - theta, [np.log(2.5), 0.0], atol=1e-8)
    np.testing.assert_allclose(new.to_engine(new.to_user(theta, S), S), theta, atol=1e-8)
    np.testing.assert_allclose(new.to_user_jacobian(theta, S), np.eye(2), atol=1e-8)
    assert [parameter.label for parameter in new.natural_parameters] == ["a", "b"]
    np.testing.assert_array_equal(new.theta_of_natural(new.natural(theta)), theta)
    assert not new.even.any()
    assert new.boundary_derivative(theta, G) is None
    assert new.boundary(theta, "lagged(x | g)", "abcd") == ()
    # Far out it has no variance, and says so.
    assert new.boundary(np.array([-30.0, 0.0]), "lagged(x | g)", "abcd") == ("all variances of lagged(x | g) are zero",)
    assert new.limits(theta, "lagged(x | g)") == ()
    assert new.cone(theta).blocks == ()
    assert len(new.cone(theta).free) == 2
    assert new.redundant() == ()
    assert new.nested_in(new)
    assert not new.nested_in(make_structure("ar1", 4))
    np.testing.assert_allclose(
        new.kenward_roger(theta).sigma.second, new.covariance_derivatives(theta).second, atol=1e-15
    )
    assert repr(new) == "<lagged of 4 columns>"
    with pytest.raises(OptionError, match=r"lagged\(\) has no option 'd'"):
        Lagged.build(4, d=1)
    with pytest.raises(OptionError, match=r"sparse inverse is not known for lagged\(\)"):
        new.precision(theta)


# --- a model ----------------------------------------------------------------------------------------------------------

# sleepstudy, Reaction ~ Days, the covariance of the ten days within a subject, REML, by dense algebra; glmmTMB with
# dispformula = ~0 has them to 3e-4, which is its residual variance of 1.5e-8. sd and rho of ar1 are what it prints.
ANCHORS = {"ar1": -869.603009, "cs": -874.024571, "toep": -847.412541}


@pytest.mark.parametrize("word", ANCHORS)
def test_restricted_likelihood_of_sleepstudy(word, sleepstudy):
    import scipy.optimize

    y = sleepstudy["Reaction"].to_numpy(dtype=float).reshape(18, 10)
    days = sleepstudy["Days"].to_numpy(dtype=float).reshape(18, 10)
    X = np.stack([np.ones_like(days), days], axis=-1)
    structure = make_structure(word, 10)

    def criterion(theta):
        Sigma = structure.covariance(theta)
        inverse = np.linalg.inv(Sigma)
        XX = np.einsum("jap,ab,jbq->pq", X, inverse, X)
        beta = np.linalg.solve(XX, np.einsum("jap,ab,jb->p", X, inverse, y))
        r = y - X @ beta
        quadratic = np.einsum("ja,ab,jb->", r, inverse, r)
        value = 18 * np.linalg.slogdet(Sigma)[1] + np.linalg.slogdet(XX)[1] + quadratic + 178 * np.log(2 * np.pi)
        inner = r.T @ r + np.einsum("jap,pq,jbq->ab", X, np.linalg.inv(XX), X)
        return value, structure.covariance_pullback(theta, 18 * inverse - inverse @ inner @ inverse)

    start = structure.to_user(structure.initial(), 50.0 * np.eye(10))
    options = {"ftol": 1e-14, "gtol": 1e-6, "maxiter": 1000, "maxfun": 5000}
    found = scipy.optimize.minimize(criterion, start, jac=True, method="L-BFGS-B", options=options)
    # The anchors have six decimals.
    assert -0.5 * found.fun == pytest.approx(ANCHORS[word], abs=1e-6)
    natural = structure.natural(structure.canonical(found.x))
    if word == "ar1":
        np.testing.assert_allclose(natural, [49.51496, 0.799953], rtol=2e-6)
    assert natural.size == {"ar1": 2, "cs": 11, "toep": 19}[word]
    assert structure.boundary(structure.to_engine(found.x, 50.0 * np.eye(10)), "d", [str(j) for j in range(10)]) == ()
