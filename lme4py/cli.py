"""The command line: fit a formula to a file and print or save the result."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import has_magic
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from lme4py.errors import DataError, Lme4Error, OptionError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.data.frame import Frame
    from lme4py.results import MEGLMResult, MixedResult

__all__ = ["main"]

BAD_INPUT = 2
_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".dta", ".xlsx")
# Options by the names that other programs, and the functions of this package, give them.
_WORDS = {
    "reml": "REML is the default; --ml for maximum likelihood",
    "mle": "--ml",
    "method": "--ml for maximum likelihood; REML is the default",
    "intpoints": "--nagq 7",
    "intmethod": "--nagq 7; --nagq 1 is the Laplace approximation",
    "quad": "--nagq 7",
    "exposure": "a term of the formula: offset(log(exposure))",
    "group": "a term of the formula: (1 | group)",
    "groups": "a term of the formula: (1 | group)",
    "random": "a term of the formula: (1 + x | group)",
    "data": "the file comes after the formula, without an option",
    "formula": "the formula comes first, without an option",
    "dist": "--family",
    "distribution": "--family",
    "ddfm": "--ddf",
    "df": "--ddf",
    "level": "intervals are in the report; in Python result.conf_int(alpha=0.1)",
    "or": "odds ratios are in the report; in Python result.odds_ratios()",
    "irr": "rate ratios are in the report; in Python result.incidence_rate_ratios()",
    "rrr": "in Python result.relative_risk_ratios()",
    "output": "--json, --latex or --plot; lme4py report ... --out page.html for a page",
    "html": "lme4py report ... --out page.html",
}
_EPILOG = """\
examples:
  lme4py fit "Reaction ~ Days + (Days | Subject)" sleepstudy
  lme4py fit "score ~ age + (1 | school)" pupils.csv --ml --json fit.json
  lme4py fit "use ~ age + (1 | district)" Contraception --family binomial --nagq 9
  lme4py report "Reaction ~ Days + (Days | Subject)" sleepstudy --out sleep.html
  lme4py fit "answer ~ dose + (1 | person)" survey.csv --family ordinal --levels "low,mid,high"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; ``sys.argv[1:]`` when not given.

    Returns
    -------
    int
        Exit status: 0, or 2 on bad input, which is described on standard error.
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            arguments.run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone; give Python's own flush at exit somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Lme4Error as error:
        print(f"lme4py: {_message(error)}", file=sys.stderr)
        return BAD_INPUT
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"lme4py: {message}{_advice(message)} (see `{self.prog} --help`)\n")


def _advice(message: str) -> str:
    """What an option of another program is called here."""
    _, known, rest = message.partition("unrecognized arguments: ")
    if not known:
        return ""
    word = rest.split()[0].lstrip("-").partition("=")[0].lower().replace("-", "_")
    return f"; use {_WORDS[word]}" if word in _WORDS else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lme4py",
        description="Fit mixed-effects models written as in R's lme4.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_report(commands)
    datasets = commands.add_parser("datasets", help="list the data sets that come with the package")
    datasets.set_defaults(run=_datasets)
    return parser


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser("fit", help="fit a model and print its summary")
    _add_model(fit)
    fit.add_argument("--json", metavar="FILE", help="write the result as JSON")
    fit.add_argument("--latex", metavar="FILE", help="write the summary as LaTeX tables")
    fit.add_argument("--plot", metavar="FILE", help="draw the random effects (PNG, PDF or SVG; needs matplotlib)")
    fit.set_defaults(run=_fit)


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="fit a model and write a page with its tables, checks and plots")
    _add_model(report)
    report.add_argument("--out", metavar="FILE", required=True, help="the page, such as report.html")
    report.add_argument("--title", metavar="T", help="heading of the page; the formula when not given")
    report.set_defaults(run=_report)


def _add_model(fit: argparse.ArgumentParser) -> None:
    """The model and its data, which all commands that fit one take alike."""
    fit.add_argument("formula", metavar="FORMULA", help='such as "y ~ x + (x | g)"')
    fit.add_argument(
        "data",
        metavar="DATA",
        help="a CSV, TSV, Parquet, Feather, .dta or .xlsx file, a pattern such as 'rows/*.parquet', an address such as "
        "s3://bucket/rows.parquet, or a shipped data set",
    )
    fit.add_argument("--family", metavar="F", default="gaussian", help="response distribution (gaussian), or ordinal")
    fit.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    fit.add_argument("--link", metavar="L", help="link function (generalised models)")
    fit.add_argument("--nagq", metavar="N", help="1 (Laplace) or more quadrature points (generalised models)")
    fit.add_argument("--hessian", metavar="H", help="observed or expected information (generalised models)")
    fit.add_argument("--levels", metavar="A,B,C", help="categories from the lowest to the highest (ordinal models)")
    fit.add_argument("--threshold", metavar="T", help="flexible, symmetric, symmetric2, equidistant (ordinal models)")
    fit.add_argument("--ddf", metavar="M", help="degrees of freedom: satterthwaite, kenward-roger, residual, normal")
    fit.add_argument("--weights", metavar="C", help="column of prior weights")
    fit.add_argument("--offset", metavar="C", help="column of the offset")
    fit.add_argument(
        "--subset", metavar="S", help="rows in which this is true, such as 'age > 17 & region != \"north\"'"
    )
    fit.add_argument("--occasion", metavar="C", help="units whose residuals correlate (several responses)")
    fit.add_argument("--memory-limit", metavar="SIZE", help="such as 2GB: larger data are streamed, in blocks that fit")


class _Version(argparse.Action):
    """Print the version without importing more than the package itself."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import lme4py

        print(f"lme4py {lme4py.__version__}")
        parser.exit(0)


def _fit(arguments: argparse.Namespace) -> None:
    _check_available(arguments)
    for option in ("json", "latex", "plot"):
        _check_writable(option, getattr(arguments, option))
    data = _read(arguments.data, arguments.memory_limit is not None)

    result = _fitted(arguments, data)
    print(result.summary(arguments.ddf))
    _save(result, arguments)


def _report(arguments: argparse.Namespace) -> None:
    _check_available(arguments)
    _check_writable("out", arguments.out)
    result = _fitted(arguments, _read(arguments.data, arguments.memory_limit is not None))
    _agg()
    written = result.report(arguments.out, arguments.title, arguments.ddf)
    print(f"{result.certificate.verdict}\nThe report is in {written}.")


def _agg() -> None:
    """A machine without a screen must be able to draw into a file."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("agg")


def _fitted(arguments: argparse.Namespace, data: pd.DataFrame | Frame | str) -> MixedResult | MEGLMResult:
    with _importing():
        from lme4py.api import glmer, lmer

    shared: dict[str, Any] = {"weights": arguments.weights, "offset": arguments.offset, "subset": arguments.subset}
    if arguments.memory_limit is not None:
        shared["control"] = {"memory_limit": arguments.memory_limit}
    if not _is_generalised(arguments):
        return lmer(arguments.formula, data, reml=not arguments.ml, occasion=arguments.occasion, **shared)
    points = 1 if arguments.nagq is None else int(arguments.nagq)
    if arguments.family == "ordinal":
        with _importing():
            from lme4py.categories import clmm
        return clmm(
            arguments.formula,
            data,
            link=arguments.link or "logit",
            threshold=arguments.threshold or "flexible",
            levels=arguments.levels and [level.strip() for level in arguments.levels.split(",")],
            nAGQ=points,
            hessian=arguments.hessian or "observed",
            **shared,
        )
    return glmer(
        arguments.formula,
        data,
        arguments.family,
        link=arguments.link,
        nAGQ=points,
        hessian=arguments.hessian or "observed",
        **shared,
    )


@contextmanager
def _importing() -> Iterator[None]:
    """Modules stay until the end: a search for what nothing refers to, while they are loaded, is a seventh of the time
    of a small fit and finds nothing."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _is_generalised(arguments: argparse.Namespace) -> bool:
    """A gaussian model with its own link is a linear one."""
    with _importing():
        from lme4py.families.registry import make_family

    return arguments.family == "ordinal" or not make_family(arguments.family, arguments.link).has_no_link


def _check_available(arguments: argparse.Namespace) -> None:
    if arguments.nagq is not None and not arguments.nagq.isdecimal():
        raise OptionError(f"--nagq {arguments.nagq} is no number of points; give 0, 1, or a number such as 9.")
    if not _is_generalised(arguments):
        for name in ("nagq", "hessian"):
            if getattr(arguments, name) is not None:
                raise OptionError(f"--{name} is for generalised models; choose one with --family, such as binomial.")
    elif arguments.occasion is not None:
        raise OptionError("--occasion is for linear models of several responses; leave out --family.")
    if arguments.family != "ordinal":
        for name in ("levels", "threshold"):
            if getattr(arguments, name) is not None:
                raise OptionError(f"--{name} is for ordinal models; add --family ordinal.")
    if arguments.ddf is not None:
        from lme4py.inference.estimates.coefficients import check_ddf

        arguments.ddf = check_ddf(arguments.ddf, linear=not _is_generalised(arguments))
    if arguments.ddf == "kenward-roger" and arguments.ml:
        raise OptionError("--ddf kenward-roger needs a REML fit; leave out --ml, or use --ddf satterthwaite.")


def _check_writable(option: str, name: str | None) -> None:
    """Find out before the fit whether the output can be written after it."""
    if name is None:
        return
    path = Path(name)
    folder = path.parent
    if path.is_dir():
        raise OptionError(f"--{option} {name} is a directory; give the name of a file.")
    if not folder.is_dir():
        raise OptionError(f"--{option} {name}: there is no directory {folder}; create it first.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise OptionError(f"--{option} {name} cannot be written: permission denied; choose another place.")


def _save(result: MixedResult | MEGLMResult, arguments: argparse.Namespace) -> None:
    if arguments.json is not None:
        _write("json", arguments.json, result.to_json(random_effects=True) + "\n")
    if arguments.latex is not None:
        _write("latex", arguments.latex, result.to_latex(arguments.ddf))
    if arguments.plot is not None:
        _write_plot(result, arguments.plot)


def _write(option: str, name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"--{option} {name} cannot be written: {_reason(error)}.") from None


def _write_plot(result: MixedResult | MEGLMResult, name: str) -> None:
    if find_spec("matplotlib") is None:
        raise OptionError(
            '--plot needs matplotlib, which is not installed; run `python -m pip install "lme4py[plot]"`.'
        )
    _agg()
    drawn = result.plot("caterpillar", "all")
    first: Any = drawn.flat[0] if hasattr(drawn, "flat") else drawn
    try:
        first.figure.savefig(name, dpi=150)
    except (OSError, ValueError) as error:
        raise OptionError(f"--plot {name} cannot be written: {_reason(error)}.") from None


def _datasets(arguments: argparse.Namespace) -> None:
    from lme4py.data.datasets import list_datasets
    from lme4py.tables.table import Table
    from lme4py.tables.text import render_text

    listed = list_datasets()[["name", "rows", "columns", "title"]]
    rows = tuple(tuple(str(cell) for cell in row) for row in listed.itertuples(index=False))
    print(render_text([Table("", ("name", "rows", "columns", "title"), rows, ("left", "right", "right", "left"))]))


def _read(name: str, limited: bool = False) -> pd.DataFrame | Frame | str:
    """Read the file `name`, or load the shipped data set of that name.

    Files of a pattern, addresses, files that only the fit reads, and all files under a limit of memory are left to the
    fit, which may stream them.
    """
    with _importing():
        from lme4py.data.datasets import dataset_frame, dataset_names
        from lme4py.data.sources import is_path

    path = Path(name)
    if has_magic(name) and not path.exists():
        return name
    own = name.lower().endswith(_SUFFIXES)
    if is_path(name) and ("://" in name or (path.exists() and (limited or not own))):
        return name
    if own:
        return _read_file(path)
    if path.exists():
        raise DataError(f"{name} is no file that can be read; its name must end in {', '.join(_SUFFIXES)}.")
    known = dataset_names()
    if name in known:
        return dataset_frame(name)
    raise DataError(
        f"There is no file and no shipped data set {name!r}.{did_you_mean(name, known)} "
        "`lme4py datasets` lists the data sets."
    )


def _read_file(path: Path) -> pd.DataFrame:
    if path.is_dir():
        raise DataError(f"{path} is a directory; give the name of a file.")
    try:
        frame = _reader(path)(path)
    except FileNotFoundError:
        raise DataError(f"The file {path} does not exist; check its name and directory.") from None
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, Lme4Error):
            raise
        raise DataError(f"The file {path} cannot be read: {_reason(error)}.") from None
    if frame.empty:
        raise DataError(f"The file {path} holds no rows of data; give a line of names, then values.")
    return frame


def _reader(path: Path) -> Callable[[Path], pd.DataFrame]:
    return {".parquet": _read_parquet, ".dta": _read_whole, ".xlsx": _read_whole}.get(path.suffix.lower(), _read_text)


def _read_whole(path: Path) -> pd.DataFrame:
    """Files of Stata and Excel."""
    from lme4py.data.sources.paths import frame_of_file

    frame: pd.DataFrame = frame_of_file(path)
    return frame


def _read_text(path: Path) -> pd.DataFrame:
    with _importing():
        import pandas as pd

    separator = "\t" if ".tsv" in path.name.lower() else ","
    return pd.read_csv(path, sep=separator)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError:
        raise DataError(
            f"Reading {path} needs pyarrow, which is not installed; run `python -m pip install pyarrow`."
        ) from None


def _message(error: Lme4Error) -> str:
    """The message on one line; a formula with a caret under it keeps its lines."""
    text = str(error)
    marked = set(text.rpartition("\n")[2].strip()) == {"^"}
    return text if marked else " ".join(text.split())


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"lme4py: warning: {' '.join(str(message).split())}", file=sys.stderr)
